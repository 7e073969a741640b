"""From what the parts of a comparison have found to one verdict, said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from porter.dtypes import dtype_named, dtype_word
from porter.recognition.identify import Identity
from porter.verification.verdict import (
    ConfigVerdict,
    Mistake,
    Outcome,
    TokenizerVerdict,
    Verdict,
    WeightsVerdict,
)

if TYPE_CHECKING:
    from porter.verification.logits import LogitsComparison

# Mistakes that the one line names; the others are counted.
_SAID = 2


def conclude(
    *,
    source: str,
    out: str,
    family: str,
    source_dialect: str,
    out_dialect: str,
    weights: WeightsVerdict,
    config: ConfigVerdict,
    tokenizer: TokenizerVerdict,
    mistakes: Sequence[Mistake] = (),
    notes: Sequence[str] = (),
    quick: bool = False,
) -> Verdict:
    """The verdict: a port is right where no part that could be compared differs."""
    outcomes = [part.outcome for part in (weights, config, tokenizer)]
    outcome: Outcome = "equal"
    if "differs" in outcomes or weights.outcome == "not compared":
        outcome = "differs"
    elif weights.outcome == "rounded":
        outcome = "rounded"
    return Verdict(
        source=source,
        out=out,
        family=family,
        source_dialect=source_dialect,
        out_dialect=out_dialect,
        outcome=outcome,
        says=_line(outcome, weights, config, tokenizer, mistakes, quick),
        weights=weights,
        config=config,
        tokenizer=tokenizer,
        mistakes=tuple(mistakes),
        notes=tuple(dict.fromkeys(notes)),
        quick=quick,
    )


def another_architecture(
    source: str, out: str, original: Identity, other: Identity, logits: bool = False
) -> Verdict:
    """The verdict on a model of another architecture, which is no port. Nothing of it is compared."""
    what = f"{other.family.name} ({other.dialect.name})"
    mistake = Mistake(f"it is {what}, another architecture than {original.family.name}", ())
    notes = [*other.notes]
    if logits:
        notes.append("what the two compute is not compared: they are of different architectures")
    return conclude(
        source=source,
        out=out,
        family=original.family.name,
        source_dialect=original.dialect.name,
        out_dialect=other.dialect.name,
        weights=WeightsVerdict("not compared", 0, 0),
        config=ConfigVerdict("not compared", other.dialect.config.file),
        tokenizer=TokenizerVerdict("not compared", "not compared"),
        mistakes=(mistake,),
        notes=notes,
    )


def with_logits(verdict: Verdict, logits: LogitsComparison) -> Verdict:
    """The verdict with what the two compute. Where all that is stored is equal and they still part, the port
    is wrong: the framework makes something else of it. Rounded weights compute something else by nature."""
    if logits.agree or verdict.outcome != "equal":
        return replace(verdict, logits=logits)
    says = f"differs: what is stored is equal, and the two part at {logits.first_parted} when they run"
    return replace(verdict, logits=logits, outcome="differs", says=says)


def _line(
    outcome: Outcome,
    weights: WeightsVerdict,
    config: ConfigVerdict,
    tokenizer: TokenizerVerdict,
    mistakes: Sequence[Mistake],
    quick: bool,
) -> str:
    if outcome != "differs":
        words = {"equal": "equal", "rounded": f"equal after rounding to {_dtypes(weights)}"}
        what = [f"{weights.tensors} {'tensor' if weights.tensors == 1 else 'tensors'}"]
        if quick:
            what[0] += " (sampled)"
        parts = (("config", config.outcome), ("tokenizer", tokenizer.outcome))
        what += [name for name, found in parts if found == "equal"]
        lacks = [name for name, found in parts if found == "not compared"]
        line = f"{words[outcome]}: {_and(what)}"
        return line + (f"; {_and(lacks, 'or')} could not be compared" if lacks else "")
    said = [mistake.says for mistake in mistakes[:_SAID]]
    if len(mistakes) > _SAID:
        more = len(mistakes) - _SAID
        said.append(f"{more} more mistake{'s' if more > 1 else ''}")
    if not said:
        if weights.differing:
            said.append(f"{len(weights.differing)} of {weights.tensors} tensors hold other values")
        if not weights.tensors:
            said.append("no tensor could be compared")
    if weights.missing:
        said.append(f"{_some(len(weights.missing))} missing")
    if weights.extra:
        said.append(f"{_some(len(weights.extra))} not expected")
    if weights.misshapen:
        said.append(f"{_some(len(weights.misshapen))} of another shape")
    if weights.lost:
        said.append("a weight has no place")
    if config.outcome == "differs" and not any(mistake.part == "config" for mistake in mistakes):
        said.append(_and([difference.name for difference in config.differences[:3]]) + " in the config")
    if tokenizer.outcome == "differs":
        said.append("the tokenizer is another")
    return f"differs: {'; '.join(said)}"


def _dtypes(weights: WeightsVerdict) -> str:
    return _and([dtype_word(dtype_named(name)) for name in weights.rounded_to])


def _some(number: int) -> str:
    return "1 tensor is" if number == 1 else f"{number} tensors are"


def _and(words: Sequence[str], last: str = "and") -> str:
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} {last} {words[-1]}"
