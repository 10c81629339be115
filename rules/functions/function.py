"""What a function of the formula language is: its parameters, its node, and what a newcomer must say about it.

A function is one `Function` entry in the tuple of its family's file. Being in that tuple registers it (registry.py),
lets the checker know its signature, and puts it under the registry-wide oracle test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from rules.functions.values import Constant, NumberNode, TruthNode
from rules.language.tree import Expr, Kind, Name, Number
from rules.rings import Ring
from rules.state import Column

Value: TypeAlias = NumberNode | TruthNode
Args: TypeAlias = tuple[Value, ...]
Constants: TypeAlias = tuple[float, ...]


class ParamKind(StrEnum):
    """What a parameter takes."""

    NUMBER = "number"
    TRUTH = "truth"
    ANY = "any"
    """A number or a truth; the function yields what it is given."""
    WINDOW = "window"
    """A constant whole number of bars."""
    CONSTANT = "constant"
    """A constant number."""


class Clock(StrEnum):
    """What a bar is to a function."""

    BARS = "bars"
    """A bar of the formula's period."""
    TICKS = "ticks"
    """A tick: for period tick alone."""
    SLOTS = "slots"
    """Three seconds of session time, whatever the period."""
    MINUTES = "minutes"
    """A one-minute bar, whatever the period."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. `least` and `most` bound a WINDOW or CONSTANT, both inclusive.

    words: the words of the market it takes, () = any expression; the first one is meant where it is left out.
    default: the constant that is meant where it is left out, None = it can't be.
    """

    name: str
    kind: ParamKind = ParamKind.NUMBER
    least: float = float("-inf")
    most: float = float("inf")
    words: tuple[str, ...] = ()
    default: float | None = None

    @property
    def is_constant(self) -> bool:
        return self.kind in (ParamKind.WINDOW, ParamKind.CONSTANT)

    def fault(self, value: float) -> str | None:
        """Say what is wrong with this constant, None if nothing is."""
        if self.kind is ParamKind.WINDOW and not float(value).is_integer():
            return f"{self.name} is a number of bars and must be whole, not {value:g}"
        if not self.least <= value <= self.most:
            bound = f"at least {self.least:g}" if value < self.least else f"at most {self.most:g}"
            return f"{self.name} must be {bound}, not {value:g}"
        return None


class Builder(Protocol):
    """The graph as a function's `build` sees it: every node it makes goes through `share`."""

    period: str
    broken_ms: Column
    """(n,) int64 Unix ms: since when the layer's bars of each symbol are an unbroken row; 0 = ever."""

    def share(self, node: Value) -> Value:
        """Return the node of the same key if there is one, else take this one in and open it."""

    def word(self, word: str) -> Value:
        """Return the node of a word of the market."""

    def arithmetic(self, op: str, left: Value, right: Value) -> Value:
        """Return the node of left op right, op one of + - * /."""

    def compare(self, op: str, left: Value, right: Value) -> TruthNode:
        """Return the node of left op right, op one of > >= < <= = <>."""

    def ring(self, node: Value, depth: int) -> Ring:
        """Return a ring that keeps at least the last `depth` committed values of `node`."""

    def source_column(self, word: str) -> Column:
        """Return the market's own column of a word, or of END or TICK_MS.

        END is the forming bar's end and TICK_MS the latest tick's time: int64 Unix ms, 0 = none.
        """

    def counts(self, period: str) -> Column:
        """Return the (n,) int64 number of bars each symbol has committed."""

    def number(self, node: Value) -> NumberNode:
        """Return the node as a number: true 1, false 0, unknown NaN."""

    def truth(self, node: Value) -> TruthNode:
        """Return the node as a truth: non-zero true, zero false, NaN unknown."""

    def constant(self, value: float, period: str) -> Constant:
        """Return a node that always has this value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function of the language.

    result   kind of its value; None = the kind of its ANY arguments (truth only if all of them are)
    build    (builder, series arguments, constants) → node; constants are the WINDOW and CONSTANT arguments in order
    first    bars until the first value, as a function of the constants: MA(X,5) → 5, EMA → 1
    history  bars until the value is within 1e-9 of one with endless history; None = `first`
    vary     (builder, series arguments, N, cap in bars) → node for an N that is no constant; None = N must be one
    fault    what is wrong with constants, each good by itself, taken together, None = nothing; not beside `vary`
    oracle   who else computes it: the source named by one of its oracles in tests/rules/functions/oracles.py
    on_tick  may be used on period `tick`, where windows of bars mean nothing
    clock    what a bar is to it
    reads    words it looks at besides its arguments, by canonical name
    """

    name: str
    params: tuple[Param, ...]
    result: Kind | None
    build: Callable[[Builder, Args, Constants], Value]
    first: Callable[[Constants], int] = lambda constants: 1
    history: Callable[[Constants], int] | None = None
    vary: Callable[[Builder, Args, NumberNode, int], Value] | None = None
    fault: Callable[[Constants], str | None] = lambda constants: None
    oracle: str
    meaning: str
    on_tick: bool = False
    reads: tuple[str, ...] = ()
    clock: Clock = Clock.BARS

    def signature(self) -> str:
        """Return the call as written in the documentation, such as MA(X,N)."""
        names = [param.name for param in self.params]
        needed = self.least_arguments
        optional = "".join(f"[,{name}]" for name in names[needed:])
        return f"{self.name}({','.join(names[:needed])}{optional})"

    @property
    def least_arguments(self) -> int:
        """Return how many arguments can't be left out."""
        return sum(not param.words and param.default is None for param in self.params)

    def counted(self) -> str:
        """Return how many arguments a call has, in words."""
        least, most = self.least_arguments, len(self.params)
        numbers = str(most) if least == most else f"{least} or {most}"
        return f"{numbers} argument{'s' * (most != 1)}"

    def filled(self, args: tuple[Expr, ...]) -> tuple[Expr, ...] | None:
        """Return the arguments with those left out put in; None if there are too few or too many."""
        if not self.least_arguments <= len(args) <= len(self.params):
            return None
        left_out = self.params[len(args) :]
        return (*args, *(Name(one.words[0]) if one.default is None else Number(one.default) for one in left_out))

    def kind(self, kinds: tuple[Kind, ...]) -> Kind:
        """Return the kind of a call, given the kinds of all its arguments in order."""
        if self.result is not None:
            return self.result
        any_kinds = [kind for kind, param in zip(kinds, self.params, strict=True) if param.kind is ParamKind.ANY]
        return Kind.TRUTH if all(kind is Kind.TRUTH for kind in any_kinds) else Kind.NUMBER


def number_key(value: float) -> str:
    """Return the shortest text of a constant that reads back as the same number."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def call_key(name: str, args: Args, constants: Constants = ()) -> str:
    """Return the key of a call, the same for every spelling of it."""
    return f"{name}({','.join([*(arg.key for arg in args), *map(number_key, constants)])})"


def varying_key(name: str, args: Args, n: NumberNode, cap: int) -> str:
    """Return the key of a call whose window is a series of at most `cap` bars."""
    return f"{name}[{cap}]({','.join(arg.key for arg in (*args, n))})"


def numbers(*names: str) -> tuple[Param, ...]:
    """Return NUMBER parameters of these names."""
    return tuple(Param(name) for name in names)


def window(name: str = "N", least: int = 1) -> Param:
    """Return a WINDOW parameter of at least `least` bars."""
    return Param(name, ParamKind.WINDOW, least)
