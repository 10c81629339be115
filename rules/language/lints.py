"""Warnings that the shape of a formula alone gives: it means something, but likely not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from rules.errors import Finding
from rules.language.syntax import Source
from rules.language.tree import Compare, Expr, Formula, Logic, Not, walk


def shape_lints(formula: Formula, source: Source) -> Iterator[Finding]:
    """Yield the warnings of all statements, in order."""
    for statement in formula.statements:
        for expr in walk(statement.expr):
            yield from _mixed_logic(expr, source)
            yield from _negated_side(expr, source)


def _mixed_logic(expr: Expr, source: Source) -> Iterator[Finding]:
    if not isinstance(expr, Logic) or expr.op != "OR":
        return
    for operand in expr.operands:
        if isinstance(operand, Logic) and not _in_parentheses(operand):
            yield source.finding(
                operand.span,
                "AND and OR are mixed without parentheses; AND binds tighter",
                hint=f"write ({source.text[operand.span.start : operand.span.end]}) if that is meant",
                severity="warning",
            )
            return


def _in_parentheses(expr: Logic) -> bool:
    """Tell whether it was written in parentheses: its own place takes them in, its first operand's does not."""
    return expr.span.start < expr.operands[0].span.start


def _negated_side(expr: Expr, source: Source) -> Iterator[Finding]:
    if isinstance(expr, Compare) and isinstance(expr.left, Not):
        written = source.text[expr.left.span.start : expr.left.span.end]
        yield source.finding(
            expr.span,
            f"{written} is a call, so its truth is compared, not the comparison negated",
            hint="write NOT(A>B) to negate a comparison",
            severity="warning",
        )
