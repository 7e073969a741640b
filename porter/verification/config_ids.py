"""What of two configs is compared besides hyperparameters, or is said not to be: ids, dtypes and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from porter.config.raw import GENERATION, get
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import dtype_word
from porter.layout import Expression
from porter.recognition.identify import Identity, config_section
from porter.tables.model import Dialect
from porter.verification.same_value import same_value

# Advisory hyperparameters that are compared where both sides state them: another id ends a text elsewhere.
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def with_ids(
    one: tuple[Mapping[str, Any], Mapping[str, Any]], other: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters of two configs, each given with its raw config; the ids are those to be compared.

    Generation goes by those of `generation_config.json`, and by the config's own where that has none. Where
    these are equal, `other`'s own may be what `one` states in either place.
    """
    (ours, raw), (theirs, raw_other) = one, other
    found, found_other = dict(ours), dict(theirs)
    for name in IDS:
        own, own_other = ours.get(name), theirs.get(name)
        ids, ids_other = _generation_id(name, own, raw), _generation_id(name, own_other, raw_other)
        if same_value(ids, ids_other) and not (same_value(own_other, own) or same_value(own_other, ids)):
            ids, ids_other = own, own_other
        found[name], found_other[name] = ids, ids_other
    return found, found_other


def _generation_id(name: str, own: Any, raw: Mapping[str, Any]) -> Any:
    stated = get(raw, f"{GENERATION}.{name}")[1]
    return own if stated is None else stated


def not_compared(
    unknown: Sequence[str], raw: Mapping[str, Any], original: Identity, words: Dialect, file: str
) -> Iterator[str]:
    """What of the port's config no table speaks of; what the original's says as well, is compared by that."""
    own = original.words or original.dialect
    left = [
        path
        for path in unknown
        if own.name != words.name or not same_value(get(original.raw, path)[1], get(raw, path)[1])
    ]
    if left:
        yield f"{file}: not known to porter, and not compared: {', '.join(left)}"


def lost_ids(original: Identity, theirs: Mapping[str, Any], words: Dialect, label: str) -> Iterator[str]:
    """An id that begins or ends a text, which the original's files state, and the port's could and do not."""
    own = original.words or original.dialect
    section = config_section(original.raw, own)
    for name, what in (("bos_token_id", "begins"), ("eos_token_id", "ends")):
        if name not in words.config.fields or theirs.get(name) is not None:
            continue
        fields = own.config.fields[name].fields if name in own.config.fields else ()
        stated = (get(where, path)[1] for where in (original.raw, section) for path in fields)
        first = next((value for value in stated if value is not None), None)
        value = _generation_id(name, first, original.raw)
        if value is not None:
            yield f"no config of {label} says which id {what} a text ({name}); the original's: {value}"


def other_dtype(out: Checkpoint, words: Dialect, raw: Mapping[str, Any], file: str) -> Iterator[str]:
    """Where the config says another dtype than the weights have: frameworks cast to it when they load."""
    stored = {dtype_word(tensor.dtype) for tensor in out.tensors.values()}
    for path, (constant, _) in words.config.write.items():
        if isinstance(constant, Expression) and constant.names == {"weights_dtype"}:
            said = get(raw, path)[1]
            if isinstance(said, str) and said not in stored:
                kept = f"the weights are stored in {' and '.join(sorted(stored))}"
                yield f"{file}: {path} is {said}, and {kept}: they are cast when loaded"
