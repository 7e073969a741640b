"""A GGUF model in several files: all parts, opened from any of them or from their directory.

Part n of m is called `NAME-0000n-of-0000m.gguf` and says so itself: `split.no` (from 0), `split.count` and
`split.tensors.count` (of all parts together). The first part holds the model's metadata, so it comes first.

Source: llama.cpp's `gguf-split` and `llama_split_path`; gguf-py's `SHARD_NAME_FORMAT` (0.19).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from porter.containers.base import Header
from porter.containers.gguf.gguf_header import read_header
from porter.errors import MalformedError, UnsupportedError
from porter.sources.paths import locate

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"

# What is said of a long list.
_SHOWN = 5


def read_file(root: Path, file: str) -> tuple[Header, ...]:
    """The header of a GGUF file, and those of all other parts where it is one.

    Raises MalformedError for parts that are missing, disagree, or hold another number of tensors than they
    say, UnsupportedError for a part whose name does not tell what the others are called.
    """
    header = read_header(locate(root, file), file)
    total = header.metadata.get(_COUNT, 1)
    if type(total) is not int or total <= 1:
        return (header,)
    named = _PART.fullmatch(file)
    if named is None or int(named["total"]) != total:
        raise UnsupportedError(
            f"{file} is one of {total} parts of a model, and its name does not tell the others'",
            cause=f"expected a name such as model-00001-of-{total:05d}.gguf",
            hint="name the parts so, in one directory, or join them: llama-gguf-split --merge (llama.cpp)",
        )
    names = [f"{named['stem']}-{number:05d}-of-{total:05d}.gguf" for number in range(1, total + 1)]
    if missing := [name for name in names if not (root / name).exists()]:
        raise MalformedError(
            f"{len(missing)} of the {total} parts of {named['stem']} are missing",
            cause=f"expected {', '.join(missing[:_SHOWN])} beside {file}",
            hint="download the model again, all of its parts",
        )
    headers = [header if name == file else read_header(locate(root, name), name) for name in names]
    _check(headers, total)
    return tuple(headers)


def read_directory(root: Path, names: Sequence[str]) -> tuple[Header, ...]:
    """The headers of the only model among a directory's GGUF files. Raises UnsupportedError for several."""
    named = [_PART.fullmatch(name) for name in names]
    models = {
        (part["stem"], part["total"]) if part else (name, "") for name, part in zip(names, named, strict=True)
    }
    if len(models) > 1:
        raise UnsupportedError(
            f"{root} holds {len(names)} GGUF files",
            cause=", ".join(names[:_SHOWN]),
            hint="name the file that you mean",
        )
    headers = read_file(root, names[0])
    if len(headers) != len(names):
        raise MalformedError(
            f"{root} holds parts of a model that do not say so",
            cause=f"{names[0]} says {_COUNT} = {headers[0].metadata.get(_COUNT)!r}, found {len(names)} files",
            hint="name the file that you mean",
        )
    return headers


def _check(headers: Sequence[Header], total: int) -> None:
    holders: dict[str, str] = {}
    for number, header in enumerate(headers):
        found = header.metadata.get(_NUMBER), header.metadata.get(_COUNT)
        if found != (number, total):
            raise _disagrees(header, f"{_NUMBER} = {number} and {_COUNT} = {total}", found)
        for tensor in header.tensors:
            if tensor.name in holders:
                raise _disagrees(header, f"{tensor.name!r} in one part", f"it in {holders[tensor.name]} too")
            holders[tensor.name] = header.file
    stated = headers[0].metadata.get(_TENSORS, len(holders))
    if stated != len(holders):
        raise _disagrees(headers[0], f"{stated} tensors in all parts ({_TENSORS})", len(holders))


def _disagrees(header: Header, expected: str, found: Any) -> MalformedError:
    return MalformedError(
        f"{header.file} does not fit the other parts",
        cause=f"expected {expected}, found {found}",
        hint="are all parts from one download?",
    )
