"""From a torch file's unpickled value to its state dict, and from that to tensors with extents.

A state dict stands at the top of the file, under one of `WRAPPERS`, or where the user says; what else the
file holds (optimizer states, hyperparameters) is left alone. A transposed, sliced or expanded view is known
by its strides.

Where: Lightning's `state_dict`, LitGPT's and fairseq's `model`, Google's Gemma `model_state_dict`,
DeepSpeed's `module`, timm's and others' `net`, `params`, `weights`, `ema`. `torch.compile`, FSDP and
`DistributedDataParallel` put names of their own into those of what they wrap.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from porter.containers.base import StoredTensor
from porter.containers.torch.torch_pickle_values import DTENSOR, Inert, Storage, Tensor, kind_of
from porter.containers.torch.torch_zip_entries import Entry, refuse
from porter.dtypes import DTYPES, Dtype
from porter.errors import MalformedError, UnsupportedError, UsageError

# The deepest first: a wrapped model may have other tensors beside it.
WRAPPERS = (
    "model.module",
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "net",
    "params",
    "weights",
    "model_ema",
    "ema",
    "ema_model",
)
PREFIXES = ("module.",)

# Parts of a name that stand for no module of the model's own: torch.compile, FSDP, activation checkpointing,
# Lightning's strategies.
MARKERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"))

# What people keep beside weights: numbers, devices, paths, arguments, dates. Never a weight.
_HARMLESS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.device",
    "pathlib.",
    "argparse.",
    "datetime.",
    "types.SimpleNamespace",
    "omegaconf.",
    "_codecs.encode",
    "__builtin__.set",
    "__builtin__.frozenset",
    "builtins.set",
    "builtins.frozenset",
)

# Elements. Strides and sizes are i64 in torch; nothing stored comes near.
_MAX_ELEMENTS = 2**63 - 1

UNTYPED = "torch.storage.UntypedStorage"
STORAGE_CLASSES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.ComplexFloatStorage": "C64",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    UNTYPED: "U8",
}
_DTYPES = {f"torch.{dtype.torch}": dtype for dtype in DTYPES.values() if dtype.torch}


class State(NamedTuple):
    """A state dict, the key that it stands under (None at the top), and others that the file holds."""

    key: str | None
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()


def find_state(value: Any, file: str, key: str | None = None) -> State:
    """The state dict in an unpickled value: the one under `key` where the user names one.

    Entries that are no tensors (versions, extra state, numbers, paths) are left out. Raises MalformedError
    for a foreign object where tensors are expected, UnsupportedError where there is no state dict,
    UsageError for a key that holds none.
    """
    if isinstance(value, Inert):
        raise _foreign(file, "the state dict", value)
    if not isinstance(value, dict):
        raise _no_state(file, kind_of(value))
    there = {wrapper: inner for wrapper in WRAPPERS if _holds_tensors(inner := _under(value, wrapper))}
    if key is not None:
        wanted = _under(value, key)
        if not _holds_tensors(wanted):
            raise UsageError(
                f"{file} holds no state dict under {key!r}",
                cause=f"expected tensors there, found {kind_of(wanted)}",
                hint=f"those that it holds: {', '.join(there)}" if there else None,
            )
        return State(key, _tensors(wanted, file))
    if there:
        first, *others = there
        inside = f"{first.partition('.')[0]}"
        return State(first, _tensors(there[first], file), tuple(other for other in others if other != inside))
    if value and not _holds_tensors(value):
        keys = [repr(key)[:40] for key in value if isinstance(key, str)][:5]
        raise _no_state(file, f"a dict with the keys {', '.join(keys)}" if keys else "a dict without them")
    return State(None, _tensors(value, file))


def _under(value: Any, key: str) -> Any:
    """What stands under a key, or under a path of keys."""
    if isinstance(value, dict) and key in value:
        return value[key]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(key, str)
        and (isinstance(item, Tensor) or (isinstance(item, Inert) and item.name == DTENSOR))
        for key, item in value.items()
    )


def _tensors(state: dict[Any, Any], file: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Inert):
            # Modules may leave any object there (get_extra_state); it is never a weight.
            if isinstance(name, str) and name.endswith("_extra_state"):
                continue
            if value.name.startswith(_HARMLESS) or value.name in ("set", "frozenset"):
                continue
            raise _foreign(file, f"tensor {name!r}" if isinstance(name, str) else "a tensor", value)
        if isinstance(value, Tensor):
            if not isinstance(name, str):
                refuse(file, f"expected tensors under names, found one under {kind_of(name)}")
            tensors[name] = value
    return tensors


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put into them, by the names as they are.

    `MARKERS` may stand anywhere and go wherever they do; `PREFIXES` only where all names begin with one.
    Raises MalformedError where two names become one.
    """
    every = list(names)
    text = "\n".join(every)
    marked = any(marker in text for marker in MARKERS)
    bare = (
        {name: _without_markers(name) for name in every} if marked else dict(zip(every, every, strict=True))
    )
    for prefix in PREFIXES:
        if length := _common_length(bare.values(), prefix):
            bare = {name: rest[length:] for name, rest in bare.items()}
    seen: dict[str, str] = {}
    for name, rest in bare.items() if len(set(bare.values())) < len(bare) else ():
        if (other := seen.setdefault(rest, name)) != name:
            raise MalformedError(
                f"two tensors are called {rest!r} without what wrappers put into names",
                cause=f"found {other!r} and {name!r}",
            )
    return bare


