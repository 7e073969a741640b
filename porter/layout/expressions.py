"""Expressions over hyperparameters: the sizes of axes, `when` conditions, config defaults.

The notation is a small part of Python's: names, numbers, strings, lists, `+ - * / %`, comparisons, `in`,
`and or not`, `a if c else b`, indexing, and calls of the few functions that the caller offers. Text is
parsed with `ast` and walked node by node; nothing is ever compiled or evaluated by Python itself.

`/` is exact: dividing whole numbers that do not divide is an error that shows both.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from porter.errors import PorterError


class ExpressionError(PorterError):
    """An expression that cannot be parsed or evaluated; the caller adds file and line."""


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_ALLOWED = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.BinOp,
    ast.Div,
    ast.UnaryOp,
    ast.USub,
    ast.Not,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.Compare,
    ast.IfExp,
    ast.Subscript,
    ast.Call,
    *_BINARY,
    *_COMPARE,
)

Lookup = Callable[[str], Any]
Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the hyperparameters and index variables that it reads."""

    text: str

    @cached_property
    def tree(self) -> ast.expr:
        try:
            tree = ast.parse(self.text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExpressionError(f"cannot parse the expression `{self.text}`", cause=str(error)) from None
        for node in ast.walk(tree):
            if not isinstance(node, _ALLOWED):
                raise ExpressionError(
                    f"`{self.text}`: {type(node).__name__} is not part of the notation",
                    hint="names, numbers, + - * / %, comparisons, and/or/not, a if c else b, name[index]",
                )
            if isinstance(node, ast.Call) and (not isinstance(node.func, ast.Name) or node.keywords):
                raise ExpressionError(f"`{self.text}`: only plain calls such as field('name') are allowed")
        return tree.body

    @cached_property
    def names(self) -> frozenset[str]:
        called = {id(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
        return frozenset(
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and id(node) not in called
        )

    @cached_property
    def calls(self) -> frozenset[str]:
        """The functions that it calls."""
        return frozenset(
            node.func.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        )

    def asked(self, function: str) -> frozenset[str]:
        """The texts that it calls a function with."""
        return frozenset(
            argument.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
            for argument in node.args
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        )

    def decide(self, known: Mapping[str, Any]) -> bool | None:
        """Whether the condition holds, from some of the names' values alone; None where they do not tell."""
        return _decide(self.tree, known)

    def evaluate(self, lookup: Lookup, functions: Functions | None = None) -> Any:
        """The value, with `lookup(name)` for each name that is met. Raises ExpressionError."""
        try:
            return _evaluate(self.tree, lookup, functions or {})
        except ExpressionError as error:
            raise ExpressionError(f"`{self.text}`: {error.message}", hint=error.hint) from None
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise ExpressionError(f"`{self.text}` has no value here", cause=str(error)) from None


@cache
def parse_expression(text: str) -> Expression:
    """Parse at once, so that a table with a bad expression is refused when it is loaded."""
    expression = Expression(text)
    _ = expression.tree
    return expression


def _evaluate(node: ast.expr, lookup: Lookup, functions: Functions) -> Any:
    def value_of(child: ast.expr) -> Any:
        return _evaluate(child, lookup, functions)

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return lookup(node.id)
        case ast.List():
            return [value_of(element) for element in node.elts]
        case ast.BinOp(op=ast.Div()):
            return divide(value_of(node.left), value_of(node.right))
        case ast.BinOp():
            return _BINARY[type(node.op)](_number(value_of(node.left)), _number(value_of(node.right)))
        case ast.UnaryOp(op=ast.Not()):
            return not value_of(node.operand)
        case ast.UnaryOp():
            return -value_of(node.operand)
        case ast.BoolOp():
            deciding = isinstance(node.op, ast.Or)
            value: Any = not deciding
            for child in node.values:
                value = value_of(child)
                if bool(value) == deciding:
                    break
            return value
        case ast.Compare():
            left = value_of(node.left)
            for comparison, child in zip(node.ops, node.comparators, strict=True):
                right = value_of(child)
                if not _COMPARE[type(comparison)](left, right):
                    return False
                left = right
            return True
        case ast.IfExp():
            return value_of(node.body) if value_of(node.test) else value_of(node.orelse)
        case ast.Subscript():
            return value_of(node.value)[value_of(node.slice)]
        case ast.Call(func=ast.Name(id=name)):
            if name not in functions:
                raise ExpressionError(f"unknown function {name}", hint=f"known: {', '.join(functions)}")
            return functions[name](*(value_of(argument) for argument in node.args))
    raise ExpressionError(f"{type(node).__name__} is not part of the notation")


def _decide(node: ast.expr, known: Mapping[str, Any]) -> bool | None:
    """Three-valued: `and` is false as soon as one part is, whatever the others are."""
    match node:
        case ast.BoolOp():
            deciding = isinstance(node.op, ast.Or)
            parts = {_decide(child, known) for child in node.values}
            return deciding if deciding in parts else None if None in parts else not deciding
        case ast.UnaryOp(op=ast.Not()):
            inner = _decide(node.operand, known)
            return None if inner is None else not inner
    try:
        return bool(_evaluate(node, known.__getitem__, {}))
    except (PorterError, TypeError, ValueError, LookupError, ArithmeticError):
        return None


def _number(value: Any) -> Any:
    """Arithmetic is for numbers: repeating or formatting text could ask for any amount of memory."""
    if not isinstance(value, int | float):
        raise ExpressionError(f"{value!r} is not a number")
    return value


def divide(numerator: Any, denominator: Any) -> Any:
    """Exact division of whole numbers; true division as soon as one is not whole."""
    if isinstance(numerator, int) and isinstance(denominator, int):
        if denominator == 0:
            raise ExpressionError(f"{numerator} / 0")
        quotient, rest = divmod(numerator, denominator)
        if rest:
            raise ExpressionError(f"{numerator} / {denominator} is not a whole number")
        return quotient
    return numerator / denominator
