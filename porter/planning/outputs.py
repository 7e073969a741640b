"""What the target directory will hold: weight files with every tensor placed, config, tokenizer, index."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from porter.config.write import dump_config, write_config
from porter.containers.base import OutputFile
from porter.containers.checkpoint import Checkpoint
from porter.containers.contract import Placement
from porter.containers.keras.keras_files import METADATA, preset_metadata
from porter.containers.registry import writable_container
from porter.containers.torch import torch_zip
from porter.dtypes import Dtype, dominant, dtype_word
from porter.errors import UnsupportedError
from porter.planning.plan import SideFile
from porter.recognition.identify import Identity
from porter.tables.model import Dialect
from porter.tokenizers.choose import model_alone, tokenizer_files
from porter.tokenizers.keras_tokenizer import preset_files
from porter.tokenizers.tokenizer_values import TokenizerPlan
from porter.wording import option

# What transformers wrote for years and the Hub recommends: files that resume and cache well.
DEFAULT_SHARD = "5GB"

# In each line, the first component of a name between dots that is a number, if there is one.
_LAYERS = re.compile(r"^(?:[^\n]*?\.([0-9]+)(?=\.))?.*$", re.MULTILINE)

Tensors = Mapping[str, tuple[Dtype, tuple[int, ...]]]


def place_tensors(
    target: Dialect,
    tensors: Tensors,
    max_shard_size: str | int | None,
    *,
    torch: bool = False,
    ties: Mapping[str, str] | None = None,
    residues: Mapping[str, int] | None = None,
) -> tuple[tuple[OutputFile, ...], tuple[SideFile, ...]]:
    """Place every tensor in a file. Dialects that shard follow the Hub's rule and get an index.

    With `torch` the file is a torch zip, in which a tensor of `ties` shares the storage of another.
    `residues` says where tensors lie best, modulo a block, to share blocks with the source.
    """
    files = target.files
    name = files.torch if torch else files.weights
    if name is None:
        raise UnsupportedError(f"{target.title} reads no torch file", hint=f"leave out {option('container')}")
    container = writable_container(torch_zip.CONTAINER if torch else files.container, target.title)
    sharded = files.sharded and not torch
    if max_shard_size is not None and not sharded:
        has = "has a file per array" if container.file_per_tensor else "reads one file"
        raise UnsupportedError(f"{target.title} {has}; {option('max-shard-size')} does not apply")
    wish = Placement(
        file=name,
        max_shard_size=(DEFAULT_SHARD if max_shard_size is None else max_shard_size) if sharded else None,
        ties=(ties or {}) if torch else {},
        residues=residues or {},
        wrap=files.wrap if torch else None,
    )
    specs = [(tensor, *tensors[tensor]) for tensor in _in_reading_order(tensors)]
    assert container.place is not None
    placed, small = container.place(specs, wish)
    return placed, tuple(SideFile(file, content) for file, content in small.items())


def side_files(
    checkpoint: Checkpoint,
    identity: Identity,
    target: Dialect,
    hyperparameters: Mapping[str, Any],
    tensors: Tensors,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[tuple[SideFile, ...], tuple[str, ...]]:
    """The config in the target's words, and the tokenizer files that the target reads; notes for the user."""
    canonical = identity.family.canonical
    sizes = ((dtype, math.prod(shape)) for dtype, shape in tensors.values())
    most = dominant(sizes)
    config = write_config(
        target,
        canonical,
        hyperparameters,
        shapes=shapes,
        weights_dtype=dtype_word(most) if most else None,
        kept=identity.raw if identity.keeps_words(target) else identity.stated_nulls(target),
    )
    sides = []
    if target.config.file is not None:
        sides.append(SideFile(target.config.file, dump_config(config, target.config.file)))
    keras = target.files.tokenizer == "keras"
    tokenizer = _tokenizer(checkpoint, target, config, int(hyperparameters["vocab_size"]))
    for file in tokenizer.files:
        sides.append(SideFile(file.name, file.content, file.copied_from))
    if keras:
        sides.append(SideFile(METADATA, preset_metadata(math.prod(shape) for _, shape in tensors.values())))
    elif not any(side.name == "generation_config.json" for side in sides):
        generation = _generation_config(hyperparameters)
        if generation is not None:
            sides.append(SideFile("generation_config.json", generation))
    return tuple(sides), (*_unstated(identity, target, hyperparameters), *tokenizer.notes)


def _unstated(identity: Identity, target: Dialect, hyperparameters: Mapping[str, Any]) -> list[str]:
    """What one side's config has no place for, where the other side's has one."""
    source, other = (identity.words or identity.dialect).config.fields, target.config.fields
    notes = []
    for name, value in hyperparameters.items():
        assumed = name in source and source[name].has_assumed
        lost = name in other and other[name].has_assumed
        if assumed and not lost and name in other:
            title = (identity.words or identity.dialect).title
            notes.append(f"{title} does not state {name}; {value!r} is written")
        if lost and not assumed:
            notes.append(f"{target.title} has no place for {name} ({value!r}), which is left out")
    for table in (identity.words or identity.dialect, target):
        for caution in table.config.caution.values():
            if caution.when.evaluate(hyperparameters.__getitem__) and caution.say not in notes:
                notes.append(caution.say)
    return notes


def _tokenizer(
    checkpoint: Checkpoint, target: Dialect, config: Mapping[str, Any], vocab_size: int
) -> TokenizerPlan:
    metadata = checkpoint.metadata if checkpoint.container == "gguf" else None
    if target.files.tokenizer == "keras":
        backbone = str(config["class_name"])
        return preset_files(checkpoint.files, metadata=metadata, backbone=backbone, vocab_size=vocab_size)
    if target.files.tokenizer == "sentencepiece":
        return model_alone(checkpoint.files, metadata=metadata, vocab_size=vocab_size, title=target.title)
    return tokenizer_files(
        checkpoint.files, metadata=metadata, target=target.files.tokenizer, vocab_size=vocab_size
    )


def _generation_config(hyperparameters: Mapping[str, Any]) -> bytes | None:
    """Token ids for generation, where the source's config holds them and no file does."""
    ids = {
        name: hyperparameters.get(name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if hyperparameters.get(name) is not None
    }
    return (json.dumps(ids, indent=2) + "\n").encode() if ids else None


def _in_reading_order(tensors: Tensors) -> list[str]:
    """As a reader meets them: what stands before the layers, then layer by layer, then the rest.

    Sharding by this order keeps a layer's tensors together.
    """
    names = list(tensors)
    layers = [int(layer) if layer else None for layer in _LAYERS.findall("\n".join(names))]
    numbers = [layer for layer in layers if layer is not None]
    if not numbers:
        return names
    first, last = next(at for at, layer in enumerate(layers) if layer is not None), max(numbers) + 1
    places = [layer if layer is not None else -1 if at < first else last for at, layer in enumerate(layers)]
    return [names[at] for at in sorted(range(len(names)), key=places.__getitem__)]
