"""One checkpoint of the several that a folder may hold: which is taken, what is said of the others.

Where two frameworks would read different files of one folder, nobody but the user knows which is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from porter.errors import MalformedError, UsageError
from porter.sources.weight_files import HF, LITGPT, WeightSet, rank, some
from porter.wording import option


@dataclass(frozen=True)
class Wanted:
    """What a dialect that was asked for may be stored in, and the names that its framework writes."""

    dialect: str
    containers: frozenset[str]
    names: frozenset[str]


_UNLISTED = "{}: no index lists these shards, and transformers reads shards by their index alone"


def choose(
    sets: Sequence[WeightSet], where: str, wanted: Wanted | None = None
) -> tuple[WeightSet, tuple[str, ...]]:
    """The checkpoint to read, and remarks on what was taken before what.

    Raises UsageError where two frameworks would read different files, and where nothing says which is meant.
    """
    if wanted is None:
        _refuse_two_frameworks(sets, where)
        fitting = list(sets)
    else:
        own = [item for item in sets if item.name in wanted.names]
        readable = [item for item in sets if item.container in wanted.containers]
        # LitGPT's and Hugging Face's files lie in one folder, and either name says whose they are.
        others = {HF, LITGPT} - {wanted.dialect.partition("-")[0]}
        fitting = own or [item for item in readable if item.framework not in others] or readable
        if not fitting:
            raise UsageError(
                f"{where} holds no weights that could be {wanted.dialect}",
                cause=f"it holds {some([item.handle for item in sets])}",
                hint=f"leave out {option('from')}; {wanted.dialect} is stored in "
                + " or ".join(sorted(wanted.containers)),
            )
    first = fitting[0]
    equals = [item for item in fitting if rank(item)[:2] == rank(first)[:2]]
    why = ""
    if first.framework and first.unlisted and any(item.framework for item in fitting[1:]):
        # Frameworks read shards by their index: without one they take what comes after, or all there is.
        equals = [item for item in fitting if item.framework]
        why = ", and no index that lists the shards"
    if len(equals) > 1:
        raise UsageError(
            f"{where} holds more than one set of weights",
            cause=f"found {some([item.handle for item in equals])}{why}",
            hint="name the file that you mean, or keep each set in a directory of its own",
        )
    return first, _remarks(first, sets, where)


def check_whole(item: WeightSet, where: str) -> None:
    """Raises MalformedError that names the shards that are missing by their numbers."""
    if item.missing:
        raise MalformedError(
            f"{where}: {len(item.missing)} of {len(item.missing) + len(item.files)} shards are missing",
            cause=f"expected {some(item.missing)}, found {some(item.files)}",
            hint="download the checkpoint again",
        )


def _refuse_two_frameworks(sets: Sequence[WeightSet], where: str) -> None:
    firsts = {word: next((item for item in sets if item.framework == word), None) for word in (HF, LITGPT)}
    hf, litgpt = firsts[HF], firsts[LITGPT]
    if hf is None or litgpt is None:
        return
    raise UsageError(
        f"{where} holds two checkpoints: Hugging Face's and LitGPT's",
        cause=f"transformers reads {hf.handle} there, LitGPT reads {litgpt.handle}, which may have been "
        "trained since",
        hint=f"{option('from', 'hf')} or {option('from', 'litgpt')}, or name the file: {litgpt.handle}",
    )


def _remarks(first: WeightSet, sets: Sequence[WeightSet], where: str) -> tuple[str, ...]:
    others = [item for item in sets if item is not first]
    if not others:
        return (_UNLISTED.format(first.handle),) if first.framework == HF and first.unlisted else ()
    names = some([item.handle for item in others])
    return (f"took {first.handle}; not read: {names} (name one to take it instead)",)
