"""A small family of its own, written to disk: one canonical table and whatever dialect a test needs."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from porter.tables.load import load_canonical, load_dialect

CANONICAL = """\
family  = "toy"
version = 3

[index]
layer = "n_layer"

[axes]
vocab    = "vocab_size"
q_per_kv = { size = "n_head / n_kv_head", inverse = { n_head = "n_kv_head * q_per_kv" } }

[tensors]
"embed"        = "vocab d_model"
"{layer}.q"    = "n_kv_head q_per_kv head_dim d_model"
"{layer}.k"    = "n_kv_head head_dim d_model"
"head"         = { axes = "vocab d_model", tied = "embed" }

[hyperparameters]
n_layer        = "int"
n_head         = "int"
n_kv_head      = "int"
head_dim       = "int"
d_model        = "int"
vocab_size     = "int"
tie_embeddings = "bool"
k_bias         = { type = "bool", neutral = false }
"""

DIALECT = """\
family  = "toy"
dialect = "plain"

[[rule]]
theirs = "embed"
ours   = "embed"

[[rule]]
theirs = "layers.{layer}.q"
ours   = "{layer}.q"
layout = "(n_kv_head q_per_kv head_dim) d_model"

[[rule]]
theirs = "layers.{layer}.k"
ours   = "{layer}.k"
layout = "(n_kv_head head_dim) d_model"

[[rule]]
theirs = "head"
ours   = "head"
"""


@dataclass
class Tables:
    """A root of mapping tables; texts may be edited by (old, new) pairs before they are written."""

    root: Path

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def canonical(self, *edits: tuple[str, str], text: str = CANONICAL):
        return load_canonical(self.write("toy/canonical.toml", edited(text, *edits)), self.root)

    def dialect(self, *edits: tuple[str, str], text: str = DIALECT, canonical=None, name="plain"):
        path = self.write(f"toy/{name}.toml", edited(text, *edits))
        return load_dialect(path, self.root, canonical or self.canonical())


def edited(text: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    return text


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path / "mappings")


@pytest.fixture
def line_of():
    """The line, counted from 1, on which a text first stands in a file."""

    def find(path: Path, text: str) -> int:
        lines = path.read_text(encoding="utf-8").splitlines()
        return next(number for number, line in enumerate(lines, start=1) if text in line)

    return find
