"""A verdict as text: one line, and below it the evidence, with layers folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from porter.containers.base import StoredTensor
from porter.dtypes import dtype_named
from porter.reporting.collapse import collapse, collapsed_name
from porter.reporting.fitting import Heading, headed, shorten, stack
from porter.reporting.text import plural, printable, size
from porter.verification.verdict import DifferingTensor, Verdict

# Rows of a table below which the rest is counted.
_SHOWN = 12

# What differs stands below each row where there is no room, and the first place and the shape go.
_RIGHT, _UNDER, _DROP = (2,), (4,), (3, 1)

# Differences of one row's layers that are told; more are counted.
_KINDS = 3


def render(verdict: Verdict, *, width: int | None = None, heading: Heading = str) -> list[str]:
    """The lines of a verdict. Those of tables are no wider than `width`, the terminal's."""
    lines = [printable(verdict.says), ""]
    weights = verdict.weights
    rows = [
        ("weights", f"{verdict.source_dialect} against {verdict.out_dialect}, {_compared(verdict)}"),
        ("config", _config(verdict)),
        ("tokenizer", verdict.tokenizer.says),
    ]
    lines += [f"{name:<10}{printable(text)}" for name, text in rows]
    for mistake in verdict.mistakes:
        lines.append(f"{'mistake':<10}{printable(mistake.says)}")
    lines += _folded("missing", [(t.name, t.shape) for t in weights.missing], width)
    lines += _folded("extra", [(name, ()) for name in weights.extra], width)
    for tensor in weights.misshapen[:_SHOWN]:
        lines.append(
            f"{'shape':<10}{printable(tensor.name)}: {list(tensor.found)} of {tensor.dtype}, "
            f"not {list(tensor.expected)}"
        )
    if len(weights.misshapen) > _SHOWN:
        lines.append(f"{'':<10}… and {len(weights.misshapen) - _SHOWN} more of another shape")
    if weights.lost:
        lines.append(f"{'lost':<10}{printable(weights.lost)}")
    if weights.omitted:
        name = printable(collapsed_name(weights.omitted))
        lines.append(f"{'tied':<10}{name} is left out, as its tie allows")
    for difference in verdict.config.differences:
        lines.append(f"{'config':<10}{printable(difference.says)}")
    if weights.differing:
        lines += ["", *_differing(weights.differing, width, heading)]
    return lines


def _compared(verdict: Verdict) -> str:
    weights = verdict.weights
    if weights.outcome == "not compared":
        return "not compared"
    how = "sampled" if verdict.quick else f"{size(weights.bytes_read)} read"
    return f"{plural(weights.tensors, 'tensor')} compared, {how}"


def _config(verdict: Verdict) -> str:
    config = verdict.config
    if config.file is None:
        return "not compared: the port has none"
    if config.outcome == "not compared":
        return "not compared"
    if config.differences:
        return f"{plural(len(config.differences), 'difference')} in {config.file}"
    return f"{config.file}: {plural(config.compared, 'hyperparameter')} say the same"


def _folded(word: str, tensors: Sequence[tuple[str, tuple[int, ...]]], width: int | None) -> Iterator[str]:
    dtype = dtype_named("F32")
    rows = collapse(StoredTensor(name, dtype, shape, "", 0) for name, shape in tensors)
    for row in rows[:_SHOWN]:
        many = f" ({plural(len(row.tensors), 'tensor')})" if len(row.tensors) > 1 else ""
        shape = f" {list(row.tensors[0].shape)}" if row.tensors[0].shape else ""
        name = printable(row.name)
        if width is not None:
            name = shorten(name, max(width - 10 - len(shape) - len(many), 16))
        yield f"{word:<10}{name}{shape}{many}"
    if len(rows) > _SHOWN:
        yield f"{'':<10}… and {len(rows) - _SHOWN} more {word}"


def _differing(tensors: Iterable[DifferingTensor], width: int | None, heading: Heading) -> list[str]:
    by_name = {tensor.name: tensor for tensor in tensors}
    stored = [StoredTensor(t.name, dtype_named(t.dtype), t.shape, "", 0) for t in by_name.values()]
    folded = [part for row in collapse(stored) for part in _alike([by_name[t.name] for t in row.tensors])]
    rows = [["Tensor", "Shape", "Differing", "First at", "What differs"]]
    for found, says in folded[: 2 * _SHOWN]:
        count, of = sum(t.elements for t in found), sum(t.of for t in found)
        share = 100 * count / of if of else 0.0
        rows.append(
            [
                printable(collapsed_name([t.name for t in found])),
                str(list(found[0].shape)),
                f"{count:,} of {of:,} ({share:.3g} %)",
                str(list(found[0].first)),
                printable(says),
            ]
        )
    lines = headed(stack(rows, width, right=_RIGHT, under=_UNDER, drop=_DROP), heading)
    if len(folded) > 2 * _SHOWN:
        lines.append(f"… and {len(folded) - 2 * _SHOWN} more rows; --json lists every tensor")
    return lines


def _alike(tensors: Sequence[DifferingTensor]) -> list[tuple[list[DifferingTensor], str]]:
    """Tensors of several layers, those apart that differ in another way, each with what differs."""
    kinds: dict[str, list[DifferingTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.brief or "", []).append(tensor)
    if len(kinds) > _KINDS:
        return [(list(tensors), f"{next(iter(kinds))}; {len(kinds)} kinds of differences in all")]
    return [(found, _says(found)) for found in kinds.values()]


def _says(tensors: Sequence[DifferingTensor]) -> str:
    first = tensors[0]
    if len(tensors) == 1 or not first.brief:
        return first.says or ""
    largest = max(tensor.largest for tensor in tensors)
    return first.brief + (f"; up to {largest:.3g} apart" if 0 < largest < float("inf") else "")
