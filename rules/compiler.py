"""`Compiler`: expressions of one formula → nodes of the shared graph.

Most of a formula becomes nodes of its own period's layer. What stands in `ON(…)`, `CLOSE#DAY` or a function that keeps
time of its own is compiled into that other layer, and one node here brings its value across. A shipped formula named
in quotes is compiled in place, statement by statement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import trunc
from typing import Final, Protocol

from rules.catalog import instance
from rules.errors import RuleError
from rules.functions import arithmetic, truths
from rules.functions.across import Across, AcrossClosed, AcrossTruth, BarEnd
from rules.functions.function import Args, Builder, Clock, Function, ParamKind, Value
from rules.functions.references import earlier
from rules.functions.registry import FUNCTIONS
from rules.functions.values import Constant, NumberNode
from rules.functions.varying import DEFAULT_CAP
from rules.language.parser import parse
from rules.language.references import SymbolReference, read_reference
from rules.language.tree import (
    Binary,
    Call,
    Compare,
    CrossPeriod,
    CrossReference,
    Expr,
    Formula,
    Logic,
    Name,
    Negate,
    Not,
    Number,
    Text,
    walk,
)
from rules.language.words import DYNAINFO, PERIODS, is_upward
from rules.node import is_tick
from rules.slots import SLOT_LAYER

CLOCK_LAYERS: Final = {Clock.SLOTS: SLOT_LAYER, Clock.MINUTES: "1m"}
"""The layer in which functions that keep time of their own live."""


class Layers(Protocol):
    """The graph as the compiler sees it."""

    def layer(self, period: str) -> Builder:
        """Return the layer of a period, made if there is none."""

    def sampled(self, period: str, symbol: str, word: str) -> Value:
        """Return the node of another symbol's word, as of the last second."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a formula is read: `cap` of windows of series length in bars; `closed`: longer periods at closed bars."""

    cap: int = DEFAULT_CAP
    closed: bool = False


