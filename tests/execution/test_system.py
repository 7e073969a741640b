"""What is asked of the system works where it can, and says why where it cannot."""

import os
import zlib

from hypothesis import given
from hypothesis import strategies as st

from porter.execution.crc import joined
from porter.system import clone_range, reserve


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_joined_crc_is_that_of_the_joined_bytes(first, second):
    assert joined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_a_crc_joined_with_a_wrong_length_differs():
    assert joined(zlib.crc32(b"ab"), zlib.crc32(b"c"), 2) != zlib.crc32(b"abc")


def test_lengths_beyond_memory_are_joined_like_any_other():
    zeros = zlib.crc32(bytes(1 << 20))
    whole = zeros
    for _ in range(3):
        whole = joined(whole, zeros, 1 << 20)
    assert whole == zlib.crc32(bytes(4 << 20))


def test_reserved_room_has_the_size_and_reads_as_zeros(tmp_path):
    with (tmp_path / "file").open("w+b") as stream:
        reserve(stream.fileno(), 10_000)
        assert stream.read() == bytes(10_000)


def test_blocks_that_cannot_be_shared_give_a_reason(tmp_path):
    with (tmp_path / "one").open("w+b") as one, (tmp_path / "two").open("w+b") as two:
        one.write(os.urandom(8192))
        one.flush()
        # No file system shares parts of blocks.
        assert clone_range(one.fileno(), 1, two.fileno(), 0, 100)
