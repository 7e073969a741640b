"""No pickle, however hostile, runs anything, goes on without end, or leads past the file's own bytes."""

import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porter.containers.base import Header
from porter.containers.torch.torch_pickle import FREE_STEPS, unpickle
from porter.containers.torch.torch_pickle_values import Inert, Tensor
from porter.containers.torch.torch_zip import read_header
from porter.errors import MalformedError, PorterError, UnsupportedError

DATA = bytes(range(24))


def pack(path: Path, pickled: bytes, **entries: bytes) -> Path:
    """An archive with this pickle and 24 bytes as storage 0."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/version", b"3\n")
        for name, data in ({"0": DATA} | entries).items():
            archive.writestr(f"m/data/{name}", data)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def called(name: str, *arguments: bytes) -> bytes:
    module, _, word = name.rpartition(".")
    return f"c{module}\n{word}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


KEY = text("0")


def tensor(shape=(2, 3), strides=(3, 1), offset=0, numel=6, key=KEY, kind="torch\nFloatStorage") -> bytes:
    storage = b"(" + text("storage") + f"c{kind}\n".encode() + key + text("cpu") + number(numel) + b"tQ"
    hooks = called("collections.OrderedDict")
    arguments = (storage, number(offset), numbers(shape), numbers(strides), b"\x89", hooks)
    return called("torch._utils._rebuild_tensor_v2", *arguments)


def state(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(items) + b"u."


FINE = text("w") + tensor()


def test_the_hand_made_pickle_is_a_state_dict(tmp_path):
    """The control: what is varied below is read as it stands, by torch too."""
    header = read_header(pack(tmp_path / "m.pth", state(FINE)), "m")
    assert [(t.name, t.shape, t.dtype.name) for t in header.tensors] == [("w", (2, 3), "F32")]
    raw = (tmp_path / "m.pth").read_bytes()
    assert raw[header.tensors[0].offset :].startswith(DATA)


# --- nothing is run --------------------------------------------------------------------------------


def canaries(canary: Path) -> dict[str, bytes]:
    """Pickles that write the canary when Python loads them, each by another way."""
    touch = f"touch {canary}"
    source = f"open({str(canary)!r}, 'w')"
    system = b"cposix\nsystem\n"
    argument = text(touch)
    return {
        "reduce": system + b"(" + argument + b"tR",
        "eval": b"c__builtin__\neval\n(" + text(source) + b"tR",
        "exec": b"cbuiltins\nexec\n(" + text(source) + b"tR",
        "stack global": text("posix") + text("system") + b"\x93" + argument + b"\x85R",
        "inst": b"(" + argument + b"iposix\nsystem\n",
        "obj": b"(" + system + argument + b"o",
        "newobj": b"csubprocess\nPopen\n" + b"(" + argument + b"t\x81",
        "newobj ex": b"csubprocess\nPopen\n" + argument + b"\x85}" + text("shell") + b"\x88s\x92",
        "getattr": called("builtins.getattr", b"cos\npath\n", text("os")) + b"(" + argument + b"tR",
        "memo": system + b"q\x00(h\x00" + argument + b"\x85Rt",
        "dict key": b"}" + system + argument + b"\x85R" + b"K\x01s",
        "append": b"]" + system + argument + b"\x85Ra",
        "build on a class": b"cos\nenviron\n}" + text("x") + b"K\x01sb",
        "set items on os.environ": b"cos\nenviron\n" + text("PORTER_CANARY") + text("1") + b"s",
        "slot state": called("collections.OrderedDict") + b"N}" + text("__class__") + b"K\x01s\x86b",
        "dict state": called("collections.OrderedDict") + b"}" + text("__class__") + system + b"sb",
        "tensor state": tensor() + b"}" + text("data") + b"K\x01sb",
        "from type": called(
            "torch._tensor._rebuild_from_type_v2", system, b"ctorch\nTensor\n", argument + b"\x85", b"N"
        ),
        "copyreg": called("copyreg._reconstructor", b"csubprocess\nPopen\n", b"c__builtin__\nobject\n", b"N"),
        "torch.load": called("torch.serialization.load", argument),
    }


CANARIES = sorted(canaries(Path()))

# Real training checkpoints hold calls beside their tensors; these must be passed over, not refused.
ALLOWED = [
    ("reduce", "elsewhere"),
    ("newobj", "elsewhere"),
    ("newobj ex", "elsewhere"),
    ("append", "elsewhere"),
]


@pytest.mark.parametrize("way", CANARIES)
@pytest.mark.parametrize("place", ["top", "tensor", "elsewhere", "key", "before"])
def test_a_hostile_pickle_runs_nothing(tmp_path, way, place):
    canary = tmp_path / "canary"
    evil = canaries(canary)[way]
    imported = set(sys.modules)
    pickled = {
        "top": b"\x80\x02" + evil + b".",
        "tensor": state(FINE, text("v"), evil),
        "elsewhere": state(text("state_dict"), b"}(" + FINE + b"u", text("args"), evil),
        "key": state(FINE, evil, b"N"),
        "before": b"\x80\x02" + evil + b"0" + state(FINE)[2:],
    }[place]
    path = pack(tmp_path / "m.pth", pickled)
    try:
        header = read_header(path, "m")
    except (MalformedError, UnsupportedError):
        assert (way, place) not in ALLOWED
    else:
        assert [t.name for t in header.tensors] == ["w"]
        assert place != "top"
    assert not canary.exists()
    assert "PORTER_CANARY" not in os.environ
    assert set(sys.modules) - imported <= {"pickletools"}


@pytest.mark.parametrize("way", ["reduce", "eval", "exec"])
def test_the_canaries_would_sing(tmp_path, way):
    """The control: Python's own unpickler does run them."""
    canary = tmp_path / "canary"
    pickle.loads(b"\x80\x02" + canaries(canary)[way] + b".")
    assert canary.exists()


