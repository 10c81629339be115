"""What a checked rule means: the identity of its meaning, and the values its events report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rules.alert import identity
from rules.language.text import normal, normal_formula
from rules.language.tree import (
    Call,
    Compare,
    CrossPeriod,
    CrossReference,
    Expr,
    Formula,
    Name,
    Number,
    children,
    rebuild,
    walk,
)
from rules.language.words import SPELLINGS
from rules.rule import Aggregate, Leg, Over, Rule


def revision(rule: Rule) -> str:
    """Hash what changes the meaning of a rule: conditions, scope, period and life, but no label, text or severity."""
    legs = [
        part
        for leg in rule.legs
        for part in (leg.name, _meaning(leg.when), None if leg.rearm is None else _meaning(leg.rearm))
    ]
    life = (rule.period, rule.evaluation, rule.mode, rule.frequency, rule.on_start, ",".join(sorted(rule.session)))
    limits = (rule.cooldown_ms, rule.max_per_day, rule.expires_ms)
    state = (rule.cap, rule.for_ms, rule.keep_firing_ms, rule.confirm, rule.gap, str(rule.flap), str(rule.step))
    over = () if rule.over is None else _over(rule.over)
    return identity(*legs, rule.select.text(), *life, *limits, *state, *over)


def _over(over: Over) -> tuple[str, ...]:
    """Return the parts of the identity that a rule over groups has besides."""
    return over.by, repr(over.min_valid), *(part for one in over.aggregates for part in (one.name, measured(one)))


def measured(aggregate: Aggregate) -> str:
    """Return what an aggregate measures in one spelling, such as RANK(MEAN(PCT))."""
    text = f"{aggregate.measure.upper()}({_meaning(aggregate.of)})"
    return f"RANK({text})" if aggregate.ranked else text


def _meaning(formula: Formula) -> str:
    """Return the formula in its one spelling, synonyms of words included."""
    own = {statement.name for statement in formula.statements}
    statements = tuple(replace(statement, expr=_canonical(statement.expr, own)) for statement in formula.statements)
    return normal_formula(replace(formula, statements=statements))


def _canonical(expr: Expr, own: set[str]) -> Expr:
    """Return the expression with every word in its canonical spelling."""
    if isinstance(expr, Name):
        word = SPELLINGS.get(expr.name)
        return expr if word is None or expr.name in own else replace(expr, name=word.name)
    return rebuild(expr, lambda child: _canonical(child, own))


def renamed(formula: Formula, names: Mapping[str, str]) -> Formula:
    """Return the formula with the names it takes from outside replaced; its own names of that spelling stay."""
    free = {name: new for name, new in names.items() if name not in {one.name for one in formula.statements}}
    statements = tuple(replace(one, expr=renamed_expr(one.expr, free)) for one in formula.statements)
    return replace(formula, statements=statements)


def renamed_expr(expr: Expr, names: Mapping[str, str]) -> Expr:
    """Return the expression with these names replaced."""
    if isinstance(expr, Name):
        return replace(expr, name=names[expr.name]) if expr.name in names else expr
    return rebuild(expr, lambda child: renamed_expr(child, names))


def value_exprs(rule: Rule, leg: Leg) -> dict[str, Expr]:
    """Return what an event of this leg reports, by its key: named outputs, operands and names of the messages.

    Operands are the non-constant ones of comparisons, CROSS and LONGCROSS. Keys and expressions keep the formula's own
    names, which the caller resolves.
    """
    formula = leg.when
    constants = {s.name for s in formula.statements if isinstance(s.expr, Number)}
    values: dict[str, Expr] = {statement.name: Name(statement.name) for statement in formula.outputs}
    for statement in formula.statements:
        for operand in _operands(statement.expr, constants):
            values.setdefault(normal(operand), operand)
    if rule.over is not None:
        for aggregate in rule.over.aggregates:
            values.setdefault(aggregate.name, Name(aggregate.name))
    own = {statement.name for statement in formula.statements}
    for template in rule.messages.values():
        for name in template.names:
            if name in own or name in SPELLINGS:
                values.setdefault(name, Name(name))
    return values


def threshold_operands(expr: Expr) -> tuple[Expr, ...]:
    """Return what a comparison, CROSS or LONGCROSS compares; nothing for any other expression."""
    if isinstance(expr, Compare):
        return expr.left, expr.right
    if isinstance(expr, Call) and expr.name in ("CROSS", "LONGCROSS"):
        return expr.args[:2]
    return ()


def _operands(expr: Expr, constants: set[str]) -> Iterator[Expr]:
    """Yield what varies of what is compared in an expression, outermost first; inside ON(…) as on that period."""
    yield from (operand for operand in threshold_operands(expr) if _varies(operand, constants))
    if isinstance(expr, Call) and expr.name == "ON":
        yield from (Call("ON", (expr.args[0], operand)) for operand in _operands(expr.args[1], constants))
    else:
        for child in children(expr):
            yield from _operands(child, constants)


def _varies(expr: Expr, constants: set[str]) -> bool:
    moving = (Call, CrossPeriod, CrossReference)
    return any(
        isinstance(part, moving) or (isinstance(part, Name) and part.name not in constants) for part in walk(expr)
    )
