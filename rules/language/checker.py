"""`check`: is a parsed formula one that can be evaluated on this period? Every complaint of a formula at once.

The checker resolves names in the order of the statements, finds each expression's kind and constant value, and hands
back the formula in the form the graph takes: DYNAINFO by what it stands for, constants that divide as one number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from rules.errors import Finding, RuleFileError
from rules.functions.function import Function, ParamKind
from rules.functions.registry import FUNCTIONS
from rules.language import refusals
from rules.language.lints import shape_lints
from rules.language.parser import parse
from rules.language.syntax import Source, did_you_mean, prepare
from rules.language.text import normal
from rules.language.tree import (
    Binary,
    Binding,
    Call,
    Compare,
    CrossPeriod,
    CrossReference,
    Expr,
    Formula,
    Kind,
    Logic,
    Name,
    Negate,
    Not,
    Number,
    Statement,
    Text,
    walk,
)
from rules.language.words import DYNAINFO, MARKET, SPELLINGS, Scope, Word

MAX_WINDOW: Final = 2_000
"""Bars a window may span: a ring of them over 5,500 symbols is 88 MB."""
MAX_HEIGHT: Final = 150
"""How deep an expression may be with the names it uses put in."""
MAX_ERRORS: Final = 50
"""Complaints collected about one formula; further ones would not help."""

_EXACT: Final = frozenset({"REF", "HHV", "LLV", "MAX", "MIN", "ABS", "IF", "VALUEWHEN", "HIGHS", "LOWS"})
"""Functions that hand on a price or a count unchanged."""
_WHOLE = re.compile(r"COUNT|BARS\w*|\w+BARS|SIGN|FLOOR|CEILING|INTPART|BIGTICK")
"""Functions whose value is always a whole number."""
_OF_THE_DAY: Final = {"O": "DAYOPEN", "H": "DAYHIGH", "L": "DAYLOW", "V": "VOLDAY", "AMO": "AMTDAY"}
_NO_BARS: Final = "set period: to 1m … 1d; ON(MIN1,…) comes later"


@dataclass(frozen=True, slots=True)
class Checked:
    """A formula that can be evaluated.

    formula: as the graph takes it; words: canonical words it reads; warnings: lints, in the order of the text.
    """

    formula: Formula
    period: str
    words: frozenset[str]
    warnings: tuple[Finding, ...]


def check(
    formula: Formula,
    *,
    period: str,
    functions: Mapping[str, Function] = FUNCTIONS,
    words: Mapping[str, Word] = MARKET,
    file: str = "formula",
    first_line: int = 1,
) -> Checked:
    """Check a parsed formula for a period ("tick", "1m" …).

    words: what it may name without defining it, by every spelling: the market's, those of a book of positions, or the
    aggregates of a rule over groups.
    Raises RuleFileError with every error found; file and first_line say where its text stands.
    """
    source = Source(formula.text, file, first_line)
    checker = _Checker(source, period, functions, formula, words)
    lowered = checker.formula(formula)
    if checker.errors:
        raise RuleFileError(sorted(checker.errors, key=_place))
    warnings = sorted([*checker.warnings, *shape_lints(formula, source)], key=_place)
    return Checked(lowered, period, frozenset(checker.words), tuple(warnings))


def _place(finding: Finding) -> tuple[int, int]:
    return finding.line, finding.column


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of an expression.

    kind: None after an error in it, so that one mistake is one complaint; constant: its value where it never changes;
    exact: prices and counts, which `=` may compare; height: how deep it is, names put in.
    """

    kind: Kind | None = Kind.NUMBER
    constant: float | None = None
    exact: bool = False
    height: int = 1


_BROKEN: Final = Fact(None, exact=True)
_Found = tuple[Expr, Fact]


