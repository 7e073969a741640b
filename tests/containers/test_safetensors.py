"""Headers are read as the reference library writes them, and what is placed is what that library reads."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import _TYPES as TORCH_TYPES
from safetensors.torch import load_file, save, save_file

from porter.containers.base import Header
from porter.containers.checkpoint import open_checkpoint
from porter.containers.safetensors import safetensors_header
from porter.containers.safetensors.safetensors_header import MAX_HEADER, parse_header
from porter.containers.safetensors.safetensors_writer import literals, place, shard
from porter.containers.safetensors.shards import read_header, read_index
from porter.dtypes import DTYPES
from porter.errors import MalformedError, PorterError, UnsupportedError, UsageError
from porter.sources.local import Location, locate


def build(header, data=b"", pad=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += pad
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def parse(raw: bytes) -> Header:
    length = int.from_bytes(raw[:8], "little")
    return parse_header(raw[: 8 + length], len(raw), "w.safetensors")


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


GOOD = build({"__metadata__": {"format": "pt"}, "a": entry()}, bytes(24))


# --- what the reference library writes -------------------------------------------------------------


def test_every_dtype_that_torch_saves_is_read_as_written(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        f"{name}.{shape}": torch.randint(0, 2, shape).to(dtype)
        for name, dtype in TORCH_TYPES.items()
        for shape in [(2, 3, 5), (7,), (), (0, 4)]
    }
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header(path, "model.safetensors")
    assert header.metadata == {"format": "pt"}
    assert header.size == path.stat().st_size
    assert {tensor.name for tensor in header.tensors} == set(tensors)
    content = path.read_bytes()
    for tensor in header.tensors:
        expected = tensors[tensor.name]
        assert tensor.shape == tuple(expected.shape)
        assert getattr(torch, tensor.dtype.torch) == expected.dtype
        found = content[tensor.offset : tensor.offset + tensor.nbytes]
        assert found == as_bytes(expected)
    offsets = [tensor.offset for tensor in header.tensors]
    assert offsets == sorted(offsets)


def test_the_empty_file_of_no_tensors_is_legal():
    assert parse(build({})).tensors == ()


@pytest.mark.parametrize("name", ["../x", "a[0]", "two words", "", "é", "a\\b", "/etc/passwd"])
def test_odd_but_legal_names_are_names(name):
    assert parse(build({name: entry()}, bytes(24))).tensors[0].name == name


def test_entries_may_stand_in_any_order_and_are_read_in_file_order():
    header = {"late": entry("U8", [3], [2, 5]), "early": entry("U8", [2], [0, 2])}
    assert [tensor.name for tensor in parse(build(header, bytes(5))).tensors] == ["early", "late"]


def test_packed_dtypes_fill_whole_bytes():
    assert parse(build({"a": entry("F4", [4], [0, 2])}, bytes(2))).tensors[0].nbytes == 2
    with pytest.raises(MalformedError, match="whole bytes"):
        parse(build({"a": entry("F4", [3], [0, 2])}, bytes(2)))


# --- what breaks the format ------------------------------------------------------------------------

MALFORMED = {
    "no length": (b"\x02\x00", "at least 8 bytes"),
    "header longer than the file": (build({}, length=99), "at least 107 bytes"),
    "header longer than allowed": (build({}, length=MAX_HEADER + 1), "at most 25000000"),
    "no brace first": (build(b' {"a":1}'), "start with"),
    "padded with newlines": (build({}, pad=b"\n\n"), "only blanks"),
    "not JSON": (build(b"{a}"), "plain JSON"),
    "not UTF-8": (build(b'{"\xff":1}'), "UTF-8"),
    "nested without end": (build(b'{"a":' + b"[" * 100_000 + b"}"), "nested|JSON"),
    "a name twice": (build(b'{"a":{},"a":{}}'), "twice"),
    "a metadata key twice": (build(b'{"__metadata__":{"k":"1","k":"2"}}'), "twice"),
    "an entry's key twice": (build(b'{"a":{"dtype":"F32","dtype":"F16"}}'), "twice"),
    "metadata not text": (build({"__metadata__": {"k": 1}}), "string"),
    "metadata a list": (build({"__metadata__": []}), "object"),
    "metadata with half a surrogate": (build(b'{"__metadata__":{"k":"\\ud800"}}'), "surrogate"),
    "entry no object": (build({"a": 3}), "object"),
    "entry without shape": (build({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "keys"),
    "entry with another key": (build({"a": entry(stride=[1])}, bytes(24)), "keys"),
    "dtype no text": (build({"a": entry(dtype=7)}, bytes(24)), "dtype"),
    "shape negative": (build({"a": entry(shape=[-2, -3])}, bytes(24)), "the number -2"),
    "shape minus zero": (build(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'), "the number -0"),
    "shape of truth values": (build({"a": entry("U8", [True], [0, 1])}, bytes(1)), "whole numbers"),
    "shape of fractions": (build({"a": entry("U8", [1.0], [0, 1])}, bytes(1)), "whole numbers"),
    "shape overflowing": (build({"a": entry("U8", [2**32, 2**32], [0, 0])}), "2\\^63"),
    "shape overflowing around a zero": (build({"a": entry("U8", [2**63, 2, 0], [0, 0])}), "2\\^63"),
    "a number without end": (build(b'{"a":{"shape":[' + b"9" * 5000 + b"]}}"), "the number"),
    "one offset": (build({"a": entry(offsets=[0])}, bytes(24)), "two data_offsets"),
    "size against shape": (build({"a": entry(offsets=[0, 20])}, bytes(20)), "expected 24 bytes"),
    "end before begin": (build({"a": entry(offsets=[24, 0])}, bytes(24)), "expected 24 bytes"),
    "a first hole": (build({"a": entry(offsets=[4, 28])}, bytes(28)), "a hole"),
    "a hole": (
        build({"a": entry("U8", [2], [0, 2]), "b": entry("U8", [2], [3, 5])}, bytes(5)),
        "expected its data at 2, found them at 3",
    ),
    "an overlap": (
        build({"a": entry("U8", [2], [0, 2]), "b": entry("U8", [2], [1, 3])}, bytes(3)),
        "an overlap",
    ),
    "cut short": (GOOD[:-1], "cut short"),
    "trailing bytes": (GOOD + b"\0", "followed by other bytes"),
    "a NUL in a name": (build({"a\0": entry()}, bytes(24)), "control characters"),
    "an escape sequence in a name": (build({"a\x1b[2J": entry()}, bytes(24)), "control characters"),
    "DEL in a name": (build({"a\x7f": entry()}, bytes(24)), "control characters"),
    "C1 in a name": (build({"a\x9b": entry()}, bytes(24)), "control characters"),
    "half a surrogate in a name": (build({"a\ud800": entry()}, bytes(24)), "control characters"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_with_what_was_expected(case):
    raw, expected = MALFORMED[case]
    with pytest.raises(MalformedError, match=expected) as caught:
        parse(raw)
    assert "w.safetensors" in caught.value.message
    assert caught.value.cause.isprintable()


def test_the_good_file_of_these_cases_is_accepted():
    assert parse(GOOD).tensors[0].shape == (2, 3)


@pytest.mark.parametrize("dtype", ["F128", "Q4_K", "f32"])
def test_unknown_dtypes_are_unsupported_and_name_the_tensor(dtype):
    with pytest.raises(UnsupportedError, match=r"'a'.*\n.*" + dtype):
        parse(build({"a": entry(dtype)}, bytes(24)))


def test_a_header_shorter_than_its_length_is_refused():
    with pytest.raises(MalformedError, match="expected a header of"):
        parse_header(GOOD[:20], len(GOOD), "w.safetensors")


def test_a_missing_file_and_a_pipe_are_errors_not_waits(tmp_path):
    import os

    with pytest.raises(PorterError):
        read_header(tmp_path / "none", "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError, match="regular file"):
        read_header(tmp_path / "pipe", "pipe")


SEEDS = [
    GOOD,
    save({"a": torch.ones(2, 3), "b": torch.zeros(0, 3), "c": torch.ones(5, dtype=torch.int8)}),
    save({"x": torch.zeros(3, dtype=torch.bfloat16)}, {"format": "pt", "k": "é"}),
]
PIECES = [b"-0", b"0", b"1", b"9" * 19, b"true", b"null", b"1.0", b"1e1", b"{}", b"[]", b'"', b",", b" "]
PIECES += [b"\n", b"\\u0000", b"\\ud800", b"\xff", b"NaN", b'"a":', b'"F4"', b'"F8_E8M0"']


@st.composite
def damaged(draw):
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
        raw[at : at + draw(st.integers(0, 6))] = piece
    raw = raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw
    if draw(st.booleans()) and len(raw) > 8:
        # The length is set right again, so that the damage reaches the JSON.
        raw[:8] = struct.pack("<Q", max(raw.rfind(b"}") - 7, 0))
    return bytes(raw)


@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(damaged())
@example(build(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'))
def test_damage_is_refused_or_the_reference_parser_accepts_it_too(raw):
    try:
        header = parse(raw)
    except PorterError:
        return
    accepted = dict(deserialize(raw))
    assert set(accepted) == {tensor.name for tensor in header.tensors}


def header_text(raw):
    length = min(struct.unpack("<Q", raw[:8].ljust(8, b"\0"))[0], len(raw))
    return raw[8 : 8 + length]


@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
@given(damaged())
@example(build(b'{"a":{"dtype":"U8","shape":["[1]"],"data_offsets":[0,1]}}'))
@example(build(b'{"__metadata__":{"k":"1","k":"2"}}'))
def test_the_quick_way_accepts_nothing_that_the_strict_one_reads_otherwise(raw):
    try:
        quick = safetensors_header._plain(header_text(raw), 8, "w")
    except PorterError as error:
        with pytest.raises(type(error)):
            safetensors_header._strict(header_text(raw), 8, "w")
        return
    if quick is None:
        return
    tensors, metadata = safetensors_header._strict(header_text(raw), 8, "w")
    assert quick[:2] == (tensors, metadata)
    ends = [8] + [tensor.offset + tensor.nbytes for tensor in tensors]
    follow = all(tensor.offset == end for tensor, end in zip(tensors, ends, strict=False))
    assert quick[2] == (ends[-1] if follow else None)


@pytest.mark.parametrize("raw", SEEDS)
def test_headers_as_every_writer_makes_them_are_read_the_quick_way(raw, monkeypatch):
    monkeypatch.setattr(safetensors_header, "_strict", lambda *given: pytest.fail("read twice"))
    assert parse(raw).tensors


def test_negative_control_the_reference_parser_does_refuse_damage():
    with pytest.raises(SafetensorError):
        deserialize(GOOD[:-1])


# --- indexes and directories -----------------------------------------------------------------------


def write_index(directory: Path, weight_map, name="model.safetensors.index.json"):
    (directory / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path):
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, directory / first)
    save_file({"c": torch.zeros(5)}, directory / second)
    write_index(directory, {"a": first, "c": second, "b": first})
    return directory, first, second


def test_an_index_names_the_files(sharded):
    directory, first, second = sharded
    headers = open_checkpoint(locate(directory)).headers
    assert [header.file for header in headers] == [first, second]
    assert {tensor.name for header in headers for tensor in header.tensors} == {"a", "b", "c"}


def test_shards_without_an_index_are_one_set(sharded):
    directory, first, second = sharded
    (directory / "model.safetensors.index.json").unlink()
    assert [header.file for header in open_checkpoint(locate(directory)).headers] == [first, second]
    (directory / first).unlink()
    with pytest.raises(MalformedError, match=first):
        open_checkpoint(locate(directory))


def test_a_missing_shard_is_named_with_the_tensors_it_should_hold(sharded):
    directory, first, _ = sharded
    (directory / first).unlink()
    with pytest.raises(MalformedError, match=rf"{first} is missing\n.*2 tensors: a, b"):
        open_checkpoint(locate(directory))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"c": 0}, r"lists 2 tensors \(b, c\) in another shard"),
        ({"d": 0}, r"lists 1 tensor \(d\) that no shard holds"),
        ({"b": None}, r"does not list 1 tensor \(b\)"),
        ({}, None),
    ],
)
def test_where_an_index_and_the_headers_disagree_the_headers_are_right(sharded, change, expected):
    """transformers reads every tensor of the shards that an index names; what differs is said."""
    directory, first, second = sharded
    weight_map = {"a": first, "b": first, "c": second}
    for name, shard_index in change.items():
        weight_map.pop(name, None)
        if shard_index is not None:
            weight_map[name] = (first, second)[shard_index]
    if second not in weight_map.values():
        weight_map |= {"b": second}
    write_index(directory, weight_map)
    found = open_checkpoint(locate(directory))
    assert set(found.tensors) == {"a", "b", "c"}
    if expected is None:
        assert found.remarks == ()
    else:
        assert len(found.remarks) == 1
        assert re.search(expected, found.remarks[0])


def test_a_tensor_in_two_shards_is_refused(sharded):
    directory, _, second = sharded
    save_file({"c": torch.zeros(5), "a": torch.zeros(2)}, directory / second)
    with pytest.raises(MalformedError, match=r"'a'.*\n.*expected it once"):
        open_checkpoint(locate(directory))


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "a\\x", "C:x", "a\nb", "", "./x", "a//b", "\ud800", "a\x1b"]
)
def test_unsafe_file_names_in_an_index_are_refused(tmp_path, name):
    write_index(tmp_path, {"a": name})
    with pytest.raises(MalformedError, match="unsafe"):
        read_index(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a\\u0007": "f"}}'],
)
def test_malformed_indexes_are_refused(tmp_path, text):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(MalformedError):
        read_index(path)


def test_a_tensor_listed_twice_in_an_index_is_refused(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "f", "a": "g"}}')
    with pytest.raises(MalformedError, match="twice"):
        read_index(path)


def test_an_index_may_name_files_in_folders(tmp_path):
    write_index(tmp_path, {"a": "part/one.safetensors"})
    (tmp_path / "part").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "part" / "one.safetensors")
    assert open_checkpoint(locate(tmp_path)).headers[0].file == "part/one.safetensors"


@pytest.mark.parametrize("name", ["model.safetensors", "lit_model.safetensors", "other.safetensors"])
def test_a_single_file_is_found(tmp_path, name):
    save_file({"a": torch.zeros(2)}, tmp_path / name)
    assert [header.file for header in open_checkpoint(locate(tmp_path)).headers] == [name]


def test_nothing_and_too_much_are_usage_errors(tmp_path):
    with pytest.raises(MalformedError, match="holds no weights"):
        open_checkpoint(locate(tmp_path))
    for name in "one.safetensors", "two.safetensors":
        save_file({"a": torch.zeros(2)}, tmp_path / name)
    with pytest.raises(UsageError, match="more than one"):
        open_checkpoint(locate(tmp_path))
    with pytest.raises(UsageError, match="cannot be listed"):
        open_checkpoint(Location(tmp_path / "none", None, "none"))


def test_links_stay_inside_the_checkpoint(tmp_path):
    directory, elsewhere = tmp_path / "checkpoint", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    save_file({"a": torch.zeros(2)}, directory / "real.bin")
    link = directory / "model.safetensors"
    link.symlink_to("real.bin")
    assert open_checkpoint(locate(directory)).headers[0].file == "model.safetensors"
    (directory / "real.bin").rename(elsewhere / "real.bin")
    link.unlink()
    link.symlink_to(elsewhere / "real.bin")
    with pytest.raises(MalformedError, match="leads out"):
        open_checkpoint(locate(directory))


def test_a_hub_snapshot_links_into_its_own_blobs_only(tmp_path):
    repo, other = tmp_path / "models--org--name", tmp_path / "models--org--other"
    snapshot = repo / "snapshots" / "abc"
    for directory in snapshot, repo / "blobs", other / "blobs":
        directory.mkdir(parents=True)
    save_file({"a": torch.zeros(2)}, repo / "blobs" / "f00")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00")
    assert open_checkpoint(locate(snapshot)).headers[0].tensors[0].name == "a"
    (repo / "blobs" / "f00").rename(other / "blobs" / "f00")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(other / "blobs" / "f00")
    with pytest.raises(MalformedError, match="leads out"):
        open_checkpoint(locate(snapshot))


# --- writing ---------------------------------------------------------------------------------------


def written(file, contents) -> bytes:
    raw = bytearray(file.size)
    spans = []
    for offset, data in literals(file):
        raw[offset : offset + len(data)] = data
        spans.append((offset, offset + len(data)))
    for tensor in file.tensors:
        raw[tensor.offset : tensor.offset + tensor.nbytes] = contents[tensor.name]
        spans.append((tensor.offset, tensor.offset + tensor.nbytes))
    # Header and data cover the file without a gap.
    spans.sort()
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert (spans[0][0], spans[-1][1]) == (0, file.size)
    return bytes(raw)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(sorted(TORCH_TYPES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
        min_size=1,
        max_size=6,
    )
)
def test_what_is_placed_is_byte_for_byte_what_the_reference_library_writes(specs):
    tensors = {
        name: torch.randint(0, 2, shape).to(TORCH_TYPES[dtype]) for name, (dtype, shape) in specs.items()
    }
    contents = {name: as_bytes(tensor) for name, tensor in tensors.items()}
    file = place("m.safetensors", [(n, DTYPES[d], s) for n, (d, s) in specs.items()], {"format": "pt"})
    assert written(file, contents) == save(tensors, {"format": "pt"})


def test_the_written_file_opens_and_reads_back(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {"w": torch.randn(3, 5), "b": torch.randn(7).bfloat16(), "i": torch.tensor(3)}
    specs = [
        ("w", DTYPES["F32"], (3, 5)),
        ("b", DTYPES["BF16"], (7,)),
        ("i", DTYPES["I64"], ()),
    ]
    file = place("m.safetensors", specs, {"format": "pt"})
    contents = {name: as_bytes(tensor) for name, tensor in tensors.items()}
    path.write_bytes(written(file, contents))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(path).items())
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert read_header(path, "m.safetensors").tensors == file.tensors
    assert min(tensor.offset for tensor in file.tensors) % 8 == 0


def test_a_data_start_that_was_moved_back_is_filled_with_blanks():
    from dataclasses import replace

    file = place("m.safetensors", [("a", DTYPES["U8"], (3,))], {})
    moved = replace(file, size=4099, tensors=tuple(tensor._replace(offset=4096) for tensor in file.tensors))
    [(offset, header)] = literals(moved)
    assert (offset, len(header)) == (0, 4096)
    assert parse(header + b"abc").tensors[0].offset == 4096


def test_what_safetensors_cannot_hold_is_unsupported():
    one = ("a", DTYPES["F32"], (2,))
    for specs in [one, one], [("a", DTYPES["Q4_K"], (256,))], [("__metadata__", DTYPES["F32"], ())]:
        with pytest.raises(UnsupportedError):
            place("m.safetensors", specs, {})


def test_shards_keep_the_given_order_and_come_with_an_index():
    specs = [(name, DTYPES["F32"], (100,)) for name in "zyxwv"]
    groups, index = shard(specs, 900)
    assert groups == {
        "model-00001-of-00003.safetensors": ["z", "y"],
        "model-00002-of-00003.safetensors": ["x", "w"],
        "model-00003-of-00003.safetensors": ["v"],
    }
    parsed = json.loads(index)
    assert parsed["metadata"] == {"total_size": 2000}
    assert parsed["weight_map"] == {name: file for file, names in groups.items() for name in names}


def test_one_shard_has_no_index():
    specs = [(name, DTYPES["F32"], (100,)) for name in "ba"]
    assert shard(specs, "5GB") == ({"model.safetensors": ["b", "a"]}, None)
    assert shard([], "5GB") == ({"model.safetensors": []}, None)


def test_the_index_is_what_the_reader_expects(tmp_path):
    specs = [(name, DTYPES["U8"], (10,)) for name in "abc"]
    groups, index = shard(specs, 10)
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    for file, names in groups.items():
        placed = place(file, [spec for spec in specs if spec[0] in names], {"format": "pt"})
        (tmp_path / file).write_bytes(written(placed, dict.fromkeys(names, bytes(10))))
    headers = open_checkpoint(locate(tmp_path)).headers
    assert [[tensor.name for tensor in header.tensors] for header in headers] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("size", ["lots", 0, -1])
def test_a_size_that_is_none_is_a_usage_error(size):
    with pytest.raises(UsageError):
        shard([("a", DTYPES["U8"], (1,))], size)
