"""What the checker knows of a formula and its expressions, and how that of a whole follows from its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from rules.errors import Finding
from rules.language.tree import Binary, Expr, Formula, Kind, walk


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of an expression.

    kind: None after an error in it, so that one mistake is one complaint; constant: its value where it never changes;
    written: that constant stands in the text as a number, and was not calculated; exact: prices and counts, which `=`
    may compare; height: how deep it is, names put in; needs: bars of each period until its value is settled.
    """

    kind: Kind | None = Kind.NUMBER
    constant: float | None = None
    exact: bool = False
    height: int = 1
    needs: Mapping[str, int] = field(default_factory=dict)
    written: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """A formula that can be evaluated.

    formula: as the graph takes it; words: canonical words it reads; warnings: lints, in the order of the text;
    needs: bars of each period it reads until its values are within 1e-9 of those with endless history ("3s": slots of
    RISE, HIGHS, LOWS); symbols: other symbols it reads.
    """

    formula: Formula
    period: str
    words: frozenset[str]
    warnings: tuple[Finding, ...]
    needs: Mapping[str, int] = field(default_factory=dict)
    symbols: frozenset[str] = frozenset()


Found = tuple[Expr, Fact]
"""An expression in the form the graph takes, and what is known of it."""
BROKEN: Final = Fact(None, exact=True)


def joined(kind: Kind | None, *parts: Fact, constant: float | None = None, exact: bool = False) -> Fact:
    """Return the fact of an expression made of these parts on one bar."""
    height = 1 + max((part.height for part in parts), default=0)
    return Fact(kind, constant, exact, height, most(*parts))


def most(*parts: Fact) -> dict[str, int]:
    """Return the bars of each period that the neediest part needs."""
    needs: dict[str, int] = {}
    for part in parts:
        for period, bars in part.needs.items():
            needs[period] = max(bars, needs.get(period, 0))
    return needs


def looking_back(fact: Fact, period: str, bars: int) -> Fact:
    """Return the fact of a function of what `fact` is of, which settles after `bars` bars of its own."""
    own = fact.needs.get(period, 1) + bars - 1
    return replace(fact, needs={**fact.needs, period: own} if bars > 1 or fact.needs else fact.needs)


def truth(*parts: Fact) -> Fact:
    """Return the fact of a truth made of these parts."""
    return joined(Kind.TRUTH, *parts, exact=True)


def divides(expr: Expr) -> bool:
    """Tell whether a constant has a division in it, which the graph leaves to be done at run time."""
    return any(isinstance(part, Binary) and part.op == "/" for part in walk(expr))


def calculate(op: str, a: float | None, b: float | None) -> float | None:
    """Return a op b, None where one of them is not known."""
    if a is None or b is None:
        return None
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
