"""`make fuzz-bytes`, a part of `make fuzz`: each parser on damaged bytes for a while, held against the
format's own reader.

    python tests/hostile/fuzz.py [seconds each] [--engine mutation|atheris] [--only WORD] [--corpus DIR]

What porter accepts the other reader must read alike: names, shapes, dtypes, and for safetensors the bytes'
places. What porter refuses, it refuses by an error of its own. `atheris` follows the branches that porter's
code takes; `mutation` needs nothing. Inputs that found something new are kept in the corpus, and so are those
that failed. Ends with 1 if any did.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[2]))

import mutants
import seeds

# Inputs of earlier runs, by target, a few of each that took different ways; `make test` goes through them.
KEPT = Path(__file__).parent / "corpus"

# What runs here have found since.
CORPUS = Path(__file__).parents[2] / ".fuzz"


class Differs(AssertionError):
    """Another reader reads it otherwise, or not at all."""


def _here(content: bytes, name: str) -> Path:
    path = Path(os.environ["PORTER_FUZZ"]) / name
    path.write_bytes(content)
    return path


def safetensors(content: bytes) -> None:
    from safetensors import SafetensorError, deserialize

    from porter.containers.safetensors.safetensors_header import parse_header

    header = parse_header(content, len(content), "w")
    try:
        theirs = dict(deserialize(content))
    except SafetensorError as error:
        raise Differs(f"safetensors: {error}") from None
    ours = {
        t.name: (t.dtype.name, list(t.shape), content[t.offset : t.offset + t.nbytes]) for t in header.tensors
    }
    found = {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in theirs.items()}
    if ours != found:
        raise Differs("safetensors reads other tensors")


def torch_file(content: bytes) -> None:
    import torch

    from porter.containers.torch.torch_zip import read_header

    path = _here(content, "m.pth")
    header = read_header(path, "m.pth")
    try:
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        # Names that porter passes over, torch refuses; and it checks what no tensor needs.
        if "Unsupported" in str(error) or "weights_only" in str(error) or not header.tensors:
            return
        raise Differs(f"torch: {type(error).__name__}: {str(error)[:300]}") from None
    found = dict(_tensors(loaded))
    for tensor in header.tensors:
        value = found.get(tensor.name)
        if value is None:
            # The names of a state dict of one model in parallel are told without what is before all of them.
            if tensor.name in str(list(found)):
                continue
            raise Differs(f"torch has no {tensor.name}")
        if tuple(value.shape) != tensor.shape or str(value.dtype) != f"torch.{tensor.dtype.torch}":
            raise Differs(f"torch reads {tensor.name} as {value.dtype} {tuple(value.shape)}, porter {tensor}")
        data = content[tensor.offset : tensor.offset + tensor.nbytes]
        if value.is_contiguous() and value.reshape(-1).view(torch.uint8).numpy().tobytes() != data:
            raise Differs(f"torch reads other bytes of {tensor.name}")


def pickle(content: bytes) -> None:
    """`content` as the pickle of the sound file: its checksum, which damage to a zip breaks, is right."""
    import zipfile

    whole = io.BytesIO()
    sound = Path(os.environ["PORTER_FUZZ_PTH"]) / "lit_model.pth"
    with zipfile.ZipFile(sound) as there, zipfile.ZipFile(whole, "w") as made:
        for entry in there.infolist():
            made.writestr(entry, content if entry.filename.endswith("data.pkl") else there.read(entry))
    torch_file(whole.getvalue())


def _pickle_of(seed: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(seed / "lit_model.pth") as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _tensors(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, torch.Tensor):
                yield key, item
            else:
                yield from _tensors(item)


def gguf(content: bytes) -> None:
    import gguf as peer

    from porter.containers.gguf.gguf_header import read_header

    path = _here(content, "m.gguf")
    header = read_header(path, "m.gguf")
    for value in header.metadata.values():
        if not isinstance(value, str | bool | int | float):
            list(value)
    try:
        reader = peer.GGUFReader(path)
    except Exception as error:
        # Names that its table of types lacks, alignments that it reads as keys of other types.
        if isinstance(error, ValueError | KeyError) and "GGMLQuantizationType" in str(error):
            return
        raise Differs(f"gguf-py: {type(error).__name__} {str(error)[:300]}") from None
    ours = {t.name: (t.shape, t.offset, t.nbytes) for t in header.tensors}
    theirs = {
        t.name: (tuple(int(dim) for dim in t.shape[::-1]), int(t.data_offset), int(t.n_bytes))
        for t in reader.tensors
    }
    if ours != theirs:
        raise Differs(f"gguf-py reads {theirs}, porter {ours}")


def hdf5(content: bytes) -> None:
    import h5py

    from porter.containers.keras.hdf5 import read_header

    path = _here(content, "m.weights.h5")
    header = read_header(path, "m.weights.h5")
    with h5py.File(path, "r") as opened:
        for tensor in header.tensors:
            if tuple(opened[tensor.name].shape) != tensor.shape:
                raise Differs(f"h5py reads {tensor.name} as {opened[tensor.name].shape}")
            if tensor.file == "m.weights.h5" and opened[tensor.name].dtype.kind == "f":
                data = opened[tensor.name][()].tobytes()
                if data != content[tensor.offset : tensor.offset + tensor.nbytes]:
                    raise Differs(f"h5py reads other bytes of {tensor.name}")


def _orbax(file: str, content: bytes) -> None:
    import porter

    folder = Path(os.environ["PORTER_FUZZ_FLAX"])
    sound = (folder / file).read_bytes()
    try:
        (folder / file).write_bytes(content)
        porter.inspect(folder)
    finally:
        (folder / file).write_bytes(sound)


def zarray(content: bytes) -> None:
    _orbax("transformer/final_norm.scale/.zarray", content)


def tree(content: bytes) -> None:
    _orbax("_METADATA", content)


def config(content: bytes) -> None:
    import porter

    folder = Path(os.environ["PORTER_FUZZ_HF"])
    (folder / "config.json").write_bytes(content)
    plan = porter.plan(folder, to="litgpt")
    # Whatever porter takes for a config, Python's parser does, to the same sizes.
    stated = json.loads(content)
    for ours, theirs in {"n_layer": "num_hidden_layers", "d_model": "hidden_size"}.items():
        if theirs in stated and plan.hyperparameters.get(ours, stated[theirs]) != stated[theirs]:
            raise Differs(f"{theirs} is {stated[theirs]!r}, and to porter {plan.hyperparameters[ours]!r}")


def yaml_config(content: bytes) -> None:
    import yaml

    from porter.reading.yaml_text import parse_yaml

    ours = parse_yaml(content, "c")
    theirs = yaml.safe_load(content)
    if repr(ours) != repr(theirs):
        raise Differs(f"PyYAML reads {theirs!r:.200}, porter {ours!r:.200}")


def table(content: bytes) -> None:
    from porter.tables.catalogue import load_user_table

    load_user_table(_here(content, "mine.toml"))


def tokenizer(content: bytes) -> None:
    from porter.tokenizers.choose import tokenizer_files

    path = _here(content, "tokenizer.json")
    tokenizer_files({"tokenizer.json": path}, metadata=None, target="litgpt", vocab_size=seeds.VOCAB)


def sentencepiece(content: bytes) -> None:
    from porter.tokenizers.spm_model import model_facts

    model_facts(_here(content, "tokenizer.model"), "tokenizer.model")


# Each target: what it reads, the seed and the file that it starts from, and how much of its end counts.
TARGETS: dict[str, tuple[Callable[[bytes], None], str, str | Callable[[Path], bytes], int]] = {
    "safetensors": (safetensors, "hf", "model.safetensors", 0),
    "torch": (torch_file, "pth", "lit_model.pth", 2_048),
    "pickle": (pickle, "pth", _pickle_of, 0),
    "gguf": (gguf, "gguf", "model.gguf", 0),
    "hdf5": (hdf5, "keras", "model.weights.h5", 0),
    "orbax": (zarray, "flax", "transformer/final_norm.scale/.zarray", 0),
    "tree": (tree, "flax", "_METADATA", 0),
    "config": (config, "hf", "config.json", 0),
    "yaml": (yaml_config, "litgpt", "model_config.yaml", 0),
    "table": (table, "table", "mine.toml", 0),
    "tokenizer": (tokenizer, "hf", "tokenizer.json", 0),
    "sentencepiece": (sentencepiece, "litgpt", "tokenizer.model", 0),
}


def place(folder: Path, made: dict[str, Path]) -> None:
    """Say where inputs are written, and where the checkpoints are that some belong to."""
    os.environ["PORTER_FUZZ"] = str(folder)
    for name in ("flax", "hf", "pth"):
        os.environ[f"PORTER_FUZZ_{name.upper()}"] = str(made[name])


def start_of(name: str, seed: Path) -> bytes:
    """What the target's damage begins with."""
    file = TARGETS[name][2]
    return (seed / file).read_bytes() if isinstance(file, str) else file(seed)


