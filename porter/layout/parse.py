"""Layouts as text: the grammar, and what a layout must satisfy whatever the sizes are.

    layout := dim*                          outermost first; the empty layout is a 0-d tensor
    dim    := axis | 1 | "(" alt { "|" alt } ")"
    alt    := dim+

`(a b)` merges axes into one stored dim, row-major. `(a | b)` places blocks one after the other. Sums may
nest but not multiply, so the leaves of a layout (one choice of block at each sum, depth-first) partition
the tensor. Every error quotes the layout and points at the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from porter.errors import PorterError


class LayoutError(PorterError):
    """A layout that the grammar or its rules refuse; the caller adds file and line."""


@dataclass(frozen=True)
class Axis:
    """A named axis."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Unit:
    """A dim, or a block, of size one."""

    def __str__(self) -> str:
        return "1"


@dataclass(frozen=True)
class Group:
    """A parenthesis: one alternative merges its dims, several place blocks one after the other."""

    alternatives: tuple[tuple[Dim, ...], ...]

    def __str__(self) -> str:
        return "(" + " | ".join(" ".join(map(str, dims)) for dims in self.alternatives) + ")"


Dim = Axis | Unit | Group


@dataclass(frozen=True)
class Layout:
    """A parsed layout; its text is normalised, so equal layouts print alike."""

    dims: tuple[Dim, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.dims))

    @cached_property
    def leaves(self) -> tuple[tuple[str, ...], ...]:
        """For each leaf, depth-first, the axes that it runs over, outermost first."""
        return tuple(_leaf_axes(self.dims))


_TOKEN = re.compile(r"\s*(?:(?P<axis>[A-Za-z_][A-Za-z0-9_]*)|(?P<unit>1)(?![0-9A-Za-z_])|(?P<sign>[()|]))")


def parse_layout(text: str) -> Layout:
    """Parse and check a layout. Raises LayoutError with the text and a caret under the place."""
    tokens = _tokens(text)
    dims, rest = _dims(text, tokens, 0, depth=0)
    if rest != len(tokens):
        _, sign, place = tokens[rest]
        what = "`|` stands only inside parentheses" if sign == "|" else f"`{sign}` closes nothing"
        raise _error(text, place, what)
    layout = Layout(dims)
    _check_sums(text, layout.dims)
    for axes in layout.leaves:
        twice = sorted({axis for axis in axes if axes.count(axis) > 1})
        if twice:
            raise LayoutError(
                f"layout `{text}`: the axis {twice[0]} appears twice in the block `{' '.join(axes)}`",
                hint="give the two dims two names: a square matrix is `d_model_out d_model`",
            )
    return layout


def _tokens(text: str) -> list[tuple[str, str, int]]:
    tokens, place = [], 0
    end = len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            bad = len(text) - len(text[place:].lstrip())
            raise _error(text, bad, "expected an axis name, `1`, `(`, `|` or `)`")
        tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return tokens


def _dims(
    text: str, tokens: list[tuple[str, str, int]], index: int, depth: int
) -> tuple[tuple[Dim, ...], int]:
    if depth > 32:
        raise LayoutError(f"layout `{text}`: parentheses nest deeper than 32")
    dims: list[Dim] = []
    while index < len(tokens):
        kind, word, _ = tokens[index]
        if kind == "axis":
            dims.append(Axis(word))
            index += 1
        elif kind == "unit":
            dims.append(Unit())
            index += 1
        elif word == "(":
            group, index = _group(text, tokens, index, depth)
            dims.append(group)
        else:
            break
    return tuple(dims), index


def _group(text: str, tokens: list[tuple[str, str, int]], index: int, depth: int) -> tuple[Group, int]:
    opened = tokens[index][2]
    alternatives: list[tuple[Dim, ...]] = []
    while True:
        dims, index = _dims(text, tokens, index + 1, depth + 1)
        if not dims:
            raise _error(text, tokens[index][2] if index < len(tokens) else len(text), "an empty block")
        alternatives.append(dims)
        if index == len(tokens):
            raise _error(text, opened, "this `(` is never closed")
        if tokens[index][1] == ")":
            return Group(tuple(alternatives)), index + 1


def _check_sums(text: str, dims: tuple[Dim, ...]) -> bool:
    """Whether a product holds a sum; two of them in one product would multiply."""
    sums = 0
    for dim in dims:
        if isinstance(dim, Group):
            inside = [_check_sums(text, alternative) for alternative in dim.alternatives]
            sums += len(dim.alternatives) > 1 or any(inside)
    if sums > 1:
        raise LayoutError(
            f"layout `{text}`: two sums in one product, `{' '.join(map(str, dims))}`",
            hint="blocks may nest but not multiply; cut the canonical tensors finer instead",
        )
    return sums == 1


def _leaf_axes(dims: tuple[Dim, ...]) -> Iterator[tuple[str, ...]]:
    if not dims:
        yield ()
        return
    head, rest = dims[0], dims[1:]
    for tail in _leaf_axes(rest):
        match head:
            case Axis(name):
                yield (name, *tail)
            case Unit():
                yield tail
            case Group(alternatives):
                for alternative in alternatives:
                    for front in _leaf_axes(alternative):
                        yield front + tail


def _error(text: str, place: int, what: str) -> LayoutError:
    return LayoutError(f"layout `{text}`: {what}", cause=f"at column {place + 1}\n  {text}\n  {' ' * place}^")
