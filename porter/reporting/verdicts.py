"""A verdict as text: one line, and below it the evidence, with layers folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from porter.containers.base import StoredTensor
from porter.dtypes import dtype_named
from porter.reporting.collapse import collapse, collapsed_name
from porter.reporting.text import plural, printable, size, table
from porter.verification.verdict import DifferingTensor, Verdict

# Rows of a table below which the rest is counted.
_SHOWN = 12


def render(verdict: Verdict) -> list[str]:
    """The lines of a verdict."""
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
    lines += _folded("missing", [(t.name, t.shape) for t in weights.missing])
    lines += _folded("extra", [(name, ()) for name in weights.extra])
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
        lines += ["", *_differing(weights.differing)]
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


def _folded(word: str, tensors: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[str]:
    dtype = dtype_named("F32")
    rows = collapse(StoredTensor(name, dtype, shape, "", 0) for name, shape in tensors)
    for row in rows[:_SHOWN]:
        many = f" ({plural(len(row.tensors), 'tensor')})" if len(row.tensors) > 1 else ""
        shape = f" {list(row.tensors[0].shape)}" if row.tensors[0].shape else ""
        yield f"{word:<10}{printable(row.name)}{shape}{many}"
    if len(rows) > _SHOWN:
        yield f"{'':<10}… and {len(rows) - _SHOWN} more {word}"


def _differing(tensors: Iterable[DifferingTensor]) -> list[str]:
    by_name = {tensor.name: tensor for tensor in tensors}
    stored = [StoredTensor(t.name, dtype_named(t.dtype), t.shape, t.says or "", 0) for t in by_name.values()]
    rows = [["Tensor", "Shape", "Differing", "First at", "What differs"]]
    folded = collapse(stored)
    for row in folded[: 2 * _SHOWN]:
        found = [by_name[tensor.name] for tensor in row.tensors]
        count, of = sum(t.elements for t in found), sum(t.of for t in found)
        share = 100 * count / of if of else 0.0
        said = dict.fromkeys(t.says for t in found if t.says)
        rows.append(
            [
                printable(row.name),
                str(list(row.tensors[0].shape)),
                f"{count:,} of {of:,} ({share:.3g} %)",
                str(list(found[0].first)),
                printable("; ".join(list(said)[:2])),
            ]
        )
    lines = table(rows, right=(2,))
    if len(folded) > 2 * _SHOWN:
        lines.append(f"… and {len(folded) - 2 * _SHOWN} more rows")
    return lines
