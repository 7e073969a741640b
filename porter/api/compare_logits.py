"""`porter.compare_logits`: whether two checkpoints compute the same, whatever dialects they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from porter.api.convert import prepare
from porter.api.opening import Opened, open_source
from porter.api.state_dict import open_state_dict
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.planning.as_stored import as_stored
from porter.planning.plan_options import PlanOptions
from porter.sources.base import Source
from porter.wording import renamed

if TYPE_CHECKING:
    import torch

    from porter.verification.layerwise import LayeredModel
    from porter.verification.logits import LogitsComparison

# The framework that a dialect belongs to, where it can run a checkpoint as it lies.
_OWN = {"hf": "transformers", "litgpt": "litgpt", "keras": "keras"}
# What porter can run a checkpoint in when its own framework cannot: its own model first, which needs nothing.
_STAND_INS = (("litgpt", "porter"), ("hf", "transformers"))


def compare_logits(
    source: str | Path | Source,
    out: str | Path | Source,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tokens: int = 600,
    seed: int | None = None,
    maps: str | Path | Sequence[str | Path] = (),
    config: str | Path | None = None,
    source_dialect: str | None = None,
    out_dialect: str | None = None,
    family: str | None = None,
    key: str | None = None,
    out_key: str | None = None,
) -> LogitsComparison:
    """Run two checkpoints on the same ids, layer by layer from disk, and say where they part.

    Each runs in the framework that it belongs to where that is installed (transformers, LitGPT, KerasHub), in
    porter's own model otherwise. The ids are those of a page of English with the tokenizer of `source`, or of
    `out`; random ones where neither has one that fits, or where `seed` is given. No more than one layer's
    weights and a range of the head are in memory. The other arguments are those of `porter.verify`.

    Raises PorterError: 5 where one cannot be run, 3 where the two have no states to compare.

    >>> done = porter.convert("gemma-2b/", "out/", to="litgpt")
    >>> found = porter.compare_logits("gemma-2b/", "out/", tokens=20)
    >>> found.agree, found.first_parted, found.top1
    (True, None, 1.0)
    """
    import torch

    from porter.verification.logits import TOP, LogitsComparison, first_parted, measure
    from porter.verification.sample_ids import SEED, SampleIds, sample_ids

    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"the logits are compared in float32 or bfloat16, not in {dtype!r}")
    if tokens < 2:
        raise UsageError(f"logits need 2 tokens or more, not {tokens}")
    one = _Side.of(source, maps=maps, config=config, source_dialect=source_dialect, family=family, key=key)
    with renamed({"from": "as", "key": "out-key"}):
        sides = one, _Side.of(out, maps=maps, source_dialect=out_dialect, key=out_key)
    values = [side.opened.identified().hyperparameters for side in sides]
    vocab = min(int(each["vocab_size"]) for each in values)
    tokens = min(tokens, *(int(each.get("context_length") or tokens) for each in values))
    # Some look ids up in a second, smaller table.
    known = min(vocab, *(int(each.get("ple_vocab") or vocab) for each in values))
    sample: SampleIds | None = None
    for side in sides if seed is None else ():
        if sample is None or sample.tokenizer is None:
            sample = sample_ids(side.opened.checkpoint.files, known, tokens)
    if sample is None:
        sample = sample_ids({}, known, tokens, SEED if seed is None else seed)
    wanted = getattr(torch, dtype)
    first, second = (_run(side, tokens, wanted) for side in sides)
    exact = _run(sides[0], tokens, torch.float32) if dtype == "bfloat16" else None
    vocab = min(vocab, first.model.rows, second.model.rows)
    measured = measure(first.model, second.model, sample.ids, vocab, exact.model if exact else None)
    sums, kl = measured.sums, measured.sums.kl()
    return LogitsComparison(
        source=sides[0].opened.source,
        out=sides[1].opened.source,
        source_code=first.model.title,
        out_code=second.model.title,
        dtype=dtype,
        tokens=tokens,
        ids_from=sample.tokenizer,
        seed=sample.seed,
        vocab=vocab,
        states=measured.states,
        max_abs=sums.max_abs,
        max_logit=sums.max_logit,
        bound=measured.bound,
        kl=float(kl.mean()),
        max_kl=float(kl.max()),
        top1=sums.agreement(1),
        top5=sums.agreement(TOP),
        losses=sums.losses() if sample.tokenizer is not None else None,
        first_parted=first_parted(measured),
        notes=(*first.notes, *second.notes),
    )


@dataclass(frozen=True)
class _Side:
    """A checkpoint, and how it was asked for."""

    where: str | Path | Source
    options: PlanOptions
    opened: Opened

    @classmethod
    def of(cls, where: str | Path | Source, **asked: Any) -> _Side:
        options = PlanOptions(**asked)
        opened = open_source(
            where,
            maps=options.maps,
            config=options.config,
            dialect=options.source_dialect,
            key=options.key,
            family=options.family,
        )
        return cls(where, options, opened)


@dataclass(frozen=True)
class _Running:
    model: LayeredModel
    notes: tuple[str, ...]


def _run(side: _Side, tokens: int, dtype: torch.dtype) -> _Running:
    """A side in its own framework's code; in another's, by porter's tables, with a note that says so."""
    from porter.verification.own_code import build, installed

    source, identity = side.opened.source, side.opened.identified()
    dialect = identity.dialect
    own = _OWN.get(dialect.name)
    why = f"no code of {dialect.title} runs here"
    if own is not None and identity.words is None and identity.raw:
        if installed(own):
            return _Running(build(own, identity.raw, _AsStored(side.opened), tokens, dtype), ())
        why = f"{own} is not installed"
    problem: PorterError | None = None
    for name, code in _STAND_INS:
        if name not in identity.family.dialects or not installed(code):
            continue
        try:
            weights, config = _converted(side, name)
            note = f"{source}: {why}; it ran as {name} by porter's tables"
            return _Running(build(code, config, weights, tokens, dtype), (note,))
        except UnsupportedError as error:
            problem = problem or error
    raise problem or UnsupportedError(f"nothing that is installed runs {source}", cause=why)


class _AsStored:
    """The weights as they lie, under the table's names: nothing is refused that the framework would load."""

    def __init__(self, opened: Opened) -> None:
        checkpoint = opened.checkpoint
        self._label, self._state = (
            checkpoint.label,
            open_state_dict(as_stored(checkpoint), checkpoint.source),
        )
        known = opened.identified().names
        self._stored = {known.get(name, name): name for name in checkpoint.tensors}

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._stored:
            raise MalformedError(f"{self._label} cannot be run: it holds no {name}")
        return self._state[self._stored[name]]

    def release(self) -> None:
        self._state.release()


def _converted(side: _Side, to: str) -> tuple[Any, dict[str, Any]]:
    """Weights and config in another dialect, as `porter convert` would write them."""
    from porter.verification.live import target_config

    quantised = any(tensor.dtype.quantised for tensor in side.opened.checkpoint.tensors.values())
    options = replace(
        side.options,
        to=to,
        dtype="float32" if quantised else "keep",
        text_only=bool(side.opened.identified().dialect.beyond),
    )
    made = prepare(side.where, options)
    weights = open_state_dict(made.plan, made.opened.checkpoint.source)
    return weights, target_config(made.plan, made.target)
