"""Readers of what a rule over groups has: `over`, `agg` and `min_valid`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from rules import fields
from rules.document import Document, Scalar, Table, Value
from rules.errors import Finding, RuleFileError
from rules.functions.function import Clock, Function
from rules.language.checker import check
from rules.language.parser import parse, upper
from rules.language.syntax import Source, did_you_mean
from rules.language.tree import Binding, Call, CrossPeriod, CrossReference, Expr, Formula, Kind, Name, walk
from rules.language.words import SPELLINGS, Scope, Word
from rules.rule import Aggregate, By, Measure
from rules.selector import Selector

MAX_AGGREGATES: Final = 50
MIN_VALID: Final = 0.8
"""What `min_valid` is where a rule does not say."""
_RANK: Final = "rank"
_MEASURES: Final = (*(str(one) for one in Measure), _RANK)
_TRUTHS: Final = (Measure.COUNT, Measure.SHARE)
_NAME = re.compile(r"[^\W\d]\w{0,39}")
_LOGIC: Final = ("AND", "OR", "NOT")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%|(0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)")
_BETWEEN_TICKS: Final = ("REF", "CROSS", "LONGCROSS", "BARSLAST", "FILTER", "BIGTICK")
"""Functions that on ticks compare a tick with the one before."""

Prepare = Callable[[Formula], Formula]
"""Puts the rule's parameters into a formula."""


def members(document: Document, value: Value) -> tuple[Selector, By]:
    """Read `over`: what `select` may be, but for positions, and with `by` in a table."""
    if not isinstance(value, Table):
        return fields.selector(document, value), By.NONE
    by = value.get("by")
    for key, _ in value.pairs:
        if key.text == "positions":
            raise document.refuse(key, "over has no 'positions'", hint="write select: {positions: BOOK} for legs")
    rest = replace(value, pairs=tuple((key, entry) for key, entry in value.pairs if key.text != "by"))
    if not rest.pairs:
        raise document.refuse(value, "no members are given", hint="write {all: true, by: sector}")
    return fields.selector(document, rest), By.NONE if by is None else fields.choice("by", By)(document, by)


def min_valid(document: Document, value: Value) -> float:
    """Read `min_valid`, a share such as 80%."""
    written = value.text if isinstance(value, Scalar) and not value.style else ""
    match = _SHARE.fullmatch(written)
    share = None if match is None else float(match[1]) / 100 if match[1] else float(match[2])
    if share is None or share > 1:
        raise document.refuse(value, "min_valid is a share from 0% to 100%", hint="write 80%")
    return share


def aggregates(
    document: Document, value: Value, *, by: By, period: str, functions: Mapping[str, Function], prepare: Prepare
) -> tuple[Aggregate, ...]:
    """Read `agg`, name → measure of a formula; raises RuleFileError with the findings of all entries."""
    pairs = fields.table(document, value, "agg").pairs
    if not pairs or len(pairs) > MAX_AGGREGATES:
        raise document.refuse(value, f"agg has 1 to {MAX_AGGREGATES} entries", hint="write agg: {n: count(SEALUP)}")
    found: dict[str, Aggregate] = {}
    errors: list[Finding] = []
    for key, entry in pairs:
        try:
            name = _name(document, key, found)
            found[name] = _aggregate(document, entry, name, found, by, period, functions, prepare)
        except RuleFileError as error:
            errors += error.findings
    if errors:
        raise RuleFileError(errors)
    return tuple(found.values())


def words_of(found: tuple[Aggregate, ...]) -> dict[str, Word]:
    """Return what the conditions of a rule with these aggregates may name."""
    return {one.name: Word(one.name, Scope.NOW, one.name, one.name, kind=Kind.NUMBER) for one in found}


def functions_of(functions: Mapping[str, Function]) -> dict[str, Function]:
    """Return the functions that a condition over groups may know: all but those about one symbol's ticks."""
    return {name: one for name, one in functions.items() if one.clock is Clock.BARS and not one.reads}


def refuse_market(formula: Formula, functions: Mapping[str, Function]) -> Formula:
    """Refuse what of a condition over groups is about symbols; raises RuleFileError."""
    refused = ("ON", "DYNAINFO", *(functions.keys() - functions_of(functions).keys()))
    for statement in formula.statements:
        for part in walk(statement.expr):
            if isinstance(part, (CrossPeriod, CrossReference)) or _is_call(part, *refused):
                source = Source(formula.text, "formula")
                message = "this is of one symbol, and here is a condition over groups"
                raise RuleFileError([source.finding(part.span, message, hint="put it into agg, as in mean(…)")])
    return formula


