"""Every hostile input: which parser it is for, what it is made from, and what makes it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import crafted
import mutants

MAPPINGS = Path(__file__).parents[2] / "mappings"


@dataclass(frozen=True)
class Input:
    """`seed` names the sound checkpoint that `make` damages; `asked` what porter is asked to do with it."""

    parser: str
    name: str
    seed: str
    make: Callable[[Path], None]

    @property
    def asked(self) -> Literal["convert", "table", "check"]:
        """`table`: with `mine.toml` handed over; `check`: of an output."""
        return "table" if self.seed == "table" else "check" if self.seed == "output" else "convert"

    def __str__(self) -> str:
        return f"{self.parser}: {self.name}"


# The files of each seed, by parser: what is replaced and damaged.
FILES = {
    "hf": ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
    "sharded": ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
    "gguf": ("model.gguf",),
    "litgpt": ("model_config.yaml", "generation_config.json", "tokenizer.model"),
    "pth": ("lit_model.pth",),
    "keras": ("model.weights.h5", "config.json", "metadata.json", "assets/tokenizer/vocabulary.spm"),
    "archive": ("model.keras",),
    "flax": ("transformer/final_norm.scale/.zarray", "transformer/final_norm.scale/0", "_METADATA"),
    "table": ("mine.toml",),
    "output": ("porter-receipt.json",),
    "sides": (
        *("generation_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
        *("merges.txt", "chat_template.jinja", "chat_template.json", "tokenizer.model"),
        "additional_chat_templates/tools.jinja",
    ),
    "bin": ("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"),
    "ocdbt": ("manifest.ocdbt",),
}

PARSERS = {
    "model.safetensors": "safetensors",
    "model-00001-of-00002.safetensors": "safetensors",
    "model.safetensors.index.json": "shard index",
    "config.json": "config (JSON)",
    "generation_config.json": "config (JSON)",
    "metadata.json": "Keras HDF5",
    "tokenizer.json": "tokenizer (JSON)",
    "tokenizer_config.json": "tokenizer (JSON)",
    "tokenizer.model": "SentencePiece",
    "assets/tokenizer/vocabulary.spm": "SentencePiece",
    "model_config.yaml": "config (YAML)",
    "lit_model.pth": "torch zip and pickle",
    "model.gguf": "GGUF",
    "model.weights.h5": "Keras HDF5",
    "model.keras": "Keras archive",
    "transformer/final_norm.scale/.zarray": "Orbax",
    "transformer/final_norm.scale/0": "Orbax",
    "_METADATA": "Orbax",
    "mine.toml": "mapping table",
    "porter-receipt.json": "receipt",
    "special_tokens_map.json": "tokenizer (JSON)",
    "added_tokens.json": "tokenizer (JSON)",
    "vocab.json": "tokenizer (JSON)",
    "chat_template.json": "tokenizer (JSON)",
    "merges.txt": "copied files",
    "chat_template.jinja": "copied files",
    "additional_chat_templates/tools.jinja": "copied files",
    "pytorch_model-00001-of-00002.bin": "torch zip and pickle",
    "pytorch_model.bin.index.json": "shard index",
    "manifest.ocdbt": "Orbax",
}

# How the files that a mutant is made of are damaged: by bytes, by JSON values, by TOML values; how often.
BYTES = {
    ("hf", "model.safetensors"): 100,
    ("gguf", "model.gguf"): 100,
    ("pth", "lit_model.pth"): 100,
    ("keras", "model.weights.h5"): 80,
    ("archive", "model.keras"): 40,
    ("litgpt", "model_config.yaml"): 60,
    ("litgpt", "tokenizer.model"): 50,
    ("hf", "config.json"): 20,
    ("sharded", "model.safetensors.index.json"): 20,
    ("hf", "tokenizer.json"): 20,
    ("flax", "transformer/final_norm.scale/.zarray"): 30,
    ("table", "mine.toml"): 40,
    ("output", "porter-receipt.json"): 20,
    ("bin", "pytorch_model-00001-of-00002.bin"): 20,
    ("sides", "merges.txt"): 10,
    ("ocdbt", "manifest.ocdbt"): 40,
}
VALUES = {
    ("hf", "config.json"): 80,
    ("keras", "config.json"): 40,
    ("keras", "metadata.json"): 10,
    ("hf", "tokenizer.json"): 50,
    ("hf", "tokenizer_config.json"): 40,
    ("litgpt", "generation_config.json"): 20,
    ("sharded", "model.safetensors.index.json"): 40,
    ("flax", "transformer/final_norm.scale/.zarray"): 50,
    ("flax", "_METADATA"): 30,
    ("output", "porter-receipt.json"): 40,
    ("sides", "special_tokens_map.json"): 10,
    ("sides", "added_tokens.json"): 10,
    ("sides", "vocab.json"): 10,
    ("bin", "pytorch_model.bin.index.json"): 10,
}
SEALED = 60
TABLES = ("gemma/hf.toml", "decoder/hf.toml", "gemma/keras.toml", "gemma3_text/hf.toml", "llama/hf.toml")
TABLE_MUTANTS = 120


def every() -> list[Input]:
    """All inputs, in the order in which they are run."""
    return [*_crafted(), *_replaced(), *_damaged()]


def _crafted() -> Iterator[Input]:
    groups = (
        ("safetensors", "hf", "model.safetensors", crafted.SAFETENSORS),
        ("shard index", "sharded", "model.safetensors.index.json", crafted.INDEX),
        ("config (YAML)", "litgpt", "model_config.yaml", crafted.YAML),
        ("GGUF", "gguf", "model.gguf", crafted.GGUF),
        ("tokenizer (JSON)", "hf", "tokenizer.json", crafted.TOKENIZERS),
        ("SentencePiece", "litgpt", "tokenizer.model", crafted.SENTENCEPIECE),
        ("SentencePiece", "keras", "assets/tokenizer/vocabulary.spm", crafted.SENTENCEPIECE),
    )
    for parser, seed, file, contents in groups:
        for name, content in contents.items():
            yield Input(parser, f"{file}: {name}", seed, crafted.written(file, content))
    for name, pickled in crafted.GADGETS.items():
        yield Input("torch zip and pickle", f"gadget {name}", "pth", crafted.torch_file(lambda p=pickled: p))
    for name, content in crafted.PICKLES.items():
        yield Input("torch zip and pickle", name, "pth", crafted.torch_file(content))
    for name, stated in crafted.TOKENIZER_CONFIGS.items():
        make = crafted.written("tokenizer_config.json", lambda s=stated: json.dumps(s).encode())
        yield Input("tokenizer (JSON)", f"tokenizer_config.json: {name}", "hf", make)
    made = (
        ("torch zip and pickle", "pth", crafted.ZIPS),
        ("GGUF", "gguf", crafted.VOCABULARIES),
        ("Keras HDF5", "keras", crafted.HDF5),
        ("Orbax", "flax", crafted.ORBAX),
        ("names of files", "hf", crafted.DIRECTORIES),
        ("config (JSON)", "hf", crafted.CONFIGS),
        ("mapping table", "table", crafted.TABLES),
    )
    for parser, seed, makes in made:
        for name, make in makes.items():
            yield Input(parser, name, seed, make)


def _replaced() -> Iterator[Input]:
    for seed, name, make in crafted.placeholders(FILES):
        yield Input(PARSERS[name.split(" is ")[0]], _of(seed, name), seed, make)
    for seed, file in VALUES:
        for name, content in crafted.JSON.items():
            yield Input(PARSERS[file], _of(seed, f"{file}: {name}"), seed, crafted.written(file, content))


def _damaged() -> Iterator[Input]:
    for (seed, file), count in BYTES.items():
        for number in range(count):
            make = _bytes_changed(file, number)
            yield Input(PARSERS[file], _of(seed, f"{file} damaged, {number}"), seed, make)
    for (seed, file), count in VALUES.items():
        for number in range(count):
            name = _of(seed, f"{file} with another value, {number}")
            yield Input(PARSERS[file], name, seed, _value_changed(file, number))
    for number in range(TABLE_MUTANTS):
        yield Input("mapping table", f"table with another value, {number}", "table", _table_changed(number))
    for number in range(SEALED):
        name = f"another value under a seal that fits, {number}"
        yield Input("receipt", name, "output", _sealed_again(number))


def _of(seed: str, name: str) -> str:
    """Files of one name in two seeds are two inputs."""
    return f"{name} (beside others)" if seed == "sides" else name


def _sealed_again(number: int) -> Callable[[Path], None]:
    """What whoever can write a receipt can make it say; half of them as porter wrote them at first."""

    def run(folder: Path) -> None:
        from porter.execution.receipts import seal

        path = folder / "porter-receipt.json"
        stated = json.loads(path.read_text())
        changed = mutants.other_json(stated, random.Random(f"sealed {number}"))
        if number % 2 or not isinstance(changed, dict):
            if isinstance(changed, dict):
                changed = {**changed, "schema": 1}
                changed.pop("seal", None)
            path.write_text(json.dumps(changed))
        else:
            path.write_bytes(seal(changed))

    return run


def _bytes_changed(file: str, number: int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        path = folder / file
        tail = 2048 if file.endswith((".pth", ".keras")) else 0
        path.write_bytes(mutants.damage(path.read_bytes(), random.Random(f"{file} {number}"), tail=tail))

    return run


def _value_changed(file: str, number: int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        path = folder / file
        changed = mutants.other_json(json.loads(path.read_text()), random.Random(f"{file} {number}"))
        path.write_text(json.dumps(changed))

    return run


def _table_changed(number: int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        path = folder / "mine.toml"
        rng = random.Random(number)
        text = path.read_text()
        if number % 3:
            text = (MAPPINGS / rng.choice(TABLES)).read_text()
            text = 'dialect = "mine"\nfamily = "gemma"\n' + text.replace("family =", "# family =")
        path.write_text(mutants.other_toml(text, rng))

    return run