def test_a_foreign_call_is_named(tmp_path):
    evil = canaries(tmp_path / "canary")["reduce"]
    with pytest.raises(MalformedError, match="not safe") as error:
        read_header(pack(tmp_path / "m.pth", state(FINE, text("v"), evil)), "m")
    assert "posix.system" in error.value.cause and "'v'" in error.value.cause
    path = pack(tmp_path / "m.pth", state(text("model"), b"}(" + FINE + b"u", text("args"), evil))
    assert read_header(path, "m").metadata["torch.foreign"] == ("posix.system",)


@pytest.mark.parametrize(
    "step",
    [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"Pname\n", b"\x97", b"\x98", b"I1\n", b"S'a'\n",
     b"V\n", b"p0\n", b"g0\n", b"\xff", b"\x80\x02", b"(l", b"(d", b"L1L\n", b"F1\n", b"U\x01a"],
)  # fmt: skip
def test_opcodes_that_no_state_dict_needs(step):
    with pytest.raises(MalformedError, match="not safe to read") as error:
        unpickle(b"\x80\x04" + step + b".", "m")
    assert "expected the opcodes" in error.value.cause


@pytest.mark.parametrize(
    "head", [b"", b"\x80", b"\x80\x00.", b"\x80\x01.", b"\x80\x06N.", b"N.", b"\x80\x02"]
)
def test_other_protocols_are_malformed(head):
    with pytest.raises(MalformedError, match="malformed"):
        unpickle(head, "m")


@pytest.mark.parametrize(
    "body",
    [b"", b"NN", b"(", b"(N", b"0", b"t", b"u", b"a", b"R", b"b", b"Q", b"N.N", b"h\x00", b"q\x00", b"](e0N0",
     b"}(Nu", b"]K\x01K\x02s", b"N]R", b"}NR", b"NQ", b"K\x01K\x02\x93", b"X\xff\xff\xff\xffa",
     b"\x8d" + b"\xff" * 8, b"X\x01\x00\x00\x00\xff", b"\x8b\xff\xff\xff\x7f", b"cnoline", b"(0"],
)  # fmt: skip
def test_pickles_that_break_off_or_lack_what_they_use(body):
    with pytest.raises(MalformedError):
        unpickle(b"\x80\x02" + body + b".", "m")


def test_a_key_twice_is_malformed():
    with pytest.raises(MalformedError, match="malformed"):
        unpickle(state(text("a"), b"N", text("a"), b"N"), "m")


# --- nothing goes on without end -------------------------------------------------------------------


