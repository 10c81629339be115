"""The one spelling of an expression: upper case, no spaces but around AND and OR, as few parentheses as it takes.

`parse(normal(e))` is `e` again, so the text serves as the key of a shared node and of a value an event carries.
"""

from __future__ import annotations

from typing import Final

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
)

_OR, _AND, _COMPARE, _SUM, _TERM, _UNARY, _ATOM = range(7)
_BINARY: Final = {"+": _SUM, "-": _SUM, "*": _TERM, "/": _TERM}


def normal(expr: Expr) -> str:
    """Return the expression's one spelling; names stand as they are in the tree."""
    return _render(expr)[0]


def normal_formula(formula: Formula) -> str:
    """Return the whole formula in its one spelling, without spaces after the semicolons."""
    return ";".join(f"{s.name}{s.binding}{normal(s.expr)}" for s in formula.statements)


def number_text(value: float) -> str:
    """Return the shortest text that reads back as this number: 1800, 0.05, 1E-07."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).upper()


def _render(expr: Expr) -> tuple[str, int]:
    """Return text and how tightly it binds."""
    match expr:
        case Number(value=value):
            return number_text(value), _ATOM if value >= 0 else _UNARY
        case Text(value=value):
            return f"'{value}'", _ATOM
        case Name(name=name):
            return name, _ATOM
        case CrossPeriod(name=name, period=period):
            return f"{name}#{period}", _ATOM
        case Call(name=name, args=args):
            return f"{name}({','.join(map(normal, args))})", _ATOM
        case CrossReference(target=target, args=args):
            return f'"{target}"' + (f"({','.join(map(normal, args))})" if args else ""), _ATOM
        case Not(operand=operand):
            return f"NOT({normal(operand)})", _ATOM
        case Negate(operand=operand):
            return f"-{_at_least(operand, _UNARY)}", _UNARY
        case Binary(op=op, left=left, right=right):
            level = _BINARY[op]
            return f"{_at_least(left, level)}{op}{_at_least(right, level + 1)}", level
        case Compare(op=op, left=left, right=right):
            return f"{_at_least(left, _SUM)}{op}{_at_least(right, _SUM)}", _COMPARE
        case Logic(op=op, operands=operands):
            level = _AND if op == "AND" else _OR
            return f" {op} ".join(_at_least(operand, level + 1) for operand in operands), level


def _at_least(expr: Expr, level: int) -> str:
    """Return the text, in parentheses if it binds more loosely than its place needs."""
    text, binds = _render(expr)
    return text if binds >= level else f"({text})"
