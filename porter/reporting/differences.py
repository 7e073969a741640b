"""How two models differ, in lines: a verdict, then what matters most, layers folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from porter.containers.base import StoredTensor
from porter.dtypes import dtype_named
from porter.reporting.collapse import Row, collapse
from porter.reporting.fitting import Heading, fit, headed, shorten
from porter.reporting.text import plural, printable
from porter.verification.model_diff import ModelDiff, ShapeDifference, ValueDifference

# Rows of a kind below which the rest is counted.
_SHOWN = 20

# What goes where there is no room, in this order: the mean, both values, where, and how alike the two are.
_RIGHT, _DROP = (1, 2, 3, 4, 5, 7, 8), (3, 8, 7, 6, 4)

# Characters of a hyperparameter's value.
_LONG = 60


def render(found: ModelDiff, *, width: int | None = None, heading: Heading = str) -> list[str]:
    """The lines. Those of tables are no wider than `width`, the terminal's."""
    lines = [verdict_line(found)]
    for item in found.config or ():
        lines.append(f"config     {printable(f'{item.name}: {_shown(item.a)} | {_shown(item.b)}')}")
    if found.tokenizer is not None:
        lines.append(f"tokenizer  {printable(found.tokenizer.says)}")
    for word, tensors in (("only in A", found.only_in_a), ("only in B", found.only_in_b)):
        lines += _folded(word, ((t.name, t.shape, "") for t in tensors), lambda row: str(_shape(row)), width)
    shapes = ((t.name, t.a, _shapes(t)) for t in found.shapes)
    lines += _folded("shape", shapes, lambda row: row.tensors[0].file, width)
    kinds = ((t.name, (), f"{t.a} | {t.b}") for t in found.dtypes)
    lines += _folded("dtype", kinds, lambda row: row.tensors[0].file, width)
    lines += _ranks(found.values)
    if found.values:
        lines += ["", *_values(found.values, width, heading)]
    return lines


def verdict_line(found: ModelDiff) -> str:
    names = f"{' and '.join(dict.fromkeys(filter(None, found.families))) or 'no table'}, by {found.by}"
    if found.same:
        return f"same       {plural(found.compared, 'tensor')} of A and B are equal ({names})"
    parts = [
        (len(found.values), "differ in value"),
        (len(found.shapes), "in shape"),
        (len(found.dtypes), "in dtype"),
        (len(found.only_in_a), "only in A"),
        (len(found.only_in_b), "only in B"),
    ]
    told = [f"{number:,} {words}" for number, words in parts if number]
    if found.config:
        told.append(f"{plural(len(found.config), 'field')} of the config")
    if found.tokenizer is not None and found.tokenizer.outcome == "differs":
        told.append("the tokenizer")
    equal = f"{found.equal:,} of {plural(found.compared, 'tensor')} are equal"
    return f"differs    {equal}; {', '.join(told)} ({names})"


def _folded(
    word: str,
    tensors: Iterable[tuple[str, tuple[int, ...], str]],
    says: Callable[[Row], str],
    width: int | None,
) -> Iterator[str]:
    """A line for the layers of a tensor of which the same is to be said."""
    dtype = dtype_named("F32")
    kinds: dict[str, list[StoredTensor]] = {}
    for name, shape, text in tensors:
        kinds.setdefault(text, []).append(StoredTensor(name, dtype, shape, text, 0))
    rows = [row for alike in kinds.values() for row in collapse(alike)]
    for row in rows[:_SHOWN]:
        many = f" ({plural(len(row.tensors), 'tensor')})" if len(row.tensors) > 1 else ""
        name, rest = printable(row.name), f"{says(row)}{many}"
        if width is not None:
            name = shorten(name, max(width - 13 - len(rest), 16))
        yield f"{word:<10} {name}  {rest}"
    if len(rows) > _SHOWN:
        yield f"{word:<10} … and {len(rows) - _SHOWN} more"


def _shapes(found: ShapeDifference) -> str:
    same = f"; {found.compared:,} elements compared" if found.compared else ""
    return f"{list(found.a)} | {list(found.b)}{same}"


def _shape(row: Row) -> list[int]:
    return list(row.tensors[0].shape)


def _ranks(values: Sequence[ValueDifference]) -> Iterator[str]:
    """Differences of low rank, as a merged LoRA makes them."""
    by_rank: dict[int, list[ValueDifference]] = {}
    for value in values:
        if value.rank is not None:
            by_rank.setdefault(value.rank, []).append(value)
    dtype = dtype_named("F32")
    for rank, found in sorted(by_rank.items(), key=lambda item: -len(item[1])):
        rows = collapse(StoredTensor(v.name, dtype, (), "", 0) for v in found)
        names = ", ".join(row.name for row in rows[:4]) + (", …" if len(rows) > 4 else "")
        share = min(v.explains or 0.0 for v in found)
        yield printable(
            f"rank       {names}: the difference looks like a merged LoRA of rank {rank} "
            f"({share:.1%} of it at least)"
        )


def _values(values: Sequence[ValueDifference], width: int | None, heading: Heading) -> list[str]:
    by_name = {value.name: value for value in values}
    dtype = dtype_named("F32")
    folded = collapse(StoredTensor(v.name, dtype, v.shape, "", 0) for v in values)
    rows = [["Tensor", "Differing", "Max |Δ|", "Mean |Δ|", "Relative", "Cosine", "First at", "A", "B"]]
    for row in folded[:_SHOWN]:
        found = [by_name[tensor.name] for tensor in row.tensors]
        worst = found[0]
        differing, compared = sum(v.differing for v in found), sum(v.compared for v in found)
        rows.append(
            [
                printable(row.name),
                f"{differing / compared:.1%}" if differing * 1000 >= compared else f"{differing:,}",
                f"{max(v.max_abs for v in found):.3g}",
                f"{sum(v.mean_abs * v.compared for v in found) / compared:.3g}",
                _number(worst.relative),
                "-" if worst.cosine is None else f"{worst.cosine:.6f}",
                printable(_at(worst, len(found) > 1)),
                _number(worst.a),
                _number(worst.b),
            ]
        )
    lines = headed(fit(rows, width, right=_RIGHT, drop=_DROP), heading)
    if len(folded) > _SHOWN:
        lines.append(f"… and {len(folded) - _SHOWN} more rows; --json lists every tensor")
    return lines


def _at(value: ValueDifference, several: bool) -> str:
    place = str(list(value.first))
    return f"{place} of {value.name}" if several else place


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