def laughs(levels: int) -> bytes:
    """A tuple of two of a tuple of two of …: 2 to the `levels` values, if anybody looked at all."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(levels))


DEEP = 200_000
HOSTILE = {
    "deep lists": b"]" * DEEP + b"a" * (DEEP - 1),
    "deep tuples": b")" + b"\x85" * DEEP,
    "laughing tuples": laughs(5000),
    "laughing key": b"}" + laughs(5000) + b"Ns",
    "laughing shape": called("torch.Size", laughs(5000)),
    "laughing function": laughs(5000) + b")R",
    "laughing id": laughs(5000) + b"Q",
    "laughing state": called("collections.OrderedDict") + laughs(5000) + b"b",
    "marks": b"(" * DEEP + b"N" + b"t" * DEEP,
    "steps": b"N0" * (FREE_STEPS // 2 + 1) + b"N",
    "one list again and again": b"](" + b"N" * 10_000 + b"eq\x00"
    + b"0ccollections\nOrderedDict\nh\x00\x85R" * 10_000,
    # Python's hash of all of these is 0.
    "colliding keys": b"}(" + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(100_000)) + b"u",
    "huge memo": b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - n) for n in range(100_000)),
    "huge number": b"\x8b" + struct.pack("<i", 10_000_000) + b"\xff" * 10_000_000,
    "list in itself": b"]q\x00h\x00a",
    "dict in itself": b"}q\x00" + text("a") + b"h\x00s",
    "tuple in itself": b"]q\x00h\x00\x85q\x01ah\x01",
    "long way round": b"]q\x00" + b"\x85" * DEEP + b"q\x010h\x00h\x01a",
}  # fmt: skip


@pytest.mark.parametrize("way", HOSTILE)
def test_a_pickle_that_grows_is_bounded(way):
    began = time.process_time()
    try:
        unpickle(b"\x80\x02" + HOSTILE[way] + b".", "m")
    except MalformedError as error:
        assert len(str(error)) < 1000
    assert time.process_time() - began < 20
    if "itself" in way or way in ("long way round", "steps", "huge memo", "huge number"):
        with pytest.raises(MalformedError):
            unpickle(b"\x80\x02" + HOSTILE[way] + b".", "m")


def test_the_memory_of_a_bounded_pickle_is_bounded():
    tracemalloc.start()
    with pytest.raises(MalformedError):
        unpickle(b"\x80\x02" + b"}" * 1_000_000, "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 1_000_000


# --- tensors stay inside their bytes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"numel": 7}, "expected 28 bytes"),
        ({"numel": 5}, "expected 20 bytes"),
        ({"numel": -1}, "numel|length"),
        ({"offset": 1}, "bytes 4 to 28"),
        ({"offset": 2**62}, "expected its bytes"),
        ({"offset": -1}, "offset"),
        ({"shape": (3, 3), "strides": (3, 1)}, "bytes 0 to 36"),
        ({"shape": (2**40, 2**40), "strides": (2**40, 1)}, "2\\^63"),
        ({"shape": (0, 2**40, 2**40), "strides": (1, 1, 1)}, "2\\^63"),
        ({"shape": (2, -3), "strides": (3, 1)}, "shape"),
        ({"shape": (2, 3), "strides": (3,)}, "strides"),
        ({"shape": (1,) * 65, "strides": (1,) * 65}, "shape"),
        ({"key": text("1")}, "no such entry"),
        ({"key": text("../data.pkl")}, "no such entry"),
        ({"key": number(-1)}, "key"),
        ({"key": b"N"}, "key"),
    ],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path, options, words):
    with pytest.raises(MalformedError, match=words):
        read_header(pack(tmp_path / "m.pth", state(text("w"), tensor(**options))), "m")


def test_a_storage_key_may_be_a_number(tmp_path):
    path = pack(tmp_path / "m.pth", state(text("w"), tensor(key=number(0))))
    assert len(read_header(path, "m").tensors) == 1


@pytest.mark.parametrize("kind", ["torch\nQInt8Storage", "torch\nComplexDoubleStorage", "evil\nStorage"])
def test_storages_of_unknown_types_are_unsupported(tmp_path, kind):
    with pytest.raises(UnsupportedError, match="unknown dtype"):
        read_header(pack(tmp_path / "m.pth", state(text("w"), tensor(kind=kind))), "m")


def test_one_storage_with_two_meanings_is_malformed(tmp_path):
    """torch would read both as the first."""
    other = tensor(kind="torch\nIntStorage")
    with pytest.raises(MalformedError, match="malformed") as error:
        read_header(pack(tmp_path / "m.pth", state(FINE, text("v"), other)), "m")
    assert "two" in error.value.cause


# --- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_out_as_they_are(protocol):
    value = {
        "numbers": [0, 1, -1, 255, 65535, 2**31, -(2**40), 2**100, 1.5, float("inf")],
        "text": ["", "é", "\U0001f600", "x" * 300],
        "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": OrderedDict(a={}, b=[[]]),
    }
    if protocol > 2:
        value["bytes"] = [b"", b"ab", b"c" * 300]
    assert unpickle(pickle.dumps(value, protocol), "m").value == value


def test_foreign_objects_leave_their_names_alone():
    found = unpickle(pickle.dumps({"a": Path("x"), "b": {1, 2}, "c": torch.Generator}, 4), "m")
    assert isinstance(found.value["a"], Inert) and "pathlib" in found.value["a"].name
    assert any("Generator" in name for name in found.foreign)
    assert not any(isinstance(value, Tensor) for value in found.value.values())


# --- whatever the bytes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "m.pth"
    base = torch.arange(6.0)
    checkpoint = {
        "model": {"a": base.view(2, 3), "b": base[1:3], "c": torch.ones(2, dtype=torch.uint16)},
        "n": 1,
    }
    # Without checksums, so that changes of the pickle reach the decoder.
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(checkpoint, path)
    finally:
        torch.serialization.set_crc32_options(True)
    return path.read_bytes()


changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "cut", "copy"]), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes, st.booleans())
def test_a_changed_file_gives_a_header_or_a_porter_error(tmp_path, small, edits, in_pickle):
    raw = bytearray(small)
    end = small.index(b"PK", 4) if in_pickle else len(small)
    for where, what, value in edits:
        at = int(where * min(end, len(raw)))
        if what == "set":
            raw[at] = value
        elif what == "cut":
            del raw[at : at + value % 8]
        else:
            raw[at:at] = raw[at : at + value % 16]
    path = tmp_path / "m.pth"
    path.write_bytes(raw)
    try:
        header = read_header(path, "m")
    except PorterError:
        return
    assert isinstance(header, Header)
    assert all(t.offset >= 0 and t.offset + t.nbytes <= header.size for t in header.tensors)


@settings(max_examples=400)
@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_porter_error(body):
    try:
        unpickle(b"\x80\x02" + body, "m")
    except PorterError as error:
        assert isinstance(error, MalformedError)
