"""What porter itself writes and a stranger may have written: receipts, journals, claims, a bucket's index.

All go through the one reader, so that none of them blocks, nests, or eats the machine.
"""

import json
import os
from types import SimpleNamespace

import pytest

from porter.errors import MalformedError
from porter.execution.journal import _line, read_journal
from porter.execution.receipts import read_receipt, receipt_bytes, seal
from porter.reading.json_text import CLAIM, RECEIPT, parse_json
from porter.sources.buckets.bucket_listing import _shards

PLAN = f"sha256:{'0' * 64}"
SOUND = {"plan": PLAN, "files": {"a.bin": {"size": 3, "sha256": PLAN}}}

DAMAGED = {
    "deep": b"[" * 100_000,
    "many lists": b"[" + b"[]," * 2_000_000 + b"[]]",
    "a long number": b'{"schema":' + b"9" * 5_000 + b"}",
    "half a pair": b'{"schema": 2, "plan": "\\ud800"}',
    "a list": b"[]",
    "bad UTF-8": b"\xff",
    "a key twice": b'{"plan": 1, "plan": 1}',
}


def test_a_sound_receipt_is_read():
    assert read_receipt(seal(SOUND)).files["a.bin"].size == 3


@pytest.mark.parametrize("name", DAMAGED)
def test_a_receipt_of_anything_else_is_damaged(name):
    with pytest.raises(MalformedError, match="is damaged"):
        read_receipt(DAMAGED[name])


def test_errors_of_a_receipt_are_short():
    content = json.dumps({**SOUND, "schema": 1, "plan": "x" * 1_000_000}).encode()
    with pytest.raises(MalformedError) as error:
        read_receipt(content)
    assert "1,000,000 characters" in str(error.value) and len(str(error.value)) < 600


def test_a_receipt_is_a_regular_file_of_some_size(tmp_path):
    place = tmp_path / "porter-receipt.json"
    os.mkfifo(place)
    with pytest.raises(MalformedError, match="no regular file"):
        receipt_bytes(place)
    place.unlink()
    with place.open("wb") as stream:
        stream.truncate(RECEIPT.nbytes + 1)
    with pytest.raises(MalformedError, match="too large"):
        receipt_bytes(place)


def test_a_report_is_made_beside_a_pipe(tmp_path):
    from porter.cli.report_file import receipt_of

    os.mkfifo(tmp_path / "porter-receipt.json")
    assert receipt_of(str(tmp_path)) is None


def test_a_journal_that_none_wrote_is_no_journal(tmp_path):
    place, key = tmp_path / ".porter-journal", {"plan": "x"}
    sound = _line({"version": 2, **key}) + _line({"file": "a", "start": 0, "end": 4, "crc32": 1})
    place.write_bytes(sound)
    assert read_journal(place, key) == {"a": {(0, 4): 1}}
    deep = b"[" * 100_000
    for content in (
        sound + _sealed(deep),
        _sealed(deep),
        _sealed(b'{"version": 2, "plan": 1e999}'),
        b"\xff\n",
    ):
        place.write_bytes(content)
        assert read_journal(place, key) is None
    place.unlink()
    os.mkfifo(place)
    assert read_journal(place, key) is None


def _sealed(text):
    import zlib

    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def index_of(content):
    """A bucket's index with that content, as `_shards` opens it."""

    def read(views, offset):
        views[0][:] = content[: len(views[0])]

    file = SimpleNamespace(size=len(content), read=read)
    return _shards(SimpleNamespace(open=lambda name: file))


def test_an_index_in_a_bucket_is_read_within_limits():
    assert index_of(b'{"weight_map": {"a": "y.safetensors", "b": "x.safetensors"}}') == [
        "x.safetensors",
        "y.safetensors",
    ]
    many = ",".join(f'"t{number}": "s{number}.safetensors"' for number in range(2_001))
    for content in (
        *(content for name, content in DAMAGED.items() if name != "a key twice"),
        b'{"weight_map": {"a": "../x"}}',
        b'{"weight_map": {"a": ["x"]}}',
        b'{"weight_map": {"a": 1, "b": "x"}}',
        b'{"weight_map": []}',
        f'{{"weight_map": {{{many}}}}}'.encode(),
        b" " * 26_000_000 + b"{}",
    ):
        with pytest.raises(MalformedError):
            index_of(content)


def test_claims_have_limits():
    """`read_claim` asks for one byte more than a claim may have."""
    with pytest.raises(MalformedError, match="at most"):
        parse_json(bytes(CLAIM.nbytes + 1), "claim", CLAIM)


def test_the_models_config_is_read_as_the_checkpoints_is(tmp_path):
    from porter.models.config import Config

    place = tmp_path / "model_config.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    for content in ("\n".join(lines), "a: " + "1:" * 100_000 + "1", "a: [" + "1," * 200_000, "- a"):
        place.write_text(content)
        with pytest.raises(MalformedError):
            Config.from_file(place)
    place.unlink()
    with pytest.raises(MalformedError, match="holds a model_config"):
        Config.from_file(place)
    os.mkfifo(place)
    with pytest.raises(MalformedError, match="no regular file"):
        Config.from_file(place)
