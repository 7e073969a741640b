"""The files of a repository as values: which of them a checkpoint needs, and whether all are here.

No network. By default one kind of weights is chosen, safetensors before `.bin` before `.pth` and `.ckpt`
before Keras'; GGUF, Flax and ONNX files only when they are asked for by pattern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from porter.errors import MalformedError, UsageError

_CONFIGS = frozenset({"config.json", "generation_config.json"})
_TOKENIZER = frozenset(
    {
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "chat_template.jinja",
        "chat_template.json",
    }
)
# What a Keras preset has besides, each read by KerasHub.
_PRESET = ("metadata.json", "preprocessor.json", "task.json", "assets/tokenizer/*")
_KERAS = (
    # A preset's weights; beside them there may be those of a task, which hold the same and more.
    re.compile(r"model(_\d{5})?\.weights\.h5"),
    re.compile(r".+\.(weights\.h5|keras)"),
)
_KERAS_INDEX = "model.weights.json"
# In order of preference; one entry's files replace all later ones.
_WEIGHTS = (
    # The names that transformers writes; a repository may hold other safetensors with the same weights.
    re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors"),
    re.compile(r".+\.safetensors"),
    re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin"),
    re.compile(r".+\.(pth|pt|ckpt)"),
    *_KERAS,
)
_INDEXES = {".safetensors": ".safetensors.index.json", ".bin": ".bin.index.json"}
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")


@dataclass(frozen=True)
class RepoFile:
    """`size` in bytes; `sha256` of the content for large files, else `blob_id`, git's SHA-1 of it."""

    name: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None

    @property
    def etag(self) -> str | None:
        """What the Hub's cache calls the file's content."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class RepoListing:
    """A repository at one commit. `gated` says that its files need an accepted licence."""

    repo: str
    commit: str
    files: tuple[RepoFile, ...]
    gated: bool = False

    def file(self, name: str) -> RepoFile | None:
        return next((file for file in self.files if file.name == name), None)


def select(
    files: Sequence[RepoFile],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    keras: bool = False,
) -> tuple[RepoFile, ...]:
    """The files to fetch: those that `include` matches, else what a checkpoint needs; less `exclude`.

    With `keras`, a checkpoint's weights are Keras' and no others.
    Patterns are shell patterns on the whole path; `*` crosses slashes, a trailing slash means all below.
    Raises UsageError if nothing is left, MalformedError for a path that would lead out of the checkpoint.
    """
    wanted = [file for file in files if _matches(file.name, include)] if include else _default(files, keras)
    chosen = tuple(file for file in wanted if not _matches(file.name, exclude))
    if not chosen:
        raise UsageError(
            "no file is left to download",
            cause=f"of {len(files)} files none matches the patterns: {_some(file.name for file in files)}",
            hint="--include and --exclude take shell patterns, such as '*.safetensors'",
        )
    for file in chosen:
        _check_path(file.name)
    return chosen


def weights(files: Iterable[RepoFile], *, keras: bool = False) -> list[RepoFile]:
    """The weight files of the preferred kind at the top of a repository, and their index if there is one."""
    top = [file for file in files if "/" not in file.name]
    for pattern in _KERAS if keras else _WEIGHTS:
        if found := [file for file in top if pattern.fullmatch(file.name)]:
            if pattern in _KERAS:
                return found + [file for file in top if file.name == _KERAS_INDEX]
            suffix = _INDEXES.get(PurePosixPath(found[0].name).suffix)
            stems = {_stem(file.name) for file in found}
            indexes = [
                file
                for file in top
                if suffix and file.name.endswith(suffix) and file.name.removesuffix(suffix) in stems
            ]
            return found + indexes
    return []


def complete(directory: Path) -> bool:
    """Whether a directory holds a config and every weight file that its index or their numbers call for."""
    names = {path.name for path in directory.iterdir() if path.is_file()}
    for suffix, pattern in ((".safetensors", _WEIGHTS[1]), (".bin", _WEIGHTS[2])):
        indexes = [name for name in names if name.endswith(_INDEXES[suffix])]
        found = [name for name in names if pattern.fullmatch(name)]
        if indexes or found:
            whole = all(_shards_present(directory, index) for index in indexes) and _numbers_complete(found)
            return whole and "config.json" in names
    if any(name.endswith(".gguf") for name in names):
        return True
    if "config.json" not in names:
        return any(name.endswith(".keras") for name in names)
    if _KERAS_INDEX in names and not any(_WEIGHTS[3].fullmatch(name) for name in names):
        return _shards_present(directory, _KERAS_INDEX)
    return any(pattern.fullmatch(name) for pattern in _WEIGHTS[3:] for name in names)


def _default(files: Sequence[RepoFile], keras: bool) -> list[RepoFile]:
    chosen = weights(files, keras=keras)
    if not chosen and keras:
        raise UsageError(
            "the repository holds no Keras weights", cause=f"it holds {_some(file.name for file in files)}"
        )
    others = sorted(
        file.name for file in files if file.name.endswith((".gguf", ".h5", ".keras", ".msgpack", ".onnx"))
    )
    if not chosen and others:
        raise UsageError(
            "the repository holds no weights of a kind that is fetched unasked",
            cause=f"it holds {_some(others)}",
            hint=f"--include {others[0]!r}",
        )
    small = [file for file in files if file.name in _CONFIGS | _TOKENIZER or _template(file.name)]
    if any(file.name.endswith((".h5", ".keras")) for file in chosen):
        small += [file for file in files if _matches(file.name, _PRESET)]
    return small + chosen


def _template(name: str) -> bool:
    return fnmatchcase(name, "additional_chat_templates/*.jinja")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, f"{p}*" if p.endswith("/") else p) for p in patterns)


def _stem(name: str) -> str:
    shard = _NUMBERED.fullmatch(name)
    return shard["stem"] if shard else PurePosixPath(name).stem


def _shards_present(directory: Path, index: str) -> bool:
    try:
        homes = json.loads((directory / index).read_bytes())["weight_map"].values()
        # Keras may spread one group over several files.
        shards = {shard for home in homes for shard in (home if isinstance(home, list) else [home])}
        return all((directory / shard).is_file() for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Broken: whoever opens the checkpoint says how; here it only means that it is not complete.
        return False


def _numbers_complete(names: list[str]) -> bool:
    sets: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if shard := _NUMBERED.fullmatch(name):
            sets.setdefault((shard["stem"], int(shard["total"])), set()).add(int(shard["number"]))
    return all(numbers == set(range(1, total + 1)) for (_, total), numbers in sets.items())


def _check_path(name: str) -> None:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise MalformedError(
            f"unsafe file name {name!r} in the repository",
            cause="expected a plain relative path",
            hint="leave it out with --exclude",
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
