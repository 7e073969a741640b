"""A model on the Hub looked into from afar: its headers, in kilobytes, and the token to the Hub alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

TOKEN = "hf_averysecrettokenthatnobodymaysee"

_LOOK = """
from porter.containers.hub_headers import open_remote
from porter.sources.names import HubReference
try:
    seen = open_remote(HubReference(sys.argv[1]), token=sys.argv[2] or None)
    emit({
        "label": seen.label,
        "root": str(seen.root),
        "container": seen.container,
        "sizes": seen.sizes,
        "files": {name: path.read_text() for name, path in seen.files.items()},
        "tensors": {t.name: [t.dtype.name, list(t.shape), t.file, t.offset] for t in seen.tensors.values()},
    })
except PorterError as error:
    emit({"error": type(error).__name__, "exit": error.exit_code, "text": str(error)})
"""


def look(hub: Any, repo: str = "org/model", token: str = "", **options: Any) -> Any:
    return hub.python(_LOOK, repo, token, **options)


def shard(tensors: dict[str, tuple[int, ...]], pad: int = 0) -> bytes:
    """A safetensors file of BF16 tensors, written out by hand."""
    entries: dict[str, Any] = {"__metadata__": {"note": "x" * pad}} if pad else {}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + b"\x80\x3f" * (end // 2)


NAMES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]
SHAPES = [
    {f"model.layers.{layer}.{name}.weight": (61, 67 + n) for n, name in enumerate(NAMES)}
    for layer in range(40)
]


@pytest.fixture
def shards(hub: Any) -> dict[str, bytes]:
    """org/model: 200 tensors in 8 shards."""
    files = {}
    weight_map = {}
    for number in range(8):
        name = f"model-{number + 1:05d}-of-00008.safetensors"
        tensors = {k: v for layer in SHAPES[number * 5 : number * 5 + 5] for k, v in layer.items()}
        weight_map |= dict.fromkeys(tensors, name)
        files[name] = shard(tensors)
    small = {"config.json": b'{"model_type": "gemma"}', "tokenizer.model": b"t" * 400_000}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}
    hub.server.add("org/model", files | small | index)
    return files


def test_the_shape_table_costs_kilobytes(hub: Any, shards: dict[str, bytes]) -> None:
    seen = look(hub)
    expected = {name: list(shape) for layer in SHAPES for name, shape in layer.items()}
    assert {name: shape for name, (_, shape, _, _) in seen["tensors"].items()} == expected
    assert seen["sizes"] == {name: len(data) for name, data in shards.items()}
    assert seen["files"] == {"config.json": '{"model_type": "gemma"}'}
    assert (seen["label"], seen["container"]) == ("org/model", "safetensors")
    assert sum(map(len, shards.values())) > 1_600_000
    assert hub.server.sent < 100_000
    asked = [request for request in hub.server.log if request.server == "storage"]
    assert len(asked) == 8, "one request a shard: the index tells how long its header is"
    assert all(request.range for request in asked)


def test_what_is_seen_from_afar_is_what_lies_there(hub: Any, shards: dict[str, bytes]) -> None:
    afar = look(hub)
    hub.download("org/model")
    hub.server.forget()
    near = look(hub)
    assert hub.server.log == [], "complete in the cache: no network"
    assert {key: near[key] for key in ("tensors", "sizes", "label", "container", "root")} == {
        key: afar[key] for key in ("tensors", "sizes", "label", "container", "root")
    }
    assert set(near["files"]) > set(afar["files"])


def test_a_shard_in_the_cache_is_read_there(hub: Any, shards: dict[str, bytes]) -> None:
    first = min(shards)
    hub.download("org/model", include=[first])
    hub.server.forget()
    look(hub)
    assert not any(first in request.path for request in hub.server.log)
    assert len([request for request in hub.server.log if request.server == "storage"]) == 7


def test_a_long_header_takes_a_second_request(hub: Any) -> None:
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": shard({"w": (3, 5)}, 300_000)})
    assert look(hub)["tensors"]["w"][1] == [3, 5]
    asked = [request.range for request in hub.server.log if request.server == "storage"]
    assert asked[0] == "bytes=0-32767" and len(asked) == 2 and asked[1].startswith("bytes=32768-")


def test_a_server_without_ranges_is_not_read_to_the_end(hub: Any) -> None:
    hub.server.ranges = False
    data = shard({"w": (6_000, 2_000)})
    hub.server.add("org/model", {"config.json": b"{}", "model.safetensors": data})
    assert look(hub)["tensors"]["w"][1] == [6_000, 2_000]
    sent = [request.sent for request in hub.server.log if request.server == "storage"]
    assert sent and max(sent) < len(data), "the connection was closed in the middle"


def test_the_token_goes_to_the_hub_alone(hub: Any, shards: dict[str, bytes]) -> None:
    hub.server.repos["org/model"].gated = True
    hub.server.token(TOKEN, "org/model")
    assert "error" not in look(hub, token=TOKEN)
    assert {r.authorized for r in hub.server.log if r.server == "hub"} == {True}
    assert {r.authorized for r in hub.server.log if r.server == "storage"} == {False}
    hub.server.forget()
    assert "error" not in look(hub, env={"HF_TOKEN": TOKEN})
    assert {r.authorized for r in hub.server.log if r.server == "storage"} == {False}


def test_gated_without_access(hub: Any, shards: dict[str, bytes]) -> None:
    hub.server.repos["org/model"].gated = True
    seen = look(hub)
    assert (seen["error"], seen["exit"]) == ("AccessError", 4)
    assert "https://huggingface.co/org/model" in seen["text"]


def test_a_passing_weakness_of_the_storage_is_got_over(hub: Any, shards: dict[str, bytes]) -> None:
    hub.server.fault(min(shards), "503", times=2)
    assert len(look(hub)["tensors"]) == 200
    hub.server.fault(max(shards), "disconnect", times=1)
    assert len(look(hub)["tensors"]) == 200


def test_a_lasting_one_is_an_error(hub: Any, shards: dict[str, bytes]) -> None:
    hub.server.fault(min(shards), "500")
    seen = look(hub)
    assert (seen["error"], seen["exit"]) == ("PorterError", 1)
    assert "signed-for" not in seen["text"]


def test_offline_and_not_cached(hub: Any, shards: dict[str, bytes]) -> None:
    assert look(hub, env={"HF_HUB_OFFLINE": "1"})["exit"] == 2
    assert hub.server.log == []


@pytest.mark.parametrize("kind", ["header", "length", "missing"])
def test_malformed(hub: Any, kind: str) -> None:
    name = "model-00001-of-00001.safetensors"
    data = shard({"w": (3, 5)})
    weight_map = {"w": name}
    if kind == "header":
        data = data[:8] + b"[" + data[9:]
    elif kind == "length":
        data = (1 << 40).to_bytes(8, "little") + data[8:]
    else:
        weight_map = {"w": name, "v": "model-00002-of-00002.safetensors"}
    index = json.dumps({"weight_map": weight_map}).encode()
    files = {"config.json": b"{}", name: data, "model.safetensors.index.json": index}
    hub.server.add("org/model", files)
    seen = look(hub)
    assert (seen["error"], seen["exit"]) == ("MalformedError", 6)
    assert hub.server.sent < 10_000


def test_other_containers_have_to_be_downloaded(hub: Any) -> None:
    hub.server.add("org/model", {"config.json": b"{}", "m.gguf": b"GGUF"})
    seen = look(hub)
    assert (seen["error"], seen["exit"]) == ("UnsupportedError", 5)
    assert 'porter.download("org/model", include="m.gguf")' in seen["text"]
