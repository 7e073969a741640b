"""The files of a source that a run reads: each opened when it is first needed, all closed at the end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType

from porter.errors import ChangedError
from porter.sources.base import Source, SourceFile


class OpenFiles(Mapping[str, SourceFile]):
    """Files by name, from any thread. Use it as a context. `sizes` are what the plan was made for.

    Raises MalformedError for a file that is missing, ChangedError for one of another size.
    """

    def __init__(self, source: Source, sizes: Mapping[str, int]) -> None:
        self.source = source
        self._sizes = sizes
        self._open: dict[str, SourceFile] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> SourceFile:
        found = self._open.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opened(name)
            return self._open[name]

    def _opened(self, name: str) -> SourceFile:
        file = self.source.open(name)
        if name in self._sizes and file.size != self._sizes[name]:
            file.close()
            raise ChangedError(
                f"{name} is not the file that was planned for",
                cause=f"expected a regular file of {self._sizes[name]} bytes, found {file.size}",
                hint="plan again; the file changed in between",
            )
        return file

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
