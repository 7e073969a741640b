"""A person's own machine: the `porter` command, a Hub on the loopback, a tiny Gemma with a real tokenizer.

Every command runs in a process of its own, in an empty directory. What a user types is what is tested.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_averysecrettokenthatnobodymaysee"

# All different, heads * head_dim is not hidden_size, and kv heads are neither one nor all.
SIZES: dict[str, Any] = {
    "hidden_size": 66,
    "intermediate_size": 101,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 128,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
CORPUS = [
    f"{who} {does} the {thing} {n} times,  and then the {thing}s {does} {who}"
    for who in ("anna", "boris", "chloé", "dmitri", "елена")
    for does in ("reads", "writes", "sings", "swims")
    for thing in ("letter", "number", "window", "mountain", "river")
    for n in (1, 22, 333)
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The directory that a person stands in; empty."""
    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)
    return folder


Porter = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def porter(hub: Any, here: Path) -> Porter:
    """Runs `porter …` against the loopback Hub; `code` is the exit code that is expected.

    However it ends: no traceback, and no token in anything printed.
    """

    def run(
        *arguments: str | Path, code: int = 0, cwd: Path = here, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "porter", *map(str, arguments)],
            cwd=cwd,
            env={**hub.env, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        for secret in (TOKEN, "signed-for"):
            assert secret not in done.stdout + done.stderr
        if code:
            assert done.stdout == ""
            assert done.stderr.count("error: ") == 1
        return done

    return run


@pytest.fixture
def python(hub: Any, here: Path) -> Callable[..., Any]:
    """Runs Python as the same person; what it hands to `emit(value)` is returned."""

    def run(code: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", "import json, sys\ndef emit(value): print(json.dumps(value))\n" + code]
            + [str(argument) for argument in arguments],
            cwd=here,
            env={**hub.env, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma in two shards as transformers writes it, with a SentencePiece model trained for it."""
    import sentencepiece as spm
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    folder = tmp_path_factory.mktemp("gemma")
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    tokenizer = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    vocab = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()
    model = GemmaForCausalLM(GemmaConfig(**SIZES, vocab_size=vocab))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight.shape[1] ** 0.5 if weight.ndim == 2 else 0.3 * noise)
    model.save_pretrained(folder, max_shard_size=400_000)
    assert len(list(folder.glob("*.safetensors"))) == 2
    return folder


@pytest.fixture
def on_the_hub(hub: Any, tiny_gemma: Path) -> str:
    """The tiny Gemma as google/gemma-2b; its commit."""
    return str(hub.server.add("google/gemma-2b", tiny_gemma))


def _tree(root: Path) -> dict[str, tuple[str, float]]:
    return {
        path.relative_to(root).as_posix(): (
            f"link to {path.readlink()}"
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest(),
            path.lstat().st_mtime,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


@pytest.fixture
def tree() -> Callable[[Path], dict[str, tuple[str, float]]]:
    """Every file and link under a directory: digest or target, and when it was written."""
    return _tree


Shapes = Mapping[str, tuple[int, ...]]


class Sparse:
    """The bytes of a safetensors file: a true header, and zeros of which only those asked for are made."""

    def __init__(self, shapes: Shapes) -> None:
        entries, end = {}, 0
        for name, shape in shapes.items():
            begin, end = end, end + 2 * math.prod(shape)
            entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        self.head = len(header).to_bytes(8, "little") + header
        self.size = len(self.head) + end

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, wanted: slice) -> bytes:
        start, stop, _ = wanted.indices(self.size)
        return self.head[start:stop].ljust(stop - start, b"\0")


@dataclass(frozen=True)
class SparseContent:
    """As the Hub's server keeps a large file, of a digest that nobody will compare."""

    data: Sparse
    large: bool = True
    sha256: str = "5" * 64
    etag: str = "5" * 64
    blob_id: str = "5" * 40


@pytest.fixture
def full_size() -> Callable[[Path, Mapping[str, Any], Shapes], Path]:
    """Writes a checkpoint of full size on no disk space: true headers, and a hole where the data would be."""

    def write(folder: Path, config: Mapping[str, Any], shapes: Shapes) -> Path:
        folder.mkdir(parents=True)
        sparse = Sparse(shapes)
        with (folder / "model.safetensors").open("wb") as stream:
            stream.write(sparse.head)
            stream.truncate(len(sparse))
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


@pytest.fixture
def full_size_on_the_hub(hub: Any) -> Callable[..., None]:
    """Puts a checkpoint of full size on the Hub, in shards given by their shapes."""

    def add(repo: str, config: Mapping[str, Any], shards: list[Shapes]) -> None:
        total = len(shards)
        names = [f"model-{n + 1:05d}-of-{total:05d}.safetensors" for n in range(total)]
        weight_map = {tensor: name for name, shapes in zip(names, shards, strict=True) for tensor in shapes}
        small = {
            "config.json": json.dumps(config).encode(),
            "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        }
        commit = hub.server.add(repo, small)
        files = hub.server.repos[repo].commits[commit]
        for number, (name, shapes) in enumerate(zip(names, shards, strict=True)):
            digest = f"{number}" * 64
            files[name] = SparseContent(Sparse(shapes), sha256=digest, etag=digest)

    return add
