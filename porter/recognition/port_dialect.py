"""Which dialect a port of a known model is in, from its tensors' names and shapes alone.

The port's own config decides nothing: a wrong one would make the port unreadable, or silently another family.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from porter.config.raw import raw_config
from porter.config.read import ConfigReader, Shapes
from porter.containers.checkpoint import Checkpoint
from porter.errors import PorterError, UnsupportedError
from porter.recognition.identify import Identity, identify, matches
from porter.recognition.stored_names import first_names, known_names
from porter.tables.bind import bind_rules
from porter.tables.catalogue import Families
from porter.tables.model import Dialect
from porter.wording import option


@dataclass(frozen=True)
class Port:
    """`names` gives the table's name of each stored tensor that is known, `wrapper` what stands before all.

    `hyperparameters` are the original's, with what only the port's own shapes say, such as rows of padding.
    """

    dialect: Dialect
    wrapper: str
    names: Mapping[str, str]
    hyperparameters: Mapping[str, Any]


def recognise_port(checkpoint: Checkpoint, original: Identity, dialect: str | None = None) -> Port:
    """The dialect of the original's family whose names and shapes the checkpoint has most of.

    `dialect` says which one it is. Raises UnsupportedError where none knows a name.
    """
    family = original.family
    among = [family.dialect(dialect)] if dialect is not None else list(family.dialects.values())
    best: tuple[tuple[int, ...], Port] | None = None
    for candidate in among:
        if checkpoint.container not in candidate.files.readable:
            continue
        wrapper, names = known_names(checkpoint, candidate)
        if not names:
            continue
        shapes = {names[name]: tensor.shape for name, tensor in checkpoint.tensors.items() if name in names}
        port = Port(candidate, wrapper, names, _with_padding(candidate, original, shapes, checkpoint.label))
        score = _likeness(port, original, shapes, checkpoint.label, _named(checkpoint, candidate))
        if best is None or score > best[0]:
            best = score, port
    if best is None:
        raise UnsupportedError(
            f"the tensors of {checkpoint.label} are not those of {family.name} in "
            + (f"the dialect {dialect}" if dialect is not None else "any dialect"),
            cause=f"found a {checkpoint.container} checkpoint with tensors such as "
            f"{first_names(checkpoint.tensors)}",
            hint=f"the original is {family.name}; is this a port of it? "
            f"A table of your own can say what it is: {option('map', 'FILE.toml')}",
        )
    return best[1]


def recognise_out(
    checkpoint: Checkpoint, original: Identity, families: Families, dialect: str | None = None
) -> Port | Identity:
    """The port as `recognise_port` finds it; what it is, where it is of another architecture.

    GPT-2's `transformer.wte.weight` is a name of LitGPT's too: what knows more of its names, decides. Where
    another family knows no more of them than the original's does, it is a port with a wrong config.
    """
    port, refusal = None, None
    try:
        port = recognise_port(checkpoint, original, dialect)
    except UnsupportedError as error:
        refusal = error
    known = 0 if port is None else len(port.names)
    if dialect is None and known < len(checkpoint.tensors):
        with suppress(PorterError):
            own = identify(checkpoint, families)
            if own.family.name != original.family.name and len(own.names) > known:
                return own
    if port is None:
        assert refusal is not None
        raise refusal
    return port


def under_another_name(
    checkpoint: Checkpoint, original: Identity, own: Identity
) -> tuple[Identity, Port] | None:
    """The original and the port in the family that the port says it is of: a Mistral is a Llama to llama.cpp.

    None for another architecture, where not every tensor is there that the original asks for.
    """
    if not _one_vocabulary(original, own):
        return None
    identity = replace(original, family=own.family)
    with suppress(PorterError):
        port = recognise_port(checkpoint, identity, own.dialect.name)
        bound = bind_rules(port.dialect, own.family.canonical, port.hyperparameters)
        expected = {name: rule.shape for rule in bound for name in rule.names}
        found = {port.names.get(name): tensor.shape for name, tensor in checkpoint.tensors.items()}
        ties = {
            name
            for rule in bound
            if identity.hyperparameters.get("tie_embeddings")
            and all(identity.family.canonical.tensors[block.canonical].tied for block in rule.blocks)
            for name in rule.names
        }
        if all(found.get(name) == shape for name, shape in expected.items() if name not in ties):
            return identity, port
    return None


def spoken_words(
    checkpoint: Checkpoint, original: Identity, port: Port, families: Families
) -> Dialect | None:
    """The dialect of another family that the port's config is in the words of; None where it is its own's."""
    file = port.dialect.config.file
    kin = [other for other in original.family.dialects.values() if other.config.file == file]
    if any(_named(checkpoint, dialect) for dialect in kin):
        return None
    with suppress(PorterError):
        own = identify(checkpoint, families)
        words = own.words or own.dialect
        # A family that has other names for the weights would load none of these.
        all_known = len(own.names) == len(port.names)
        if own.family.name != original.family.name and words.config.file == file and all_known:
            return words if _one_vocabulary(original, own) else None
    return None


def _one_vocabulary(one: Identity, other: Identity) -> bool:
    return one.family.canonical.tensors == other.family.canonical.tensors


def _likeness(port: Port, original: Identity, shapes: Shapes, label: str, named: bool) -> tuple[int, ...]:
    """How many names have the shape that they should, how many are known, how few are missing.

    Whether the config is in the dialect's words (`named`) counts only where all that is alike.
    """
    canonical = original.family.canonical
    try:
        bound = bind_rules(port.dialect, canonical, port.hyperparameters)
    except PorterError:
        return (0, len(shapes))
    expected = {name: rule.shape for rule in bound for name in rule.names}
    right = sum(expected.get(name) == shape for name, shape in shapes.items())
    condition = port.dialect.config.recognise
    held = condition is None or ConfigReader(port.dialect, canonical, {}, shapes, label).holds(condition)
    same = port.dialect.name == original.dialect.name
    return (right, len(shapes), -len(expected.keys() - shapes.keys()), held, named, same)


def _named(checkpoint: Checkpoint, dialect: Dialect) -> bool:
    try:
        raw = raw_config(checkpoint, dialect.config.file)
    except PorterError:
        return False
    return bool(raw) and matches(raw or {}, dialect.config.match)


def _with_padding(dialect: Dialect, original: Identity, shapes: Shapes, label: str) -> dict[str, Any]:
    """The original's hyperparameters; the number of stored rows is the port's own."""
    found = {**original.hyperparameters, "padded_vocab_size": None}
    if "padded_vocab_size" in dialect.config.fields:
        reader = ConfigReader(dialect, original.family.canonical, {}, shapes, label)
        try:
            rows = reader.value("padded_vocab_size")
        except PorterError:
            return found
        if isinstance(rows, int) and rows >= original.hyperparameters["vocab_size"]:
            found["padded_vocab_size"] = rows
    return found
