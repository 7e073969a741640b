"""A comparison of logits as lines of text: the verdict first, then what was measured, then state by state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from porter.reporting.text import printable, table

if TYPE_CHECKING:
    from porter.verification.logits import LogitsComparison

RIGHT = (1, 2, 3)


def render(found: LogitsComparison, *, full: bool = False) -> list[str]:
    """The lines. With `full`, or where the two part, with a row for each state between the layers."""
    lines = [f"logits   {verdict(found)}", f"         {ids(found)}"]
    lines += [f"         {name} in {code}" for name, code in sides(found)]
    lines += [f"         {line}" for line in measures(found)]
    if full or found.first_parted is not None:
        lines += ["", *table(cells(found), right=RIGHT)]
    return lines


def verdict(found: LogitsComparison) -> str:
    if found.first_parted is None:
        return f"the two compute the same, within what rounding does in {found.dtype}"
    if found.first_parted == "logits":
        return "the two part at the head: every state before it is the same"
    return f"the two part at {found.first_parted}"


def ids(found: LogitsComparison) -> str:
    origin = f"random, seed {found.seed}" if found.ids_from is None else f"English, by {found.ids_from}"
    return f"{found.tokens} tokens ({origin}), {found.vocab:,} logits each, {found.dtype}"


def sides(found: LogitsComparison) -> list[tuple[str, str]]:
    return [(printable(found.source), found.source_code), (printable(found.out), found.out_code)]


def measures(found: LogitsComparison) -> list[str]:
    lines = [
        f"max |Δ| {found.max_abs:.2g}, the largest logit being {found.max_logit:.3g} "
        f"({found.relative:.1e}, bound {found.bound:.0e})",
        f"KL {found.kl:.2g} nats a token, {found.max_kl:.2g} at most",
        f"the likeliest token is the same for {found.top1:.2%} of the tokens; of the five likeliest, "
        f"{found.top5:.2%} are",
    ]
    if found.losses is not None:
        lines.append("next-token loss {:.5f} and {:.5f} nats".format(*found.losses))
    return lines


def cells(found: LogitsComparison) -> list[list[str]]:
    rows = [["State", "max |Δ|", "relative", "bound", ""]]
    for state in found.states:
        where = "the two part here" if state.place == found.first_parted else ""
        rows.append(
            [state.place, f"{state.max_abs:.2g}", f"{state.relative:.1e}", f"{state.bound:.0e}", where]
        )
    return rows
