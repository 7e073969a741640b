"""Collapsing a shape table: tensors that differ only in numbers between dots become one row.

`model.layers.0.mlp.up_proj.weight` … `model.layers.17.mlp.up_proj.weight` of one shape and dtype are shown
as `model.layers.{0..17}.mlp.up_proj.weight`, with how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from porter.containers.base import StoredTensor

# A whole component of the name, between dots or slashes, that is a number (`norm_1` is a name).
_NUMBER = re.compile(r"(?<![^./])[0-9]+(?![^./])")


@dataclass(frozen=True)
class Row:
    """A row of the table: a name, or a collapsed one, and the tensors behind it."""

    name: str
    tensors: tuple[StoredTensor, ...]

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def full(tensors: Iterable[StoredTensor]) -> list[Row]:
    """A row per tensor."""
    return [Row(tensor.name, (tensor,)) for tensor in tensors]


def collapse(tensors: Iterable[StoredTensor]) -> list[Row]:
    """Rows in the order in which their first tensor stands in the files."""
    groups: dict[tuple[str, tuple[int, ...], str], list[StoredTensor]] = {}
    for tensor in tensors:
        key = (_NUMBER.sub("\0", tensor.name), tensor.shape, tensor.dtype.name)
        groups.setdefault(key, []).append(tensor)
    return [Row(collapsed_name([t.name for t in group]), tuple(group)) for group in groups.values()]


def collapsed_name(names: Sequence[str]) -> str:
    """One name for several that differ only in numbers; the first where they differ otherwise."""
    if len({_NUMBER.sub("\0", name) for name in names}) > 1 or len(names) == 1:
        return names[0]
    columns = list(zip(*(_NUMBER.findall(name) for name in names), strict=True))
    texts = iter([_range(sorted({int(number) for number in column})) for column in columns])
    return _NUMBER.sub(lambda match: next(texts), names[0])


def _range(numbers: list[int]) -> str:
    """`{0..17}`, or `{0,2,5..7}`, or the number itself where there is only one."""
    if len(numbers) == 1:
        return str(numbers[0])
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    parts = []
    for first, last in spans:
        if last - first > 1:
            parts.append(f"{first}..{last}")
        else:
            parts.extend(str(number) for number in range(first, last + 1))
    return "{" + ",".join(parts) + "}"
