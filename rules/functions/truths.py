"""Truths on one bar: AND, OR, NOT of three values, IF, and how truths and numbers stand for each other."""

from __future__ import annotations

from typing import Final

import numpy as np

from rules.functions.function import Args, Builder, Constants, Function, Param, ParamKind, Value, call_key
from rules.functions.values import NumberNode, TruthNode, true_at
from rules.language.tree import Kind
from rules.node import Selection, Truth


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


def _truth(node: Value) -> TruthNode:
    assert isinstance(node, TruthNode)
    return node


def _build_if(builder: Builder, args: Args, constants: Constants) -> Value:
    condition, yes, no = args
    test = builder.truth(condition)
    if isinstance(yes, TruthNode) and isinstance(no, TruthNode):
        return builder.share(ChosenTruth(call_key("IF", (test, yes, no)), test, yes, no))
    one, other = builder.number(yes), builder.number(no)
    return builder.share(ChosenNumber(call_key("IF", (test, one, other)), test, one, other))


def _build_not(builder: Builder, args: Args, constants: Constants) -> Value:
    return invert(builder, args[0])


TRUTHS: Final = (
    Function(
        name="IF", params=(Param("COND", ParamKind.TRUTH), Param("A", ParamKind.ANY), Param("B", ParamKind.ANY)),
        result=None, build=_build_if, oracle="numpy", on_tick=True,
        meaning="A where COND is true, B where it is false; only the chosen one is looked at",
    ),
    Function(
        name="NOT", params=(Param("COND", ParamKind.TRUTH),), result=Kind.TRUTH, build=_build_not, oracle="numpy",
        meaning="true where COND is false", on_tick=True,
    ),
)  # fmt: skip
