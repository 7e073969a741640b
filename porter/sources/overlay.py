"""A source some of whose files lie elsewhere on this machine: exported arrays, spooled tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from porter.sources.base import FileInfo, Source, SourceFile
from porter.sources.local_files import LocalFile


class OverlaySource:
    """`paths` by name come before what `base` holds under the same name."""

    def __init__(self, base: Source, paths: Mapping[str, Path], *, near: bool | None = None) -> None:
        self._base = base
        self._paths = dict(paths)
        self.label = base.label
        self.near = base.near if near is None else near

    @property
    def version(self) -> str:
        return self._base.version

    def files(self) -> Mapping[str, FileInfo]:
        own = {}
        for name, path in self._paths.items():
            found = path.stat()
            own[name] = FileInfo(found.st_size, None, f"{found.st_size}:{found.st_mtime_ns}")
        return {**self._base.files(), **own}

    def open(self, file: str) -> SourceFile:
        if file in self._paths:
            return LocalFile(self._paths[file], file)
        return self._base.open(file)

    def check(self, files: Iterable[str]) -> None:
        self._base.check([file for file in files if file not in self._paths])
