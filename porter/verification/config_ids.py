"""What of two configs is compared besides hyperparameters, or is said not to be: ids, dtypes and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from porter.config.raw import GENERATION, get
from porter.containers.checkpoint import Checkpoint
from porter.dtypes import dtype_word
from porter.layout import Expression
from porter.recognition.identify import Identity, config_section
from porter.tables.model import Dialect
from porter.verification.same_value import same_value

# Advisory hyperparameters that are compared where both sides state them: another id ends a text elsewhere.
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class Config(NamedTuple):
    """A config as it was read: hyperparameters, the raw one, and the dialect whose words it is in."""

    values: Mapping[str, Any]
    raw: Mapping[str, Any]
    words: Dialect

    @classmethod
    def of(cls, identity: Identity) -> Config:
        return cls(identity.hyperparameters, identity.raw, identity.words or identity.dialect)

    def ids(self, name: str) -> tuple[Any, Any]:
        """What the config itself states, and `generation_config.json`; of several ids each ends a text."""
        return _sorted(self.values.get(name)), _sorted(get(self.raw, f"{GENERATION}.{name}")[1])


def _sorted(ids: Any) -> Any:
    whole = isinstance(ids, list) and all(type(number) is int for number in ids)
    return sorted(set(ids)) if whole else ids


def with_ids(one: Config, other: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters of two configs; the ids are those that are to be compared.

    A config may state an id, and `generation_config.json` another one, which generation goes by. Where both
    have that, it counts. Where one has not, for which a dialect may have no place, it is enough that the two
    have one id in common. In any case what `other`'s config says must be what `one` says in either place.
    """
    found, found_other = dict(one.values), dict(other.values)
    for name in IDS:
        found[name], found_other[name] = _ids(name, one, other)
    return found, found_other


def _ids(name: str, one: Config, other: Config) -> tuple[Any, Any]:
    (own, said), (own_other, said_other) = one.ids(name), other.ids(name)
    ids, ids_other = (own if said is None else said), (own_other if said_other is None else said_other)
    if None in (ids, ids_other):
        return ids, ids_other
    entry = one.words.config.fields.get(name)
    twice = entry is not None and not all(path.startswith(f"{GENERATION}.") for path in entry.fields)
    stray = twice and own_other is not None and not _among(own_other, (own, said))
    if said is not None and said_other is not None:
        return (own, own_other) if stray and same_value(said, said_other) else (said, said_other)
    if stray:
        return ids, own_other
    common = any(_among(value, (own, said)) for value in (own_other, said_other) if value is not None)
    return (ids, ids) if common else (ids, ids_other)


def _among(value: Any, values: tuple[Any, ...]) -> bool:
    return any(same_value(value, other) for other in values)


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


def lost_ids(original: Identity, found: Config, label: str) -> Iterator[str]:
    """An id that begins or ends a text, which the original's files state, and the port's could and do not."""
    one = Config.of(original)
    section = config_section(original.raw, one.words)
    for name, what in (("bos_token_id", "begins"), ("eos_token_id", "ends")):
        if name not in found.words.config.fields:
            continue
        fields = one.words.config.fields[name].fields if name in one.words.config.fields else ()
        stated = (get(where, path)[1] for where in (original.raw, section) for path in fields)
        said = one.ids(name)[1]
        value = next((value for value in (said, *stated) if value is not None), None)
        own, generation = found.ids(name)
        if value is not None and own is None and generation is None:
            yield f"no config of {label} says which id {what} a text ({name}); the original's: {value}"
        elif said is not None and generation is None and not same_value(said, own):
            yield f"{label} has no generation_config.json: by the original's {name} = {said} {what} a text"


def other_sampling(original: Identity, raw: Mapping[str, Any]) -> Iterator[str]:
    """Where the two `generation_config.json` say otherwise how a text is sampled, which no model computes."""
    one, other = original.raw.get(GENERATION), raw.get(GENERATION)
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return
    names = sorted({*one, *other} - {*IDS, "transformers_version", "_from_model_config"})
    unlike = [name for name in names if not same_value(one.get(name), other.get(name))]
    if unlike:
        yield f"{GENERATION}.json: not compared, and not alike: {', '.join(unlike)}"


def other_dtype(out: Checkpoint, words: Dialect, raw: Mapping[str, Any], file: str) -> Iterator[str]:
    """Where the config says another dtype than the weights have: frameworks cast to it when they load."""
    stored = {dtype_word(tensor.dtype) for tensor in out.tensors.values()}
    for path, (constant, _) in words.config.write.items():
        if isinstance(constant, Expression) and constant.names == {"weights_dtype"}:
            said = get(raw, path)[1]
            if isinstance(said, str) and said not in stored:
                kept = f"the weights are stored in {' and '.join(sorted(stored))}"
                yield f"{file}: {path} is {said}, and {kept}: they are cast when loaded"


def other_class(original: Identity, words: Dialect, raw: Mapping[str, Any], file: str) -> Iterator[str]:
    """Where the config names a class of another model; transformers itself goes by `model_type`."""
    path = "architectures"
    known = words.config.write.get(path)
    said = get(raw, path)[1]
    if known is None or said is None or said == known[0]:
        return
    if original.words is None and said == get(original.raw, path)[1]:
        return
    yield f"{file}: {path} is {said}, and this model's is {known[0]}: what goes by that takes another class"