class Compiler:
    """Knows the local names of one formula compiled so far; period: the layer it compiles into."""

    def __init__(self, layers: Layers, period: str, reading: Reading) -> None:
        self._layers = layers
        self._period = period
        self._reading = reading
        self._layer = layers.layer(period)
        self._locals: dict[str, Value] = {}

    def name(self, name: str, expr: Expr) -> Value:
        """Return the node of a statement's expression; later expressions know it by this name, unless that is ""."""
        value = self.node(expr)
        if name:
            self._locals[name] = value
        return value

    def condition(self, formula: Formula) -> Value:
        """Return the node of a whole formula's condition, compiled up to it."""
        values = [self.name(statement.name, statement.expr) for statement in formula.statements]
        return values[formula.condition]

    def node(self, expr: Expr) -> Value:
        """Return the node of an expression."""
        layer = self._layer
        match expr:
            case Number(value=value):
                return layer.constant(value, layer.period)
            case Name(name=name):
                return self._locals[name] if name in self._locals else layer.word(name)
            case Call():
                return self._call(expr)
            case Binary(op=op, left=left, right=right):
                return layer.arithmetic(op, self.node(left), self.node(right))
            case Compare(op=op, left=left, right=right):
                return layer.compare(op, self.node(left), self.node(right))
            case Logic(op=op, operands=operands):
                return truths.logic(layer, op, tuple(map(self.node, operands)))
            case Not(operand=operand):
                return truths.invert(layer, self.node(operand))
            case Negate(operand=operand):
                return arithmetic.negate(layer, self.node(operand))
            case CrossPeriod(name=name, period=period):
                return self._on(period, Name(name))
            case CrossReference():
                return self._reference(expr)
            case Text(value=value):
                raise RuleError(f"'{value}' is a text where a value is needed")

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, call: Call) -> Value:
        if call.name == "DYNAINFO":
            return self._dynamic(call)
        if call.name == "ON":
            return self._on_call(call)
        function = FUNCTIONS.get(call.name)
        if function is None:
            raise RuleError(f"unknown function {call.name!r}")
        args = function.filled(call.args)
        if args is None:
            raise RuleError(f"{function.signature()} takes {function.counted()}, not {len(call.args)}")
        if function.clock is Clock.TICKS and not is_tick(self._period):
            raise RuleError(f"{function.signature()} looks at single ticks: it is for period tick alone")
        home = CLOCK_LAYERS.get(function.clock, self._period)
        if home == self._period:
            return self._build(function, args)
        inner = self._inner(home)
        return self._across(inner, inner._build(function, args), closed=False)

    def _build(self, function: Function, args: tuple[Expr, ...]) -> Value:
        values = tuple(map(self.node, args))
        series: Args = tuple(v for v, param in zip(values, function.params, strict=True) if not param.is_constant)
        varying = self._varying(function, values)
        if varying is not None and function.vary is not None:
            return function.vary(self._layer, series, varying, self._reading.cap)
        constants = tuple(self._constants(function, values, args))
        fault = function.fault(constants)
        if fault is not None:
            raise RuleError(f"{function.signature()}: {fault}")
        return function.build(self._layer, series, constants)

    def _varying(self, function: Function, values: Args) -> NumberNode | None:
        """Return the node of a window that is no constant, where the function takes one."""
        for value, param in zip(values, function.params, strict=True):
            if function.vary is not None and param.kind is ParamKind.WINDOW and not isinstance(value, Constant):
                return self._layer.number(value)
        return None

    def _constants(self, function: Function, values: Args, args: tuple[Expr, ...]) -> Iterator[float]:
        for value, param, arg in zip(values, function.params, args, strict=True):
            if not param.is_constant:
                continue
            if not isinstance(value, Constant):
                raise RuleError(f"{function.signature()}: {param.name} must be a constant")
            number = value.number
            if param.kind is ParamKind.WINDOW and not isinstance(arg, Number) and number == number:
                number = float(trunc(number))  # TDX cuts a window that was calculated, such as M4/2.5+1
            fault = param.fault(number)
            if fault is not None:
                raise RuleError(f"{function.signature()}: {fault}")
            yield number

    def _dynamic(self, call: Call) -> Value:
        """Return the node of the expression that DYNAINFO(n) stands for."""
        number = call.args[0] if len(call.args) == 1 else None
        if not isinstance(number, Number) or number.value not in DYNAINFO:
            raise RuleError(f"DYNAINFO takes one of {', '.join(map(str, DYNAINFO))}")
        plain = Compiler(self._layers, self._period, self._reading)
        return plain.node(parse(DYNAINFO[int(number.value)]).statements[0].expr)

    # ── other periods, formulas and symbols ───────────────────────────────────────────────────────────────────────

    def _on_call(self, call: Call) -> Value:
        if len(call.args) != 2 or not isinstance(call.args[0], Name):
            raise RuleError("ON(PERIOD,X) takes a period and what to evaluate on it")
        return self._on(call.args[0].name, call.args[1])

    def _on(self, written: str, expr: Expr) -> Value:
        """Return the value of an expression on another period, as this one sees it."""
        period = PERIODS.get(written)
        if period is None:
            raise RuleError(f"{written} is not a period; there are {', '.join(PERIODS)}")
        if not is_upward(period, self._period):
            raise RuleError(f"{written} is shorter than the rule's period {self._period}")
        if period == self._period:
            return self.node(expr)
        inner = self._inner(period)
        return self._across(inner, inner.node(expr), closed=self._reading.closed)

    def _inner(self, period: str) -> Compiler:
        """Return a compiler into another layer, which knows the local constants alone."""
        inner = Compiler(self._layers, period, self._reading)
        for name, value in self._locals.items():
            if isinstance(value, Constant):
                inner._locals[name] = inner._layer.constant(value.number, period)
        return inner

    def _across(self, inner: Compiler, value: Value, *, closed: bool) -> Value:
        here, there = self._layer, inner._layer
        if isinstance(value, Constant):
            return here.constant(value.number, here.period)
        key = f"ON({there.period},{value.key})"
        if closed:
            number = there.number(value)
            before = there.number(earlier(there, number, 1))
            ends = _bar_end(there), _bar_end(here)
            node = here.share(AcrossClosed(f"CLOSED{key}", number, before, ends=ends))
            return node if isinstance(value, NumberNode) else here.truth(node)
        if isinstance(value, NumberNode):
            return here.share(Across(key, value, period=here.period))
        return here.share(AcrossTruth(key, value, period=here.period))

    def _reference(self, reference: CrossReference) -> Value:
        found = read_reference(reference.target)
        if isinstance(found, SymbolReference):
            return self._layers.sampled(self._period, found.symbol, found.word)
        arguments = tuple(self._argument(reference, arg) for arg in reference.args)
        formula = instance(found.name, found.output, arguments)
        if found.period:
            return self._on_formula(found.period, formula)
        return Compiler(self._layers, self._period, self._reading).condition(formula)

    def _on_formula(self, written: str, formula: Formula) -> Value:
        period = PERIODS.get(written, "")
        if not is_upward(period, self._period):
            raise RuleError(f"#{written} is no period, or shorter than the rule's period {self._period}")
        inner = Compiler(self._layers, period, self._reading)
        value = inner.condition(formula)
        return value if period == self._period else self._across(inner, value, closed=self._reading.closed)

    def _argument(self, reference: CrossReference, arg: Expr) -> float:
        value = self.node(arg)
        if not isinstance(value, Constant):
            raise RuleError(f'"{reference.target}": a parameter must be a constant number')
        return value.number


def _bar_end(layer: Builder) -> BarEnd:
    node = layer.share(BarEnd("END", layer.source_column("END"), period=layer.period))
    assert isinstance(node, BarEnd)
    return node


def names_used(expr: Expr, names: Mapping[str, Expr]) -> list[str]:
    """Return the names that an expression uses, and those these use, in the order of `names`."""
    found: set[str] = set()
    stack = [expr]
    while stack:
        for part in walk(stack.pop()):
            if isinstance(part, Name) and part.name in names and part.name not in found:
                found.add(part.name)
                stack.append(names[part.name])
    return [name for name in names if name in found]
