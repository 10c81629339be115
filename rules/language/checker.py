"""`check`: is a parsed formula one that can be evaluated on this period? Every complaint of a formula at once.

The checker resolves names in the order of the statements, finds each expression's kind and constant value, and hands
back the formula in the form the graph takes: DYNAINFO by what it stands for, constants that divide as one number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from rules.errors import Finding, RuleError, RuleFileError
from rules.functions.function import Clock, Function, ParamKind
from rules.functions.registry import FUNCTIONS
from rules.functions.varying import DEFAULT_CAP
from rules.language import refusals
from rules.language.arguments import constant_fault, constants_of, result
from rules.language.complaints import Complaints
from rules.language.dynainfo import dynainfo
from rules.language.facts import BROKEN, Checked, Fact, Found, calculate, divides, joined, most, truth
from rules.language.lints import shape_lints
from rules.language.references import FormulaReference, SymbolReference, read_reference
from rules.language.shorthand import SHORTHANDS, Shorthand
from rules.language.standard import call_of, standard_formula
from rules.language.syntax import Source
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
from rules.language.words import MARKET, PERIODS, SPELLINGS, Scope, Word

MAX_HEIGHT: Final = 150
"""How deep an expression may be with the names it uses put in."""
MAX_REPEATS: Final = 4
"""How deep UPNDAY and its like may stand in each other: each doubles what is inside, and 14 took a minute."""
_OF_THE_DAY: Final = {"O": "DAYOPEN", "H": "DAYHIGH", "L": "DAYLOW", "V": "VOLDAY", "AMO": "AMTDAY"}
_NO_BARS: Final = "write ON(MIN1,…) around it, or set period: to 1m … 1mon"


def check(
    formula: Formula,
    *,
    period: str,
    functions: Mapping[str, Function] = FUNCTIONS,
    words: Mapping[str, Word] = MARKET,
    cap: int = DEFAULT_CAP,
    file: str = "formula",
    first_line: int = 1,
) -> Checked:
    """Check a parsed formula for a period ("tick", "1m" …).

    words: what it may name without defining it, by every spelling: the market's, those of a book of positions, or the
    aggregates of a rule over groups; cap: bars a window of series length may span.
    Raises RuleFileError with every error found; file and first_line say where its text stands.
    """
    source = Source(formula.text, file, first_line)
    checker = _Checker(source, period, functions, formula, words)
    checker.cap = cap
    lowered = checker.formula(formula)
    if checker.complaints.errors:
        raise RuleFileError(sorted(checker.complaints.errors, key=_place))
    warnings = sorted(dict.fromkeys([*checker.complaints.warnings, *shape_lints(formula, source)]), key=_place)
    return Checked(
        lowered, period, frozenset(checker.words), tuple(warnings), checker.needs, frozenset(checker.symbols)
    )


def _place(finding: Finding) -> tuple[int, int]:
    return finding.line, finding.column


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
        self.complaints = Complaints(source)
        self._error, self._warn = self.complaints.error, self.complaints.warning
        self._refused, self._refused_call = self.complaints.refused, self.complaints.refused_call
        self.words: set[str] = set()
        self.symbols: set[str] = set()
        self.cap = DEFAULT_CAP
        self._outer: str | None = None
        self._known: dict[str, Fact] = {}
        self._assigned = {statement.name for statement in formula.statements if statement.name}
        self._current = ""
        self._repeats = 0
        """How many calls the expression at hand stands in that write an argument out twice."""

    @property
    def needs(self) -> dict[str, int]:
        """Return what the statements checked so far need."""
        return most(*self._known.values())

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
        if fact.constant is not None and divides(expr):
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

    def expr(self, expr: Expr) -> Found:
        lowered, fact = self._expr(expr)
        if fact.height > MAX_HEIGHT:
            self._error(
                expr, f"with the names it uses this nests more than {MAX_HEIGHT} deep", hint="use shorter chains"
            )
            return lowered, BROKEN
        return lowered, fact

    def _expr(self, expr: Expr) -> Found:
        match expr:
            case Number(value=value):
                return expr, Fact(constant=value, exact=True, written=True)
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
                return replace(expr, operands=tuple(part for part, _ in found)), truth(*(fact for _, fact in found))
            case Not(operand=operand):
                part, fact = self._condition(operand)
                return replace(expr, operand=part), truth(fact)
            case Negate(operand=operand):
                part, fact = self.expr(operand)
                constant = None if fact.constant is None else -fact.constant
                negated = joined(Kind.NUMBER, fact, constant=constant, exact=fact.exact)
                return replace(expr, operand=part), replace(negated, written=fact.written)
            case Text():
                return self._refused(expr, "a text where a value is needed", hint="names are written without quotes")
            case CrossPeriod():
                return self._cross_period(expr)
            case CrossReference():
                return self._reference(expr)

    def _name(self, expr: Name) -> Found:
        name = expr.name
        if name in self._known:
            fact = self._known[name]
            if self._outer is not None and fact.constant is None and fact.kind is not None:
                message = f"{name} is of period {self._outer} and has no value on another"
                return self._refused(expr, message, hint="write out inside ON(…) what it stands for")
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

    def _word(self, expr: Name, word: Word) -> Found:
        self.words.add("LAST" if self.period == "tick" and word.name == "C" else word.name)
        return expr, Fact(word.kind, exact=word.exact, needs={self.period: 1})

    def _unknown_name(self, expr: Name) -> Found:
        name = expr.name
        refusal = refusals.name_refusal(name, functions=self.functions, vocabulary=self.vocabulary)
        if refusal is not None:
            return self._refused(expr, refusal.message, hint=refusal.hint)
        hint = self.complaints.meant(name, [*self.vocabulary, *self._assigned]) or "assign it with :="
        return self._refused(expr, f"unknown name {name!r}", hint=hint)

    def _cross_period(self, expr: CrossPeriod) -> Found:
        if expr.name in self._assigned:
            message = f"{expr.name} is a name of this formula and has no other period"
            return self._refused(expr, message, hint=f"write ON({expr.period},…) around what {expr.name} stands for")
        inner = self._on_period(expr, expr.period)
        if inner is None:
            return expr, BROKEN
        word = self.vocabulary.get(expr.name)
        if word is None:
            return self._unknown_name(Name(expr.name, expr.span))
        if word.scope is not Scope.BAR:
            message = f"{expr.name} is of the latest tick and the same on every period"
            return self._refused(expr, message, hint=f"write {expr.name}, or CLOSE#{expr.period}")
        self.words.add(word.name)
        return expr, Fact(word.kind, exact=word.exact, needs={inner: 1})

    def _on(self, expr: Call) -> Found:
        """Check ON(WEEK,X): X on the bars of that period."""
        if len(expr.args) != 2 or not isinstance(expr.args[0], Name):
            return self._refused(expr, "ON takes a period and an expression", hint="write ON(WEEK,MA(C,5))")
        inner = self._on_period(expr.args[0], expr.args[0].name)
        if inner is None:
            return expr, BROKEN
        here, outer = self.period, self._outer
        self.period, self._outer = inner, (outer or here) if inner != here else outer
        lowered, fact = self.expr(expr.args[1])
        self.period, self._outer = here, outer
        return replace(expr, args=(expr.args[0], lowered)), replace(fact, height=fact.height + 1)

    def _on_period(self, place: Expr, written: str) -> str | None:
        """Return the period a formula names, None after a complaint."""
        refusal = refusals.period_refusal(written, self.period)
        if refusal is None:
            return PERIODS[written]
        self._error(place, refusal.message, hint=refusal.hint)
        return None

    def _reference(self, expr: CrossReference) -> Found:
        """Check what stands in double quotes: another symbol's word or a shipped formula's output."""
        try:
            reference = read_reference(expr.target)
        except RuleError as error:
            hint = 'write "SH000001$CLOSE" or "MACD.DIF"(12,26,9)'
            return self._refused(expr, f'"{expr.target}" {error}', hint=hint)
        if isinstance(reference, SymbolReference):
            return self._other_symbol(expr, reference)
        return self._standard(expr, reference)

    def _other_symbol(self, expr: CrossReference, reference: SymbolReference) -> Found:
        if expr.args:
            return self._refused(expr, "a value of another symbol takes no arguments", hint="remove them")
        if self.period == "tick" and reference.word in _OF_THE_DAY:
            message = f"{reference.word} is a field of bars, and period tick has none"
            return self._refused(expr, message, hint=f"{_NO_BARS}; or ask for $LAST or $PCT")
        self.symbols.add(reference.symbol)
        return expr, Fact(exact=reference.word != "PCT", needs={self.period: 1})

    def _standard(self, expr: CrossReference, reference: FormulaReference) -> Found:
        """Check a shipped formula with the numbers given, on the period it is asked for."""
        formula = standard_formula(reference, [self.expr(arg)[1].constant for arg in expr.args])
        if isinstance(formula, refusals.Refusal):
            return self._refused(expr, f'"{expr.target}": {formula.message}', hint=formula.hint)
        period = self._on_period(expr, reference.period) if reference.period else self.period
        if period is None:
            return expr, BROKEN
        inner = _Checker(Source(formula.text, expr.target), period, self.functions, formula, MARKET)
        inner.formula(formula)
        faults = inner.complaints.errors
        if faults:
            message = f'"{expr.target}": {faults[0].message}'
            return self._refused(expr, message, hint=faults[0].hint or call_of(reference.name))
        self.words |= inner.words
        fact = inner._known[formula.statements[formula.condition].name]
        return expr, Fact(fact.kind, height=2, needs=fact.needs)

    def _binary(self, expr: Binary) -> Found:
        (left, a), (right, b) = self.expr(expr.left), self.expr(expr.right)
        lowered = replace(expr, left=left, right=right)
        if expr.op == "/" and b.constant == 0:
            return self._refused(
                expr.right, "division by zero: the value is never known", hint="x/0 is unknown", lowered=lowered
            )
        constant = calculate(expr.op, a.constant, b.constant)
        if constant is not None and not math.isfinite(constant):
            return self._refused(expr, "this number is too large", hint="use one below 1E308", lowered=lowered)
        return lowered, joined(Kind.NUMBER, a, b, constant=constant, exact=constant is not None)

    def _compare(self, expr: Compare) -> Found:
        (left, a), (right, b) = self.expr(expr.left), self.expr(expr.right)
        self._judge_time(expr, a, b)
        if expr.op in ("=", "<>") and not (a.exact and b.exact) and Kind.NUMBER in (a.kind, b.kind):
            self._warn(
                expr, f"{expr.op} on a computed value is hardly ever what is meant", hint="use >= and <=, or ABS(A-B)<…"
            )
        return replace(expr, left=left, right=right), truth(a, b)

    def _condition(self, expr: Expr) -> Found:
        """Check an expression that is read as a truth; a number may be, and gives a warning."""
        lowered, fact = self.expr(expr)
        if fact.kind is Kind.NUMBER and fact.constant is None:
            self._warn(expr, f"{normal(expr)} is a number; other than 0 counts as true", hint="compare it, as in …>0")
        return lowered, fact

    def _judge_time(self, expr: Compare, a: Fact, b: Fact) -> None:
        """Warn of a time of day that lacks its seconds: TIME>=1430 is true all day."""
        for side, number in ((expr.left, b.constant), (expr.right, a.constant)):
            if isinstance(side, Name) and side.name == "TIME" and number is not None and 900 <= number <= 1530:
                self._warn(expr, f"TIME is HHMMSS, and {number:g} is just after midnight", hint=f"write {number:g}00")

    # ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, expr: Call) -> Found:
        refusal = refusals.function_refusal(expr.name)
        if refusal is not None:
            return self._refused_call(expr, refusal.message, hint=refusal.hint)
        if expr.name == "DYNAINFO":
            return self._dynainfo(expr)
        if expr.name == "ON":
            return self._on(expr)
        if expr.name in SHORTHANDS and expr.name not in self.functions:
            return self._shorthand(expr, SHORTHANDS[expr.name])
        function = self.functions.get(expr.name)
        if function is None:
            return self._unknown_function(expr)
        args = function.filled(expr.args)
        if args is None:
            message = f"{expr.name} takes {function.counted()}, not {len(expr.args)}"
            return self._refused(expr, message, hint=f"write {function.signature()}")
        if function.clock is Clock.TICKS and self.period != "tick":
            return self._refused_call(expr, f"{expr.name} looks at single ticks", hint="set period: tick")
        if self.period == "tick" and not function.on_tick:
            return self._refused_call(
                expr, f"{expr.name} looks back over bars, and period tick has none", hint=_NO_BARS
            )
        return self._arguments(replace(expr, args=args), function)

    def _arguments(self, expr: Call, function: Function) -> Found:
        args: list[Expr] = []
        facts: list[Fact] = []
        for arg, param in zip(expr.args, function.params, strict=True):
            lowered, fact = self._condition(arg) if param.kind is ParamKind.TRUTH else self.expr(arg)
            if param.words and fact.kind is not None and not (isinstance(arg, Name) and arg.name in param.words):
                message = f"{function.signature()}: {param.name} is a word of the market"
                lowered, fact = self._refused(arg, message, hint=f"one of {', '.join(param.words)}")
            elif param.is_constant and fact.kind is not None:
                lowered, fact = self._constant(arg, function, len(args), found=(lowered, fact))
            args.append(lowered)
            facts.append(fact)
        lowered_call = replace(expr, args=tuple(args))
        self.words.update(function.reads)
        if any(fact.kind is None for fact in facts):
            return lowered_call, BROKEN
        fault = function.fault(constants_of(function, facts))
        if fault is not None:
            message = f"{function.signature()}: {fault}"
            return self._refused(expr, message, hint=function.meaning, lowered=lowered_call)
        return lowered_call, result(function, facts, period=self.period, cap=self.cap)

    def _constant(self, arg: Expr, function: Function, index: int, *, found: Found) -> Found:
        """Judge a constant argument; a window that was calculated is cut to whole bars, as TDX does."""
        lowered, fact = found
        is_window = function.params[index].kind is ParamKind.WINDOW
        if fact.constant is None and is_window and function.vary is not None and self.period != "tick":
            return found
        if fact.constant is not None and is_window and not fact.written and math.isfinite(fact.constant):
            fact = replace(fact, constant=float(math.trunc(fact.constant)))
        fault = constant_fault(function, fact.constant, index, period=self.period)
        if fault is not None:
            message, hint = f"{function.signature()}: {fault}", "as in MA(C,5), or N:=5; MA(C,N)"
            return self._refused(arg, message, hint=hint, lowered=lowered)
        if fact.constant is not None and (fact.constant != found[1].constant or divides(arg)):
            lowered = Number(fact.constant, arg.span)
        return lowered, fact

    def _unknown_function(self, expr: Call) -> Found:
        if expr.name in SPELLINGS or expr.name in self._assigned:
            return self._refused_call(expr, f"{expr.name} is no function", hint="write it without parentheses")
        for arg in expr.args:
            if not isinstance(arg, Text):
                self.expr(arg)
        known = [*self.functions, *SHORTHANDS, "DYNAINFO"]
        hint = self.complaints.meant(expr.name, known) or "functions are those of the reference"
        return self._refused_call(expr, f"unknown function {self.complaints.written(expr)!r}", hint=hint)

    def _shorthand(self, expr: Call, shorthand: Shorthand) -> Found:
        if len(expr.args) != shorthand.count:
            message = f"{expr.name} takes {shorthand.count} arguments, not {len(expr.args)}"
            return self._refused(expr, message, hint=f"{shorthand.written} is {shorthand.meant}")
        if not shorthand.repeats:
            return self.expr(shorthand.expand(expr))
        if self._repeats == MAX_REPEATS:
            message = f"{expr.name} stands {MAX_REPEATS + 1} deep in calls that write their X out twice"
            return self._refused_call(expr, message, hint="give the inner one a name with :=")
        self._repeats += 1
        found = self.expr(shorthand.expand(expr))
        self._repeats -= 1
        return found

    def _dynainfo(self, expr: Call) -> Found:
        value = self.expr(expr.args[0])[1].constant if len(expr.args) == 1 else None
        meant = dynainfo(expr, value, assigned=self._assigned)
        if isinstance(meant, refusals.Refusal):
            return self._refused(expr, meant.message, hint=meant.hint)
        self.words |= {part.name for part in walk(meant) if isinstance(part, Name)}
        exact = isinstance(meant, Name)
        return replace(meant, span=expr.span), Fact(exact=exact, height=3, needs={self.period: 1})
