"""The pickle inside a torch file, decoded into plain values without running anything that it names.

A pickle is a program. This machine knows the opcodes that Python's pickler writes for protocols 2 to 5,
and of the functions that a pickle may call only those that make a state dict, which it stands in for
itself: nothing is imported, and no foreign object is made. A call of anything else leaves an `Inert`
value that carries the function's name and swallows whatever is done to it; real training checkpoints
hold such things beside their tensors. Time and memory are bounded, nothing recurses, and a value that
contains itself is refused.

Not promised: that keys other than text survive (they become `Inert`, so that no key can cost more to
hash than it is long), and which values a set or a foreign object holds.

Format: Python's `pickletools` and `pickle`; persistent ids: torch's `serialization.py` (2.13).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from porter.containers.torch.torch_pickle_values import (
    CALLS,
    Global,
    Inert,
    Storage,
    fill,
    is_known,
    is_natural,
    kind_of,
)
from porter.errors import MalformedError

# Bytes. A state dict takes about 250 bytes a tensor.
MAX_PICKLE = 64 << 20

# Steps of the machine, each of which makes at most one value: for what is kept beside weights, and for each
# storage in the archive. A state dict takes about 45 steps a tensor, and every tensor has a storage but ties.
FREE_STEPS = 700_000
STEPS_EACH = 100

_MAX_GLOBAL = 1024
_MAX_INT_BYTES = 1024

# Bytes of one text. Names have a hundred; a config or a tokenizer that was kept beside weights some MB.
_MAX_TEXT = 8 << 20


@dataclass(frozen=True)
class Unpickled:
    """The pickle's value, and the names of all that it would have called besides the known."""

    value: Any
    foreign: tuple[str, ...]


def unpickle(data: bytes, file: str, storages: int = 0) -> Unpickled:
    """Decode `data`; `file` is the checkpoint's name for errors, `storages` how many its archive holds.

    Dicts, lists, tuples, text, numbers, bytes and None come out as Python's own; tensors as `Tensor`.
    Raises MalformedError for a broken pickle, for opcodes that no state dict needs, and for state set on
    anything but a placeholder (or `_metadata` on an OrderedDict).
    """
    return _Machine(data, file, FREE_STEPS + STEPS_EACH * storages).run()


