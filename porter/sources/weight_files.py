"""Which files of a folder are the checkpoint, told by their names alone: near, on the Hub, in its cache.

A folder may hold several checkpoints. `weight_sets` lists them in the order in which they are preferred: as
transformers looks for them (model.safetensors, its index, pytorch_model.bin, its index), then LitGPT's, then
all others.

Sources: `_get_resolved_checkpoint_files` in transformers' `modeling_utils.py` (5.24), LitGPT's
`extend_checkpoint_dir` and `convert_hf_checkpoint.py` (0.5.13; before 0.5.5 it saved downloads as `.bin`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from porter.errors import UsageError

TORCH = (".pth", ".bin", ".pt", ".ckpt")
KERAS = (".weights.h5", ".keras", ".h5")
_SUFFIXES = {
    ".safetensors": "safetensors",
    **dict.fromkeys(TORCH, "torch"),
    ".gguf": "gguf",
    **dict.fromkeys(KERAS, "hdf5"),
}

INDEX = ".index.json"
KERAS_INDEX = "model.weights.json"

# What trainers put beside the weights, in torch's format too.
_NO_WEIGHTS = (
    *("training_args.bin", "optimizer*", "scheduler*", "rng_state*", "random_states*", "scaler*"),
    # DeepSpeed's parts of an optimizer, and of a model under ZeRO-3.
    *("*optim_states.pt", "zero_pp_rank_*"),
)
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin", "lit_model.pth.lora", "*.lora.h5")

# The folder that transformers keeps chat templates in, beside the default one, that have names.
TEMPLATES = "additional_chat_templates"

# What people read, and what tools keep for themselves.
DOCUMENTS = ("README*", "LICENSE*", "NOTICE*", "USE_POLICY*", "*.md", ".*")

# An adapter to vision models that llama.cpp keeps in a file of its own.
_PROJECTOR = "mmproj*"

HF, LITGPT = "hf", "litgpt"
_ORDER = (
    ("model.safetensors", HF),
    ("pytorch_model.bin", HF),
    ("lit_model.pth", LITGPT),
    ("lit_model.safetensors", LITGPT),
)

# After those that have names of their own.
_KINDS = ("safetensors", "gguf", "hdf5", "orbax", "torch")

_OF = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<of>[-_]?of[-_]?)(?P<total>\d+)(?P<after>.*)")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class WeightSet:
    """Weight files that make one checkpoint. `name` is what they would be called as one file.

    Where there is an `index`, it decides, and `files` are those that go with it by their names. `framework`
    is hf or litgpt where a framework looks for this name. `missing` are the shards that their numbers call
    for and that are not there. `counted` says that the files are taken for shards by their numbers alone,
    which do not say how many there are.
    """

    name: str
    container: str
    files: tuple[str, ...]
    index: str | None = None
    framework: str | None = None
    missing: tuple[str, ...] = ()
    counted: bool = False

    @property
    def unlisted(self) -> bool:
        """Whether these are shards that no index lists."""
        return self.index is None and self.name not in self.files

    @property
    def handle(self) -> str:
        """The file by which the set is named on a command line."""
        if self.index:
            return self.index
        return self.files[0] + (", …" if len(self.files) > 1 else "") if self.files else self.name


def weight_sets(names: Iterable[str]) -> tuple[WeightSet, ...]:
    """The checkpoints in a folder that holds the files `names`, the preferred first."""
    top = sorted(name for name in names if "/" not in name and not name.startswith("."))
    files = [name for name in top if _holds_weights(name)]
    found: list[WeightSet] = []
    indexes = [name for name in top if name.endswith((".safetensors" + INDEX, ".bin" + INDEX))]
    for index in indexes:
        found.append(_indexed(index, files))
    indexed = {file for item in found for file in item.files}
    singles = [file for file in files if _numbered(file) is None]
    loose = [file for file in files if file not in indexed and file not in singles]
    if keras := _keras_sets(top):
        found += keras
        indexed |= {*keras[0].files, "task.weights.h5"}
    found += _numbered_sets([file for file in loose if file not in indexed])
    singles = [file for file in singles if file not in indexed]
    parts = _counted_sets(singles)
    found += parts
    counted = {file for item in parts for file in item.files}
    found += _plain_sets([file for file in singles if file not in counted])
    # An index without any file of its own was left behind, unless there is nothing else.
    kept = [item for item in found if item.files] or found
    return tuple(sorted(kept, key=rank))


def numbered_set(file: str, names: Iterable[str]) -> WeightSet:
    """The set that a shard's name belongs to; of the file alone where it is none."""
    for item in _numbered_sets([name for name in names if _numbered(name) is not None]):
        if file in item.files:
            return item
    return WeightSet(file, container_by_suffix(file) or "", (file,))


def learn_suffixes(container: str, suffixes: Sequence[str]) -> None:
    """From now on files with these suffixes may be of `container`. UsageError for one that is taken."""
    for suffix in suffixes:
        # A longer suffix that ends in a known one would be found as that.
        taken = container_by_suffix(suffix) or next((old for old in _SUFFIXES if old.endswith(suffix)), None)
        if taken is not None and _SUFFIXES.get(suffix) != container:
            raise UsageError(
                f"files that end in {suffix} cannot be {container}", cause=f"{taken} has that suffix"
            )
    _SUFFIXES.update(dict.fromkeys(suffixes, container))


