"""Comparisons of two numbers on one bar, and the functions that are made of them.

Comparisons hold to a tolerance of 1e-9·max(1,|a|,|b|), so that equal prices that came about by different sums are
equal. Where |a−b| is that small, |a| and |b| agree to 1e-9, so the tolerance of one operand is that of both; the
operand moved by it is a node of its own (`Shifted`), made once a pass however many comparisons it is in.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rules.errors import RuleError
from rules.functions import columns
from rules.functions.columns import TOLERANCE
from rules.functions.function import Args, Builder, Constants, Function, Value, numbers
from rules.functions.truths import invert, logic
from rules.functions.values import Constant, Field, NumberNode, TruthNode
from rules.language.tree import Kind
from rules.node import Selection, Step


def compare(builder: Builder, op: str, left: Value, right: Value) -> TruthNode:
    """Return the node of left op right, op one of > >= < <= = <>; all six are made of two nodes and a swap."""
    a, b = builder.number(left), builder.number(right)
    match op:
        case ">":
            return _greater(builder, a, b)
        case "<":
            return _greater(builder, b, a)
        case ">=":
            return invert(builder, _greater(builder, b, a))
        case "<=":
            return invert(builder, _greater(builder, a, b))
        case "=":
            return _equal(builder, a, b)
        case "<>":
            return invert(builder, _equal(builder, a, b))
    raise RuleError(f"{op!r} is not a comparison")


class Shifted(NumberNode):
    """A number moved by its tolerance, up or down."""

    __slots__ = ("_operand", "_share")

    def __init__(self, key: str, operand: NumberNode, share: float) -> None:
        super().__init__(key, period=operand.period, args=(operand,), warmup=operand.warmup)
        self._operand = operand
        self._share = share

    def recipe(self) -> Step:
        return Step("shift", (self._operand,), self._share)

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        columns.shift(self._share, self._operand.value, out)
        self.value = out


class Greater(TruthNode):
    """a > b, false where a ≤ b; of `edges`, so to the tolerance."""

    __slots__ = ("_a", "_b")

    def __init__(self, key: str, edges: tuple[NumberNode, NumberNode]) -> None:
        self._a, self._b = edges
        super().__init__(key, period=self._a.period, args=edges, warmup=max(x.warmup for x in edges))

    def recipe(self) -> Step:
        a, b = self._a, self._b
        if isinstance(b, Constant):
            return Step("over", (a,), b.number)
        return Step("under", (b,), a.number) if isinstance(a, Constant) else Step("compare", (a, b))

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        columns.compare(self._a.value, self._b.value, out.t, out.f)
        self.value = out


class Equal(TruthNode):
    """|a − b| ≤ the tolerance of one of them, which is that of both where they are so close."""

    __slots__ = ("_a", "_b", "_moved")

    def __init__(self, key: str, a: NumberNode, b: NumberNode, moved: NumberNode) -> None:
        super().__init__(key, period=a.period, args=(a, b), warmup=max(a.warmup, b.warmup))
        self._a = a
        self._b = b
        self._moved = moved

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        distance = np.abs(self._a.value - self._b.value)
        columns.compare(distance, columns.tolerance(self._moved.value), out.f, out.t)
        self.value = out


def _greater(builder: Builder, a: NumberNode, b: NumberNode) -> TruthNode:
    return builder.truth(builder.share(Greater(f"({a.key}>{b.key})", edges(builder, a, b))))


def edges(builder: Builder, a: NumberNode, b: NumberNode) -> tuple[NumberNode, NumberNode]:
    """Return what to compare exactly to know a > b beyond the tolerance: a and b + it, or a − it and b.

    a > b and b > a move the same side.
    """
    side = _moved(a, b)
    edge = _shifted(builder, side, -TOLERANCE if side is a else TOLERANCE)
    return (edge, b) if side is a else (a, edge)


def _shifted(builder: Builder, node: NumberNode, share: float) -> NumberNode:
    if isinstance(node, Constant):
        return builder.constant(node.number + share * max(1.0, abs(node.number)), node.period)
    return builder.number(builder.share(Shifted(f"({node.key}{'-' if share < 0 else '+'}TOLERANCE)", node, share)))


def _moved(a: NumberNode, b: NumberNode) -> NumberNode:
    """Return the side whose tolerance is taken: the cheaper, else the likelier to be in another comparison."""
    for cheap in (Constant, Field):
        if isinstance(a, cheap) or isinstance(b, cheap):
            return a if isinstance(a, cheap) else b
    return min(a, b, key=lambda node: (len(node.key), node.key))


def _equal(builder: Builder, a: NumberNode, b: NumberNode) -> TruthNode:
    if b.key < a.key:
        a, b = b, a
    return builder.truth(builder.share(Equal(f"({a.key}={b.key})", a, b, _moved(a, b))))


def _build_between(builder: Builder, args: Args, constants: Constants) -> Value:
    x, a, b = args
    up = logic(builder, "AND", (compare(builder, ">=", x, a), compare(builder, "<=", x, b)))
    down = logic(builder, "AND", (compare(builder, ">=", x, b), compare(builder, "<=", x, a)))
    return logic(builder, "OR", (up, down))


def _build_range(builder: Builder, args: Args, constants: Constants) -> Value:
    x, low, high = args
    return logic(builder, "AND", (compare(builder, ">", x, low), compare(builder, "<", x, high)))


COMPARING: Final = (
    Function(
        name="BETWEEN", params=numbers("X", "A", "B"), result=Kind.TRUTH, build=_build_between, oracle="numpy",
        meaning="X lies between A and B, ends included, whichever of them is larger", on_tick=True,
    ),
    Function(
        name="RANGE", params=numbers("X", "A", "B"), result=Kind.TRUTH, build=_build_range, oracle="numpy",
        meaning="A < X < B", on_tick=True,
    ),
)  # fmt: skip