def _is_call(expr: Expr, *names: str) -> bool:
    return isinstance(expr, Call) and expr.name in names


def _name(document: Document, key: Scalar, found: Mapping[str, Aggregate]) -> str:
    # n is the usual name of a count, and what it may be to older readers of YAML is no key of theirs.
    written = key.text if key.text.lower() in ("n", "y") else fields.key_name(document, key)
    name = upper(written)
    if not _NAME.fullmatch(name) or name in _LOGIC:
        raise document.refuse(key, f"{written[:40]!r} is no name", hint="letters, digits and _, as in n or up_share")
    if name in SPELLINGS:
        raise document.refuse(key, f"{written} is a word of the market", hint="use a name of its own, such as n")
    if name in found:
        raise document.refuse(key, f"{written} is given twice", hint="names hold no upper and lower case apart")
    return name


def _aggregate(
    document: Document,
    value: Value,
    name: str,
    found: Mapping[str, Aggregate],
    by: By,
    period: str,
    functions: Mapping[str, Function],
    prepare: Prepare,
) -> Aggregate:
    """Read one entry; its findings are moved to their place in the file."""
    text = fields.text(document, value)
    assert isinstance(value, Scalar)
    try:
        formula = prepare(parse(text))
        source = Source(formula.text, "formula")
        call = _measure_of(source, formula)
        ranked = call.name.lower() == _RANK
        if ranked:
            if by is By.NONE:
                hint = "write by: sector or by: board in over"
                raise RuleFileError([source.finding(call.span, "rank needs several groups", hint=hint)])
            inner = call.args[0]
            if isinstance(inner, Name) and inner.name in found:
                return replace(found[inner.name], name=name, ranked=True)
            call = _measure(source, inner)
        measure = _which(source, call)
        of = replace(formula, statements=(replace(formula.statements[0], expr=call.args[0]),))
        _refuse_ticks(source, of, period)
        checked = check(of, period=period, functions=functions)
    except RuleFileError as error:
        raise RuleFileError([document.place(finding, value) for finding in error.findings]) from None
    if measure in _TRUTHS:
        document.warnings += [document.place(finding, value) for finding in checked.warnings]
    return Aggregate(name, measure, checked.formula, ranked)


def _measure_of(source: Source, formula: Formula) -> Call:
    """Return the one call an entry is."""
    statement = formula.statements[0]
    if len(formula.statements) != 1 or statement.binding is not Binding.NONE:
        message = "an entry of agg is one measure of one expression"
        hint = "write it out, as in count(LAST > 10)"
        raise RuleFileError([source.finding(source.span(0, len(source.text)), message, hint=hint)])
    return _measure(source, statement.expr)


def _measure(source: Source, expr: Expr) -> Call:
    if not isinstance(expr, Call) or expr.name.lower() not in _MEASURES:
        meant = did_you_mean(expr.name.lower(), _MEASURES) if isinstance(expr, Call) else None
        hint = meant or f"one of {', '.join(_MEASURES)}, as in count(SEALUP) or mean(PCT)"
        raise RuleFileError([source.finding(expr.span, "this is no measure of a group", hint=hint)])
    if len(expr.args) != 1:
        message = f"{expr.name.lower()} takes 1 argument here, not {len(expr.args)}"
        hint = f"write {expr.name.lower()}(…) of one expression"
        raise RuleFileError([source.finding(expr.span, message, hint=hint)])
    return expr


def _which(source: Source, call: Call) -> Measure:
    if call.name.lower() == _RANK:
        raise RuleFileError([source.finding(call.span, "rank of a rank", hint="rank a measure, as in rank(mean(PCT))")])
    return Measure(call.name.lower())


def _refuse_ticks(source: Source, formula: Formula, period: str) -> None:
    """Refuse what compares ticks: a group is looked at once a second, whatever came in between."""
    if period != "tick":
        return
    whole = formula.statements[0].expr
    on_bars = {id(part) for outer in walk(whole) if _is_call(outer, "ON") for part in walk(outer)}
    for part in walk(whole):
        if isinstance(part, Call) and part.name in _BETWEEN_TICKS and id(part) not in on_bars:
            message = f"{part.name} compares ticks, and a group is looked at once a second"
            raise RuleFileError([source.finding(part.span, message, hint="set period: 1m, or use RISE")])
