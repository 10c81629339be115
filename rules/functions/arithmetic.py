"""Operators, comparisons, logic and the functions that look at one bar alone.

Comparisons hold to a tolerance of 1e-9·max(1,|a|,|b|), so that equal prices that came about by different sums are
equal. Where |a−b| is that small, |a| and |b| agree to 1e-9, so the tolerance of one operand is that of both; the
operand moved by it is a node of its own (`Shifted`), made once a pass however many comparisons it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rules.errors import RuleError
from rules.functions import columns
from rules.functions.columns import TOLERANCE
from rules.functions.function import (
    Args,
    Builder,
    Constants,
    Function,
    Param,
    ParamKind,
    Value,
    call_key,
    numbers,
)
from rules.functions.values import Constant, Field, NumberNode, TruthNode, true_at
from rules.language.tree import Kind
from rules.node import Selection, Truth

Ufunc = Callable[..., Any]
OPERATORS: Final[dict[str, Ufunc]] = {"+": np.add, "-": np.subtract, "*": np.multiply}
COMMUTATIVE: Final = frozenset("+*")


def arithmetic(builder: Builder, op: str, left: Value, right: Value) -> Value:
    """Return the node of left op right; constants fold."""
    a, b = builder.number(left), builder.number(right)
    if op in COMMUTATIVE and b.key < a.key:
        a, b = b, a
    if isinstance(a, Constant) and isinstance(b, Constant):
        return builder.constant(_fold(op, a.number, b.number), a.period)
    key = f"({a.key}{op}{b.key})"
    if op == "/":
        return builder.share(Quotient(key, a, b, _near_sides(b)))
    return builder.share(Operation(key, op, a, b))


def negate(builder: Builder, value: Value) -> Value:
    """Return the node of -value."""
    number = builder.number(value)
    if isinstance(number, Constant):
        return builder.constant(-number.number, number.period)
    return builder.share(Unary(f"(-{number.key})", np.negative, number))


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


def logic(builder: Builder, op: str, operands: Args) -> TruthNode:
    """Return the node of Kleene AND or OR over two or more operands; order and repeats don't matter."""
    distinct = {node.key: node for node in map(builder.truth, operands)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    ordered = tuple(distinct[key] for key in sorted(distinct))
    key = f"({f' {op} '.join(node.key for node in ordered)})"
    make = Conjunction if op == "AND" else Disjunction
    return _truth(builder.share(make(key, ordered)))


def invert(builder: Builder, operand: Value) -> TruthNode:
    """Return the node of NOT operand."""
    node = builder.truth(operand)
    if isinstance(node, Inverse):
        return node.operand
    return _truth(builder.share(Inverse(f"(NOT {node.key})", node)))


def as_number(builder: Builder, node: TruthNode) -> NumberNode:
    """Return a truth as 1, 0 or NaN."""
    shared = builder.share(TruthNumber(f"NUMBER({node.key})", node))
    assert isinstance(shared, NumberNode)
    return shared


def as_truth(builder: Builder, node: NumberNode) -> TruthNode:
    """Return a number as a truth: non-zero is true."""
    if isinstance(node, TruthNumber):
        return node.truth
    return _truth(builder.share(NumberTruth(f"TRUTH({node.key})", node)))


class Operation(NumberNode):
    """a + b, a - b, a * b: NaN in, NaN out."""

    __slots__ = ("_ufunc", "left", "op", "right")

    def __init__(self, key: str, op: str, left: NumberNode, right: NumberNode) -> None:
        super().__init__(key, period=left.period, args=(left, right), warmup=max(left.warmup, right.warmup))
        self.op = op
        self.left = left
        self.right = right
        self._ufunc = OPERATORS[op]

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

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        a, b = self._left.value, self._right.value
        self._ufunc(a, b, out=out)
        if self._checked:
            out[~np.isfinite(out) | np.isnan(a) | np.isnan(b)] = np.nan  # 1**NaN and NaN**0 are 1 to IEEE
        self.value = out


class Shifted(NumberNode):
    """A number moved by its tolerance, up or down."""

    __slots__ = ("_operand", "_share")

    def __init__(self, key: str, operand: NumberNode, share: float) -> None:
        super().__init__(key, period=operand.period, args=(operand,), warmup=operand.warmup)
        self._operand = operand
        self._share = share

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


class Conjunction(TruthNode):
    """Kleene AND of two or more operands."""

    __slots__ = ("_operands",)
    gate = "AND"

    def __init__(self, key: str, operands: tuple[TruthNode, ...]) -> None:
        super().__init__(key, period=operands[0].period, args=operands, warmup=max(x.warmup for x in operands))
        self._operands = operands

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        first = self._operands[0].value
        t, f = first.t, first.f
        for node in self._operands[1:]:
            t = np.logical_and(t, node.value.t, out.t)
            f = np.logical_or(f, node.value.f, out.f)
        self.value = out


class Disjunction(TruthNode):
    """Kleene OR of two or more operands."""

    __slots__ = ("_operands",)
    gate = "OR"

    def __init__(self, key: str, operands: tuple[TruthNode, ...]) -> None:
        super().__init__(key, period=operands[0].period, args=operands, warmup=max(x.warmup for x in operands))
        self._operands = operands

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        first = self._operands[0].value
        t, f = first.t, first.f
        for node in self._operands[1:]:
            t = np.logical_or(t, node.value.t, out.t)
            f = np.logical_and(f, node.value.f, out.f)
        self.value = out


class Inverse(TruthNode):
    """NOT: unknown stays unknown."""

    __slots__ = ("operand",)
    gate = "NOT"

    def __init__(self, key: str, operand: TruthNode) -> None:
        super().__init__(key, period=operand.period, args=(operand,), warmup=operand.warmup)
        self.operand = operand

    def peek(self, at: Selection) -> None:
        truth = self.operand.value
        self.value = Truth(truth.f, truth.t)


class TruthNumber(NumberNode):
    """A truth as 1, 0 or NaN."""

    __slots__ = ("truth",)

    def __init__(self, key: str, truth: TruthNode) -> None:
        super().__init__(key, period=truth.period, args=(truth,), warmup=truth.warmup)
        self.truth = truth

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        truth = self.truth.value
        np.copyto(out, truth.t)
        unknown = true_at(~(truth.t | truth.f))
        if unknown is not None:
            out[unknown] = np.nan
        self.value = out


class NumberTruth(TruthNode):
    """A number as a truth."""

    __slots__ = ("_number",)

    def __init__(self, key: str, number: NumberNode) -> None:
        super().__init__(key, period=number.period, args=(number,), warmup=number.warmup)
        self._number = number

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        number = self._number.value
        np.equal(number, 0.0, out.f)
        np.equal(number, number, out.t)  # false for NaN alone
        np.greater(out.t, out.f, out.t)
        self.value = out


class ChosenNumber(NumberNode):
    """IF on numbers: the branch not chosen may be NaN."""

    __slots__ = ("_condition", "_no", "_yes")

    def __init__(self, key: str, condition: TruthNode, yes: NumberNode, no: NumberNode) -> None:
        warmup = max(condition.warmup, min(yes.warmup, no.warmup))
        super().__init__(key, period=condition.period, args=(condition, yes, no), warmup=warmup)
        self._condition = condition
        self._yes = yes
        self._no = no

    def peek(self, at: Selection) -> None:
        truth = self._condition.value
        out = self.room(at)
        np.copyto(out, np.where(truth.t, self._yes.value, self._no.value))
        unknown = true_at(~(truth.t | truth.f))
        if unknown is not None:
            out[unknown] = np.nan
        self.value = out


class ChosenTruth(TruthNode):
    """IF on truths."""

    __slots__ = ("_condition", "_no", "_yes")

    def __init__(self, key: str, condition: TruthNode, yes: TruthNode, no: TruthNode) -> None:
        warmup = max(condition.warmup, min(yes.warmup, no.warmup))
        super().__init__(key, period=condition.period, args=(condition, yes, no), warmup=warmup)
        self._condition = condition
        self._yes = yes
        self._no = no

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        c, yes, no = self._condition.value, self._yes.value, self._no.value
        np.copyto(out.t, (c.t & yes.t) | (c.f & no.t))
        np.copyto(out.f, (c.t & yes.f) | (c.f & no.f))
        self.value = out


def _fold(op: str, a: float, b: float) -> float:
    if op == "/":
        return a / b if b != 0 else float("nan")
    return float(OPERATORS[op](a, b))


def _truth(node: Value) -> TruthNode:
    assert isinstance(node, TruthNode)
    return node


def _number(node: Value) -> NumberNode:
    assert isinstance(node, NumberNode)
    return node


def _near_sides(divisor: NumberNode) -> tuple[NumberNode, ...]:
    """Return whose tolerances say that a divisor is 0: one side's is enough for a±b, a·b takes both."""
    if not isinstance(divisor, Operation):
        return ()
    if divisor.op == "*":
        return divisor.left, divisor.right
    side = divisor.left if isinstance(divisor.left, Constant) else divisor.right
    if isinstance(side, Constant):
        side.dense = True
    return (side,)


def _greater(builder: Builder, a: NumberNode, b: NumberNode) -> TruthNode:
    return _truth(builder.share(Greater(f"({a.key}>{b.key})", edges(builder, a, b))))


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
    return _number(builder.share(Shifted(f"({node.key}{'-' if share < 0 else '+'}TOLERANCE)", node, share)))


def _moved(a: NumberNode, b: NumberNode) -> NumberNode:
    """Return the side whose tolerance is taken: the cheaper, else the likelier to be in another comparison."""
    for cheap in (Constant, Field):
        if isinstance(a, cheap) or isinstance(b, cheap):
            return a if isinstance(a, cheap) else b
    return min(a, b, key=lambda node: (len(node.key), node.key))


def _equal(builder: Builder, a: NumberNode, b: NumberNode) -> TruthNode:
    if b.key < a.key:
        a, b = b, a
    return _truth(builder.share(Equal(f"({a.key}={b.key})", a, b, _moved(a, b))))


def _build_if(builder: Builder, args: Args, constants: Constants) -> Value:
    condition, yes, no = args
    test = builder.truth(condition)
    if isinstance(yes, TruthNode) and isinstance(no, TruthNode):
        return builder.share(ChosenTruth(call_key("IF", (test, yes, no)), test, yes, no))
    one, other = builder.number(yes), builder.number(no)
    return builder.share(ChosenNumber(call_key("IF", (test, one, other)), test, one, other))


def _build_not(builder: Builder, args: Args, constants: Constants) -> Value:
    return invert(builder, args[0])


def _build_between(builder: Builder, args: Args, constants: Constants) -> Value:
    x, a, b = args
    up = logic(builder, "AND", (compare(builder, ">=", x, a), compare(builder, "<=", x, b)))
    down = logic(builder, "AND", (compare(builder, ">=", x, b), compare(builder, "<=", x, a)))
    return logic(builder, "OR", (up, down))


def _build_range(builder: Builder, args: Args, constants: Constants) -> Value:
    x, low, high = args
    return logic(builder, "AND", (compare(builder, ">", x, low), compare(builder, "<", x, high)))


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
    Function(
        name="IF", params=(Param("COND", ParamKind.TRUTH), Param("A", ParamKind.ANY), Param("B", ParamKind.ANY)),
        result=None, build=_build_if, oracle="numpy", on_tick=True,
        meaning="A where COND is true, B where it is false; only the chosen one is looked at",
    ),
    Function(
        name="NOT", params=(Param("COND", ParamKind.TRUTH),), result=Kind.TRUTH, build=_build_not, oracle="numpy",
        meaning="true where COND is false", on_tick=True,
    ),
    Function(
        name="BETWEEN", params=numbers("X", "A", "B"), result=Kind.TRUTH, build=_build_between, oracle="numpy",
        meaning="X lies between A and B, ends included, whichever of them is larger", on_tick=True,
    ),
    Function(
        name="RANGE", params=numbers("X", "A", "B"), result=Kind.TRUTH, build=_build_range, oracle="numpy",
        meaning="A < X < B", on_tick=True,
    ),
    _pair("MAX", np.maximum, "the larger of A and B", commutes=True),
    _pair("MIN", np.minimum, "the smaller of A and B", commutes=True),
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