def outcome(read: Callable[[bytes], None], content: bytes, most: float = 2) -> str:
    """What came of it: accepted, refused, or a failure by its words. `most` are seconds of processor time."""
    from porter.errors import PorterError, UnforeseenError

    began = time.process_time()
    try:
        read(content)
        result = "accepted"
    except UnforeseenError as error:
        result = f"failed: unforeseen: {error}"
    except PorterError:
        result = "refused"
    except Differs as error:
        result = f"failed: {error}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        result = f"failed: {type(error).__name__}: {error} at {Path(place.filename).name}:{place.lineno}"
    if time.process_time() - began > most:
        result = f"failed: {result} after {time.process_time() - began:.1f} s"
    return result


def mutate(name: str, seed: Path, seconds: float, corpus: Path) -> Counter[str]:
    """Damage the seed, and what was kept, for as long as that; what fails is kept."""
    read, _, _, tail = TARGETS[name]
    kept = [start_of(name, seed)]
    for folder in (KEPT / name, corpus / name):
        kept += [path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()]
    before = len(kept)
    counts: Counter[str] = Counter()
    for content in kept:
        counts[outcome(read, content)[:150]] += 1
    rng = random.Random(f"{name} {len(kept)}")
    said: set[str] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = mutants.damage(rng.choice(kept), rng, tail=tail)[: 1 << 20]
        result = outcome(read, content)
        counts[result[:150]] += 1
        # What is still read after it was damaged is damaged further.
        if result == "accepted" and len(kept) < 200:
            kept.append(content)
        if result.startswith("failed") and result[:60] not in said:
            said.add(result[:60])
            keep(corpus / name, content)
            print(f"{name}: {result[:400]}", flush=True)
    for content in kept[before : before + 40]:
        keep(corpus / name, content)
    return counts


