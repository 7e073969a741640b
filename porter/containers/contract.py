"""The contract of a container: how tensors lie in files of one format, read and, for some, written.

A container is one value of `Container`, listed in `porter.containers.registry`; `register` there adds one
while a program runs. Nothing else in porter knows its name, besides the tables of the dialects that are
stored in it.

Reading. `recognise` is asked with the first `START` bytes of a file and answers by content; it claims what
is broken too, so that the reader can say what is wrong, and never a file of another container. `read` is
given a directory, names of files in it (checked: no link leads out of it) and perhaps the name of one state
dict, and returns a `Header` a file: every tensor with its dtype, shape, file and offset. It reads headers,
no weight, and raises MalformedError for what breaks the format; what no container could mean (two tensors of
one name, bytes that two of them share, a range beyond the end of the file) is malformed. A container whose
headers are found by reading ranges has `headers` as well, for files that lie anywhere: the Hub, an archive,
memory. It asks for few and short ranges, since each may be a request over a network.

A checkpoint may be more than its files. `folder` says of a directory that it is a checkpoint of this
container by returning the name to call it by. `whole` reads what is no list of files: such a directory, or
files with an index of the container's own kind; it returns None for a set of files like any others.

Writing. `place` decides where every tensor goes before a byte is moved: `OutputFile`s whose tensors do not
overlap (ties that are asked for aside), with the small files around them. `frame` gives all bytes of an
output file that are no tensor's: header, padding, directory. Frame and tensors tile the file. Both are pure:
the same arguments give the same bytes, in another process too. A container with `sums` stores checksums: its
frame is asked for last, with the CRC-32 of those tensors whose bytes passed through memory, which those in
shared blocks do not; without `crcs` the frame has its final length, and zeros for checksums. Containers that
are only read have neither.

`tests/containers/test_contract.py` holds every container that is written to this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from porter.containers.base import Header, OutputFile, TensorSpec
from porter.errors import UnsupportedError
from porter.sources.base import SourceFile
from porter.sources.weight_files import WeightSet

# Bytes that `recognise` sees. The first name in a zip follows 30 bytes of numbers.
START = 512

# The output files, and by name the small files around them.
Placed = tuple[tuple[OutputFile, ...], Mapping[str, bytes]]


@dataclass(frozen=True)
class Placement:
    """What is wished of output files.

    `file` is the name of the one file, from which the names of several are made; they are several only where
    `max_shard_size` is given, in bytes or as text such as "5GB". A tensor of `ties` shares the bytes of
    another. `residues` says, modulo 4096, where tensors lie best to share blocks with the source; what a
    container cannot heed of that is lost speed, no fault. `wrap` is the key that a state dict stands under.
    """

    file: str
    max_shard_size: int | str | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    residues: Mapping[str, int] = field(default_factory=dict)
    wrap: str | None = None

    def refuse_beyond(self, container: str, *heeded: str) -> None:
        """Raises UnsupportedError for wishes other than `heeded` that would change what is written."""
        wishes = {"max_shard_size": self.max_shard_size, "ties": self.ties, "wrap": self.wrap}
        for wish, value in wishes.items():
            if value and wish not in heeded:
                raise UnsupportedError(f"{self.file}: {container} cannot be written with {wish}")


@dataclass(frozen=True)
class Container:
    """See the module's docstring. `suffixes` are those of files that may be of this container, `beside` what
    belongs to a checkpoint and lies in a folder of its own; `file_per_tensor` says that every tensor gets a
    file of its own, `keyed` that a file may hold several state dicts, of which a key names one.
    """

    name: str
    recognise: Callable[[bytes], bool]
    read: Callable[[Path, Sequence[str], str | None], tuple[Header, ...]]
    headers: Callable[[SourceFile], Header] | None = None
    place: Callable[[Sequence[TensorSpec], Placement], Placed] | None = None
    frame: Callable[[OutputFile, Mapping[str, int] | None], list[tuple[int, bytes]]] | None = None
    folder: Callable[[Path], str | None] | None = None
    whole: Callable[[Path, WeightSet], tuple[Header, ...] | None] | None = None
    sums: bool = False
    file_per_tensor: bool = False
    keyed: bool = False
    suffixes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
