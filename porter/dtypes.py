"""One table of every element type that porter can name, sized in bits.

A dtype is a block of `block` elements that takes `block_bytes` bytes; plain types have blocks of one
element (or of as many as fill a byte, for types below 8 bits). Names are those of the safetensors
header (`BF16`, `F32`, …); quantised GGUF types keep the names of ggml.

Sources: safetensors' format document and its `Dtype` enum (0.8); ggml's type table as listed by
`gguf.constants.GGML_QUANT_SIZES` (0.19).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from porter.errors import UnsupportedError, UsageError


@dataclass(frozen=True)
class Dtype:
    """An element type.

    `kind` is "float", "int", "bool", "complex" or "quantised"; `torch` is the attribute of the `torch`
    module with the same meaning, or None; `safetensors` says whether a safetensors header may name it.
    """

    name: str
    block: int
    block_bytes: int
    kind: str
    torch: str | None = None
    safetensors: bool = False

    @property
    def bits(self) -> float:
        """Bits per element (4.5 for Q4_K)."""
        return 8 * self.block_bytes / self.block

    @property
    def itemsize(self) -> int:
        """Bytes per element; only for types whose elements are whole bytes."""
        if self.block != 1:
            raise UnsupportedError(f"{self.name} has no whole bytes per element")
        return self.block_bytes

    @property
    def quantised(self) -> bool:
        return self.kind == "quantised"

    def nbytes(self, elements: int) -> int:
        """Bytes that `elements` elements take; they must fill whole blocks."""
        if self.block == 1:
            return elements * self.block_bytes
        blocks, rest = divmod(elements, self.block)
        if rest:
            raise UnsupportedError(f"{elements} elements of {self.name} do not fill blocks of {self.block}")
        return blocks * self.block_bytes


_PLAIN = [
    Dtype("F64", 1, 8, "float", "float64", True),
    Dtype("F32", 1, 4, "float", "float32", True),
    Dtype("F16", 1, 2, "float", "float16", True),
    Dtype("BF16", 1, 2, "float", "bfloat16", True),
    Dtype("F8_E4M3", 1, 1, "float", "float8_e4m3fn", True),
    Dtype("F8_E5M2", 1, 1, "float", "float8_e5m2", True),
    Dtype("F8_E8M0", 1, 1, "float", "float8_e8m0fnu", True),
    Dtype("F8_E4M3FNUZ", 1, 1, "float", "float8_e4m3fnuz", True),
    Dtype("F8_E5M2FNUZ", 1, 1, "float", "float8_e5m2fnuz", True),
    Dtype("F6_E2M3", 4, 3, "float", None, True),
    Dtype("F6_E3M2", 4, 3, "float", None, True),
    Dtype("F4", 2, 1, "float", None, True),
    Dtype("C64", 1, 8, "complex", "complex64", True),
    Dtype("I64", 1, 8, "int", "int64", True),
    Dtype("I32", 1, 4, "int", "int32", True),
    Dtype("I16", 1, 2, "int", "int16", True),
    Dtype("I8", 1, 1, "int", "int8", True),
    Dtype("U64", 1, 8, "int", "uint64", True),
    Dtype("U32", 1, 4, "int", "uint32", True),
    Dtype("U16", 1, 2, "int", "uint16", True),
    Dtype("U8", 1, 1, "int", "uint8", True),
    Dtype("BOOL", 1, 1, "bool", "bool", True),
]

_GGML = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 40),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}

DTYPES: dict[str, Dtype] = {dtype.name: dtype for dtype in _PLAIN} | {
    name: Dtype(name, block, size, "quantised") for name, (block, size) in _GGML.items()
}

# Whole numbers, each row with a factor of its own that lies in a tensor beside them.
SCALED_I8 = Dtype("I8_SCALED", 1, 1, "quantised", "int8")

# Bits of exponent and of fraction. A float is a value of every float that has at least as many of both.
_FLOATS = {
    "F8_E4M3": (4, 3),
    "F8_E5M2": (5, 2),
    "F16": (5, 10),
    "BF16": (8, 7),
    "F32": (8, 23),
    "F64": (11, 52),
}


def casts_exactly(source: Dtype, target: Dtype) -> bool:
    """Whether every value of `source` is one of `target`. What is quantised has values of float32."""
    narrow = "F32" if source.quantised else source.name
    if narrow == target.name:
        return True
    if narrow not in _FLOATS or target.name not in _FLOATS:
        return False
    return all(a <= b for a, b in zip(_FLOATS[narrow], _FLOATS[target.name], strict=True))


# The words a user may say for `--dtype`: torch's names and the common short forms.
_SPOKEN = {
    "bfloat16": "BF16",
    "bf16": "BF16",
    "float16": "F16",
    "fp16": "F16",
    "half": "F16",
    "float32": "F32",
    "fp32": "F32",
    "float": "F32",
}


def dtype_named(name: str) -> Dtype:
    """The dtype with a header's own name, such as `BF16` or `Q4_K`."""
    try:
        return DTYPES[name]
    except KeyError:
        raise UnsupportedError(f"unknown dtype {name!r}", hint=f"known: {', '.join(DTYPES)}") from None


def dtype_spoken(word: str) -> Dtype:
    """The dtype that a user asks for, in torch's words: `bfloat16`, `float16` or `float32`."""
    name = _SPOKEN.get(word.lower())
    if name is None:
        raise UsageError(f"unknown dtype {word!r}", hint="one of keep, bfloat16, float16, float32")
    return DTYPES[name]


def dtype_word(dtype: Dtype) -> str:
    """torch's word for a dtype (`bfloat16` for BF16), as configs spell it."""
    return dtype.torch or dtype.name.lower()


def dominant(dtypes: Iterable[tuple[Dtype, int]]) -> Dtype | None:
    """Of (dtype, elements) pairs, the dtype that holds the most elements; None when there are none."""
    totals: dict[str, int] = {}
    for dtype, elements in dtypes:
        totals[dtype.name] = totals.get(dtype.name, 0) + elements
    return DTYPES[max(totals, key=lambda name: totals[name])] if totals else None
