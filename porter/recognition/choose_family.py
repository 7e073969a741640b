"""Which family a checkpoint is called where all decoders share its dialect: the first that can express it.

LitGPT is one model with switches, so its checkpoints name no architecture. By the same proof that guards
writing, the families are those in whose Hugging Face words the hyperparameters and all tensors can be said.
What Hugging Face once called the model goes first; then the order that tables state by `after`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from porter.config.write import write_config
from porter.errors import PorterError, UnsupportedError
from porter.tables.bind import bind_dialect
from porter.tables.catalogue import DECODER, Families, Family
from porter.tables.check import settled
from porter.tables.model import Dialect

# The dialect in which families differ.
_WORDS = "hf"


def choose_family(families: Families, source: Dialect, hyperparameters: Mapping[str, Any]) -> Family:
    """The family of a checkpoint in a shared dialect. Where there is none, `decoder`, which says why."""
    base = families[DECODER]
    reasons: dict[str, PorterError] = {}
    said = hyperparameters.get("hf_model_type")
    for family in in_order(families, said):
        if family.refusal(source.name) is not None:
            continue
        reason = obstacle(family, source, hyperparameters)
        if reason is None:
            return family
        reasons[family.name] = reason
    if not reasons:
        return base

    def unlike(name: str) -> int:
        """How much of what is the same for all models of the family is another here."""
        known = settled(families[name].dialects[_WORDS], families[name].canonical)
        return sum(hyperparameters.get(key) != value for key, value in known.items())

    nearest = min(reasons, key=unlike)
    reason = reasons[nearest]
    cause = f"{nearest}: {reason.message}" + (f" ({reason.cause})" if reason.cause else "")
    return replace(base, missing=f"no family of Hugging Face's can express it; {cause}")


def in_order(families: Families, said: str | None) -> Iterator[Family]:
    """Families of the shared vocabulary by preference; those first that go by the name `said`.

    Each is loaded when it is its turn.
    """
    able = {
        name: sketch
        for name in sorted(families)
        for sketch in families.sketches(name)
        if sketch.dialect == _WORDS and families.common(name)
    }
    ordered: list[str] = []

    def place(name: str, below: tuple[str, ...] = ()) -> None:
        if name in able and name not in below and name not in ordered:
            for other in able[name].after:
                place(other, (*below, name))
            ordered.append(name)

    for name in able:
        place(name)
    named = [name for name in ordered if said in able[name].matches[0].get("model_type", ())]
    for name in (*named, *(name for name in ordered if name not in named)):
        yield families[name]


def obstacle(family: Family, source: Dialect, hyperparameters: Mapping[str, Any]) -> PorterError | None:
    """Why the family's Hugging Face dialect cannot hold what `source` holds; None where it can."""
    target = family.dialects[_WORDS]
    canonical = family.canonical
    try:
        bound = bind_dialect(target, canonical, hyperparameters)
        shapes = {tensor.name: tensor.shape for tensor in bound}
        write_config(target, canonical, hyperparameters, shapes=shapes, weights_dtype="float32")
        made = {block.canonical for tensor in bound for block in tensor.blocks}
        held = {
            block.canonical
            for tensor in bind_dialect(source, canonical, hyperparameters)
            for block in tensor.blocks
        }
    except PorterError as error:
        return error
    if held - made:
        return UnsupportedError(
            f"{target.title} has no place for {min(held - made)!r}", hint="add a rule that makes it"
        )
    return None
