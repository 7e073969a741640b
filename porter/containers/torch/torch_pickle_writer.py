"""The pickle of a torch file, written opcode by opcode: an OrderedDict of tensors and nothing else.

Protocol 2, as torch.save writes, without a memo. The same tensors give the same bytes; where a storage
lies in the file has no influence, only the order of the storages.

Format: Python's `pickletools`; calls and persistent ids: torch's `_utils.py` and `serialization.py` (2.13).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

from porter.containers.base import StoredTensor
from porter.containers.torch.torch_state import STORAGE_CLASSES, UNTYPED

_CLASS_OF = {dtype: name for name, dtype in STORAGE_CLASSES.items() if name != UNTYPED}


def storages(tensors: Sequence[StoredTensor]) -> dict[int, list[StoredTensor]]:
    """The tensors by the offset of their storage, in the file's order."""
    storages: dict[int, list[StoredTensor]] = {}
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        sharing = storages.setdefault(tensor.offset, [])
        sharing.append(tensor)
        if (tensor.dtype, tensor.nbytes) != (sharing[0].dtype, sharing[0].nbytes):
            raise ValueError(f"{tensor.file}: {tensor.name!r} cannot share with {sharing[0].name!r}")
    return storages


def pickle_state(tensors: Sequence[StoredTensor], wrap: str | None = None) -> bytes:
    """data.pkl: an OrderedDict of tensors, in the given order. Storages are numbered by their offset.

    With `wrap` it stands under that key of another one.
    """
    numbers = {offset: number for number, offset in enumerate(storages(tensors))}
    items = (_text(tensor.name) + _tensor(tensor, numbers[tensor.offset]) for tensor in tensors)
    state = _EMPTY + b"(" + b"".join(items) + b"u"
    if wrap is not None:
        state = _EMPTY + b"(" + _text(wrap) + state + b"u"
    return b"\x80\x02" + state + b"."


def _tensor(tensor: StoredTensor, number: int) -> bytes:
    """A call that rebuilds a row-major tensor from all of its storage.

    Types that have no storage class of their own lie in untyped storage, whose length counts bytes.
    """
    kind = _CLASS_OF.get(tensor.dtype.name)
    numel = tensor.elements if kind else tensor.nbytes
    location = (_text("storage"), _global(kind or UNTYPED), _text(str(number)), _text("cpu"), _int(numel))
    strides = [math.prod(tensor.shape[place + 1 :]) for place in range(len(tensor.shape))]
    arguments = [
        _tuple(location) + b"Q",
        _int(0),
        _tuple(map(_int, tensor.shape)),
        _tuple(map(_int, strides)),
    ]
    arguments += [_FALSE, _EMPTY]
    if kind:
        return _global("torch._utils._rebuild_tensor_v2") + _tuple(arguments) + b"R"
    arguments.append(_global(f"torch.{tensor.dtype.torch}"))
    return _global("torch._utils._rebuild_tensor_v3") + _tuple(arguments) + b"R"


def _global(name: str) -> bytes:
    module, _, word = name.rpartition(".")
    return f"c{module}\n{word}\n".encode()


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<I", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


_FALSE = b"\x89"
_EMPTY = _global("collections.OrderedDict") + b")R"
