"""The layout algebra: a layout is an address map, and every conversion is one strided copy."""

from porter.layout.address import AddressMap, BoundLayout, bind, strided_copy
from porter.layout.copies import Loop, Run, coalesce, elements, run_length, runs
from porter.layout.expressions import Expression, ExpressionError, parse_expression
from porter.layout.parse import Layout, LayoutError, parse_layout

__all__ = [
    "AddressMap",
    "BoundLayout",
    "Expression",
    "ExpressionError",
    "Layout",
    "LayoutError",
    "Loop",
    "Run",
    "bind",
    "coalesce",
    "elements",
    "parse_expression",
    "parse_layout",
    "run_length",
    "runs",
    "strided_copy",
]
