"""What the arguments of a call make of it: which constants it takes, and what is known of its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rules.functions.function import Clock, Function, ParamKind
from rules.language.facts import Fact, joined, looking_back
from rules.language.tree import Kind

MAX_WINDOW: Final = 2_000
"""Bars a window may span: a ring of them over 5,500 symbols is 88 MB."""

_EXACT: Final = frozenset({"REF", "HHV", "LLV", "MAX", "MIN", "ABS", "IF", "VALUEWHEN", "HIGHS", "LOWS"})
"""Functions that hand on a price or a count unchanged."""
_WHOLE = re.compile(r"COUNT|BARS\w*|\w+BARS|SIGN|FLOOR|CEILING|INTPART|BIGTICK")
"""Functions whose value is always a whole number."""
_CLOCKS: Final = {Clock.SLOTS: "3s", Clock.MINUTES: "1m"}
"""Whose bars a function's need counts, where they are not the formula's own."""


def constant_fault(function: Function, value: float | None, index: int, *, period: str) -> str | None:
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
    if period == "tick" and function.name == "REF" and value > 1:
        return "on period tick only the previous tick is kept, so N must be 1; set period: for bars"
    return None


def constants_of(function: Function, facts: Sequence[Fact]) -> tuple[float, ...]:
    """Return the constant arguments of a call; fewer than the function takes where a window is a series."""
    given = [fact.constant for fact, param in zip(facts, function.params, strict=True) if param.is_constant]
    return tuple(value for value in given if value is not None)


def result(function: Function, facts: Sequence[Fact], *, period: str, cap: int) -> Fact:
    """Return the fact of a call with sound arguments, with the bars it needs: those of its arguments and its own."""
    kind = function.kind(tuple(fact.kind or Kind.NUMBER for fact in facts))
    exact = _WHOLE.fullmatch(function.name) is not None
    exact = exact or (function.name in _EXACT and all(fact.exact for fact in facts))
    constants = constants_of(function, facts)
    varies = len(constants) < sum(param.is_constant for param in function.params)
    bars = cap + 1 if varies else (function.history or function.first)(constants)
    return looking_back(joined(kind, *facts, exact=exact), _CLOCKS.get(function.clock, period), bars)
