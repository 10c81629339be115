"""Shipped formulas as a formula names them: "MACD.DIF"(12,26,9)."""

from __future__ import annotations

from collections.abc import Sequence

from rules.catalog import instance, standard_formulas
from rules.errors import RuleError
from rules.language.references import FormulaReference
from rules.language.refusals import Refusal
from rules.language.syntax import did_you_mean
from rules.language.tree import Formula


def standard_formula(reference: FormulaReference, arguments: Sequence[float | None]) -> Formula | Refusal:
    """Return a shipped formula with these numbers put in, or why there is none; None among them is no constant."""
    numbers = tuple(value for value in arguments if value is not None)
    if len(numbers) < len(arguments):
        return Refusal("parameters are constant numbers", call_of(reference.name))
    try:
        return instance(reference.name, reference.output, numbers)
    except RuleError as error:
        known = standard_formulas()
        hint = None if reference.name in known else did_you_mean(reference.name, known)
        return Refusal(str(error), hint or call_of(reference.name))


def call_of(name: str) -> str:
    """Return how a shipped formula is written, for a hint; where there is none, which there are."""
    known = standard_formulas()
    return f"write {known[name].signature()}" if name in known else f"there are {', '.join(known)}"
