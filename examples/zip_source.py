"""A zip archive of a checkpoint directory as a source: nothing is unpacked.

    python examples/zip_source.py MODEL.zip OUT        converts it to LitGPT

Members have to be stored as they are (`zip -0 -r model.zip model/`): then a range of one is a range of the
archive. What porter asks of a source is in `porter/sources/base.py`; a `ZipSource` goes wherever the Python
functions take a path.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import porter
from porter.errors import ChangedError, MalformedError, UnsupportedError
from porter.sources.base import FileInfo
from porter.sources.local_files import LocalFile

# Bytes of a member's own header; the last four are the lengths of name and extra field, then come the data.
LOCAL_HEADER = 30


class ZipMember:
    """One stored member. It has no `fd`, since the archive's offsets are not the member's."""

    def __init__(self, archive: LocalFile, name: str, member: zipfile.ZipInfo) -> None:
        self.name, self.size = name, member.file_size
        self._archive = archive
        header = bytearray(LOCAL_HEADER)
        archive.read([memoryview(header)], member.header_offset)
        if header[:4] != b"PK\x03\x04":
            raise MalformedError(f"{name} is not where the archive's directory says")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        self._start = member.header_offset + LOCAL_HEADER + lengths

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        end = offset + sum(map(len, views))
        if offset < 0 or end > self.size:
            raise MalformedError(
                f"{self.name} ends too early", cause=f"expected {end} bytes, found {self.size}"
            )
        self._archive.read(views, self._start + offset)

    def close(self) -> None:
        self._archive.close()


class ZipSource:
    """The files of an archive, without the folder that holds them all, if there is one."""

    near = True

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.label = self._path.stem
        # What the archive was is recorded first, so that no change goes unnoticed.
        opened = LocalFile(self._path, self._path.name)
        opened.close()
        self._state = opened.state
        try:
            with zipfile.ZipFile(self._path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except zipfile.BadZipFile as error:
            raise MalformedError(f"{self._path.name} is no zip archive", cause=str(error)) from error
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise UnsupportedError(
                    f"{member.filename} is compressed or encrypted in {self._path.name}",
                    hint="zip -0 -r model.zip model/ stores files as they are",
                )
        tops = {member.filename.partition("/")[0] for member in members}
        one = len(tops) == 1 and all("/" in member.filename for member in members)
        prefix = f"{tops.pop()}/" if one else ""
        self._members = {member.filename.removeprefix(prefix): member for member in members}
        if len(self._members) < len(members):
            raise MalformedError(f"{self._path.name} holds two files of one name")

    @property
    def version(self) -> str:
        return self._state.version

    def files(self) -> Mapping[str, FileInfo]:
        return {
            name: FileInfo(member.file_size, None, f"{self.version}:{member.CRC:08x}")
            for name, member in self._members.items()
        }

    def open(self, file: str) -> ZipMember:
        if file not in self._members:
            raise MalformedError(f"{file} is missing", cause=f"{self.label} does not hold it")
        archive = LocalFile(self._path, self._path.name)
        try:
            self._check(archive, file)
            return ZipMember(archive, file, self._members[file])
        except BaseException:
            archive.close()
            raise

    def check(self, files: Iterable[str]) -> None:
        archive = LocalFile(self._path, self._path.name)
        archive.close()
        self._check(archive, self._path.name)

    def _check(self, archive: LocalFile, file: str) -> None:
        if archive.state != self._state:
            raise ChangedError(
                f"{file} is not the file that was planned for", cause="the archive has changed"
            )


if __name__ == "__main__":
    try:
        done = porter.convert(ZipSource(sys.argv[1]), sys.argv[2], to="litgpt")
    except porter.PorterError as error:
        sys.exit(f"error: {error}")
    print(done.out)