def keep(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def follow(name: str, seed: Path, seconds: float, corpus: Path) -> None:
    """Let atheris (libFuzzer) choose the damage; never returns, for it ends the process."""
    import atheris

    read = TARGETS[name][0]
    sound = start_of(name, seed)
    # What a reader imports only when it is used is followed too; the first time takes long for that.
    with atheris.instrument_imports(include=["porter"]):
        outcome(read, sound)
    assert outcome(read, sound) == "accepted", outcome(read, sound)

    def once(content: bytes) -> None:
        result = outcome(read, content)
        if result.startswith("failed"):
            keep(corpus / name, content)
            raise RuntimeError(f"{name}: {result[:400]}")

    keep(corpus / name, sound)
    longest = max(1 << 16, 2 * len(sound))
    options = [f"-max_total_time={int(seconds)}", f"-max_len={longest}", "-timeout=10", "-rss_limit_mb=3000"]
    artifacts = f"-artifact_prefix={corpus / name}/crash-"
    # The first folder is written to.
    folders = [str(folder / name) for folder in (corpus, KEPT) if (folder / name).is_dir()]
    atheris.Setup([sys.argv[0], *options, artifacts, *folders], once)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=10)
    parser.add_argument("--engine", choices=("mutation", "atheris"), default="mutation")
    parser.add_argument("--only", default="")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.follow:
        follow(asked.follow, asked.seed, asked.seconds, asked.corpus)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="porter-fuzz-") as folder:
        made = seeds.make_all(Path(folder) / "seeds")
        place(Path(folder), made)
        for name in (name for name in TARGETS if asked.only in name):
            seed = made[TARGETS[name][1]]
            if asked.engine == "mutation":
                counts = mutate(name, seed, asked.seconds, asked.corpus)
                wrong = sum(count for result, count in counts.items() if result.startswith("failed"))
                good = {result: counts[result] for result in ("accepted", "refused")}
                print(f"{name:14} {counts.total():8,} inputs, {good}, {wrong} failed", flush=True)
                failed += bool(wrong)
            else:
                failed += bool(_followed(name, seed, asked.seconds, asked.corpus))
    return 1 if failed else 0


def _followed(name: str, seed: Path, seconds: float, corpus: Path) -> int:
    """Each target in a process of its own, since atheris ends it."""
    command = [sys.executable, __file__, str(seconds), "--follow", name, "--seed", seed, "--corpus", corpus]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, errors="replace")
    lines = done.stderr.splitlines()
    runs = next((line for line in lines[::-1] if line.startswith("Done")), "stopped")
    ways = next((line for line in lines[::-1] if " cov: " in line), "")
    print(f"{name:14} {runs[:100]}; {ways.split('exec/s')[0][:80]}; exit {done.returncode}", flush=True)
    if done.returncode:
        # What was raised is on stdout, what libFuzzer says of it on stderr.
        print("\n".join([*done.stdout.splitlines()[-30:], *lines[-8:]]), flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
