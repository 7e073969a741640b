"""Hostile inputs by kind: each makes one file, or a few, out of nothing or out of a sound one."""

from __future__ import annotations

import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

Make = Callable[[Path], None]

# --- what only stands in the place of a file --------------------------------------------------------------


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/{path.name[:90]}")
    finally:
        os.close(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(20 << 30)


PLACEHOLDERS: dict[str, Make] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a directory": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
    "a link into /proc": lambda path: path.symlink_to("/proc/self/mem"),
    "a sparse file of 20 GB": _sparse,
    "nothing in it": lambda path: path.write_bytes(b""),
    "a web page": lambda path: path.write_bytes(b"<!DOCTYPE html><html><script>alert(1)</script></html>"),
    "a Git LFS pointer": lambda path: path.write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid x\n"
    ),
}


def in_place_of(file: str, make: Make) -> Make:
    def run(folder: Path) -> None:
        path = folder / file
        path.unlink()
        make(path)

    return run


# --- JSON -------------------------------------------------------------------------------------------------

JSON: dict[str, Callable[[], bytes]] = {
    "a list without end": lambda: b"[" * 1_000_000,
    "an object without end": lambda: b'{"a":' * 300_000,
    "900 levels": lambda: b'{"a":' * 900 + b"1" + b"}" * 900,
    "24 MB of lists": lambda: b"[" + b"[]," * 8_000_000 + b"[]]",
    "24 MB of objects": lambda: b"[" + b"{}," * 8_000_000 + b"{}]",
    "20 MB of numbers": lambda: b"[" + b"1," * 10_000_000 + b"1]",
    "20 MB of blanks": lambda: b" " * 20_000_000 + b"{}",
    "a text of 30 MB": lambda: b'{"a":"' + b"x" * 30_000_000 + b'"}',
    "a text of 3 MB as a model type": lambda: b'{"model_type":"' + b"x" * 3_000_000 + b'"}',
    "40,000 keys, one twice": lambda: (
        b"{" + b",".join(b'"k%d":1' % n for n in range(40_000)) + b',"k39999":1}'
    ),
    "one key 100,000 times": lambda: b"{" + b",".join([b'"k":1'] * 100_000) + b"}",
    "a number of 5,000 digits": lambda: b'{"vocab_size":' + b"9" * 5_000 + b"}",
    "a number of 4 MB": lambda: b'{"vocab_size":' + b"9" * 4_000_000 + b"}",
    "an exponent of 5,000 digits": lambda: b'{"vocab_size":1e' + b"9" * 5_000 + b"}",
    "NaN": lambda: b'{"vocab_size":NaN,"rms_norm_eps":Infinity}',
    "half a pair": lambda: b'{"model_type":"\\ud800","a":"\\udfff"}',
    "half a pair as a key": lambda: b'{"\\ud800":1}',
    "a null byte": lambda: b'{"model_type":"a\\u0000b"}',
    "escapes": lambda: b'{"model_type":"\\u001b[2J\\u202e\\u0085\\r"}',
    "bad UTF-8": lambda: b'{"model_type":"\xff\xfe"}',
    "UTF-16": lambda: '{"model_type":"gemma"}'.encode("utf-16"),
    "a mark before": lambda: b'\xef\xbb\xbf{"model_type":"gemma"}',
    "null": lambda: b"null",
    "a list": lambda: b"[]",
    "a number": lambda: b"1",
    "an empty object": lambda: b"{}",
    "two documents": lambda: b"{}{}",
    "cut short": lambda: b'{"model_type": "ge',
    "a long name of a key": lambda: b'{"' + b"k" * 1_000_000 + b'":1}',
}


def written(file: str, content: Callable[[], bytes]) -> Make:
    return lambda folder: _write(folder / file, content())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


# --- safetensors ------------------------------------------------------------------------------------------


