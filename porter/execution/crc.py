"""CRC-32 of two byte strings joined, from the CRC-32 of each: pieces are summed wherever they are moved.

Appending a zero byte is a linear map over the bits of a CRC; appending 2^k zero bytes is that map squared k
times. Method: Mark Adler's, as in zlib's crc32_combine.
"""

from __future__ import annotations

from functools import cache

# zlib's polynomial, bits reversed.
_POLYNOMIAL = 0xEDB88320


def joined(first: int, second: int, length: int) -> int:
    """The CRC-32 of a string of CRC `first` followed by one of CRC `second` and `length` bytes."""
    power = 3
    while length:
        if length & 1:
            first = _times(_zeros(power), first)
        length >>= 1
        power += 1
    return first ^ second


@cache
def _zeros(power: int) -> tuple[int, ...]:
    """The map that appends 2^power zero bits, as its images of the single bits."""
    if power == 0:
        return (_POLYNOMIAL, *(1 << bit for bit in range(31)))
    half = _zeros(power - 1)
    return tuple(_times(half, image) for image in half)


def _times(matrix: tuple[int, ...], vector: int) -> int:
    total = 0
    for image in matrix:
        if vector & 1:
            total ^= image
        vector >>= 1
    return total
