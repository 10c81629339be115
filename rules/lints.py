"""Warnings that take more than the rule files: what a rule watches among the instruments there are, and its history.

Pure: who calls it says what is known of the market. Findings stand at the rule's own keys in its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from feeds.instruments import Instrument
from rules.errors import Finding
from rules.language.checker import check
from rules.language.text import normal
from rules.language.tree import Binary, Call, Expr, Formula, Name, Negate, Number, walk
from rules.language.words import MARKET, SPELLINGS
from rules.meaning import threshold_operands
from rules.places import Place, places_of
from rules.rule import Leg, Rule, RuleSet
from rules.selector import Selector

PRICES: Final = frozenset(
    {"C", "O", "H", "L", "LAST", "PRECLOSE", "DAYOPEN", "DAYHIGH", "DAYLOW", "AUCP", "LIMITUP", "LIMITDOWN"}
    | {f"{side}P{level}" for side in ("BID", "ASK") for level in range(1, 6)}
)
_OF_ITS_FIRST: Final = frozenset(
    {"REF", "MA", "EMA", "SMA", "WMA", "EXPMEMA", "HHV", "LLV", "MAX", "MIN", "ABS", "SUM"}
)
_NOT_OF_BARS: Final = ("tick", "3s")


@dataclass(frozen=True, slots=True)
class KnownMarket:
    """What is known of the market that rules are to watch.

    instruments: all there are, () = not known; bars: how many of each period the feed has at a start, {} = not known;
    ex_dates: symbol → trade date ("2023-06-30") on which its previous close was not the last close.
    """

    instruments: Sequence[Instrument] = ()
    bars: Mapping[str, int] = field(default_factory=dict)
    ex_dates: Mapping[str, str] = field(default_factory=dict)


def needs_of(rule: Rule) -> dict[str, int]:
    """Return the bars of each period that any leg needs until its values no longer depend on what was before."""
    needed: dict[str, int] = {}
    for formula in _formulas(rule):
        # As loaded, parameters put in: the text still names them.
        words = MARKET if rule.select.book is None else SPELLINGS
        for period, bars in check(formula, period=rule.period, words=words, cap=rule.cap).needs.items():
            if period not in _NOT_OF_BARS:
                needed[period] = max(bars, needed.get(period, 0))
    return needed


def _formulas(rule: Rule) -> Iterator[Formula]:
    """Yield the formulas over symbols; a rule over groups has them in its aggregates."""
    if rule.over is not None:
        yield from (aggregate.of for aggregate in rule.over.aggregates)
        return
    for leg in rule.legs:
        yield leg.when
        if leg.rearm is not None:
            yield leg.rearm


def market_lints(rules: RuleSet, market: KnownMarket) -> list[Finding]:
    """Return the warnings of all rules, in file order."""
    places = places_of(rules)
    return [finding for rule in rules.rules for finding in _rule_lints(rule, market, places[rule.id])]


def _rule_lints(rule: Rule, market: KnownMarket, place: Place) -> Iterator[Finding]:
    if _selects_nothing(rule.select, market.instruments):
        count = len(market.instruments)
        yield place.warning("select", f"selects none of the {count} instruments there are", hint="loosen select:")
    for period, bars in needs_of(rule).items():
        there = market.bars.get(period)
        if there is not None and bars > there:
            message = f"needs {bars} bars of {period}, and the feed has {there} at a start"
            yield place.warning(
                _formula_key(rule), message, hint="it stays warming until they are there; shorten its windows"
            )
    yield from _over_ex_dates(rule, market, place)


def _formula_key(rule: Rule) -> str:
    return "when" if rule.legs and rule.legs[0].name is None else "legs"


# ── select ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _selects_nothing(select: Selector, instruments: Sequence[Instrument]) -> bool:
    """Tell whether it covers none; where names or sectors decide and nothing is known of them, nobody can tell."""
    if not instruments or select.book is not None:
        return False
    if select.sectors and not any(instrument.sectors for instrument in instruments):
        return False
    if select.names and all(instrument.name is None for instrument in instruments):
        return False
    return not any(select.covers(instrument) for instrument in instruments)


# ── absolute prices ───────────────────────────────────────────────────────────────────────────────────────────────


def _over_ex_dates(rule: Rule, market: KnownMarket, place: Place) -> Iterator[Finding]:
    """Warn where a price is compared with a number though a symbol's prices have been adjusted."""
    if rule.over is not None:
        return
    hit = next(
        (
            (instrument.symbol, market.ex_dates[instrument.symbol])
            for instrument in market.instruments
            if instrument.symbol in market.ex_dates and rule.select.covers(instrument)
        ),
        None,
    )
    if hit is None:
        return
    symbol, day = hit
    for leg in rule.legs:
        for compared in _absolute(leg):
            message = f"{normal(compared)} is a price of before or after {day}, when {symbol} went ex-rights"
            hint = "compare with PRECLOSE or by PCT, or set the price anew"
            yield place.in_formula(leg, compared.span, message, hint=hint)


def _absolute(leg: Leg) -> Iterator[Expr]:
    """Yield the numbers that prices are compared with."""
    own = {statement.name: statement.expr for statement in leg.when.statements if statement.name}
    for statement in leg.when.statements:
        for expr in walk(statement.expr):
            operands = threshold_operands(expr)
            for one, other in (operands, operands[::-1]) if operands else ():
                number = _number(other, own)
                if number and _degree(one, own, 0) == 1:
                    yield other


def _number(expr: Expr, own: Mapping[str, Expr]) -> float | None:
    if isinstance(expr, Name) and expr.name in own:
        return _number(own[expr.name], own)
    if isinstance(expr, Negate):
        return _number(expr.operand, own)
    return expr.value if isinstance(expr, Number) else None


def _degree(expr: Expr, own: Mapping[str, Expr], depth: int) -> int | None:
    """Return how an expression grows with prices: 1 as they do, 0 not at all, None where that can't be said."""
    if depth > 50:
        return None
    match expr:
        case Number():
            return 0
        case Name(name=name):
            if name in own:
                return _degree(own[name], own, depth + 1)
            word = SPELLINGS.get(name)
            return None if word is None else int(word.name in PRICES)
        case Negate(operand=operand):
            return _degree(operand, own, depth + 1)
        case Call(name=name, args=args) if name in _OF_ITS_FIRST and args:
            return _degree(args[0], own, depth + 1)
        case Binary(op=op, left=left, right=right):
            a, b = _degree(left, own, depth + 1), _degree(right, own, depth + 1)
            if a is None or b is None:
                return None
            return a + b if op == "*" else a - b if op == "/" else max(a, b)
        case _:
            return None
