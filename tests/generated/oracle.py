"""What a table means, worked out with NumPy alone: nothing here is porter's.

A layout becomes, for each element of the stored tensor, the block it belongs to and its place along each axis
of that block.
"""

import json
import re
import struct
from dataclasses import dataclass, field

import numpy as np

ITEM = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "F8_E5M2": 1}


@dataclass
class Spots:
    """Elements in their stored order: `leaf` is the block's number, -1 outside of sums; -1 for no axis."""

    count: int
    leaf: np.ndarray
    axes: dict[str, np.ndarray] = field(default_factory=dict)


def words(text):
    return re.findall(r"[()|]|[A-Za-z_0-9]+", text)


def parsed(text):
    """A product of dims: each an axis, "1", or a list of alternatives, each again a product."""
    tokens = words(text)
    place = 0

    def product(stop):
        nonlocal place
        found = []
        while place < len(tokens) and tokens[place] not in stop:
            if tokens[place] == "(":
                place += 1
                alternatives = [product(("|", ")"))]
                while tokens[place] == "|":
                    place += 1
                    alternatives.append(product(("|", ")")))
                place += 1
                found.append(alternatives)
            else:
                found.append(tokens[place])
                place += 1
        return found

    return product(())


def spots_of(dims, sizes, numbers):
    """`numbers` gives each block without a sum inside its number, depth first."""
    found = Spots(1, np.array([-1]))
    for dim in dims:
        found = times(found, one_dim(dim, sizes, numbers))
    return found


def one_dim(dim, sizes, numbers):
    if dim == "1":
        return Spots(1, np.array([-1]))
    if isinstance(dim, str):
        return Spots(sizes[dim], np.full(sizes[dim], -1), {dim: np.arange(sizes[dim])})
    if len(dim) == 1:
        return spots_of(dim[0], sizes, numbers)
    parts = []
    for alternative in dim:
        part = spots_of(alternative, sizes, numbers)
        if not has_sum(alternative):
            part.leaf = np.full(part.count, next(numbers))
        parts.append(part)
    names = {name for part in parts for name in part.axes}
    return Spots(
        sum(part.count for part in parts),
        np.concatenate([part.leaf for part in parts]),
        {
            name: np.concatenate([part.axes.get(name, np.full(part.count, -1)) for part in parts])
            for name in names
        },
    )


def has_sum(dims):
    return any(isinstance(dim, list) and (len(dim) > 1 or has_sum(dim[0])) for dim in dims)


def times(one, two):
    """The product of both, the second running faster."""

    def merged(left, right):
        left, right = np.repeat(left, two.count), np.tile(right, one.count)
        return np.where(left >= 0, left, right)

    none = {1: np.full(one.count, -1), 2: np.full(two.count, -1)}
    axes = {
        name: merged(one.axes.get(name, none[1]), two.axes.get(name, none[2]))
        for name in {*one.axes, *two.axes}
    }
    return Spots(one.count * two.count, merged(one.leaf, two.leaf), axes)


def stored(layout, blocks, sizes):
    """The stored array. `blocks` are (axes, array) of each canonical tensor, in the order of the leaves."""
    dims = parsed(layout)
    spots = spots_of(dims, sizes, iter(range(len(blocks))))
    leaf = np.where(spots.leaf < 0, 0, spots.leaf)
    values = np.zeros(spots.count, blocks[0][1].dtype)
    for number, (axes, array) in enumerate(blocks):
        here = leaf == number
        # An axis of size 1 need not be there.
        values[here] = array[tuple(spots.axes[axis][here] for axis in axes)]
    shape = [spots_of([dim], sizes, iter(range(99))).count for dim in dims]
    return values.reshape(shape)


def write_safetensors(path, tensors):
    """`tensors` are dtype, shape and bytes by name; the header's length is whatever it is."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}


def read_safetensors(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }
