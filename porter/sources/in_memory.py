"""Files in memory as a source: what a program has made, or what was taken out of an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from porter.errors import ChangedError, MalformedError
from porter.sources.base import FileInfo


class MemoryFile:
    """Bytes under a name."""

    def __init__(self, name: str, content: bytes | memoryview) -> None:
        self.name = name
        self.size = len(content)
        self._content = memoryview(content)

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            if offset < 0 or offset + len(view) > self.size:
                raise MalformedError(
                    f"{self.name} ends too early",
                    cause=f"expected {offset + len(view)} bytes, found {self.size}",
                )
            view[:] = self._content[offset : offset + len(view)]
            offset += len(view)

    def close(self) -> None:
        pass


class MemorySource:
    """`contents` by name. A content that is replaced in the mapping is a change, and is noticed."""

    near = True

    def __init__(self, contents: Mapping[str, bytes], label: str = "memory") -> None:
        self.label = label
        self._contents = contents
        self._recorded = {name: self._info(content) for name, content in contents.items()}

    @staticmethod
    def _info(content: bytes) -> FileInfo:
        digest = hashlib.sha256(content).hexdigest()
        return FileInfo(len(content), digest, digest)

    @property
    def version(self) -> str:
        return hashlib.sha256(repr(sorted(self._recorded.items())).encode()).hexdigest()

    def files(self) -> Mapping[str, FileInfo]:
        return dict(self._recorded)

    def open(self, file: str) -> MemoryFile:
        if file not in self._recorded:
            raise MalformedError(f"{file} is missing", cause=f"{self.label} does not hold it")
        self.check([file])
        return MemoryFile(file, self._contents[file])

    def check(self, files: Iterable[str]) -> None:
        for file in files:
            content = self._contents.get(file)
            if content is None or self._info(content) != self._recorded[file]:
                raise ChangedError(
                    f"{file} is not the file that was planned for",
                    cause="its content was replaced",
                    hint="nothing was published; plan again",
                )
