"""Configs as they lie on disk: plain mappings from JSON, YAML or GGUF metadata, and dotted paths in them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porter.containers.checkpoint import Checkpoint
from porter.errors import MalformedError
from porter.reading.json_text import CONFIG, KERAS_CONFIG, parse_json
from porter.reading.regular import read_regular
from porter.reading.unforeseen import reading
from porter.reading.yaml_text import MAX_BYTES, parse_yaml

# A shortened decimal may lie beyond it.
_FLOAT32_MAX = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]

GENERATION = "generation_config"


def load_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that must hold one mapping. Raises MalformedError."""
    yaml = path.suffix in (".yaml", ".yml")
    # KerasHub's task.json embeds a tokenizer.
    limit = KERAS_CONFIG if path.name == "task.json" else CONFIG
    text = read_regular(path, path.name, MAX_BYTES if yaml else limit.nbytes, hint="is it a config?")
    with reading(path):
        data = parse_yaml(text, path.name) if yaml else parse_json(text, path.name, limit, surrogates=False)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise MalformedError(f"{path.name} holds no mapping", cause=f"found {type(data).__name__}")
    return data


def override_of(config: Path | None, file: str) -> Path | None:
    """The config that was named, where it is of the kind of this file."""
    return config if config is not None and config.suffix == Path(file).suffix else None


def raw_config(
    checkpoint: Checkpoint, file: str | None, override: Path | None = None
) -> dict[str, Any] | None:
    """What a dialect whose config is `file` would read in this checkpoint; None if it is not there.

    `generation_config.json`, where there is one, is added under the key `generation_config`.
    """
    if file == "(metadata)":
        return _from_metadata(checkpoint.metadata) if checkpoint.container == "gguf" else None
    keras = checkpoint.container == "hdf5"
    path = override or (checkpoint.files.get(file) if file else None)
    if keras and override is None and file is not None and file in checkpoint.metadata:
        # A `.keras` archive brings its own config, which goes before one that lies beside it.
        raw = dict(checkpoint.metadata[file])
    elif path is None:
        return None
    else:
        raw = load_mapping(path)
    if keras:
        raw = _backbone(raw)
    generation = checkpoint.files.get("generation_config.json")
    if generation is not None and GENERATION not in raw:
        raw[GENERATION] = load_mapping(generation)
    return raw


def _backbone(raw: dict[str, Any]) -> dict[str, Any]:
    """Keras' config of a whole model (`GemmaCausalLM`) holds that of its backbone, which says it all."""
    config = raw.get("config")
    inner = config.get("backbone") if isinstance(config, Mapping) else None
    return dict(inner) if isinstance(inner, Mapping) else raw


def get(raw: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Whether a dotted path is there, and its value. A key that itself holds dots is found first."""
    if path in raw:
        return True, raw[path]
    head, dot, rest = path.partition(".")
    inner = raw.get(head)
    if dot and isinstance(inner, Mapping):
        return get(inner, rest)
    return False, None


def put(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path, making the mappings on the way."""
    head, dot, rest = path.partition(".")
    if dot:
        put(raw.setdefault(head, {}), rest, value)
    else:
        raw[head] = value


def shortest_float32(value: float) -> float:
    """The shortest decimal that is the same float32: 9.99999997e-07 stored as float32 was 1e-06."""
    try:
        packed = struct.pack("<f", value)
    except OverflowError:
        return value
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _FLOAT32_MAX and struct.pack("<f", short) == packed:
            return short
    return value


def _from_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF metadata with the architecture's prefix taken off its own keys."""
    prefix = f"{metadata.get('general.architecture', '')}."
    return {key.removeprefix(prefix): value for key, value in metadata.items()}