def container_by_suffix(name: str) -> str | None:
    """The container that a file's suffix says, if any."""
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def at_top(name: str) -> str:
    """A file's first folder, with its slash; the file's own name where it lies in none."""
    folder, slash, _ = name.partition("/")
    return folder + slash


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _holds_weights(name: str) -> bool:
    return container_by_suffix(name) is not None and not fits(name, (*_NO_WEIGHTS, *ADAPTERS))


def _indexed(index: str, files: Sequence[str]) -> WeightSet:
    whole = index.removesuffix(INDEX)
    stem, _, suffix = whole.rpartition(".")
    shards = [file for file in files if _stem(file) == (stem, f".{suffix}")]
    framework = dict(_ORDER).get(whole)
    if not shards and suffix == "safetensors":
        # LitGPT's downloads before 0.5.5: the index came along, the shards were saved anew as `.bin`.
        saved = tuple(file for file in files if _stem(file) == (stem, ".bin"))
        if saved:
            return WeightSet(f"{stem}.bin", "torch", saved, index, "litgpt's download")
    return WeightSet(whole, _SUFFIXES[f".{suffix}"], tuple(shards), index, framework)


def _stem(file: str) -> tuple[str, str] | None:
    """What stands before a shard's number, and the suffix behind it."""
    found = _OF.fullmatch(file)
    return (found["before"].rstrip("-_."), found["after"]) if found else None


def _keras_sets(top: Sequence[str]) -> list[WeightSet]:
    """A preset's weights; beside them there may be those of a task, which hold the same and more."""
    if "model.weights.h5" in top:
        return [WeightSet("model.weights.h5", "hdf5", ("model.weights.h5",))]
    if KERAS_INDEX in top:
        parts = tuple(name for name in top if re.fullmatch(r"model_\d{5}\.weights\.h5", name))
        return [WeightSet("model.weights.h5", "hdf5", parts or (KERAS_INDEX,), KERAS_INDEX)]
    return []


def _plain_sets(files: Sequence[str]) -> list[WeightSet]:
    sets = []
    for file in files:
        container = _SUFFIXES[next(suffix for suffix in _SUFFIXES if file.endswith(suffix))]
        sets.append(WeightSet(file, container, (file,), framework=dict(_ORDER).get(file)))
    return sets


def _numbered(file: str) -> str | None:
    """A shard's name with its numbers left out; None for a file that bears the name of a whole one."""
    if file in dict(_ORDER):
        return None
    if found := _OF.fullmatch(file):
        return f"{found['before']}#{found['of']}{found['total']}{found['after']}"
    return None


def _numbered_sets(files: Sequence[str]) -> list[WeightSet]:
    """Shards that say their number and how many there are, numbered from 0 or from 1."""
    groups: dict[str, list[str]] = {}
    for file in files:
        template = _numbered(file)
        assert template is not None
        groups.setdefault(template, []).append(file)
    sets = []
    for members in groups.values():
        found = [_OF.fullmatch(file) for file in members]
        numbers = [int(shard["number"]) for shard in found if shard]
        shape = found[0]
        assert shape is not None
        total, first = int(shape["total"]), 0 if 0 in numbers else 1
        wide = len(shape["number"])
        expected = [
            f"{shape['before']}{number:0{wide}d}{shape['of']}{shape['total']}{shape['after']}"
            for number in range(first, first + total)
        ]
        missing = tuple(name for name in expected if name not in members)
        container = container_by_suffix(members[0]) or ""
        whole = f"{shape['before'].rstrip('-_.')}{shape['after']}"
        sets.append(
            WeightSet(whole, container, tuple(members), None, dict(_ORDER).get(whole), missing=missing)
        )
    return sets


def _counted_sets(files: Sequence[str]) -> list[WeightSet]:
    """Shards that are numbered and do not say how many there are, such as torchtune's `hf_model_0001_0.pt`.

    One number counts from 0 or 1 without a gap, and all else is the same.
    """
    groups: dict[str, list[str]] = {}
    for file in files:
        if file.endswith((".safetensors", *TORCH)) and file not in dict(_ORDER):
            groups.setdefault(_DIGITS.sub("#", file), []).append(file)
    sets = []
    for members in groups.values():
        columns = list(zip(*(map(int, _DIGITS.findall(file)) for file in members), strict=True))
        moving = [column for column in columns if len(set(column)) > 1]
        if len(moving) != 1 or sorted(moving[0])[0] not in (0, 1):
            continue
        numbers = sorted(moving[0])
        if numbers == list(range(numbers[0], numbers[0] + len(members))):
            container = container_by_suffix(members[0]) or ""
            sets.append(WeightSet(_DIGITS.sub("*", members[0]), container, tuple(members), counted=True))
    return sets


def rank(item: WeightSet) -> tuple[int, int, int, str]:
    named = [name for name, _ in _ORDER]
    if item.name in named:
        # A whole file comes before an index, and an index before shards that none lists.
        form = 2 if item.unlisted else 1 if item.index else 0
        return named.index(item.name), form, 0, item.name
    kind = _KINDS.index(item.container) if item.container in _KINDS else len(_KINDS)
    return len(named) + kind, 2 if fits(item.name, (_PROJECTOR,)) else 0 if item.index else 1, 0, item.name
