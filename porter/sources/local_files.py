"""A directory on this machine as a source.

A file is known by its device, inode, size and two times, in nanoseconds: an overwrite in place, a rename of
another file over it, a truncation and a rewrite all change one of them. The times of a write that comes
within the clock's tick of the record (a few milliseconds) and keeps the size cannot be told from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from porter.errors import ChangedError, MalformedError, UsageError
from porter.reading.regular import open_descriptor
from porter.sources.base import FileInfo
from porter.sources.paths import locate
from porter.system import read_into

# Levels of folders in which files are recorded; what lies deeper is recorded when it is first asked for.
_DEEPEST = 64


class FileState(NamedTuple):
    """What a file's content is known by. Times are in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @property
    def version(self) -> str:
        return ":".join(map(str, self))


class LocalFile:
    """A regular file, open for reading. Raises MalformedError if it is missing, or is no regular file."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.fd = open_descriptor(path, name)
        found = os.fstat(self.fd)
        self.state = FileState.of(found)
        self.size = found.st_size

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        views = unfilled(views, 0)
        while views:
            count = read_into(self.fd, views, offset)
            if count == 0:
                raise MalformedError(
                    f"{self.name} was cut short while it was read",
                    cause=f"expected {self.size} bytes, found {offset}",
                )
            offset += count
            views = unfilled(views, count)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def unfilled(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """What is left of `views` after their first `count` bytes; none of it is empty."""
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *(later for later in views[number + 1 :] if len(later))]
        count -= len(view)
    return []


class LocalSource:
    """The files below `root`. `only` records nothing but that file and what stands beside it."""

    near = True

    def __init__(self, root: Path, label: str = "", *, only: str | None = None) -> None:
        self.root = root
        self.label = label or root.name
        self._recorded: dict[str, FileState] = {}
        self._elsewhere = False
        try:
            self._walk(root, "", _DEEPEST if only is None else 0)
        except OSError as error:
            raise UsageError(f"{root} cannot be listed", cause=error.strerror) from error

    def __getstate__(self) -> dict[str, Any]:
        """For another process, perhaps on a machine to which a shared file system is another device."""
        return {**vars(self), "root": self.root.absolute(), "_elsewhere": True}

    def _is_recorded(self, recorded: FileState, found: FileState) -> bool:
        return found == (recorded._replace(device=found.device) if self._elsewhere else recorded)

    def _walk(self, directory: Path, prefix: str, levels: int) -> None:
        """Records what is there now, before anything is read, in so many levels of folders."""
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        self._recorded[prefix + entry.name] = FileState.of(entry.stat())
                    elif levels and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        self._walk(Path(entry.path), f"{prefix}{entry.name}/", levels - 1)
                except OSError:
                    # What cannot be looked at is refused when it is opened.
                    continue

    @property
    def version(self) -> str:
        return ""

    def files(self) -> Mapping[str, FileInfo]:
        return {name: FileInfo(state.size, None, state.version) for name, state in self._recorded.items()}

    def state(self, file: str) -> FileState:
        """What was recorded of a file; one that was not looked at yet is recorded now."""
        if file not in self._recorded:
            try:
                self._recorded[file] = FileState.of(self.path(file).stat())
            except FileNotFoundError:
                raise MalformedError(f"{file} is missing", cause=f"expected a file in {self.root}") from None
        return self._recorded[file]

    def path(self, file: str) -> Path:
        """The real path of a file, inside the checkpoint."""
        return locate(self.root, file)

    def open(self, file: str) -> LocalFile:
        recorded = self.state(file)
        opened = LocalFile(self.path(file), file)
        if not self._is_recorded(recorded, opened.state):
            opened.close()
            raise _changed(file, recorded, opened.state)
        return opened

    def check(self, files: Iterable[str]) -> None:
        for file in files:
            recorded = self.state(file)
            try:
                found = FileState.of(self.path(file).stat())
            except FileNotFoundError:
                raise ChangedError(
                    f"{file} was removed while it was read",
                    cause="nothing was published",
                    hint="run it again when the source is at rest",
                ) from None
            if not self._is_recorded(recorded, found):
                raise _changed(file, recorded, found)


def _changed(file: str, recorded: FileState, found: FileState) -> ChangedError:
    names = ("device", "inode", "size", "time of modification", "time of change")
    what = next(name for name, one, two in zip(names, recorded, found, strict=True) if one != two)
    values = f": {recorded.size} bytes, now {found.size}" if what == "size" else ""
    return ChangedError(
        f"{file} is not the file that was planned for",
        cause=f"its {what} has changed{values}",
        hint="nothing was published; run it again when the source is at rest",
    )
