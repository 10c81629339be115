"""DYNAINFO(n): the words of the market that its numbers stand for."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from rules.language.parser import parse
from rules.language.refusals import Refusal
from rules.language.text import normal
from rules.language.tree import Call, Expr, Name, walk
from rules.language.words import DYNAINFO

UNAVAILABLE_DYNAINFO: Final[dict[int, str]] = {
    37: "turnover needs the number of shares, which is unavailable",
}


def dynainfo(expr: Call, value: float | None, *, assigned: Set[str]) -> Expr | Refusal:
    """Return what a call stands for, `value` being its one argument where that is constant; or why there is nothing.

    assigned: names of the formula, which must not be those that the call means.
    """
    number = int(value) if value is not None and value.is_integer() else None
    one_of = f"one of {', '.join(map(str, DYNAINFO))}"
    if number in UNAVAILABLE_DYNAINFO:
        return Refusal(f"{normal(expr)}: {UNAVAILABLE_DYNAINFO[number]}", one_of)
    if number not in DYNAINFO:
        return Refusal("DYNAINFO takes one constant of those known here", one_of)
    meant = parse(DYNAINFO[number]).statements[0].expr
    for part in walk(meant):
        if isinstance(part, Name) and part.name in assigned:
            message = f"{normal(expr)} is {normal(meant)}, but this formula assigns {part.name}"
            return Refusal(message, "use another name")
    return meant
