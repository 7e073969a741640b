"""A page of errors: each input that a person may take for a checkpoint, what is said, and the exit code.

Each row makes the folder, names what to convert, and holds words of the error and of its hint. A row's twin
without the fault is converted by the tests of its own kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import porter
from porter.errors import PorterError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 17\n"
PAGE = "<!DOCTYPE html><html><body>Log in</body></html>"
CONFIG = {
    "model_type": "llama",
    "vocab_size": 23,
    "hidden_size": 12,
    "intermediate_size": 7,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32,
}
SHAPES = {
    "model.embed_tokens.weight": (23, 12),
    "model.layers.0.input_layernorm.weight": (12,),
    "model.layers.0.self_attn.q_proj.weight": (24, 12),
    "model.layers.0.self_attn.k_proj.weight": (12, 12),
    "model.layers.0.self_attn.v_proj.weight": (12, 12),
    "model.layers.0.self_attn.o_proj.weight": (12, 24),
    "model.layers.0.post_attention_layernorm.weight": (12,),
    "model.layers.0.mlp.gate_proj.weight": (7, 12),
    "model.layers.0.mlp.up_proj.weight": (7, 12),
    "model.layers.0.mlp.down_proj.weight": (12, 7),
    "model.norm.weight": (12,),
}


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def whole(folder: Path) -> None:
    save_file(weights(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))


@dataclass(frozen=True)
class Row:
    """`make` fills an empty folder; `source` is what is named in it, `options` go to `porter.plan`."""

    what: str
    make: Callable[[Path], None]
    code: int
    words: str
    hint: str
    source: str = ""
    options: dict[str, object] | None = None

    def __str__(self) -> str:
        return self.what


def text(name: str, content: str, before: Callable[[Path], None] = whole) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        before(folder)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    return make


def saved(*names: str, state: dict[str, np.ndarray] | None = None) -> Callable[[Path], None]:
    """Torch files with one state dict, or one tensor each, under these names."""

    def make(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(CONFIG))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            torch.save(
                {key: torch.from_numpy(value) for key, value in (state or weights()).items()}, folder / name
            )

    return make


def distributed(folder: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model.norm.weight": torch.ones(12)}, checkpoint_id=folder / "step-3")


def fabric(folder: Path) -> None:
    distributed(folder)
    torch.save({}, folder / "step-3" / "meta.pt")


def shards(*kept: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        whole(folder)
        (folder / "model.safetensors").unlink()
        names, weight_map = list(SHAPES), {}
        for number in (1, 2, 3):
            file = f"model-0000{number}-of-00003.safetensors"
            part = {name: weights()[name] for name in names[number - 1 :: 3]}
            weight_map |= dict.fromkeys(part, file)
            if number in kept:
                save_file(part, folder / file, metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return make


def unlisted(folder: Path) -> None:
    shards(1, 3)(folder)
    (folder / "model.safetensors.index.json").unlink()


def two_frameworks(folder: Path) -> None:
    whole(folder)
    saved("lit_model.pth")(folder)


def adapter(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / name).write_bytes(b"")

    return make


def beside_adapter(folder: Path) -> None:
    whole(folder)
    (folder / "adapter_config.json").write_text("{}")
    save_file({"a": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")


ROWS = [
    Row("a pointer for weights", text("model.safetensors", POINTER), 6, "Git LFS pointer", "git lfs pull"),
    Row("a pointer for a torch file", text("pytorch_model.bin", POINTER, lambda _: None), 6, "LFS", "lfs"),
    Row("a pointer for a config", text("config.json", POINTER), 6, "config.json is a Git LFS", "git lfs"),
    Row("a pointer for a tokenizer", text("tokenizer.model", POINTER), 6, "tokenizer.model is a Git", "lfs"),
    Row(
        "a page for weights",
        text("model.safetensors", PAGE),
        6,
        "model.safetensors is a web page",
        "/resolve/",
    ),
    Row("a page for a GGUF", text("m.gguf", PAGE, lambda _: None), 6, "m.gguf is a web page", "download"),
    Row(
        "a page for a config", text("config.json", PAGE), 6, "config.json is a web page", "download it again"
    ),
    Row("torch's distributed checkpoint", distributed, 5, "distributed checkpoint of torch", "dcp_to_torch"),
    Row("the same, named", distributed, 5, "distributed checkpoint", "dcp_to_torch", "step-3"),
    Row("Fabric's", fabric, 5, "distributed checkpoint", "fabric consolidate"),
    Row(
        "DeepSpeed's",
        saved("global_step7/zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        5,
        "checkpoint of DeepSpeed",
        "zero_to_fp32.py",
    ),
    Row(
        "DeepSpeed's step",
        saved("s/zero_pp_rank_0_mp_rank_00_model_states.pt", "s/zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        5,
        "checkpoint of DeepSpeed",
        "zero_to_fp32.py",
        "s",
    ),
    Row("a shard that is missing", shards(1, 3), 6, "model-00002-of-00003.safetensors is missing", "again"),
    Row("two shards that are missing", shards(2), 6, "2 of 3 shards are missing: model-00001-of", "again"),
    Row("a shard that no index lists", unlisted, 6, "expected model-00002-of-00003", "download"),
    Row(
        "two frameworks' checkpoints",
        two_frameworks,
        2,
        "two checkpoints",
        'source_dialect="hf" or source_dialect="litgpt"',
    ),
    Row("two files", saved("a.pt", "b.pt"), 2, "more than one set of weights", "name the file"),
    Row(
        "parts that are copies",
        saved("epoch_1.pt", "epoch_2.pt"),
        2,
        "no shards of one model",
        "name the file",
    ),
    Row("PEFT's adapter", adapter("adapter_model.safetensors"), 5, "is an adapter", "merge_and_unload"),
    Row("LitGPT's adapter", adapter("lit_model.pth.lora"), 5, "is an adapter", "litgpt merge_lora"),
    Row("Keras' adapter", adapter("m.lora.h5"), 5, "is an adapter", "load_lora_weights"),
    Row("an adapter that is not merged", beside_adapter, 5, "not merged", "merge_and_unload"),
    Row("an empty folder", lambda _: None, 6, "holds no weights", "give a checkpoint's directory"),
    Row(
        "a dialect that is none",
        whole,
        2,
        "no dialect called 'bin'",
        "name the file",
        "",
        {"source_dialect": "bin"},
    ),
    Row(
        "files of no such dialect",
        whole,
        2,
        "no weights that could be gguf",
        "gguf",
        "",
        {"source_dialect": "gguf"},
    ),
    Row("a dtype that is none", whole, 2, "unknown dtype 'int3'", "bfloat16", "", {"dtype": "int3"}),
    Row("a dtype that is no word", whole, 2, "no dtype is called 3", "bfloat16", "", {"dtype": 3}),
    Row("maps of no kind", whole, 2, "maps takes a path", "", "", {"maps": 3}),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_error_says_what_it_is(tmp_path: Path, row: Row) -> None:
    row.make(tmp_path)
    with pytest.raises(PorterError) as caught:
        porter.plan(tmp_path / row.source, to="hf", **(row.options or {}))  # type: ignore[arg-type]
    error = caught.value
    assert error.exit_code == row.code, error
    assert row.words in str(error)
    assert row.hint in (error.hint or ""), error
    assert "allow_unmapped" not in str(error)


def test_the_same_folder_without_a_fault_is_planned(tmp_path: Path) -> None:
    """Negative control of all rows."""
    whole(tmp_path)
    assert porter.plan(tmp_path, to="hf").target_dialect == "hf"
