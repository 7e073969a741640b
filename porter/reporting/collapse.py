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
_NUMBER = re.compile(r"(?<![^./])([0-9]{1,18})(?![^./])")


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
    groups: dict[tuple[str, tuple[int, ...], str], tuple[list[StoredTensor], list[tuple[str, ...]]]] = {}
    for tensor in tensors:
        # A tuple of texts is nothing that the garbage collector goes on walking.
        parts = tuple(_NUMBER.split(tensor.name))
        key = ("\0".join(parts[::2]), tensor.shape, tensor.dtype.name)
        group, apart = groups.setdefault(key, ([], []))
        group.append(tensor)
        apart.append(parts)
    return [Row(_joined(apart), tuple(group)) for group, apart in groups.values()]


def collapsed_name(names: Sequence[str]) -> str:
    """One name for several that differ only in numbers; the first where they differ otherwise."""
    apart = [tuple(_NUMBER.split(name)) for name in names]
    texts = apart[0][::2]
    return names[0] if any(parts[::2] != texts for parts in apart) else _joined(apart)


def _joined(apart: Sequence[Sequence[str]]) -> str:
    """One name for several that were taken apart into text, number, text, …, and have the same texts."""
    texts = apart[0][::2]
    if len(apart) == 1:
        return "".join(apart[0])
    columns = zip(*(parts[1::2] for parts in apart), strict=True)
    spans = [_range(sorted(set(map(int, set(column))))) for column in columns]
    return "".join(text + span for text, span in zip(texts, [*spans, ""], strict=True))


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
