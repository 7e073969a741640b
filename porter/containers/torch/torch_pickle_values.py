"""What the pickle of a torch file may hold, and the calls that porter answers itself.

Values are inert: names of classes and functions, storages, views of storages. The calls in `CALLS` are
those that make a state dict; each checks its arguments and returns such a value, or raises ValueError
with what was expected and found. No error shows a value's content, which may be endless to print.

Calls and persistent ids: torch's `_utils.py`, `_tensor.py` and `serialization.py` (2.13).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# torch itself stops at 64 dims.
MAX_DIMS = 64

_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A class, function or dtype that is named and never looked up."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Inert:
    """In the place of what a call of `name` would have made."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of `numel` elements in entry `data/<key>`; `kind` is its class, such as `torch.HalfStorage`."""

    kind: str
    key: str
    numel: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A view of a storage; `offset` and `strides` count elements.

    `dtype` is torch's word such as `torch.uint16`, or None where the storage's class says it. `altered`
    says that the values are not the stored ones (conjugated or negated on reading).
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None
    altered: bool = False


def fill(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Put pairs into a dict. A key that is no text becomes `Inert`; ValueError for a key that is there."""
    for key, value in pairs:
        # Other keys are never needed, and could be made to cost more to hash than they are long.
        known = key if type(key) is str else Inert(kind_of(key))
        if known in target:
            raise ValueError(f"expected the key {known!r:.80} once, found it twice")
        target[known] = value


def _call_ordered_dict(arguments: tuple[Any, ...]) -> Any:
    made: OrderedDict[Any, Any] = OrderedDict()
    if arguments:
        pairs = arguments[0]
        if len(arguments) != 1 or type(pairs) is not list:
            raise ValueError("expected a list of pairs for an OrderedDict, found something else")
        if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
            raise ValueError("expected a list of pairs for an OrderedDict, found something else")
        fill(made, pairs)
    return made


def _call_tensor(arguments: tuple[Any, ...], with_dtype: bool = False) -> Tensor:
    plain = 7 if with_dtype else 6
    if len(arguments) not in (plain, plain + 1):
        raise ValueError(f"expected {plain} arguments for a tensor, found {len(arguments)}")
    storage, offset, shape, strides = arguments[:4]
    dtype = arguments[6] if with_dtype else None
    if not isinstance(storage, Storage) or not is_natural(offset) or not isinstance(dtype, Global | None):
        raise ValueError("expected a storage, an offset and a dtype for a tensor, found something else")
    if not _naturals(shape) or not _naturals(strides) or len(shape) != len(strides):
        raise ValueError("expected a shape with as many strides, found something else")
    # The last argument marks views that conjugate or negate.
    extra = arguments[plain:]
    altered = bool(extra) and extra[0] is not None and extra[0] != {}
    return Tensor(storage, offset, shape, strides, dtype.name if dtype else None, altered)


def _call_tensor_with_dtype(arguments: tuple[Any, ...]) -> Tensor:
    return _call_tensor(arguments, with_dtype=True)


def _call_parameter(arguments: tuple[Any, ...]) -> Any:
    if not arguments or not isinstance(arguments[0], Tensor | Inert):
        raise ValueError("expected a tensor in a parameter, found something else")
    return arguments[0]


def _call_from_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes of somebody's own, which do not matter here; or one of a distributed run."""
    if len(arguments) == 4 and all(isinstance(argument, Global) for argument in arguments[:2]):
        function, made = arguments[0].name, arguments[1].name
        if function in _TENSORS and made in _NAMED and type(arguments[2]) is tuple:
            return _TENSORS[function](arguments[2])
        if function == _SUBCLASS and made.rpartition(".")[2] == "DTensor":
            return _whole(arguments[2], arguments[3])
    return Inert("torch._tensor._rebuild_from_type_v2")


def _whole(arguments: Any, state: Any) -> Any:
    """A distributed tensor whose local part is all of it, as of a run with one rank; else `Inert`."""
    # A class with slots has its state as a pair: the instance's dict, and the slots.
    if type(state) is tuple and len(state) == 2:
        state = state[1]
    local = state.get("_local_tensor") if isinstance(state, dict) else None
    if isinstance(local, Tensor) and type(arguments) is tuple and local.shape in arguments[2:3]:
        return local
    return Inert(DTENSOR)


def _call_size(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) == 1 and type(arguments[0]) is list and len(arguments[0]) <= MAX_DIMS:
        arguments = (tuple(arguments[0]),)
    if len(arguments) != 1 or not _naturals(arguments[0]):
        raise ValueError("expected dims in a torch.Size, found something else")
    return arguments[0]


def is_natural(value: Any) -> bool:
    # bool is an int to Python.
    return type(value) is int and 0 <= value <= _MAX_NUMBER


def _naturals(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAX_DIMS and all(map(is_natural, value))


def _is_torch_type(name: str) -> bool:
    """A storage class or a dtype: a plain word in torch's own module."""
    module, _, word = name.rpartition(".")
    return module == "torch" and (word.endswith("Storage") or word in _TORCH_DTYPES)


def is_known(name: str) -> bool:
    """Whether a state dict's pickle may name this class, function or dtype."""
    return name in CALLS or name in _NAMED or _is_torch_type(name)


def kind_of(value: Any) -> str:
    """What a value is, for errors; never its content, which may be endless."""
    if isinstance(value, Global | Inert):
        return repr(value.name)
    return _KINDS.get(type(value), f"a {type(value).__name__.lower()}")


DTENSOR = "torch.distributed.tensor.DTensor"

_SUBCLASS = "torch._utils._rebuild_wrapper_subclass"

_KINDS: dict[type, str] = {
    dict: "a dict",
    OrderedDict: "an OrderedDict",
    list: "a list",
    tuple: "a tuple",
    str: "text",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    bytes: "bytes",
    type(None): "None",
}

# fmt: off
_TORCH_DTYPES = frozenset((
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32",
    "uint16", "uint8", "bool", "complex128", "complex64", "complex32", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
))
# fmt: on

_TENSORS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor_v2": _call_tensor,
    "torch._utils._rebuild_tensor_v3": _call_tensor_with_dtype,
}
CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    **_TENSORS,
    "collections.OrderedDict": _call_ordered_dict,
    "torch._utils._rebuild_parameter": _call_parameter,
    "torch._utils._rebuild_parameter_with_state": _call_parameter,
    "torch._tensor._rebuild_from_type_v2": _call_from_type,
    "torch.Size": _call_size,
}

# Known, and no more than a name here.
_NAMED = {"torch.storage.UntypedStorage", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"}
