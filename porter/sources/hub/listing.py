"""The files of a repository as values: which of them a checkpoint needs, and whether all are here.

No network. By default one checkpoint's weights are chosen, in the order of `weight_files`; GGUF, Flax and
ONNX files only when they are asked for by pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from porter.errors import MalformedError, PorterError, UsageError
from porter.reading.json_text import INDEX, parse_json
from porter.reading.regular import read_regular
from porter.sources.choose_weights import Wanted, choose
from porter.sources.weight_files import (
    ADAPTERS,
    TEMPLATES,
    WeightSet,
    container_by_suffix,
    fits,
    weight_sets,
)
from porter.wording import option

# LitGPT's own besides Hugging Face's: without its model_config.yaml, its weights say too little.
_LITGPT_CONFIG = "model_config.yaml"
_CONFIGS = frozenset({"config.json", "generation_config.json", _LITGPT_CONFIG})
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
        "sentencepiece.bpe.model",
        "tekken.json",
        "chat_template.jinja",
        "chat_template.json",
    }
)
# What a Keras preset has besides, each read by KerasHub.
_PRESET = ("metadata.json", "preprocessor.json", "task.json", "assets/tokenizer/*")


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
            hint=f"{option('include')} and {option('exclude')} take shell patterns, such as '*.safetensors'",
        )
    for file in chosen:
        _check_path(file.name)
    return chosen


# Frameworks' weights that porter does not read, but a user may miss.
_FOREIGN = ("*.msgpack", "*.onnx", "*.tflite", "tf_model.h5")


def other_weights(files: Sequence[RepoFile], chosen: Sequence[RepoFile]) -> tuple[str, ...]:
    """The repository's weight files that are not among those to fetch."""
    taken = {file.name for file in chosen}
    return tuple(
        file.name
        for file in files
        if file.name not in taken
        and (container_by_suffix(file.name) is not None or fits(file.name.rpartition("/")[2], _FOREIGN))
    )


def weights(
    files: Iterable[RepoFile],
    *,
    keras: bool = False,
    wanted: Wanted | None = None,
    to_read: str | None = None,
) -> tuple[list[RepoFile], tuple[str, ...]]:
    """The weight files at the top of a repository that are read unasked, and their index if there is one;
    remarks on what was taken before what.

    Where nothing says which of several sets is meant, all of them are fetched. With `to_read`, a label of the
    repository, they are to be read, and UsageError is raised as it is for a directory.
    """
    top = {file.name: file for file in files if "/" not in file.name}
    sets = [item for item in weight_sets(top) if _unasked(item, keras)]
    if not sets:
        # An adapter alone can be downloaded, and whoever opens it is told what it is.
        return [file for name, file in top.items() if fits(name, ADAPTERS)], ()
    try:
        chosen, remarks = choose(sets, to_read or "the repository", wanted)
    except UsageError:
        if to_read is not None:
            raise
        kind = [item for item in sets if item.framework == sets[0].framework]
        names = [name for item in kind if item.container == sets[0].container for name in _names(item)]
        return [top[name] for name in dict.fromkeys(names)], ()
    return [top[name] for name in _names(chosen)], remarks


def _names(item: WeightSet) -> list[str]:
    return [*item.files, *([item.index] if item.index and item.index not in item.files else [])]


def _unasked(item: WeightSet, keras: bool) -> bool:
    if item.container == "hdf5":
        return item.name.endswith((".weights.h5", ".keras"))
    return not keras and item.container != "gguf"


def complete(directory: Path) -> bool:
    """Whether a directory holds a config and every weight file that its index or their numbers call for."""
    names = {path.name for path in directory.iterdir() if path.is_file()}
    sets = [item for item in weight_sets(names) if item.container == "gguf" or _unasked(item, False)]
    if not sets:
        return False
    first = sets[0]
    if first.container == "gguf":
        return not first.missing
    whole = not first.missing if first.index is None else _shards_present(directory, first.index)
    return whole and (first.name.endswith(".keras") or not names.isdisjoint(("config.json", _LITGPT_CONFIG)))


def _default(files: Sequence[RepoFile], keras: bool) -> list[RepoFile]:
    chosen, _ = weights(files, keras=keras)
    if not chosen and keras:
        raise UsageError(
            "the repository holds no Keras weights", cause=f"it holds {_some(file.name for file in files)}"
        )
    others = sorted(file.name for file in files if fits(file.name, ("*.gguf", "*.h5", "*.keras", *_FOREIGN)))
    if not chosen and others:
        raise UsageError(
            "the repository holds no weights of a kind that is fetched unasked",
            cause=f"it holds {_some(others)}",
            hint=option("include", others[0]),
        )
    small = [file for file in files if file.name in _CONFIGS | _TOKENIZER or _template(file.name)]
    if any(file.name.endswith((".h5", ".keras")) for file in chosen):
        small += [file for file in files if _matches(file.name, _PRESET)]
    return small + chosen


def _template(name: str) -> bool:
    return fnmatchcase(name, f"{TEMPLATES}/*.jinja")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, f"{p}*" if p.endswith("/") else p) for p in patterns)


def _shards_present(directory: Path, index: str) -> bool:
    try:
        text = read_regular(directory / index, index, INDEX.nbytes)
        homes = parse_json(text, index, INDEX)["weight_map"].values()
        # Keras may spread one group over several files.
        shards = {shard for home in homes for shard in (home if isinstance(home, list) else [home])}
        return all((directory / shard).is_file() for shard in shards)
    except (OSError, PorterError, ValueError, KeyError, TypeError, AttributeError):
        # Broken: whoever opens the checkpoint says how; here it only means that it is not complete.
        return False


def _check_path(name: str) -> None:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise MalformedError(
            f"unsafe file name {name!r} in the repository",
            cause="expected a plain relative path",
            hint=f"leave it out with {option('exclude')}",
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
