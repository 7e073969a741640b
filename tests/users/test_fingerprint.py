"""`porter fingerprint` against a second implementation, written from docs/fingerprint.md in NumPy and blake3.

It shares nothing with porter: it reads what transformers wrote, by names and axes written out here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import porter
from porter.errors import PorterError
from porter.execution.watch import Watch
from porter.tables import load_families

pytestmark = pytest.mark.peer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fingerprint.md"
LAYER = {
    "input_layernorm": "attn.norm",
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o",
    "post_attention_layernorm": "mlp.norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}


def canonical(folder: Path) -> dict[str, tuple[dict[str, int], str, bytes]]:
    """Axes, dtype and bytes of each canonical tensor of a Gemma in Hugging Face's files."""
    config = json.loads((folder / "config.json").read_text())
    vocab, d_model, d_ff = config["vocab_size"], config["hidden_size"], config["intermediate_size"]
    kv, size = config["num_key_value_heads"], config["head_dim"]
    per_kv = config["num_attention_heads"] // kv
    queries = {"n_kv_head": kv, "q_per_kv": per_kv, "head_dim": size, "d_model": d_model}
    keys = {"n_kv_head": kv, "head_dim": size, "d_model": d_model}
    hidden = {"d_ff": d_ff, "d_model": d_model}
    axes = {
        "embed": {"vocab": vocab, "d_model": d_model},
        "attn.q": queries, "attn.k": keys, "attn.v": keys, "attn.o": queries,
        "mlp.gate": hidden, "mlp.up": hidden, "mlp.down": hidden,
    }  # fmt: skip
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            parts = name.removeprefix("model.").removesuffix(".weight")
            if match := re.fullmatch(r"layers\.(\d+)\.(.+)", parts):
                kind, called = LAYER[match[2]], f"{match[1]}.{LAYER[match[2]]}"
            else:
                kind = called = {"embed_tokens": "embed", "norm": "norm"}[parts]
            if kind in ("attn.o", "mlp.down"):
                tensor = tensor.T.contiguous()
            dtype = str(tensor.dtype).removeprefix("torch.")
            content = tensor.view(
                torch.uint8 if tensor.element_size() == 1 else _WORDS[tensor.element_size()]
            )
            found[called] = axes.get(kind, {"d_model": d_model}), dtype, content.numpy().tobytes()
    return found


_WORDS = {2: torch.int16, 4: torch.int32}


def digest_of(name: str, axes: dict[str, int], dtype: str, content: bytes) -> str:
    head = f"porter tensor 1\n{name}\n{' '.join(f'{a}={n}' for a, n in axes.items())}\n{dtype}\n".encode()
    pieces = [blake3(content[at : at + 262144]).digest() for at in range(0, len(content), 262144)]
    return blake3(head + b"".join(pieces)).hexdigest()


def whole(digests: dict[str, str]) -> str:
    lines = "".join(f"{digests[name]} {name}\n" for name in sorted(digests))
    return "porter1:" + blake3(f"porter model 1\n{lines}".encode()).hexdigest()


def independent(folder: Path) -> str:
    return whole({name: digest_of(name, *parts) for name, parts in canonical(folder).items()})