class _Checker:
    """One pass over one formula; collects findings and never raises."""

    def __init__(
        self,
        source: Source,
        period: str,
        functions: Mapping[str, Function],
        formula: Formula,
        vocabulary: Mapping[str, Word],
    ) -> None:
        self.source = source
        self.vocabulary = vocabulary
        self.period = period
        self.functions = functions
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []
        self.words: set[str] = set()
        self._known: dict[str, Fact] = {}
        self._assigned = {statement.name for statement in formula.statements if statement.name}
        self._current = ""
        self._blank = prepare(source)

    def formula(self, formula: Formula) -> Formula:
        statements = tuple(self._statement(statement) for statement in formula.statements)
        condition = formula.statements[formula.condition]
        self._judge_condition(condition)
        return replace(formula, statements=statements)

    # ── statements ────────────────────────────────────────────────────────────────────────────────────────────────

    def _statement(self, statement: Statement) -> Statement:
        self._current = statement.name
        expr, fact = self.expr(statement.expr)
        if statement.binding is not Binding.NONE:
            self._assign(statement)
        self._known[statement.name] = fact
        if fact.constant is not None and _divides(expr):
            expr = Number(fact.constant, expr.span)
        return replace(statement, expr=expr)

    def _assign(self, statement: Statement) -> None:
        """Refuse names that are taken. The place of the name is the first character of the statement on."""
        name = statement.name
        start = statement.span.start
        place = Name(name, self.source.span(start, start + len(statement.written)))
        word = self.vocabulary.get(name)
        if name in self._known:
            self._error(place, f"{statement.written} is assigned twice", hint="give the second value a name of its own")
        elif word is not None and word.scope is Scope.BAR:
            self._error(
                place, f"{name} is a field of the bar and can't be assigned", hint=f"use a name such as {name}1"
            )
        elif word is not None:
            self._warn(
                place, f"{name} hides the market word {word.name} ({word.en}) in this formula", hint="use another name"
            )

    def _judge_condition(self, statement: Statement) -> None:
        fact = self._known[statement.name]
        if fact.constant is not None:
            self._warn(statement.expr, "the condition never changes", hint="compare something of the market")
        elif fact.kind is Kind.NUMBER:
            self._warn(
                statement.expr, "the condition is a number; other than 0 counts as true", hint="compare it, as in …>0"
            )

    # ── expressions: each returns the form the graph takes, and what is known of it ───────────────────────────────

    def expr(self, expr: Expr) -> _Found:
        lowered, fact = self._expr(expr)
        if fact.height > MAX_HEIGHT:
            self._error(
                expr, f"with the names it uses this nests more than {MAX_HEIGHT} deep", hint="use shorter chains"
            )
            return lowered, _BROKEN
        return lowered, fact

    def _expr(self, expr: Expr) -> _Found:
        match expr:
            case Number(value=value):
                return expr, Fact(constant=value, exact=True)
            case Name():
                return self._name(expr)
            case Call():
                return self._call(expr)
            case Binary():
                return self._binary(expr)
            case Compare():
                return self._compare(expr)
            case Logic(operands=operands):
                found = [self._condition(operand) for operand in operands]
                return replace(expr, operands=tuple(part for part, _ in found)), _truth(*(fact for _, fact in found))
            case Not(operand=operand):
                part, fact = self._condition(operand)
                return replace(expr, operand=part), _truth(fact)
            case Negate(operand=operand):
                part, fact = self.expr(operand)
                constant = None if fact.constant is None else -fact.constant
                return replace(expr, operand=part), Fact(Kind.NUMBER, constant, fact.exact, fact.height + 1)
            case Text():
                return self._refused(expr, "a text where a value is needed", hint="names are written without quotes")
            case CrossPeriod():
                return self._cross_period(expr)
            case CrossReference():
                return self._refused(expr, f'"{expr.target}": {refusals.CROSS_REFERENCE}', hint="write the formula out")

    def _name(self, expr: Name) -> _Found:
        name = expr.name
        if name in self._known:
            fact = self._known[name]
            return expr, replace(fact, height=fact.height + 1)
        if name in self._assigned:
            message = "is made of itself" if name == self._current else "is used before it is assigned"
            return self._refused(expr, f"{name} {message}", hint="a formula is read from top to bottom")
        word = self.vocabulary.get(name)
        if word is None:
            return self._unknown_name(expr)
        if self.period == "tick" and word.name in _OF_THE_DAY:
            day = _OF_THE_DAY[word.name]
            return self._refused(
                expr,
                f"{name} is a field of bars, and period tick has none",
                hint=f"{_NO_BARS}; or use {day}, the day's",
            )
        return self._word(expr, word)

    def _word(self, expr: Name, word: Word) -> _Found:
        self.words.add("LAST" if self.period == "tick" and word.name == "C" else word.name)
        return expr, Fact(word.kind, exact=word.exact)

    def _unknown_name(self, expr: Name) -> _Found:
        name = expr.name
        if name in SPELLINGS:
            return self._strange_word(expr)
        refusal = refusals.function_refusal(name)
        if refusal is not None:
            return self._refused(expr, refusal.message, hint=refusal.hint)
        if name.startswith("DRAW"):
            return self._refused(
                expr, f"{name} draws, and there is nothing to draw here", hint="leave the statement out"
            )
        if name in self.functions:
            return self._refused(expr, f"{name} is a function", hint=f"write {self.functions[name].signature()}")
        return self._refused(
            expr,
            f"unknown name {name!r}",
            hint=self._meant(name, [*self.vocabulary, *self._assigned]) or "assign it with :=",
        )

    def _strange_word(self, expr: Name) -> _Found:
        """Refuse a word of the language that has no meaning in this formula."""
        if SPELLINGS[expr.name].scope is Scope.POSITION and "LAST" in self.vocabulary:
            hint = "write select: {positions: BOOK} to watch what a book holds"
            return self._refused(expr, f"{expr.name} is a word of positions", hint=hint)
        hint = f"name it in agg: {{x: mean({expr.name})}}; here stand {', '.join(self.vocabulary) or 'its names'}"
        return self._refused(expr, f"{expr.name} is of one symbol, and this is a condition over groups", hint=hint)

    def _cross_period(self, expr: CrossPeriod) -> _Found:
        if expr.name in self._assigned:
            hint = f"write ON({expr.period},…) around what {expr.name} stands for, once that is evaluated"
            return self._refused(expr, f"{expr.name} is a name of this formula and has no other period", hint=hint)
        return self._refused(expr, f"{normal(expr)}: {refusals.CROSS_PERIOD}", hint="set the rule's period:")

    def _binary(self, expr: Binary) -> _Found:
        (left, a), (right, b) = self.expr(expr.left), self.expr(expr.right)
        lowered = replace(expr, left=left, right=right)
        if expr.op == "/" and b.constant == 0:
            return self._refused(
                expr.right, "division by zero: the value is never known", hint="x/0 is unknown", lowered=lowered
            )
        constant = _calculate(expr.op, a.constant, b.constant)
        if constant is not None and not math.isfinite(constant):
            return self._refused(expr, "this number is too large", hint="use one below 1E308", lowered=lowered)
        return lowered, Fact(Kind.NUMBER, constant, constant is not None, _above(a, b))

    def _compare(self, expr: Compare) -> _Found:
        (left, a), (right, b) = self.expr(expr.left), self.expr(expr.right)
        if expr.op in ("=", "<>") and not (a.exact and b.exact) and Kind.NUMBER in (a.kind, b.kind):
            self._warn(
                expr, f"{expr.op} on a computed value is hardly ever what is meant", hint="use >= and <=, or ABS(A-B)<…"
            )
        return replace(expr, left=left, right=right), _truth(a, b)

    def _condition(self, expr: Expr) -> _Found:
        """Check an expression that is read as a truth; a number may be, and gives a warning."""
        lowered, fact = self.expr(expr)
        if fact.kind is Kind.NUMBER and fact.constant is None:
            self._warn(expr, f"{normal(expr)} is a number; other than 0 counts as true", hint="compare it, as in …>0")
        return lowered, fact

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, expr: Call) -> _Found:
        refusal = refusals.function_refusal(expr.name)
        if refusal is not None:
            return self._refused_call(expr, refusal.message, hint=refusal.hint)
        if expr.name == "DYNAINFO":
            return self._dynainfo(expr)
        function = self.functions.get(expr.name)
        if function is None:
            return self._unknown_function(expr)
        if len(expr.args) != len(function.params):
            wants, has = len(function.params), len(expr.args)
            return self._refused(
                expr,
                f"{expr.name} takes {wants} argument{'s' * (wants != 1)}, not {has}",
                hint=f"write {function.signature()}",
            )
        if self.period == "tick" and not function.on_tick:
            return self._refused_call(
                expr, f"{expr.name} looks back over bars, and period tick has none", hint=_NO_BARS
            )
        return self._arguments(expr, function)

    def _arguments(self, expr: Call, function: Function) -> _Found:
        args: list[Expr] = []
        facts: list[Fact] = []
        for arg, param in zip(expr.args, function.params, strict=True):
            lowered, fact = self._condition(arg) if param.kind is ParamKind.TRUTH else self.expr(arg)
            if param.is_constant and fact.kind is not None:
                fault = self._constant_fault(function, fact.constant, len(args))
                if fault is not None:
                    message, hint = f"{function.signature()}: {fault}", "as in MA(C,5), or N:=5; MA(C,N)"
                    lowered, fact = self._refused(arg, message, hint=hint, lowered=lowered)
                elif fact.constant is not None and _divides(arg):
                    lowered = Number(fact.constant, arg.span)
            args.append(lowered)
            facts.append(fact)
        lowered_call = replace(expr, args=tuple(args))
        self.words.update(function.reads)
        if any(fact.kind is None for fact in facts):
            return lowered_call, _BROKEN
        kind = function.kind(tuple(fact.kind or Kind.NUMBER for fact in facts))
        exact = _WHOLE.fullmatch(expr.name) is not None or (expr.name in _EXACT and all(fact.exact for fact in facts))
        return lowered_call, Fact(kind, None, exact, _above(*facts))

    def _constant_fault(self, function: Function, value: float | None, index: int) -> str | None:
        """Say what is wrong with a constant argument, None if nothing is."""
        param = function.params[index]
        if value is None:
            what = "whole number of bars" if param.kind is ParamKind.WINDOW else "number"
            return f"{param.name} must be a constant {what}"
        fault = param.fault(value)
        if fault is not None:
            return fault
        if param.kind is ParamKind.WINDOW and value > MAX_WINDOW:
            return f"{param.name} must be at most {MAX_WINDOW} bars, not {value:g}"
        if self.period == "tick" and function.name == "REF" and value > 1:
            return "on period tick only the previous tick is kept, so N must be 1; set period: for bars"
        return None

    def _unknown_function(self, expr: Call) -> _Found:
        later = refusals.LATER_FUNCTIONS.get(expr.name)
        if later is not None:
            return self._refused_call(expr, f"{expr.name} {refusals.NOT_YET}", hint=later)
        if expr.name in SPELLINGS or expr.name in self._assigned:
            return self._refused_call(expr, f"{expr.name} is no function", hint="write it without parentheses")
        for arg in expr.args:
            self.expr(arg)
        hint = self._meant(expr.name, [*self.functions, "DYNAINFO"]) or "functions are those of the reference"
        return self._refused_call(expr, f"unknown function {self._written(expr)!r}", hint=hint)

    def _dynainfo(self, expr: Call) -> _Found:
        value = self.expr(expr.args[0])[1].constant if len(expr.args) == 1 else None
        number = int(value) if value is not None and value.is_integer() else None
        one_of = f"one of {', '.join(map(str, DYNAINFO))}"
        if number in refusals.UNAVAILABLE_DYNAINFO:
            return self._refused(expr, f"{normal(expr)}: {refusals.UNAVAILABLE_DYNAINFO[number]}", hint=one_of)
        if number not in DYNAINFO:
            return self._refused(expr, "DYNAINFO takes one constant of those known here", hint=one_of)
        meant = parse(DYNAINFO[number]).statements[0].expr
        for part in walk(meant):
            if isinstance(part, Name):
                if part.name in self._assigned:
                    message = f"{normal(expr)} is {normal(meant)}, but this formula assigns {part.name}"
                    return self._refused(expr, message, hint="use another name")
                self.words.add(part.name)
        return replace(meant, span=expr.span), Fact(exact=isinstance(meant, Name), height=3)

    # ── findings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _meant(self, word: str, known: list[str]) -> str | None:
        """Search for the word that was meant, for the first mistakes only: the search takes a millisecond each."""
        return did_you_mean(word, known) if len(self.errors) < 10 else None

    def _error(self, place: Expr, message: str, *, hint: str) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(self.source.finding(place.span, message, hint=hint))

    def _warn(self, place: Expr, message: str, *, hint: str) -> None:
        self.warnings.append(self.source.finding(place.span, message, hint=hint, severity="warning"))

    def _refused(self, expr: Expr, message: str, *, hint: str, lowered: Expr | None = None) -> _Found:
        self._error(expr, message, hint=hint)
        return (expr if lowered is None else lowered), _BROKEN

    def _refused_call(self, expr: Call, message: str, *, hint: str) -> _Found:
        """Refuse a call with the carets under the function's name alone."""
        start = self._name_start(expr)
        self._error(Name(expr.name, self.source.span(start, start + len(expr.name))), message, hint=hint)
        return expr, _BROKEN

    def _name_start(self, call: Call) -> int:
        """Return where a call's name begins: its place may begin with parentheses around it."""
        return next(at for at in range(call.span.start, call.span.end) if self._blank[at] not in "( \n\r\t")

    def _written(self, call: Call) -> str:
        start = self._name_start(call)
        return self.source.text[start : start + len(call.name)]


def _truth(*facts: Fact) -> Fact:
    return Fact(Kind.TRUTH, exact=True, height=_above(*facts))


def _above(*facts: Fact) -> int:
    return 1 + max((fact.height for fact in facts), default=0)


def _divides(expr: Expr) -> bool:
    """Tell whether a constant has a division in it, which the graph leaves to be done at run time."""
    return any(isinstance(part, Binary) and part.op == "/" for part in walk(expr))


def _calculate(op: str, a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