def _safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _entries(count: int, name: Callable[[int], str], size: int = 0) -> bytes:
    return json.dumps(
        {
            name(n): {"dtype": "F32", "shape": [size // 4], "data_offsets": [n * size, (n + 1) * size]}
            for n in range(count)
        }
    ).encode()


def _one(entry: str, data: bytes = b"") -> Callable[[], bytes]:
    return lambda: _safetensors(b'{"a":' + entry.encode() + b"}", data)


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "a length of 2^64 - 1": lambda: _safetensors(b"{}", length=2**64 - 1),
    "a length beyond the file": lambda: _safetensors(b"{}", length=10_000),
    "a length of 0": lambda: _safetensors(b""),
    "no tensors": lambda: _safetensors(b"{}"),
    "24 MB of lists": lambda: _safetensors(b'{"a":[' + b"[]," * 8_000_000 + b"[]]}"),
    "24 MB of a shape": lambda: _safetensors(
        b'{"a":{"dtype":"F32","shape":[' + b"1," * 12_000_000 + b'1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "names of 1 MB in a table of 20": lambda: _safetensors(_entries(20, lambda n: "x" * 1_000_000 + str(n))),
    "a name of 1 MB beside 1,000": lambda: _safetensors(
        _entries(1_000, lambda n: "x" * (1_000_000 if n == 0 else 3) + str(n))
    ),
    "a name of 400,000 dots": lambda: _safetensors(_entries(3, lambda n: "a." * 400_000 + str(n))),
    "a name of 400,000 numbers": lambda: _safetensors(_entries(3, lambda n: "0." * 400_000 + str(n))),
    "a name of 400,000 slashes": lambda: _safetensors(_entries(3, lambda n: "a/" * 400_000 + str(n))),
    "names of 5,000 dots by the hundred": lambda: _safetensors(
        _entries(100, lambda n: "a.1." * 2_500 + str(n))
    ),
    "wrappers 100,000 times": lambda: _safetensors(_entries(3, lambda n: "module." * 100_000 + str(n))),
    "markers 100,000 times": lambda: _safetensors(_entries(3, lambda n: "_orig_mod." * 100_000 + str(n))),
    "numbers of 5,000 digits in names": lambda: _safetensors(
        _entries(9, lambda n: f"model.layers.{'9' * 5_000}{n}.norm.weight")
    ),
    "3,000 names of 400 layers": lambda: _safetensors(_entries(3_000, lambda n: "layers.1." * 400 + str(n))),
    "3,000 names of 2,000 dots": lambda: _safetensors(_entries(3_000, lambda n: "a." * 1_990 + str(n))),
    "layers up to 10^17": lambda: _safetensors(
        _entries(200, lambda n: f"model.layers.{n * 10**15}.input_layernorm.weight")
    ),
    "30,000 tensors without elements": lambda: _safetensors(_entries(30_000, lambda n: f"t{n}")),
    "20,000 layers": lambda: _safetensors(
        _entries(20_000, lambda n: f"model.layers.{n}.input_layernorm.weight")
    ),
    "control characters in a name": lambda: _safetensors(_entries(1, lambda n: "\x1b[2Ja\r")),
    "bidi marks in a name": lambda: _safetensors(_entries(2, lambda n: f"\u202e{n}\u2066\u2028")),
    "C1 in a name": lambda: _safetensors(_entries(1, lambda n: "\x9b31m")),
    "half a pair in a name": lambda: _safetensors(
        b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    ),
    "a formula as a name": lambda: _safetensors(_entries(1, lambda n: "=cmd|' /C calc'!A0")),
    "a path as a name": lambda: _safetensors(_entries(1, lambda n: "../../../../tmp/x")),
    "a shape whose product overflows": _one(
        '{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}'
    ),
    "a shape of 0 and 2^63": _one('{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}'),
    "a shape of 1,000 dims": _one(
        '{"dtype":"F32","shape":[' + ",".join(["1"] * 1_000) + '],"data_offsets":[0,4]}', bytes(4)
    ),
    "100,000 dims": _one(
        '{"dtype":"F32","shape":[' + ",".join(["2"] * 100_000) + '],"data_offsets":[0,4]}', bytes(4)
    ),
    "a number of 5,000 digits": _one(
        '{"dtype":"F32","shape":[' + "9" * 5_000 + '],"data_offsets":[0,4]}', bytes(4)
    ),
    "a negative dim": _one('{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', bytes(4)),
    "a dim with a point": _one('{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}', bytes(4)),
    "offsets backwards": _one('{"dtype":"F32","shape":[1],"data_offsets":[4,0]}', bytes(4)),
    "offsets beyond the file": _one('{"dtype":"F32","shape":[1],"data_offsets":[1000000,1000004]}', bytes(4)),
    "bytes that no tensor has": _one('{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', bytes(99)),
    "a dtype that is a list": _one('{"dtype":[],"shape":[1],"data_offsets":[0,4]}', bytes(4)),
    "a dtype of 3 MB": _one('{"dtype":"' + "x" * 3_000_000 + '","shape":[1],"data_offsets":[0,4]}', bytes(4)),
    "an entry that is null": _one("null"),
    "an entry that is a list": _one("[]"),
    "a key twice": lambda: _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "metadata that are no texts": lambda: _safetensors(b'{"__metadata__":{"a":[]}}'),
    "metadata of 20 MB": lambda: _safetensors(b'{"__metadata__":{"a":"' + b"x" * 20_000_000 + b'"}}'),
    "200,000 metadata": lambda: _safetensors(
        b'{"__metadata__":{' + b",".join(b'"k%d":"v"' % n for n in range(200_000)) + b"}}"
    ),
}

# --- an index of shards -----------------------------------------------------------------------------------

_INDEX_BIG = b",".join(b'"t%d":"model-00001-of-00002.safetensors"' % n for n in range(700_000))

INDEX: dict[str, Callable[[], bytes]] = {
    "an empty weight_map": lambda: b'{"weight_map":{}}',
    "no weight_map": lambda: b'{"metadata":{}}',
    "a weight_map that is a list": lambda: b'{"weight_map":[]}',
    "a shard that is a list": lambda: b'{"weight_map":{"a":["model-00001-of-00002.safetensors"]}}',
    "a shard out of the folder": lambda: b'{"weight_map":{"a":"../../../etc/passwd"}}',
    "a shard at an absolute path": lambda: b'{"weight_map":{"a":"/etc/passwd"}}',
    "a shard that is the folder": lambda: b'{"weight_map":{"a":"."}}',
    "a shard that is the index": lambda: b'{"weight_map":{"a":"model.safetensors.index.json"}}',
    "a shard that is the config": lambda: b'{"weight_map":{"a":"config.json"}}',
    "a shard of another kind": lambda: b'{"weight_map":{"a":"tokenizer.json"}}',
    "a shard with a null byte": lambda: b'{"weight_map":{"a":"a\\u0000.safetensors"}}',
    "a shard with half a pair": lambda: b'{"weight_map":{"a":"\\ud800.safetensors"}}',
    "a shard of 300 characters": lambda: b'{"weight_map":{"a":"' + b"x" * 300 + b'.safetensors"}}',
    "a shard of 1 MB": lambda: b'{"weight_map":{"a":"' + b"x" * 1_000_000 + b'.safetensors"}}',
    "a shard with a newline": lambda: b'{"weight_map":{"a":"a\\n.safetensors"}}',
    "100,000 shards": lambda: (
        b'{"weight_map":{' + b",".join(b'"t%d":"s%d.safetensors"' % (n, n) for n in range(100_000)) + b"}}"
    ),
    "700,000 tensors": lambda: b'{"weight_map":{' + _INDEX_BIG + b"}}",
    "60 MB of lists": lambda: b'{"weight_map":[' + b"[]," * 20_000_000 + b"[]]}",
}

# --- YAML -------------------------------------------------------------------------------------------------


def _bomb(width: int, depth: int) -> bytes:
    lines = [b"a0: &a0 [" + b",".join([b"x"] * width) + b"]"]
    for n in range(1, depth):
        lines.append(b"a%d: &a%d [" % (n, n) + b",".join([b"*a%d" % (n - 1)] * width) + b"]")
    return b"\n".join(lines) + b"\n"


YAML: dict[str, Callable[[], bytes]] = {
    "aliases of aliases": lambda: _bomb(9, 9),
    "aliases in 5 KB": lambda: _bomb(30, 40),
    "an anchor in itself": lambda: b"a: &a [*a]\n",
    "a merge of itself": lambda: b"a: &a\n  <<: *a\n  b: 1\n",
    "base 60, 400 KB": lambda: b"a: " + b"1:" * 200_000 + b"1\n",
    "a flow list of 1 MB": lambda: b"a: [" + b"1," * 500_000 + b"1]\n",
    "a flow list of 250 KB": lambda: b"a: [" + b"1," * 125_000 + b"1]\n",
    "10,000 levels": lambda: b"a: " + b"[" * 10_000 + b"\n",
    "10,000 mappings": lambda: b"a: " + b"{a: " * 10_000 + b"\n",
    "10,000 levels of blocks": lambda: b"- " * 10_000 + b"a\n",
    "a hexadecimal number of 5,000 digits": lambda: b"n_layer: 0x" + b"f" * 5_000 + b"\n",
    "a number of 5,000 digits": lambda: b"n_layer: " + b"9" * 5_000 + b"\n",
    "a tag that calls": lambda: b"a: !!python/object/apply:os.system ['touch /tmp/porter-was-here']\n",
    "a tag that imports": lambda: b"a: !!python/module:antigravity x\n",
    "a tag of a name": lambda: b"a: !!python/name:os.system x\n",
    "binary": lambda: b"a: !!binary " + b"A" * 100_000 + b"\n",
    "a set": lambda: b"a: !!set {x, y}\n",
    "keys that are lists": lambda: b"? [a]\n: 1\n",
    "100 documents": lambda: b"--- {}\n" * 100,
    "dates": lambda: b"n_layer: 2024-01-02\n",
    "a date that is none": lambda: b"n_layer: 2024-99-99\n",
    "null bytes": lambda: b"a: \x00\n",
    "escapes": lambda: b'name: "\\e[2J\\u202e"\n',
    "half a pair": lambda: b'name: "\\ud800"\n',
    "bad UTF-8": lambda: b"name: \xff\n",
    "a list": lambda: b"- a\n",
    "infinity": lambda: b"n_layer: .inf\n",
    "100,000 lines": lambda: b"".join(b"k%d: 1\n" % n for n in range(100_000)),
    "20,000 comments": lambda: b"# x\n" * 20_000 + b"a: 1\n",
    "a long plain text": lambda: b"name: " + b"a " * 100_000 + b"\n",
    "a long quoted text": lambda: b'name: "' + b"\\x41" * 50_000 + b'"\n',
    "a tag without a name": lambda: b"name: !\n",
    "15,000 anchors": lambda: b"".join(b"k%d: &a%d 1\n" % (n, n) for n in range(15_000)),
    "60,000 lines of a block": lambda: b"a: |\n" + b"  x\n" * 60_000,
    "100,000 folded lines": lambda: b'a: "' + b"\\\n" * 100_000 + b'"\n',
    "directives": lambda: b"%YAML 9.9\n%TAG ! tag:x,2000:\n---\na: !x 1\n",
}

# --- pickles ----------------------------------------------------------------------------------------------


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def _call(name: str, *arguments: bytes) -> bytes:
    module, _, word = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + word.encode() + b"\n(" + b"".join(arguments) + b"tR"


CANARY = "/tmp/porter-was-here"
_TOUCH = _text(f"touch {CANARY}")
_OPEN = _text(f"open({CANARY!r}, 'w')")


def _state(value: bytes) -> bytes:
    return b"\x80\x02}" + _text("w") + value + b"s."


def _deep(count: int, opcode: bytes = b"\x85") -> bytes:
    return _state(b")" + opcode * count)


def _doubled(count: int) -> bytes:
    # t = (t, t), again and again: as many bytes, and 2^count leaves.
    return _state(
        b")" + b"".join(b"q" + bytes([n % 250]) + b"h" + bytes([n % 250]) + b"\x86" for n in range(count))
    )


GADGETS: dict[str, bytes] = {
    name: _state(value)
    for name, value in {
        "os.system": _call("os.system", _TOUCH),
        "posix.system": _call("posix.system", _TOUCH),
        "subprocess.Popen": _call("subprocess.Popen", b"](" + _text("touch") + _text(CANARY) + b"e"),
        "subprocess.call": _call("subprocess.call", b"](" + _text("touch") + _text(CANARY) + b"e"),
        "builtins.eval": _call("builtins.eval", _OPEN),
        "builtins.exec": _call("builtins.exec", _OPEN),
        "__builtin__.eval": _call("__builtin__.eval", _OPEN),
        "builtins.open": _call("builtins.open", _text(CANARY), _text("w")),
        "io.open": _call("io.open", _text(CANARY), _text("w")),
        "pathlib.Path.touch": _call("builtins.getattr", _call("pathlib.Path", _text(CANARY)), _text("touch"))
        + b")R",
        "builtins.compile": _call("builtins.compile", _OPEN, _text("x"), _text("eval")),
        "builtins.__import__": _call("builtins.__import__", _text("antigravity")),
        "importlib.import_module": _call("importlib.import_module", _text("antigravity")),
        "runpy.run_path": _call("runpy.run_path", _text("/etc/passwd")),
        "pty.spawn": _call("pty.spawn", _text("/bin/true")),
        "os.popen": _call("os.popen", _TOUCH),
        "os.execv": _call("os.execv", _text("/bin/true"), b"](" + _text("true") + b"e"),
        "os.remove": _call("os.remove", _text("config.json")),
        "shutil.rmtree": _call("shutil.rmtree", _text("/tmp/nowhere-at-all")),
        "socket.create_connection": _call("socket.create_connection", _text("127.0.0.1"), b"K\x01"),
        "urllib.request.urlopen": _call("urllib.request.urlopen", _text("http://127.0.0.1:1/")),
        "webbrowser.open": _call("webbrowser.open", _text("http://127.0.0.1:1/")),
        "ctypes.CDLL": _call("ctypes.CDLL", _text("libc.so.6")),
        "code.interact": _call("code.InteractiveConsole", b""),
        "pickle.loads": _call("pickle.loads", b"C\x10cos\nsystem\n(S'x'\n"),
        "_pickle.loads": _call("_pickle.loads", b"C\x10cos\nsystem\n(S'x'\n"),
        "marshal.loads": _call("marshal.loads", b"C\x01c"),
        "types.FunctionType": _call("types.FunctionType", b"N", b"}"),
        "types.CodeType": _call("types.CodeType", b"K\x00"),
        "functools.partial": _call("functools.partial", b"cos\nsystem\n", _TOUCH) + b")R",
        "operator.attrgetter": _call("operator.attrgetter", _text("system")) + b"cos\n__dict__\n\x85R",
        "operator.methodcaller": _call("operator.methodcaller", _text("system"), _TOUCH)
        + b"cos\npath\n\x85R",
        "timeit.timeit": _call("timeit.timeit", _OPEN),
        "bdb.Bdb.run": _call("bdb.Bdb", b"") + _text("x") + b"\x85R",
        "cProfile.run": _call("cProfile.run", _OPEN),
        "pdb.run": _call("pdb.run", _OPEN),
        "numpy.load": _call("numpy.load", _text("/etc/passwd")),
        "numpy.testing.run_string": _call("numpy.testing._private.utils.runstring", _OPEN, b"}"),
        "torch.load": _call("torch.load", _text("/etc/passwd")),
        "torch.hub.load": _call("torch.hub.load", _text("x/y"), _text("z")),
        "torch.jit.script": _call("torch.jit.unsupported_tensor_ops.execWrapper", _OPEN, b"}", b"}"),
        "torch.serialization": _call("torch.serialization.load", _text("/etc/passwd")),
        "torch storage from a file": _call("torch.UntypedStorage.from_file", _text("/etc/passwd")),
        "torch.storage._load_from_bytes": _call("torch.storage._load_from_bytes", b"C\x04abcd"),
        "torch._utils._rebuild_wrapper_subclass": _call(
            "torch._utils._rebuild_wrapper_subclass", b"cos\nsystem\n"
        ),
        "builtins.getattr": _call("builtins.getattr", b"cos\nenviron\n", _text("clear")) + b")R",
        "build on os.environ": b"cos\nenviron\n}" + _text("PORTER") + _text("1") + b"sb",
        "set items on os.environ": b"cos\nenviron\n" + _text("PORTER") + _text("1") + b"s",
        "an instance": b"(" + _TOUCH + b"ios\nsystem\n",
        "an object": b"(cos\nsystem\n" + _TOUCH + b"o",
        "newobj": b"csubprocess\nPopen\n(](" + _text("touch") + _text(CANARY) + b"et\x81",
        "an extension": b"\x82\x01",
        "a persistent id of text": b"Pos.system\n",
    }.items()
}

PICKLES: dict[str, Callable[[], bytes]] = {
    "1,900,000 lists": lambda: _state(b"(" + b"]" * 1_900_000 + b"t"),
    "3,900,000 lists": lambda: _state(b"(" + b"]" * 3_900_000 + b"t"),
    "3,900,000 dicts": lambda: _state(b"(" + b"}" * 3_900_000 + b"t"),
    "3,900,000 tuples": lambda: _state(b"(" + b")" * 3_900_000 + b"t"),
    "3,900,000 sets": lambda: _state(b"(" + b"\x8f" * 3_900_000 + b"t"),
    "2,000,000 frozen sets": lambda: _state(b"(" + b"(\x91" * 2_000_000 + b"t"),
    "150,000 ordered dicts": lambda: _state(b"ccollections\nOrderedDict\n)R" * 150_000 + b"0" * 149_999),
    "a list in itself 1,200,000 times": lambda: _state(b"]q\x00" + b"(h\x00h\x00h\x00h\x00e" * 300_000),
    "a tuple of three 1,200,000 deep": lambda: _state(b"N" + b"NN\x87" * 1_200_000),
    "a dict 500,000 deep": lambda: _state((b"}" + _text("a")) * 500_000 + b"N" + b"s" * 500_000),
    "20,000,000 numbers": lambda: _state(b"(" + b"K\x01" * 20_000_000 + b"t"),
    "1,000,000 names": lambda: _state(b"(" + b"cos\nx\n" * 1_000_000 + b"t"),
    "a tuple 3,000,000 deep": lambda: _deep(3_000_000),
    "a list 1,000,000 deep": lambda: _state(b"]" * 1_000_000 + b"a" * 999_999),
    "a tuple doubled 60 times": lambda: _doubled(60),
    "a tuple doubled 240 times": lambda: _doubled(240),
    "a doubled tuple as a key": lambda: b"\x80\x02}" + _doubled(60)[3 + 6 : -2] + b"K\x01s.",
    "a deep tuple as a storage": lambda: b"\x80\x02)" + b"\x85" * 1_000_000 + b"Q.",
    "a deep tuple as an argument": lambda: _state(
        _call("torch._utils._rebuild_tensor_v2", b")" + b"\x85" * 1_000_000)
    ),
    "a deep tuple as a shape": lambda: _state(_call("torch.Size", b")" + b"\x85" * 1_000_000)),
    "a list that holds itself": lambda: _state(b"]q\x00h\x00a"),
    "a list put in a list again and again": lambda: _state(
        b"]q\x00" + b"".join(_call("collections.OrderedDict", b"h\x00") + b"0" for _ in range(20_000))
    ),
    "a number of 1,024 bytes": lambda: _state(b"\x8b" + struct.pack("<i", 1_024) + b"\xff" * 1_023 + b"\x7f"),
    "a number of 2^31 bytes": lambda: _state(b"\x8b" + struct.pack("<I", 2**31)),
    "a text of 2^32 bytes": lambda: _state(b"X" + struct.pack("<I", 2**32 - 1)),
    "a text of 2^64 bytes": lambda: _state(b"\x8d" + struct.pack("<Q", 2**64 - 1)),
    "a text of 30 MB": lambda: _state(_text("x" * 30_000_000)),
    "a key of 30 MB": lambda: b"\x80\x02}" + _text("x" * 30_000_000) + b"K\x01s.",
    "a bytearray of 2^63 bytes": lambda: _state(b"\x96" + struct.pack("<Q", 2**63)),
    "marks alone": lambda: b"\x80\x02" + b"(" * 4_000_000 + b".",
    "a memo of 2^32": lambda: _state(b"Nr" + struct.pack("<I", 2**32 - 1)),
    "no stop": lambda: b"\x80\x02}",
    "nothing on the stack": lambda: b"\x80\x02.",
    "half a pair in a key": lambda: b"\x80\x02}X\x03\x00\x00\x00\xed\xa0\x80K\x01s.",
    "protocol 0": lambda: b"(dp0\n.",
    "protocol 9": lambda: b"\x80\x09}.",
}


def torch_file(pickled: Callable[[], bytes], folder_name: str = "m") -> Make:
    def run(folder: Path) -> None:
        with zipfile.ZipFile(folder / "lit_model.pth", "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(f"{folder_name}/data.pkl", pickled())
            archive.writestr(f"{folder_name}/byteorder", b"little")
            # torch reads no archive without it.
            archive.writestr(f"{folder_name}/version", b"3\n")
            archive.writestr(f"{folder_name}/data/0", bytes(24))

    return run


def _zip_of(entries: Callable[[zipfile.ZipFile], None], method: int = zipfile.ZIP_STORED) -> Make:
    def run(folder: Path) -> None:
        with zipfile.ZipFile(folder / "lit_model.pth", "w", method) as archive:
            entries(archive)

    return run


def _many(archive: zipfile.ZipFile) -> None:
    archive.writestr("m/data.pkl", b"\x80\x02}.")
    for number in range(40_000):
        archive.writestr(f"m/data/{number}", b"")


def _compressed(archive: zipfile.ZipFile) -> None:
    archive.writestr("m/data.pkl", b"\x80\x02}" + bytes(30_000_000))


ZIPS: dict[str, Make] = {
    "40,000 entries": _zip_of(_many),
    "a compressed pickle": _zip_of(_compressed, zipfile.ZIP_DEFLATED),
    "two folders": _zip_of(lambda a: (a.writestr("m/data.pkl", b""), a.writestr("n/data.pkl", b""))[0]),
    "a path out": _zip_of(
        lambda a: (a.writestr("m/data.pkl", b"\x80\x02}."), a.writestr("m/../../x", b"x"))[0]
    ),
    "a program": _zip_of(lambda a: (a.writestr("m/data.pkl", b""), a.writestr("m/constants.pkl", b""))[0]),
    "no pickle": _zip_of(lambda a: a.writestr("m/x", b"")),
    "nothing": _zip_of(lambda a: None),
    "a name of 60,000 characters": _zip_of(lambda a: a.writestr("m/" + "x" * 60_000, b"")),
    "a comment": lambda folder: _commented(folder / "lit_model.pth"),
    "an entry that is called a folder": lambda folder: _called_a_folder(folder / "lit_model.pth"),
    "another zip behind": lambda folder: (folder / "lit_model.pth").write_bytes(
        (folder / "lit_model.pth").read_bytes() * 2
    ),
    "an end record alone": lambda folder: (folder / "lit_model.pth").write_bytes(b"PK\x05\x06" + bytes(18)),
    "an end record of 65,535 entries": lambda folder: (folder / "lit_model.pth").write_bytes(
        b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 65535, 65535, 0, 64, 0)
    ),
    "a bare pickle": lambda folder: (folder / "lit_model.pth").write_bytes(GADGETS["os.system"]),
    "a tar archive": lambda folder: (folder / "lit_model.pth").write_bytes(
        bytes(257) + b"ustar\x0000" + bytes(255)
    ),
}


def _commented(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06" + bytes(18)


def _called_a_folder(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # In the directory, the attributes of the last entry of a tensor, eight bytes before its name.
    at = content.rindex(b"/data/1")
    start = content.rindex(b"PK\x01\x02", 0, at)
    content[start + 38] |= 0x10
    path.write_bytes(content)


# --- GGUF -------------------------------------------------------------------------------------------------


def _gguf(keys: list[bytes], tensors: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    head = (
        b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    )
    return head + bytes(-len(head) % 32) + data


def _string(word: bytes) -> bytes:
    return struct.pack("<Q", len(word)) + word


def _key(name: bytes, kind: int, value: bytes) -> bytes:
    return _string(name) + struct.pack("<I", kind) + value


def _tensor(name: bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


_ARCH = _key(b"general.architecture", 8, _string(b"gemma"))


def _tokens(pieces: list[bytes], kinds: int = 1) -> list[bytes]:
    every = b"".join(map(_string, pieces))
    count = struct.pack("<Q", len(pieces))
    return [
        _ARCH,
        _key(b"tokenizer.ggml.model", 8, _string(b"llama")),
        _key(b"tokenizer.ggml.tokens", 9, struct.pack("<I", 8) + count + every),
        _key(b"tokenizer.ggml.scores", 9, struct.pack("<I", 6) + count + bytes(4 * len(pieces))),
        _key(
            b"tokenizer.ggml.token_type",
            9,
            struct.pack("<I", 5) + count + struct.pack("<i", kinds) * len(pieces),
        ),
    ]


GGUF: dict[str, Callable[[], bytes]] = {
    "2^63 tensors": lambda: b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
    "2^63 keys": lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63),
    "version 1": lambda: _gguf([], [], version=1),
    "version 9": lambda: _gguf([], [], version=9),
    "big-endian": lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "nothing but the magic": lambda: b"GGUF",
    "no keys": lambda: _gguf([], []),
    "a key of 2^63 bytes": lambda: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63),
    "a value of 2^63 bytes": lambda: _gguf([_string(b"a") + struct.pack("<IQ", 8, 2**63)], []),
    "an array of 2^63 strings": lambda: _gguf([_key(b"a", 9, struct.pack("<IQ", 8, 2**63))], []),
    "an array of 2^60 numbers": lambda: _gguf([_key(b"a", 9, struct.pack("<IQ", 10, 2**60))], []),
    "arrays of arrays": lambda: _gguf([_key(b"a", 9, struct.pack("<IQ", 9, 1) * 5_000)], []),
    "4,000,000 empty strings": lambda: _gguf(
        [_ARCH, _key(b"a", 9, struct.pack("<IQ", 8, 4_000_000) + bytes(32_000_000))], []
    ),
    "a string of 60 MB": lambda: _gguf([_ARCH, _key(b"a", 8, _string(b"x" * 60_000_000))], []),
    "a header of 100 MB": lambda: _gguf([_ARCH, _key(b"a", 8, _string(b"x" * 100_000_000))], []),
    "60,000 keys": lambda: _gguf([_ARCH, *(_key(b"k%d" % n, 4, bytes(4)) for n in range(60_000))], []),
    "a key twice": lambda: _gguf([_ARCH, _ARCH], []),
    "a key of bad UTF-8": lambda: _gguf([_key(b"\xff", 4, bytes(4))], []),
    "a key of escapes": lambda: _gguf([_key(b"\x1b[2J", 4, bytes(4))], []),
    "a string of bad UTF-8": lambda: _gguf([_key(b"a", 8, _string(b"\xff"))], []),
    "a boolean of 2": lambda: _gguf([_key(b"a", 7, b"\x02")], []),
    "a value of type 99": lambda: _gguf([_key(b"a", 99, b"")], []),
    "a tensor of 9 dims": lambda: _gguf([_ARCH], [_tensor(b"a", (1,) * 9)]),
    "a tensor whose product overflows": lambda: _gguf([_ARCH], [_tensor(b"a", (2**32, 2**32, 2**32))]),
    "a tensor of 0 and 2^64 - 1": lambda: _gguf([_ARCH], [_tensor(b"a", (0, 2**64 - 1))]),
    "a tensor beyond the file": lambda: _gguf([_ARCH], [_tensor(b"a", (64,))]),
    "a tensor at 2^64 - 32": lambda: _gguf([_ARCH], [_tensor(b"a", (1,), offset=2**64 - 32)]),
    "a tensor of type 9,999": lambda: _gguf([_ARCH], [_tensor(b"a", (32,), kind=9_999)]),
    "a tensor twice": lambda: _gguf([_ARCH], [_tensor(b"a", (8,)), _tensor(b"a", (8,))], bytes(64)),
    "tensors over each other": lambda: _gguf([_ARCH], [_tensor(b"a", (8,)), _tensor(b"b", (8,))], bytes(64)),
    "a name of 60,000 characters": lambda: _gguf([_ARCH], [_tensor(b"x" * 60_000, (0,))]),
    "200,000 tensors": lambda: _gguf([_ARCH], [_tensor(b"t%d" % n, (0,)) for n in range(200_000)]),
    "an alignment of 0": lambda: _gguf([_ARCH, _key(b"general.alignment", 4, bytes(4))], []),
    "an alignment of 2^31": lambda: _gguf(
        [_ARCH, _key(b"general.alignment", 4, struct.pack("<I", 2**31))], []
    ),
    "an alignment of text": lambda: _gguf([_ARCH, _key(b"general.alignment", 8, _string(b"x"))], []),
    "an architecture that is a number": lambda: _gguf([_key(b"general.architecture", 4, bytes(4))], []),
    "an architecture that is a list": lambda: _gguf(
        [_key(b"general.architecture", 9, struct.pack("<IQ", 4, 0))], []
    ),
    "layers by 2^32": lambda: _gguf([_ARCH, _key(b"gemma.block_count", 4, b"\xff" * 4)], []),
    "layers by minus 1": lambda: _gguf([_ARCH, _key(b"gemma.block_count", 5, b"\xff" * 4)], []),
    "a rope base of NaN": lambda: _gguf(
        [_ARCH, _key(b"gemma.rope.freq_base", 6, struct.pack("<f", float("nan")))], []
    ),
    "split into 2^31": lambda: _gguf([_ARCH, _key(b"split.count", 4, struct.pack("<I", 2**31))], []),
    "split into parts by text": lambda: _gguf([_ARCH, _key(b"split.count", 8, _string(b"x"))], []),
}


def grown(pieces: list[bytes], kinds: int = 1) -> Make:
    """The sound GGUF with another vocabulary: its merges are what is asked for."""

    def run(folder: Path) -> None:
        import gguf

        old = gguf.GGUFReader(folder / "model.gguf")
        writer = gguf.GGUFWriter(folder / "new.gguf", "gemma")
        for name, field in old.fields.items():
            if name.startswith("gemma."):
                writer.add_key_value(name, field.contents(), field.types[0])
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([0.0] * len(pieces))
        writer.add_token_types([kinds] * len(pieces))
        for tensor in old.tensors:
            data = tensor.data
            if tensor.name == "token_embd.weight":
                import numpy as np

                data = np.zeros((len(pieces), data.shape[1]), np.float32)
            writer.add_tensor(tensor.name, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (folder / "new.gguf").replace(folder / "model.gguf")

    return run


VOCABULARIES: dict[str, Make] = {
    "merges of 1.2 MB of one letter": grown([b"a" * (n + 1) for n in range(1_550)]),
    "merges of pieces of 256": grown([bytes([97 + n % 26]) * (n // 26 + 1) for n in range(26 * 250)]),
    "pieces of 4,096": grown([b"%04d" % n + b"a" * 4_092 for n in range(300)]),
    "a piece twice": grown([b"a", b"a"]),
    "an empty piece": grown([b"a", b""]),
    "pieces of escapes": grown([b"\x1b[2J", b"\r", b"\xe2\x80\xae"]),
    "pieces of type 99": grown([b"a", b"b"], 99),
    "two unknown pieces": grown([b"a", b"b"], 2),
}

# --- HDF5, Keras ------------------------------------------------------------------------------------------


def hdf5(file: str, change: Callable[[object], None]) -> Make:
    def run(folder: Path) -> None:
        import h5py

        with h5py.File(folder / file, "r+") as opened:
            change(opened)

    return run


def _h5(program: str) -> Make:
    def change(root: object) -> None:
        import h5py
        import numpy

        exec(program, {"root": root, "h5py": h5py, "np": numpy})

    return hdf5("model.weights.h5", change)


HDF5: dict[str, Make] = {
    "an external link": _h5("root['x'] = h5py.ExternalLink('/etc/passwd', '/')"),
    "a soft link": _h5("root['x'] = h5py.SoftLink('/layers')"),
    "a soft link to itself": _h5("root['x'] = h5py.SoftLink('/x')"),
    "a group in itself": _h5("root['layers/again'] = root['layers']"),
    "external storage": _h5("root.create_dataset('x', (10,), 'f4', external=[('/etc/passwd', 0, 40)])"),
    "a virtual dataset": _h5(
        "v = h5py.VirtualLayout((4,), 'f4'); v[:] = h5py.VirtualSource('/etc/hosts', 'x', (4,)); "
        "root.create_virtual_dataset('x', v)"
    ),
    "a dataset that was never written": _h5("root.create_dataset('x', (2**40,), 'f4')"),
    "absurd chunks": _h5("root.create_dataset('x', (2**40,), 'f4', chunks=(2**28,))"),
    "a bomb": _h5(
        "root.create_dataset('x', (10**8,), 'f4', chunks=(2**24,), compression='gzip', fillvalue=1)[:1] = 0"
    ),
    "a shape that overflows": _h5("root.create_dataset('x', (2**31, 2**31, 2**31), 'f4', chunks=(1, 1, 1))"),
    "a name of 60,000 characters": _h5("root.create_dataset('x' * 60_000, (1,), 'f4')"),
    "a name of escapes": _h5("root.create_dataset('\\x1b[2J\\r', (1,), 'f4')"),
    "a name of bad UTF-8": _h5("root.create_dataset(b'\\xff\\xfe', (1,), 'f4')"),
    "40 levels": _h5("g = root\nfor n in range(40): g = g.create_group(f'g{n}')"),
    "20,000 groups": _h5("[root.create_group(f'g{n}') for n in range(20_000)]"),
    "texts": _h5("root.create_dataset('x', data=['a' * 1000] * 10)"),
    "references": _h5("root.create_dataset('x', data=[root.ref], dtype=h5py.ref_dtype)"),
    "compounds": _h5("root.create_dataset('x', (3,), [('a', 'f4'), ('b', 'i4')])"),
    "an empty dataspace": _h5("root.create_dataset('x', data=h5py.Empty('f4'))"),
    "an attribute of 60 KB": _h5("root.attrs['x'] = 'a' * 60_000"),
    "an attribute that is a name": _h5("root.attrs['layer_names'] = ['a']"),
    "opaque bytes marked as something": _h5(
        "d = root.create_dataset('x', data=np.zeros(3, 'V2')); d.attrs['dtype'] = 'x' * 10_000"
    ),
    "a user block": lambda folder: (folder / "model.weights.h5").write_bytes(
        bytes(512) + (folder / "model.weights.h5").read_bytes()
    ),
}

# --- Orbax ------------------------------------------------------------------------------------------------

_ARRAY = "transformer/final_norm.scale"


def zarray(**changes: object) -> Make:
    def run(folder: Path) -> None:
        path = folder / _ARRAY / ".zarray"
        stated = json.loads(path.read_text())
        stated.update(changes)
        path.write_text(json.dumps({key: value for key, value in stated.items() if value != "gone"}))

    return run


def _chunk(make: Make) -> Make:
    def run(folder: Path) -> None:
        path = folder / _ARRAY / "0"
        path.unlink()
        make(path)

    return run


ORBAX: dict[str, Make] = {
    "chunks of 2^62": zarray(chunks=[2**62]),
    "chunks of 2^63": zarray(chunks=[2**63]),
    "chunks of 0": zarray(chunks=[0]),
    "chunks of minus 1": zarray(chunks=[-1]),
    "chunks of text": zarray(chunks=["a"]),
    "chunks of another rank": zarray(chunks=[1, 1]),
    "chunks of 1 over 2^40": zarray(shape=[2**40], chunks=[1]),
    "a shape of 2^47": zarray(shape=[2**47], chunks=[2**47]),
    "a shape of 2^63": zarray(shape=[2**63], chunks=[12]),
    "a shape of 64 dims": zarray(shape=[1] * 64, chunks=[1] * 64),
    "a shape of 40 dims of 2^40": zarray(shape=[2**40] * 40, chunks=[1] * 40),
    "a dtype that is a list": zarray(dtype=[["a", "<f4"]]),
    "a dtype of texts": zarray(dtype="|S10000000"),
    "a dtype of 3 MB": zarray(dtype="x" * 900_000),
    "a compressor that is none": zarray(compressor={"id": "x" * 10_000}),
    "a compressor of text": zarray(compressor="zstd"),
    "zstd over plain bytes": zarray(compressor={"id": "zstd", "level": 1}),
    "blosc over plain bytes": zarray(compressor={"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}),
    "filters": zarray(filters=[{"id": "delta"}]),
    "a fill value of text": zarray(fill_value="x", chunks=[5]),
    "order F": zarray(order="F"),
    "order of a number": zarray(order=3),
    "a separator of another kind": zarray(dimension_separator="//"),
    "format 9": zarray(zarr_format=9),
    "no shape": zarray(shape="gone"),
    "no chunks": zarray(chunks="gone"),
    "chunks of 5 that are missing": zarray(chunks=[5]),
    "a chunk that is a link out": _chunk(lambda path: path.symlink_to("/etc/passwd")),
    "a chunk that is a pipe": _chunk(_pipe),
    "a chunk that is a device": _chunk(lambda path: path.symlink_to("/dev/zero")),
    "a chunk that is a socket": _chunk(_socket),
    "a chunk that is a folder": _chunk(lambda path: path.mkdir()),
    "a chunk of 20 GB": _chunk(_sparse),
    "a chunk that is missing": lambda folder: (folder / _ARRAY / "0").unlink(),
    "a chunk that is cut short": lambda folder: (folder / _ARRAY / "0").write_bytes(b"x"),
    "a folder that is a link out": lambda folder: (folder / "out").symlink_to("/etc"),
    "a folder that is a link to itself": lambda folder: (folder / "loop").symlink_to("."),
    "a database that is none": lambda folder: (folder / "manifest.ocdbt").write_bytes(b"x" * 100),
    "an empty database": lambda folder: (folder / "manifest.ocdbt").write_bytes(b""),
    "a database that is a pipe": lambda folder: _pipe(folder / "manifest.ocdbt"),
    "a database that is a link out": lambda folder: (folder / "manifest.ocdbt").symlink_to("/etc/passwd"),
    "3,000 folders in each other": lambda folder: _nested(folder, 3_000),
    "5,000 files beside": lambda folder: [(folder / f"f{n}").touch() for n in range(5_000)] and None,
}


def _nested(folder: Path, depth: int) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


# --- tokenizers -------------------------------------------------------------------------------------------


def _tokenizer(**changes: object) -> Callable[[], bytes]:
    base = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    return lambda: json.dumps(base | changes).encode()


TOKENIZERS: dict[str, Callable[[], bytes]] = {
    "40,000 keys twice": lambda: (
        b'{"model":{"vocab":{' + b",".join(b'"t%d":%d' % (n, n) for n in range(40_000)) * 2 + b"}}}"
    ),
    "an id of 5,000 digits": lambda: b'{"model":{"vocab":{"a":' + b"9" * 5_000 + b"}}}",
    "an id of 10^60": _tokenizer(model={"vocab": {"a": 10**60}}),
    "an id below 0": _tokenizer(model={"vocab": {"a": -1}}),
    "an id that is a text": _tokenizer(model={"vocab": {"a": "0"}}),
    "an id with a point": _tokenizer(model={"vocab": {"a": 0.5}}),
    "a vocabulary that is a list": _tokenizer(model={"vocab": [["a", 0.0]] * 5}),
    "a vocabulary that is a text": _tokenizer(model={"vocab": "abc"}),
    "no vocabulary": _tokenizer(model={}),
    "a model that is a list": _tokenizer(model=[]),
    "added tokens that are texts": _tokenizer(added_tokens=["a"]),
    "added tokens without ids": _tokenizer(added_tokens=[{"content": "a"}]),
    "added tokens that are an object": _tokenizer(added_tokens={"a": 1}),
    "added tokens of 10^60": _tokenizer(added_tokens=[{"id": 10**60, "content": "x" * 100_000}]),
    "a post-processor that is a list": _tokenizer(post_processor=[]),
    "a post-processor of processors of a number": _tokenizer(post_processor={"processors": 3}),
    "a template that is empty": _tokenizer(post_processor={"type": "TemplateProcessing", "single": [{}]}),
    "half a pair as a token": lambda: b'{"model":{"vocab":{"\\ud800":0}}}',
}

TOKENIZER_CONFIGS: dict[str, object] = {
    "a class that is a list": {"tokenizer_class": []},
    "a class of 3 MB": {"tokenizer_class": "x" * 3_000_000},
    "auto_map": {"auto_map": {"AutoTokenizer": ["os.system", None]}, "tokenizer_class": "X"},
    "bos that is a number": {"bos_token": 3, "add_bos_token": "yes"},
    "an id of 5,000 digits": {"added_tokens_decoder": {"9" * 5_000: {"content": "x"}}},
    "an id of superscripts": {"added_tokens_decoder": {"²": {"content": "x"}}},
    "an id of Arabic digits": {"added_tokens_decoder": {"٣": {"content": "x"}}},
    "an id that is a word": {"added_tokens_decoder": {"x": {"content": "x"}}},
    "a decoder that is a list": {"added_tokens_decoder": [1]},
    "a token that is a list": {"added_tokens_decoder": {"3": []}},
    "half a pair as a class": {"tokenizer_class": "\ud800", "bos_token": "\udfff"},
    "a chat template": {"chat_template": "{% for x in range(10**9) %}{{ ''.__class__.__mro__ }}{% endfor %}"},
}


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _piece(content: bytes, kind: int = 1) -> bytes:
    inner = b"\x0a" + _varint(len(content)) + content + b"\x15" + bytes(4) + b"\x18" + bytes([kind])
    return b"\x0a" + _varint(len(inner)) + inner


SENTENCEPIECE: dict[str, Callable[[], bytes]] = {
    "bad UTF-8 in a piece": lambda: _piece(b"\xff\xfe", 3),
    "bad UTF-8 in a special piece": lambda: _piece(b"<unk>", 2) + _piece(b"\xff", 3) * 3,
    "1,000,000 pieces": lambda: _piece(b"a") * 1_000_000,
    "2,000,000 empty pieces": lambda: b"\x0a\x00" * 2_000_000,
    "a piece of 30 MB": lambda: _piece(b"a" * 30_000_000),
    "groups in groups": lambda: b"\x0b" * 1_000_000,
    "a length of 2^63": lambda: b"\x0a" + _varint(2**63) + b"x",
    "unknown fields": lambda: b"\xfa\x7f\x01x" * 500_000,
    "no pieces": lambda: b"\x12\x00",
    "text": lambda: b"not a model",
}

# --- names in a directory ---------------------------------------------------------------------------------


def _renamed(name: bytes) -> Make:
    def run(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / os.fsdecode(name))

    return run


def _beside(*names: bytes) -> Make:
    def run(folder: Path) -> None:
        for name in names:
            (folder / os.fsdecode(name)).write_bytes(b"{}")

    return run


DIRECTORIES: dict[str, Make] = {
    "a weight file that is not UTF-8": _renamed(b"\xff\xfe.safetensors"),
    "a weight file of escapes": _renamed(b"\x1b[2J\r.safetensors"),
    "a weight file of bidi marks": _renamed("\u202e.safetensors".encode()),
    "a weight file of a newline": _renamed(b"a\nb.safetensors"),
    "a weight file of 240 characters": _renamed(b"x" * 240 + b".safetensors"),
    "files beside that are not UTF-8": _beside(b"\xff.json", b"\xfe.txt", b"\xfd"),
    "files beside of escapes": _beside(b"\x1b[2J.json", b"a\nb.json", b"=1+1.json"),
    "10,000 files beside": _beside(*(b"f%d.json" % n for n in range(10_000))),
    "10,000 weight files": _beside(*(b"f%d.safetensors" % n for n in range(10_000))),
    "shards by the billion": _beside(
        b"model-00001-of-99999.safetensors", b"model-00002-of-99999.safetensors"
    ),
    "shards of 1,000 digits": _beside(b"model-" + b"9" * 200 + b"-of-3.safetensors"),
    "counted weight files": _beside(*(b"w_%d_%d.bin" % (n, n) for n in range(2_000))),
    "templates that are not UTF-8": lambda folder: (
        (folder / "additional_chat_templates").mkdir(),
        _beside(b"additional_chat_templates/\xff.jinja")(folder),
    )[0],
}

# --- configs ----------------------------------------------------------------------------------------------


def config(**changes: object) -> Make:
    def run(folder: Path) -> None:
        stated = json.loads((folder / "config.json").read_text())
        stated.update(changes)
        (folder / "config.json").write_text(json.dumps(stated))

    return run


CONFIGS: dict[str, Make] = {
    "60,000 layers": config(num_hidden_layers=60_000),
    "10^9 layers": config(num_hidden_layers=10**9),
    "minus 1 layers": config(num_hidden_layers=-1),
    "0 layers": config(num_hidden_layers=0),
    "heads of 10^60": config(num_attention_heads=10**60),
    "all sizes of 10^60": config(
        hidden_size=10**60, intermediate_size=10**60, num_attention_heads=10**60, head_dim=10**60
    ),
    "all sizes of 10^18": config(hidden_size=10**18, intermediate_size=10**18, vocab_size=10**18),
    "heads of 0": config(num_attention_heads=0, num_key_value_heads=0),
    "heads with a point": config(num_attention_heads=4.5),
    "a size of 1e308": config(hidden_size=1e308),
    "an eps of infinity": config(rms_norm_eps=float("inf")),
    "a rope base of NaN": config(rope_theta=float("nan")),
    "a rope base of 10^60": config(rope_theta=10**60),
    "rope that is a list": config(rope_scaling=[1], rope_parameters="x"),
    "rope of odd entries": config(rope_scaling={"type": [], "factor": "x", "rope_type": {}}),
    "a deep entry": config(extra=json.loads("[" * 40 + "]" * 40)),
    "an entry of 3 MB": config(hidden_activation="x" * 3_000_000),
    "a model type of 3 MB": config(model_type="x" * 3_000_000),
    "a model type that is a list": config(model_type=["gemma"] * 10_000),
    "an architecture of a number": config(architectures=3),
    "a name of escapes": config(_name_or_path="\x1b[2J\u202e\r\n"),
    "custom code": config(auto_map={"AutoModel": "evil.Evil"}, trust_remote_code=True),
    "half a pair": config(hidden_activation="\ud800"),
    "token ids of 10^60": config(bos_token_id=10**60, eos_token_id=[10**60]),
    "a list for each layer": config(layer_types=["sliding_attention"] * 100_000),
    "100,000 unknown fields": config(**{f"x{n}": n for n in range(100_000)}),
    "names of dots": config(**{"a." * 50_000: 1}),
    "a quantization that is a list": config(quantization_config=[1]),
    "a quantization of odd words": config(
        quantization_config={"quant_method": {"x": []}, "bits": "y" * 100_000}
    ),
    "a text config in itself": config(text_config={"text_config": {"text_config": {}}}),
}

# --- tables -----------------------------------------------------------------------------------------------


def table(text: str) -> Make:
    return lambda folder: _write(folder / "mine.toml", text.encode("utf-8", "surrogatepass"))


_HEAD = 'extends = "gemma/hf"\nfamily = "gemma"\ndialect = "mine"\n'

TABLES: dict[str, Make] = {
    "a table in itself": table('extends = "mine.toml"\n' + _HEAD.split("\n", 1)[1]),
    "extends a number": table("extends = 3\n"),
    "extends a path out": table('extends = "../../../../etc/passwd.toml"\nfamily = "gemma"\n'),
    "a layout of blanks": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "' + " " * 200_000 + '!" }\n'
    ),
    "a layout of 200,000 axes": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "' + "d " * 200_000 + '" }\n'
    ),
    "a layout of parentheses": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "' + "(" * 100_000 + '" }\n'
    ),
    "a layout of sums": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "(' + "a | " * 20_000 + 'a)" }\n'
    ),
    "sums in sums": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "' + "(a | " * 30 + "a" + ")" * 30 + '" }\n'
    ),
    "a layout that doubles": table(
        _HEAD + '[rules]\n"a" = { ours = "norm", layout = "' + " ".join(["((a))"] * 5_000) + '" }\n'
    ),
    "an expression of parentheses": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "' + "(" * 50_000 + '" }\n'
    ),
    "an expression of 100,000 terms": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "' + "1+" * 100_000 + '1" }\n'
    ),
    "an expression of nots": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "' + "not " * 5_000 + '1" }\n'
    ),
    "a power": table(_HEAD + '[config.fields]\nnorm_eps = { default = "9 ** 9 ** 9" }\n'),
    "a product of products": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "' + "9999999999 * " * 2_000 + '1" }\n'
    ),
    "a text times a number": table(
        _HEAD + "[config.fields]\nnorm_eps = { default = \"'x' * 10000000000\" }\n"
    ),
    "a list times a number": table(_HEAD + '[config.fields]\nnorm_eps = { default = "[1] * 10000000000" }\n'),
    "a number of 5,000 digits": table(
        _HEAD + "[config.fields]\nnorm_eps = { default = " + "9" * 5_000 + " }\n"
    ),
    "digits in an expression": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "' + "9" * 5_000 + '" }\n'
    ),
    "a comprehension": table(
        _HEAD + '[config.fields]\nnorm_eps = { default = "[x for x in ().__class__]" }\n'
    ),
    "an attribute": table(_HEAD + '[config.fields]\nnorm_eps = { default = "().__class__.__base__" }\n'),
    "a call": table(_HEAD + "[config.fields]\nnorm_eps = { default = \"__import__('os').system('x')\" }\n"),
    "a lambda": table(_HEAD + '[config.fields]\nnorm_eps = { default = "(lambda: 1)()" }\n'),
    "a pattern of wildcards": table(_HEAD + 'ignore = ["' + "{layer}." * 5_000 + 'x"]\n'),
    "a pattern of suffixes": table(_HEAD + 'ignore = ["' + "a[_{layer}]" * 5_000 + '"]\n'),
    "a pattern of braces": table(_HEAD + 'ignore = ["' + "{" * 50_000 + '"]\n'),
    "known names of wildcards": table(_HEAD + '[config]\nknown = ["' + "*a" * 200 + 'b"]\n'),
    "20,000 rules": table(_HEAD + "[rules]\n" + "".join(f'"r{n}" = "norm"\n' for n in range(20_000))),
    "200,000 lines": table(_HEAD + "# x\n" * 200_000),
    "a line of 900 KB": table(_HEAD + "# " + "x" * 900_000 + "\n"),
    "blanks before a section": table(_HEAD + " " * 300_000 + "[rules\n"),
    "blanks in a section": table(_HEAD + "[" + " " * 300_000 + "x\n"),
    "blanks before a key": table(_HEAD + " " * 300_000 + "a\n"),
    "arrays in arrays": table(_HEAD + "a = " + "[" * 5_000 + "]" * 5_000 + "\n"),
    "tables in tables": table(_HEAD + "[" + "a." * 5_000 + "a]\n"),
    "a key of dots": table(_HEAD + "a." * 5_000 + "a = 1\n"),
    "null bytes": table(_HEAD + "a = \0\n"),
    "a mark before": table("\ufeff" + _HEAD),
    "half a pair": table(_HEAD + 'title = "\ud800"\n'),
    "escapes": table(_HEAD + 'title = "\\u001b[2J"\n[rules]\n"\\u202e" = "norm"\n'),
}


def placeholders(files: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str, Make]]:
    """For each seed and each of its files, what may stand in its place."""
    for seed, names in files.items():
        for file in names:
            for kind, make in PLACEHOLDERS.items():
                if seed == "table" and kind in ("a link out", "a link into /proc"):
                    # Whoever names a link means what is behind it.
                    continue
                yield seed, f"{file} is {kind}", in_place_of(file, make)
