"""NumPy's `weights.npz` as a container that porter reads and writes.

    python examples/npz_container.py LLAMA_DIR NPZ_DIR npz [float32]    to weights.npz and config.json
    python examples/npz_container.py NPZ_DIR OUT hf                     and back to Hugging Face's files

An .npz is a zip of .npy files: each a short header and an array's plain bytes. NumPy has no bfloat16. What
porter asks of a container is in `porter/containers/contract.py`.
"""

import io
import struct
import sys
import tempfile
import zipfile
import zlib

import numpy as np

import porter
from porter.containers.base import Header, OutputFile, StoredTensor
from porter.containers.contract import Container
from porter.containers.registry import register
from porter.dtypes import DTYPES
from porter.errors import MalformedError, UnsupportedError
from porter.execution.crc import joined

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
# Hugging Face's names in another container: a dialect is a table.
TABLE = """\
extends = "llama/hf"
family  = "llama"
dialect = "npz"
title   = "NumPy's weights.npz"
files   = { weights = "weights.npz", container = "npz", sharded = false }
"""


def recognise(start):
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return start[:4] == b"PK\x03\x04" and first.endswith(b".npy")


def read(root, files, key):
    return tuple(read_file(root / file, file) for file in files)


def read_file(path, file):
    tensors = []
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise UnsupportedError(f"{file}: {member.filename} is compressed")
                stream.seek(member.header_offset + 26)
                stream.seek(sum(struct.unpack("<2H", stream.read(4))), io.SEEK_CUR)
                end = stream.tell() + member.file_size
                if np.lib.format.read_magic(stream) != (1, 0):
                    raise UnsupportedError(f"{file}: {member.filename} is of another version of .npy")
                shape, columns, kind = np.lib.format.read_array_header_1_0(stream)
                names = [name for name, word in KINDS.items() if word == kind.str]
                if not names or (columns and len(shape) > 1):
                    raise UnsupportedError(f"{file}: {member.filename} is {kind}, or stored by columns")
                name = member.filename.removesuffix(".npy")
                tensors.append(StoredTensor(name, DTYPES[names[0]], shape, file, stream.tell()))
                if stream.tell() + tensors[-1].nbytes != end:
                    raise MalformedError(f"{file}: {member.filename} has {member.file_size} bytes")
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise MalformedError(f"{file} is malformed", cause=str(error)) from error
    return Header("npz", file, path.stat().st_size, tuple(tensors))


def array_header(tensor):
    if (kind := KINDS.get(tensor.dtype.name)) is None:
        raise UnsupportedError(f"NumPy cannot hold {tensor.name}", cause=f"it is {tensor.dtype.name}")
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": kind, "fortran_order": False, "shape": tensor.shape})
    return made.getvalue()


def frame(file, crcs):
    """Each member's header before its data, and the zip's directory at the end."""
    at, pieces, listed = 0, [], b""
    for tensor in file.tensors:
        if crcs is not None and tensor.nbytes and tensor.name not in crcs:
            # NumPy holds every array against its checksum.
            raise UnsupportedError(f"the checksum of {tensor.name} is not known", hint="--reflink never")
        array, name = array_header(tensor), f"{tensor.name}.npy".encode()
        size = len(array) + tensor.nbytes
        crc = joined(zlib.crc32(array), (crcs or {}).get(tensor.name, 0), tensor.nbytes)
        common = struct.pack("<5H3L2H", 20, 0x0800, 0, 0, 0x21, crc, size, size, len(name), 0)
        listed += b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, at) + name
        pieces.append((at, b"PK\x03\x04" + common + name + array))
        at += len(pieces[-1][1]) + tensor.nbytes
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, *[len(file.tensors)] * 2, len(listed), at, 0)
    return [*pieces, (at, listed + end)]


def place(tensors, wish):
    wish.refuse_beyond("an .npz")
    specs = [StoredTensor(*spec, wish.file, 0) for spec in tensors]
    try:
        *pieces, (at, end) = frame(OutputFile(wish.file, "npz", 0, tuple(specs)), None)
    except struct.error as error:
        # Zip's 64-bit fields are left out here.
        raise UnsupportedError(f"{wish.file} would be larger than 4 GB", cause=str(error)) from error
    placed = [t._replace(offset=at + len(data)) for t, (at, data) in zip(specs, pieces, strict=True)]
    return (OutputFile(wish.file, "npz", at + len(end), tuple(placed)),), {}


register(Container("npz", recognise, read, place=place, frame=frame, sums=True, suffixes=(".npz",)))

if __name__ == "__main__":
    source, out, to, *dtype = sys.argv[1:]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as table:
        table.write(TABLE)
        table.flush()
        chosen = porter.PlanOptions(to=to, maps=[table.name], dtype=dtype[0] if dtype else "keep")
        print(porter.convert(source, out, chosen, run_options=porter.RunOptions(reflink="never")).out)