@pytest.fixture(scope="module")
def ways(tiny_gemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The tiny Gemma in other forms."""
    root = tmp_path_factory.mktemp("ways")

    def go(**options: Any) -> Path:
        out = root / "-".join(map(str, options.values())).replace("/", "")
        if not out.exists():
            porter.convert(tiny_gemma, out, **options)
        return out

    return go


FORMS = [
    {"to": "hf"},
    {"to": "hf", "max_shard_size": 60_000},
    {"to": "litgpt"},
    {"to": "litgpt", "tied": "omit"},
    {"to": "litgpt", "container": "pth"},
    {"to": "litgpt-legacy"},
    {"to": "keras"},
    {"to": "flax"},
    {"to": "gemma_pytorch"},
]


def test_what_the_page_says_gives_the_same(tiny_gemma: Path, ways: Callable[..., Path]) -> None:
    found = porter.fingerprint(tiny_gemma)
    expected = {name: digest_of(name, *parts) for name, parts in canonical(tiny_gemma).items()}
    assert {tensor.name: tensor.digest for tensor in found.tensors} == expected
    assert found.fingerprint == whole(expected)
    half = ways(to="hf", dtype="bfloat16")
    assert porter.fingerprint(half).fingerprint == independent(half) != found.fingerprint


def test_a_receipt_without_one_is_said_to_be_so_and_the_output_is_whole(
    tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise PorterError("the disk has failed")

    said: list[str] = []
    watch = Watch(notice=said.append)
    with monkeypatch.context() as context:
        context.setattr("porter.verification.fingerprints.fingerprint_of", fails)
        porter.convert(tiny_gemma, tmp_path / "out", to="litgpt", watch=watch)
    assert said == ["the receipt states no fingerprint: the disk has failed"]
    assert json.loads((tmp_path / "out/porter-receipt.json").read_text())["fingerprint"] is None
    assert porter.check(tmp_path / "out").verdict == "verified"
    assert porter.fingerprint(tmp_path / "out").fingerprint == independent(tiny_gemma)
    # Undisturbed it is there, and nothing is said.
    porter.convert(tiny_gemma, tmp_path / "other", to="litgpt", watch=watch)
    stated = json.loads((tmp_path / "other/porter-receipt.json").read_text())["fingerprint"]
    assert stated == independent(tiny_gemma) and len(said) == 1


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_it_is_the_same_in_every_form(tiny_gemma: Path, ways: Callable[..., Path], form: Any) -> None:
    assert porter.fingerprint(ways(**form)).fingerprint == independent(tiny_gemma)


@pytest.mark.parametrize("unit", [70_000, 16 << 20])
def test_weights_of_several_pieces_also_where_units_cut_them(
    tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: int
) -> None:
    config = json.loads((tiny_gemma / "config.json").read_text()) | {"vocab_size": 5003}
    d_model, d_ff, layers = config["hidden_size"], 1501, config["num_hidden_layers"]
    weights = {}
    for path in sorted(tiny_gemma.glob("*.safetensors")):
        weights |= load_file(path)
    generator = torch.Generator().manual_seed(3)
    larger = {"model.embed_tokens.weight": (5003, d_model)}
    for layer in range(layers):
        larger |= {f"model.layers.{layer}.mlp.{part}_proj.weight": (d_ff, d_model) for part in ("gate", "up")}
        larger[f"model.layers.{layer}.mlp.down_proj.weight"] = (d_model, d_ff)
    weights |= {name: torch.randn(shape, generator=generator) for name, shape in larger.items()}
    large = tmp_path / "large"
    large.mkdir()
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    (large / "config.json").write_text(json.dumps(config | {"intermediate_size": d_ff}))
    monkeypatch.setattr("porter.verification.fingerprints.UNIT", unit)
    assert min(len(canonical(large)[name][2]) for name in ("embed", "0.mlp.down")) > 262144
    expected = independent(large)
    assert porter.fingerprint(large).fingerprint == expected
    porter.convert(large, tmp_path / "keras", to="keras")
    assert porter.fingerprint(tmp_path / "keras").fingerprint == expected


@pytest.mark.parametrize("form", FORMS[2:], ids=lambda form: "-".join(map(str, form.values())))
def test_the_receipt_of_an_exact_port_holds_it(ways: Callable[..., Path], form: Any) -> None:
    held = porter.check(ways(**form), quick=True).fingerprint
    assert held == porter.fingerprint(ways(**form)).fingerprint


def test_a_receipt_holds_none_where_it_would_be_another_or_dear(
    tiny_gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    porter.convert(tiny_gemma, tmp_path / "half", to="litgpt", dtype="bfloat16")
    porter.convert(tiny_gemma, tmp_path / "untied", to="hf", tied="untie")
    monkeypatch.setattr("porter.api.convert.CHEAP", 1000)
    porter.convert(tiny_gemma, tmp_path / "dear", to="litgpt")
    porter.convert(
        tiny_gemma, tmp_path / "hashed", to="litgpt", run_options=porter.RunOptions(digest="always")
    )
    held = {
        name: porter.check(tmp_path / name, quick=True).fingerprint
        for name in ("half", "untied", "dear", "hashed")
    }
    assert held == {"half": None, "untied": None, "dear": None, "hashed": independent(tiny_gemma)}


def test_dtypes_count_unless_they_should_not(
    tiny_gemma: Path, ways: Callable[..., Path], tmp_path: Path
) -> None:
    half, keras = ways(to="hf", dtype="bfloat16"), ways(to="keras", dtype="bfloat16")
    assert porter.fingerprint(half).fingerprint == porter.fingerprint(keras).fingerprint
    wide = tmp_path / "wide"
    porter.convert(half, wide, to="litgpt", dtype="float32")
    assert porter.fingerprint(wide).fingerprint != porter.fingerprint(half).fingerprint
    agnostic = [porter.fingerprint(path, dtype_agnostic=True).fingerprint for path in (half, keras, wide)]
    assert agnostic == [porter.fingerprint(wide).fingerprint] * 3
    # What was rounded is another model.
    assert porter.fingerprint(tiny_gemma, dtype_agnostic=True).fingerprint != agnostic[0]


def test_one_bit_of_any_tensor_shows_in_that_tensor_alone(tiny_gemma: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_gemma, tmp_path / "gemma"))
    before = {tensor.name: tensor.digest for tensor in porter.fingerprint(folder).tensors}
    changed = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        data = path.read_bytes()
        head = 8 + int.from_bytes(data[:8], "little")
        entries = json.loads(data[8:head])
        for name in names:
            place = head + entries[name]["data_offsets"][1] - 1
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            after = {tensor.name: tensor.digest for tensor in porter.fingerprint(folder).tensors}
            (other,) = {name for name in before if before[name] != after[name]}
            changed.add(other)
        path.write_bytes(data)
    assert changed == before.keys()


def test_weights_that_change_places_are_another_model(tiny_gemma: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_gemma, tmp_path / "gemma"))
    for path in sorted(folder.glob("*.safetensors")):
        weights = load_file(path)
        for name in [name for name in weights if name.endswith("gate_proj.weight")]:
            other = name.replace("gate", "up")
            if other in weights:
                weights[name], weights[other] = weights[other], weights[name]
        save_file(weights, path, metadata={"format": "pt"})
    assert porter.fingerprint(folder).fingerprint != porter.fingerprint(tiny_gemma).fingerprint


def test_a_head_that_is_not_the_embedding_is_refused(ways: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ways(to="litgpt"), tmp_path / "lit"))
    weights = load_file(folder / "lit_model.safetensors")
    weights["lm_head.weight"][3, 5] += 1
    save_file(weights, folder / "lit_model.safetensors")
    with pytest.raises(PorterError) as caught:
        porter.fingerprint(folder)
    assert caught.value.exit_code == 3


def test_what_a_user_types(porter: Any, tiny_gemma: Path, on_the_hub: str) -> None:
    expected = independent(tiny_gemma)
    assert porter("fingerprint", tiny_gemma).stdout == expected + "\n"
    lines = porter("fingerprint", tiny_gemma, "--tensors", "-q").stdout.splitlines()
    assert lines[-1] == expected and len(lines) == 30
    (line,) = (line for line in lines if "0.attn.q " in line)
    assert line.endswith("0.attn.q  float32  n_kv_head=2 q_per_kv=3 head_dim=10 d_model=66")
    found = json.loads(porter("fingerprint", tiny_gemma, "--json").stdout)
    assert (found["schema"], found["fingerprint"], found["dialect"]) == (1, expected, "hf")
    # From afar, with nothing downloaded.
    assert porter("fingerprint", "gemma-2b").stdout == expected + "\n"


def test_the_axes_of_the_page_are_those_of_the_tables() -> None:
    """They are frozen: a change of one is a new version of the fingerprint."""
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]*)` \|", PAGE.read_text(), re.MULTILINE)
    page: dict[str, list[str]] = {}
    for name, axes in rows:
        page.setdefault(name, []).append(axes)
    known = set()
    for family in load_families().values():
        for name, tensor in family.canonical.tensors.items():
            assert " ".join(tensor.axes) in page.get(name, ()), f"{family.name}: {name}"
            known.add((name, " ".join(tensor.axes)))
    assert {(name, axes) for name, found in page.items() for axes in found} == known
    from porter.verification.fingerprints import VERSION

    assert VERSION == 1 and f"porter{VERSION}:" in PAGE.read_text()
