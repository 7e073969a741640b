"""A tiny Gemma written by hand, byte by byte, and the command line in a process of its own.

No framework takes part: what is on disk is exactly what a test has put there. Sizes are all different, and
heads * head_dim (30) is not hidden_size.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 3, 22, 31, 6, 2, 5, 47

CONFIG: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_WORDS = {"float32": "F32", "float16": "F16", "int8": "I8"}

Tensors = dict[str, np.ndarray]


@pytest.fixture
def config() -> dict[str, Any]:
    """The tiny Gemma's config.json; a test may change it."""
    return dict(CONFIG)


@pytest.fixture
def tensors() -> Tensors:
    """The tiny Gemma's weights under transformers' names; a test may change them."""
    block = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
        "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    shapes["model.norm.weight"] = (HIDDEN,)
    random = np.random.default_rng(5)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    header, data, at = {}, b"", 0
    for name, tensor in tensors.items():
        entry = {"dtype": _WORDS[tensor.dtype.name], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [at, at + tensor.nbytes]}
        data += tensor.tobytes()
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def write() -> Callable[[Path, Mapping[str, np.ndarray]], Path]:
    """Writes a safetensors file, tensors in the order given."""
    return _write


@pytest.fixture
def read() -> Callable[[Path], Tensors]:
    """Reads a float32 safetensors file without any library."""

    def load(path: Path) -> Tensors:
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        return {
            name: np.frombuffer(
                raw[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], np.float32
            ).reshape(entry["shape"])
            for name, entry in json.loads(raw[8:start]).items()
            if name != "__metadata__"
        }

    return load


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Saves a checkpoint in `source/tiny-gemma`: one file, or an index and as many as `shards` says."""

    def checkpoint(
        tensors: Mapping[str, np.ndarray], config: Mapping[str, Any] | None, *, shards: int = 1
    ) -> Path:
        directory = tmp_path / "source" / "tiny-gemma"
        directory.mkdir(parents=True)
        if config is not None:
            (directory / "config.json").write_text(json.dumps(config))
        if shards == 1:
            _write(directory / "model.safetensors", tensors)
            return directory
        weight_map, names = {}, list(tensors)
        for at in range(shards):
            file = f"model-{at + 1:05d}-of-{shards:05d}.safetensors"
            inside = names[at::shards]
            _write(directory / file, {name: tensors[name] for name in inside})
            weight_map |= dict.fromkeys(inside, file)
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
            "weight_map": weight_map,
        }
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    return checkpoint


@pytest.fixture
def gemma(save: Callable[..., Path], tensors: Tensors, config: dict[str, Any]) -> Path:
    """The tiny Gemma, as it should be."""
    return save(tensors, config)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`python -m porter` in an empty directory, stdout and stderr apart; `env` adds to the environment."""
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)

    def porter(
        *arguments: str | Path, cwd: Path = here, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
        # Nothing that this machine has downloaded is a default.
        plain |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "porter", *map(str, arguments)],
            cwd=cwd,
            env=plain | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return porter


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    """Every path under a directory, hidden ones too, with the sha256 of what is in it."""

    def snapshot(root: Path) -> dict[str, str]:
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "directory"
            for path in sorted(root.rglob("*"))
        }

    return snapshot


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `run`, in this process: ten times as fast. What is not caught by porter fails the test."""
    from porter.cli.app import app

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def porter(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        monkeypatch.chdir(here)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            app([str(argument) for argument in arguments], prog_name="porter")
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, stopped.value.code, printed.out, printed.err)

    return porter


@pytest.fixture
def refused(call: Run, tree: Callable[[Path], dict[str, str]], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must be refused; its stderr.

    Refused means: the exit code, no data, the words asked for, no traceback, and nothing changed on disk: no
    output, no staging directory left, the source as it was.
    """

    def check(code: int, arguments: list[str | Path], *words: str) -> str:
        (tmp_path / "here").mkdir(exist_ok=True)
        before = tree(tmp_path)
        done = call(*arguments)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert [line[:7] for line in done.stderr.splitlines()].count("error: ") == 1
        for word in words:
            assert word in done.stderr
        assert tree(tmp_path) == before
        return done.stderr

    return check