def _without_markers(name: str) -> str:
    if not any(marker in name for marker in MARKERS):
        return name
    return ".".join(part for part in name.split(".") if part not in MARKERS)


def _common_length(names: Collection[str], prefix: str) -> int:
    """How much of all names is the prefix, once or again and again; something is left of each name."""
    least: int | None = None
    for name in names:
        times = 0
        while (least is None or times < least) and name.startswith(prefix, times * len(prefix)):
            times += 1
        if times and times * len(prefix) == len(name):
            times -= 1
        least = times
        # Mostly it is the very first that lacks it.
        if not least:
            return 0
    return (least or 0) * len(prefix)


def place_tensor(name: str, tensor: Tensor, entries: Mapping[str, Entry], file: str) -> StoredTensor:
    """The extent of a tensor whose storages are `entries` by key.

    Raises MalformedError where storage, shape and entry disagree, UnsupportedError for a tensor that is no
    row-major block or whose dtype porter does not know.
    """
    storage = tensor.storage
    what = f"{file}: tensor {name!r}"
    entry = entries.get(storage.key)
    if entry is None:
        raise MalformedError(f"{what} is malformed", cause=f"expected its data in entry {storage.key!r:.80}, "
                             "found no such entry")  # fmt: skip
    unit = _dtype(storage, None, what)
    dtype = _dtype(storage, tensor.dtype, what)
    if storage.numel * unit.itemsize != entry.size:
        raise MalformedError(
            f"{what} is malformed",
            cause=f"expected {storage.numel * unit.itemsize} bytes in {entry.name!r}, found {entry.size}",
        )
    if tensor.altered:
        raise UnsupportedError(
            f"{what} is a conjugated or negated view",
            hint="save it again after .resolve_conj().resolve_neg()",
        )
    # Zeros are left out, or a dim of 0 would hide an overflow in the others.
    if math.prod(dim for dim in tensor.shape if dim) > _MAX_ELEMENTS:
        raise MalformedError(f"{what} is malformed", cause=f"expected less than 2^63 elements, found the "
                             f"shape {list(tensor.shape)}")  # fmt: skip
    begin = tensor.offset * dtype.itemsize
    stored = StoredTensor(name, dtype, tensor.shape, file, entry.offset + begin)
    if not _row_major(tensor):
        stored = stored._replace(strides=tensor.strides)
    end = begin + stored.span * dtype.itemsize
    if end > entry.size:
        raise MalformedError(
            f"{what} is malformed",
            cause=f"expected its bytes {begin} to {end} in {entry.name!r}, found {entry.size} bytes there",
        )
    return stored


def _row_major(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        return True
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _dtype(storage: Storage, word: str | None, what: str) -> Dtype:
    """A tensor's dtype by torch's word; by the storage's class where there is none."""
    dtype = _DTYPES.get(word) if word else DTYPES.get(STORAGE_CLASSES.get(storage.kind, ""))
    if dtype is None:
        raise UnsupportedError(f"{what} has an unknown dtype", cause=f"found {word or storage.kind!r:.80}")
    return dtype


def _foreign(file: str, what: str, value: Inert) -> MalformedError | UnsupportedError:
    if value.name in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"):
        return UnsupportedError(
            f"{file}: {what} is a NumPy array",
            cause="expected torch's tensors, whose bytes lie outside of the pickle",
            hint="save it again with torch.from_numpy(array) in its place",
        )
    if value.name == DTENSOR:
        return UnsupportedError(
            f"{file}: {what} is one rank's part of a distributed tensor",
            cause="the other ranks' files hold the rest",
            hint="gather it where it was trained: torch.distributed.checkpoint.state_dict's "
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), and save that",
        )
    if value.name.startswith("torch._utils._rebuild_") or value.name.startswith("torch._tensor._rebuild_"):
        return UnsupportedError(
            f"{file}: {what} is no plain tensor",
            cause=f"expected one with dense data, found what {value.name} makes",
            hint="save it again as a dense tensor on the CPU",
        )
    return MalformedError(
        f"{file} is not safe to read",
        cause=f"expected plain data for {what}, found a call of {value.name!r:.120}, which was not made",
        hint="do not load this file with anything else before you know where it comes from",
    )


def _no_state(file: str, found: str) -> UnsupportedError:
    return UnsupportedError(
        f"{file} holds no state dict",
        cause=f"expected a dict of tensors at the top or under {', '.join(WRAPPERS)}, found {found}",
    )