class _Machine:
    def __init__(self, data: bytes, file: str, most_steps: int) -> None:
        self.most_steps = most_steps
        self.data = data
        self.file = file
        self.position = 0
        self.steps = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.foreign: dict[str, None] = {}

    def run(self) -> Unpickled:
        if len(self.data) > MAX_PICKLE:
            self.refuse(f"expected a pickle of at most {MAX_PICKLE} bytes, found {len(self.data)}")
        if self.take(1) != b"\x80" or self.uint(1) not in (2, 3, 4, 5):
            self.refuse("expected a pickle of protocol 2 to 5")
        while True:
            # Written out: it runs once for each step.
            self.steps += 1
            position = self.position
            if self.steps > self.most_steps or position >= len(self.data):
                self.spend(0)
                self.take(1)
            opcode = self.data[position]
            self.position = position + 1
            if opcode == _STOP:
                break
            step = _BY_CODE[opcode]
            if step is None:
                word = _opcode_word(bytes((opcode,)))
                self.refuse(f"expected the opcodes of a state dict, found {word}", unsafe=True)
            try:
                step(self)
            except ValueError as error:
                self.refuse(str(error))
        value = self.pop()
        if self.stack or self.marks or self.position != len(self.data):
            self.refuse("expected one value in the pickle, found more")
        self.check_finite(value)
        return Unpickled(value, tuple(sorted(self.foreign)))

    # --- reading ---------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        piece = self.data[self.position : self.position + count]
        if len(piece) < count:
            self.refuse(f"expected {count} bytes at byte {self.position} of the pickle, found {len(piece)}")
        self.position += count
        return piece

    def uint(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def text_of(self, length: int) -> str:
        if length > _MAX_TEXT:
            self.refuse(f"expected a text of at most {_MAX_TEXT} bytes, found {length}")
        return self.text(self.take(length))

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.refuse(f"expected UTF-8 in the pickle, found {raw!r:.80}")

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + _MAX_GLOBAL)
        if end < 0:
            self.refuse(f"expected a line at byte {self.position} of the pickle, found no end of it")
        raw = self.take(end - self.position)
        self.position += 1
        return self.text(raw)

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self.most_steps:
            self.refuse(f"expected a pickle of at most {self.most_steps} steps, found more")

    # --- the stack -------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.refuse("expected a value on the pickle's stack, found none")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            self.refuse("expected a mark on the pickle's stack, found none")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def integer(self, width: int) -> None:
        length = self.uint(width)
        if length > _MAX_INT_BYTES:
            self.refuse(f"expected a number of at most {_MAX_INT_BYTES} bytes, found {length}")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    def remember(self, index: int) -> None:
        # The pickler counts them up, so none can exceed the steps.
        if index > self.most_steps:
            self.refuse(f"expected a small memo, found the index {index}")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.refuse(f"expected a value in the memo at {index}, found none")
        self.push(self.memo[index])

    # --- containers ------------------------------------------------------------------------------

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            self.refuse(f"expected a list to append to, found {kind_of(target)}", unsafe=True)

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if len(items) % 2:
            self.refuse("expected keys with values, found a key alone")
        if isinstance(target, dict):
            fill(target, zip(items[::2], items[1::2], strict=True))
        elif not isinstance(target, Inert):
            self.refuse(f"expected a dict to put items in, found {kind_of(target)}", unsafe=True)

    def add_to_set(self) -> None:
        self.pop_mark()
        if not isinstance(self.top(), Inert):
            self.refuse(f"expected a set to add to, found {kind_of(self.top())}", unsafe=True)

    def frozen_set(self) -> None:
        self.pop_mark()
        self.push(Inert("frozenset"))

    # --- names and calls -------------------------------------------------------------------------

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > _MAX_GLOBAL:
            self.refuse(f"expected the name of a class or function, found {kind_of(module)}, {kind_of(name)}")
        full = f"{module}.{name}"
        if not is_known(full):
            self.foreign[full] = None
        self.push(Global(full))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global | Inert):
            self.refuse(f"expected a function to call, found {kind_of(function)}", unsafe=True)
        if type(arguments) is not tuple:
            self.refuse(f"expected the arguments of {function.name}, found {kind_of(arguments)}")
        call = CALLS.get(function.name) if isinstance(function, Global) else None
        if call is None:
            self.push(Inert(function.name))
            return
        # The one argument whose length its maker may not have paid for: it can be named again and again.
        if arguments and type(arguments[0]) is list:
            self.spend(len(arguments[0]))
        self.push(call(arguments))

    def new_object(self, arguments: int) -> None:
        for _ in range(arguments):
            self.pop()
        made = self.pop()
        if not isinstance(made, Global | Inert):
            self.refuse(f"expected a class, found {kind_of(made)}", unsafe=True)
        self.push(Inert(made.name))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            return
        # What modules leave on their state dicts: versions, which say nothing about the tensors.
        if type(target) is OrderedDict and type(state) is dict and list(state) == ["_metadata"]:
            return
        self.refuse(f"expected no state to be set, found it set on {kind_of(target)}", unsafe=True)

    def persistent(self) -> None:
        value = self.pop()
        if type(value) is not tuple or len(value) != 5 or value[0] != "storage":
            self.refuse("expected the id of a storage, found another persistent id")
        _, kind, key, location, numel = value
        if (
            not isinstance(kind, Global)
            or type(key) not in (str, int)
            or type(location) is not str
            or not is_natural(numel)
            or (type(key) is int and not is_natural(key))
        ):
            self.refuse("expected a storage's class, key, device and length, found something else")
        storage = Storage(kind.name, str(key), numel)
        # torch would take the first, whatever the second says.
        if self.storages.setdefault(storage.key, storage) != storage:
            self.refuse(f"expected one meaning of storage {storage.key!r:.80}, found two")
        self.push(storage)

    # --- the end ---------------------------------------------------------------------------------

    def check_finite(self, value: Any) -> None:
        """Refuse a container that contains itself: depth first, with the path that is open."""
        open_, done = set[int](), set[int]()
        todo = [(value, False)]
        while todo:
            one, left = todo.pop()
            if left:
                open_.discard(id(one))
                done.add(id(one))
            elif isinstance(one, dict | list | tuple) and one and id(one) not in done:
                if id(one) in open_:
                    self.refuse(f"expected values that end, found {kind_of(one)} that contains itself")
                open_.add(id(one))
                todo.append((one, True))
                todo.extend((item, False) for item in (one.values() if isinstance(one, dict) else one))

    def refuse(self, cause: str, unsafe: bool = False) -> NoReturn:
        what = "is not safe to read" if unsafe else "is malformed"
        hint = "nothing of it was run; do not load this file with anything else" if unsafe else None
        raise MalformedError(f"{self.file} {what}", cause=cause, hint=hint)


def _opcode_word(opcode: bytes) -> str:
    # Only errors need it, and it imports pickle.
    import pickletools

    names = (known.name for known in pickletools.opcodes if known.code.encode("latin1") == opcode)
    return next(names, f"the byte {opcode!r}")


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x95": lambda m: m.take(8),  # FRAME
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_mark,
    b"2": lambda m: m.push(m.top()),  # DUP
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"K": lambda m: m.push(m.uint(1)),
    b"M": lambda m: m.push(m.uint(2)),
    b"\x8a": lambda m: m.integer(1),
    b"\x8b": lambda m: m.integer(4),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.push(m.text_of(m.uint(4))),
    b"\x8c": lambda m: m.push(m.text(m.take(m.uint(1)))),
    b"\x8d": lambda m: m.push(m.text_of(m.uint(8))),
    b"B": lambda m: m.push(m.take(m.uint(4))),
    b"C": lambda m: m.push(m.take(m.uint(1))),
    b"\x8e": lambda m: m.push(m.take(m.uint(8))),
    b"\x96": lambda m: m.push(m.take(m.uint(8))),  # BYTEARRAY8
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"\x8f": lambda m: m.push(Inert("set")),
    b"\x90": _Machine.add_to_set,
    b"\x91": _Machine.frozen_set,
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_mark()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.tuple(1),
    b"\x86": lambda m: m.tuple(2),
    b"\x87": lambda m: m.tuple(3),
    b"h": lambda m: m.recall(m.uint(1)),
    b"j": lambda m: m.recall(m.uint(4)),
    b"q": lambda m: m.remember(m.uint(1)),
    b"r": lambda m: m.remember(m.uint(4)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.name(*[m.pop(), m.pop()][::-1]),
    b"R": _Machine.reduce,
    b"\x81": lambda m: m.new_object(1),
    b"\x92": lambda m: m.new_object(2),
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}

_STOP = ord(".")
_BY_CODE = [_STEPS.get(bytes((code,))) for code in range(256)]
