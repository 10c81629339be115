"""The typed tree of a formula. Every node keeps its place in the text; equality ignores it.

`parse` (parser.py) makes it from text; `check` (checker.py) resolves names and kinds. Names are upper case here, as
the language is case-insensitive; `Output.written` keeps the spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """A place in the formula text: line and columns from 1, `end_column` exclusive, offsets in characters."""

    line: int
    column: int
    end_line: int
    end_column: int
    start: int
    end: int


NOWHERE = Span(1, 1, 1, 2, 0, 1)


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    value: float
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal 'AND …' (sector and style arguments only)."""

    value: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Name:
    """A word of the market (C, LAST, LIMITUP …), a local name of the formula, or a parameter."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    args: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binary:
    """op: + - * /"""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Compare:
    """op: > >= < <= = <> (!= and == are normalised to <> and =)"""

    op: str
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Logic:
    """op: AND OR; two or more operands"""

    op: str
    operands: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Negate:
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class CrossPeriod:
    """CLOSE#DAY: a word on another period."""

    name: str
    period: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class CrossReference:
    """ "SH000001$CLOSE" or "MACD.DIF"(12,26,9): another symbol's or a shipped formula's value."""

    target: str
    args: tuple[Expr, ...] = ()
    span: Span = _span()


Expr: TypeAlias = Number | Text | Name | Call | Binary | Compare | Logic | Not | Negate | CrossPeriod | CrossReference


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct operands and arguments, left to right."""
    match expr:
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return left, right
        case Logic(operands=parts) | Call(args=parts) | CrossReference(args=parts):
            return parts
        case Not(operand=operand) | Negate(operand=operand):
            return (operand,)
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield the expression and everything in it, outermost first, left to right; does not recurse."""
    stack = [expr]
    while stack:
        here = stack.pop()
        yield here
        stack.extend(reversed(children(here)))


def rebuild(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Return the expression with `change` applied to its direct operands and arguments."""
    match expr:
        case Binary(left=left, right=right) | Compare(left=left, right=right):
            return replace(expr, left=change(left), right=change(right))
        case Logic(operands=operands):
            return replace(expr, operands=tuple(map(change, operands)))
        case Call(args=args) | CrossReference(args=args):
            return replace(expr, args=tuple(map(change, args)))
        case Not(operand=operand) | Negate(operand=operand):
            return replace(expr, operand=change(operand))
        case _:
            return expr


class Binding(StrEnum):
    """How a statement names its value."""

    PRIVATE = ":="
    OUTPUT = ":"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; `name` upper case and `written` as typed, both "" for an anonymous expression."""

    binding: Binding
    name: str
    written: str
    expr: Expr
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula: statements in order, drawing statements left out.

    condition: index of the statement whose value is the condition (the last output or anonymous one).
    """

    text: str
    statements: tuple[Statement, ...]
    condition: int

    @property
    def outputs(self) -> tuple[Statement, ...]:
        """The named outputs, in order."""
        return tuple(s for s in self.statements if s.binding is Binding.OUTPUT)


class Kind(StrEnum):
    """What an expression yields per symbol: a float64, or a three-valued truth."""

    NUMBER = "number"
    TRUTH = "truth"
