"""The section `## Hostile inputs` of docs/reliability.md, from the results of a run."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"

HEADING = "## Hostile inputs"

TITLE = (
    "# Reliability\n\nWhat was done to porter to see whether it keeps its promises, and what came of it.\n"
)

_METHOD = """inputs that a stranger could hand over, each through `porter inspect` and `porter
convert` (of a receipt, `porter check`), in a process of its own under an audit hook: no program is
started, no socket opened, no code run that was not there before, and no file opened but those of Python
and porter, of the checkpoint and of the output. An input is *refused* where the second ends with exit
code 2, 3, 5 or 6, and *accepted* where it ends with 0: many a damaged file is still sound, or is damaged
where nothing looks. *At fault* is what took more than 1 s of processor time or 200 MB (all of the
process's memory) to be refused, ended in a traceback or by a signal, fell into the last net, did what the
hook forbids, or printed what acts on a terminal."""

_PEERS = """The same inputs through the peers' own readers, loaders and converters, each for its own
formats, under the same limits (20 s of processor time, 60 s in all, 6 GB), on a busy machine. They promise
other things than porter does: most read all values, none says how long it may take or how much memory, and
the loader of Lightning that LitGPT's converters use unpickles what it is given. *Refused* is any error.
*Slow* took more than 1 s of processor time, *large* 200 MB beyond what the sound file takes; *stopped* ran
into a limit (a pipe in the place of a file, which most wait for) or was replaced by another program; a
*crash* is a signal; *code run* counts the gadgets that left a file behind. The Hub's client reads no
format; what bad answers do to it stands above."""

_REPEAT = """Repeat it with `make hostile` (Linux; some 20 minutes on two cores); `make test` runs a
sample. The inputs are in `tests/hostile`: `crafted.py` by hand, `mutants.py` at
random from fixed seeds. Byte fuzzers, against the formats' own readers, are in `make fuzz`. The limits by
number are in `SECURITY.md`."""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False)


def section(
    porter: Sequence[dict[str, Any]], peers: Sequence[dict[str, Any]], whole: str | None = None
) -> str:
    """The section's text. A result holds `parser`, `outcomes` by command and `faults`; a peer's `peer`."""
    parsers = list(dict.fromkeys(one["parser"] for one in porter))
    rows = [_row(name, [one for one in porter if one["parser"] == name]) for name in parsers]
    rows.append(_row("**all**", porter))
    worst = max(porter, key=lambda one: _most(one, "seconds"))
    heaviest = max(porter, key=lambda one: _most(one, "peak"))
    lines = [
        HEADING,
        "",
        *_wrapped(f"{len(porter):,} {_METHOD}"),
        *([] if whole is None else ["", *_wrapped(whole)]),
        "",
        "| parser | inputs | refused | accepted | at fault | slowest refusal | largest refusal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        *_wrapped(
            f"The slowest was *{_shown(worst)}* ({_most(worst, 'seconds'):.2f} s). The largest was "
            f"*{_shown(heaviest)}* ({_most(heaviest, 'peak') / 1e6:.0f} MB, with what a process takes "
            "before it reads anything)."
        ),
        "",
    ]
    faults = [f"- {_shown(one)}: {fault}" for one in porter for fault in one["faults"][:1]]
    if faults:
        lines += ["At fault:", "", *(line.replace("\n", " ")[:200] for line in faults), ""]
    if peers:
        lines += _peers(peers)
    lines += [
        *_wrapped(_REPEAT),
        "",
    ]
    return "\n".join(lines)


def _row(name: str, results: Sequence[dict[str, Any]]) -> str:
    refused = [one for one in results if _last(one)["code"] not in (0, None)]
    accepted = sum(_last(one)["code"] == 0 for one in results)
    faults = sum(bool(one["faults"]) for one in results)
    seconds = max((_most(one, "seconds") for one in refused), default=0)
    peak = max((_most(one, "peak") for one in refused), default=0)
    counts = f"{len(results):,} | {len(refused):,} | {accepted:,} | {faults}"
    return f"| {name} | {counts} | {seconds:.2f} s | {peak / 1e6:.0f} MB |"


def _peers(peers: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        *_wrapped(_PEERS),
        "",
        "| reader | inputs | refused | accepted | slow | large | stopped | crash | code run |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(one["peer"] for one in peers):
        own = [one for one in peers if one["peer"] == name]
        outcomes = [one["outcome"] for one in own]
        counts = (
            len(own),
            sum(each["code"] not in (0, None) for each in outcomes),
            sum(each["code"] == 0 for each in outcomes),
            sum(each["seconds"] > 1 for each in outcomes),
            sum(each["peak"] - one["base"] > 200_000_000 for one, each in zip(own, outcomes, strict=True)),
            sum(each["code"] is None and not each["signal"] for each in outcomes),
            sum(bool(each["signal"]) for each in outcomes),
            sum(one["canary"] for one in own),
        )
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return [*lines, ""]


def _last(one: dict[str, Any]) -> dict[str, Any]:
    """What the command did that does more than look."""
    found: dict[str, Any] = list(one["outcomes"].values())[-1]
    return found


def _most(one: dict[str, Any], what: str) -> float:
    """The most of the commands that refused; what is accepted may take what it needs."""
    return max((each[what] for each in one["outcomes"].values() if each["code"] not in (0, None)), default=0)


def _shown(one: dict[str, Any]) -> str:
    return f"{one['parser']}: {one['name']}"


def write(text: str, path: Path = DOCS) -> None:
    """Put the section in its place in the page, or at its end."""
    page = path.read_text("utf-8") if path.is_file() else TITLE
    before, found, after = page.partition(f"{HEADING}\n")
    later = after.find("\n## ") if found else -1
    rest = after[later + 1 :] if later >= 0 else ""
    path.write_text(f"{before.rstrip()}\n\n{text.rstrip()}\n" + (f"\n{rest}" if rest else ""), "utf-8")


def read(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Results out of files of lines; of an input that was run twice the last."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for file in files:
        for line in file.read_text("utf-8").splitlines():
            one = json.loads(line)
            found[one.get("peer", ""), one["parser"], one["name"]] = one
    return list(found.values())
