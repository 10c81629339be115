"""Operators and the functions of numbers that look at one bar alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rules.functions import columns
from rules.functions.function import Args, Builder, Constants, Function, Value, call_key, numbers
from rules.functions.values import Constant, NumberNode
from rules.functions.windows import Mean, Sum
from rules.language.tree import Kind
from rules.node import Node, Selection, Step

Ufunc = Callable[..., Any]
OPERATORS: Final[dict[str, Ufunc]] = {"+": np.add, "-": np.subtract, "*": np.multiply}
COMMUTATIVE: Final = frozenset("+*")
_STEPS: Final[dict[Ufunc, str]] = {
    np.negative: "negate", np.abs: "size", columns.maximum: "maximum", columns.minimum: "minimum",
}  # fmt: skip
"""The compiled step of a function, where there is one."""


def arithmetic(builder: Builder, op: str, left: Value, right: Value) -> Value:
    """Return the node of left op right; constants fold."""
    a, b = builder.number(left), builder.number(right)
    if op in COMMUTATIVE and b.key < a.key:
        a, b = b, a
    if isinstance(a, Constant) and isinstance(b, Constant):
        return builder.constant(_fold(op, a.number, b.number), a.period)
    key = f"({a.key}{op}{b.key})"
    if op == "/":
        return builder.share(Quotient(key, a, b, _near_sides(builder, b)))
    return builder.share(Operation(key, op, a, b))


def negate(builder: Builder, value: Value) -> Value:
    """Return the node of -value."""
    number = builder.number(value)
    if isinstance(number, Constant):
        return builder.constant(-number.number, number.period)
    return builder.share(Unary(f"(-{number.key})", np.negative, number))


class Operation(NumberNode):
    """a + b, a - b, a * b: NaN in, NaN out."""

    __slots__ = ("_ufunc", "left", "op", "right")

    def __init__(self, key: str, op: str, left: NumberNode, right: NumberNode) -> None:
        super().__init__(key, period=left.period, args=(left, right), warmup=max(left.warmup, right.warmup))
        self.op = op
        self.left = left
        self.right = right
        self._ufunc = OPERATORS[op]

    def recipe(self) -> Step:
        return Step(self._ufunc.__name__, (self.left, self.right))

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        self._ufunc(self.left.value, self.right.value, out)
        self.value = out


class Quotient(NumberNode):
    """a / b: NaN where b is 0, or is a sum, difference or product that is 0 to the tolerance of its `sides`."""

    __slots__ = ("_dividend", "_divisor", "_sides")

    def __init__(self, key: str, a: NumberNode, b: NumberNode, sides: tuple[NumberNode, ...]) -> None:
        super().__init__(key, period=a.period, args=(a, b, *sides), warmup=max(a.warmup, b.warmup))
        self._dividend = a
        self._divisor = b
        self._sides = sides

    def recipe(self) -> Step | None:
        if len(self._sides) > 1:
            return None
        return Step("divide_near" if self._sides else "divide", (self._dividend, self._divisor, *self._sides))

    def peek(self, at: Selection) -> None:
        out, a, b = self.room(at), self._dividend.value, self._divisor.value
        if not self._sides:
            columns.divide(a, b, out)
        else:
            columns.divide_near(a, b, self._sides[0].value, out)
            for side in self._sides[1:]:
                out[np.abs(b) <= columns.tolerance(side.value)] = np.nan
        self.value = out


class Unary(NumberNode):
    """A function of one number on one bar; NaN where it is not finite."""

    __slots__ = ("_checked", "_operand", "_ufunc")

    def __init__(self, key: str, ufunc: Ufunc, operand: NumberNode, *, checked: bool = False) -> None:
        super().__init__(key, period=operand.period, args=(operand,), warmup=operand.warmup)
        self._operand = operand
        self._ufunc = ufunc
        self._checked = checked

    def recipe(self) -> Step | None:
        step = _STEPS.get(self._ufunc)
        return None if step is None else Step(step, (self._operand,))

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        self._ufunc(self._operand.value, out=out)
        if self._checked:
            out[~np.isfinite(out)] = np.nan
        self.value = out


class Pair(NumberNode):
    """A function of two numbers on one bar; NaN in, NaN out, and NaN where it is not finite."""

    __slots__ = ("_checked", "_left", "_right", "_ufunc")

    def __init__(self, key: str, ufunc: Ufunc, left: NumberNode, right: NumberNode, *, checked: bool = False) -> None:
        super().__init__(key, period=left.period, args=(left, right), warmup=max(left.warmup, right.warmup))
        self._left = left
        self._right = right
        self._ufunc = ufunc
        self._checked = checked

    def recipe(self) -> Step | None:
        step = _STEPS.get(self._ufunc)
        return None if step is None else Step(step, (self._left, self._right))

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        a, b = self._left.value, self._right.value
        self._ufunc(a, b, out=out)
        if self._checked:
            out[~np.isfinite(out) | np.isnan(a) | np.isnan(b)] = np.nan  # 1**NaN and NaN**0 are 1 to IEEE
        self.value = out


def _fold(op: str, a: float, b: float) -> float:
    if op == "/":
        return a / b if b != 0 else float("nan")
    return float(OPERATORS[op](a, b))


def _near_sides(builder: Builder, divisor: NumberNode) -> tuple[NumberNode, ...]:
    """Return whose tolerances say that a divisor is 0: one side's is enough for a±b, a·b takes both.

    A sum of differences is one too: of MAX(0,MID-LOW) with ties in binary fractions, 1e-15 may be all that is left.
    """
    if isinstance(divisor, Sum | Mean) and _is_difference(divisor.x):
        return (builder.constant(1.0, divisor.period),)
    if not isinstance(divisor, Operation):
        return ()
    if divisor.op == "*":
        return divisor.left, divisor.right
    side = divisor.left if isinstance(divisor.left, Constant) else divisor.right
    if isinstance(side, Constant):
        side.dense = True
    return (side,)


def _is_difference(node: Node) -> bool:
    """Tell whether a node is a - b, or made of one by MAX, MIN, ABS and the like."""
    if isinstance(node, Operation):
        return node.op == "-"
    return isinstance(node, Unary | Pair) and any(map(_is_difference, node.args))


def _unary(name: str, ufunc: Ufunc, meaning: str, *, checked: bool = False) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        number = builder.number(args[0])
        return builder.share(Unary(call_key(name, (number,)), ufunc, number, checked=checked))

    return Function(
        name=name, params=numbers("X"), result=Kind.NUMBER, build=build, oracle="numpy", meaning=meaning, on_tick=True
    )


def _pair(name: str, ufunc: Ufunc, meaning: str, *, checked: bool = False, commutes: bool = False) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        a, b = builder.number(args[0]), builder.number(args[1])
        if commutes and b.key < a.key:
            a, b = b, a
        for side in (a, b):
            if isinstance(side, Constant):
                side.dense = True
        return builder.share(Pair(call_key(name, (a, b)), ufunc, a, b, checked=checked))

    return Function(
        name=name, params=numbers("A", "B"), result=Kind.NUMBER, build=build, oracle="numpy", meaning=meaning,
        on_tick=True,
    )  # fmt: skip


ARITHMETIC: Final = (
    _pair("MAX", columns.maximum, "the larger of A and B", commutes=True),
    _pair("MIN", columns.minimum, "the smaller of A and B", commutes=True),
    _pair("POW", np.power, "A to the power of B", checked=True),
    _pair("MOD", np.fmod, "remainder of A / B, with the sign of A", checked=True),
    _unary("ABS", np.abs, "absolute value"),
    _unary("SQRT", np.sqrt, "square root; unknown below 0"),
    _unary("LN", np.log, "natural logarithm; unknown from 0 down", checked=True),
    _unary("LOG", np.log10, "decimal logarithm; unknown from 0 down", checked=True),
    _unary("EXP", np.exp, "e to the power of X", checked=True),
    _unary("SIGN", np.sign, "1, 0 or -1"),
    _unary("FLOOR", np.floor, "largest whole number not above X"),
    _unary("CEILING", np.ceil, "smallest whole number not below X"),
    _unary("INTPART", np.trunc, "whole part, cut towards 0"),
)  # fmt: skip
