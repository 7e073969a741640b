"""Repositories on the Hub that hold a Keras preset, such as google/gemma-2b-keras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

REPO = "google/gemma-2b-keras"
SMALL = {
    "config.json": b'{"class_name": "GemmaBackbone"}',
    "metadata.json": b"{}",
    "preprocessor.json": b"{}",
    "task.json": b"{}",
    "tokenizer.json": b'{"class_name": "GemmaTokenizer"}',
    "assets/tokenizer/vocabulary.spm": b"\x0a" * 997,
}
WEIGHTS = b"w" * 70_001
EXTRA = {"README.md": b"# gemma", ".gitattributes": b"*.h5", "task.weights.h5": WEIGHTS}

INSPECT = """
from porter.api.inspect import inspect
try:
    emit(inspect(sys.argv[1]).label)
except PorterError as error:
    emit({"exit": error.exit_code, "text": str(error)})
"""


def fetched(found: Any) -> set[str]:
    return {
        path.relative_to(found["path"]).as_posix()
        for path in Path(found["path"]).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("source", [REPO, f"hf://{REPO}"])
@pytest.mark.parametrize("options", [{}, {"source_dialect": "keras"}], ids=["plain", "from keras"])
def test_the_preset_is_fetched_and_nothing_twice(hub: Any, source: str, options: dict[str, str]) -> None:
    hub.server.add(REPO, {**SMALL, **EXTRA, "model.weights.h5": WEIGHTS})
    found = hub.download(source, **options)
    assert fetched(found) == {*SMALL, "model.weights.h5"}
    hub.server.forget()
    assert hub.download(source, **options)["bytes_fetched"] == 0
    assert hub.server.file_bytes == 0
    offline = hub.download(source, offline=True, **options)
    assert offline["path"] == found["path"] and hub.server.file_bytes == 0


def test_in_parts(hub: Any) -> None:
    parts = [f"model_{number:05d}.weights.h5" for number in range(3)]
    index = {"weight_map": {f"/layers/{name}/vars": name for name in parts}}
    weights = {name: name.encode() * 999 for name in parts}
    hub.server.add(REPO, {**SMALL, **weights, "model.weights.json": json.dumps(index).encode()})
    assert fetched(hub.download(REPO)) == {*SMALL, *parts, "model.weights.json"}
    assert hub.download(REPO, offline=True)["bytes_fetched"] == 0


def test_keras_where_there_is_none(hub: Any) -> None:
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    refused = hub.download("org/model", source_dialect="keras")
    assert refused["exit"] == 2 and "no Keras weights" in refused["text"]


def test_from_afar_it_asks_for_the_download(hub: Any) -> None:
    hub.server.add(REPO, {**SMALL, "model.weights.h5": WEIGHTS})
    refused = hub.python(INSPECT, REPO)
    assert refused["exit"] == 5
    assert f'porter.download("{REPO}")' in refused["text"]
