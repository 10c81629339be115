"""Parameters of a rule, `params: {rise: 3%, window: 5m}`: constants with names, for its formulas and messages.

A parameter is put into the formula as the number it is before the formula is checked, so it may stand wherever a number
may, also as a window, and is part of the rule's meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

from rules import fields
from rules.document import Document, Scalar, Value
from rules.errors import Finding, RuleFileError
from rules.language.parser import upper
from rules.language.syntax import Source, did_you_mean
from rules.language.tree import Expr, Formula, Name, Negate, Number, rebuild, walk
from rules.language.words import SPELLINGS
from rules.message import CONTEXT

MAX_PARAMETERS: Final = 50

_NAME = re.compile(r"[^\W\d]\w{0,39}")
_AMOUNT = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)(%?)")
_DURATION = re.compile(r"[0-9.]+(?:ms|s|m|h|d)(?:[0-9.]+(?:ms|s|m|h|d))*")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One named constant. value: a number; a percentage as its share (3% is 0.03), a duration in seconds.

    place: where its value stands, for complaints about what the value does to a formula.
    """

    written: str
    value: float
    place: Scalar


Parameters = Mapping[str, Parameter]
"""Parameters by upper-case name, as formulas know them."""


def parameters(document: Document, value: Value) -> dict[str, Parameter]:
    """Read `params`. What is wrong goes to `document.errors`, and stands for 1 so that no formula complains of it too.

    Raises RuleFileError for what is no table.
    """
    pairs = fields.table(document, value, "params").pairs
    if len(pairs) > MAX_PARAMETERS:
        raise document.refuse(value, f"{len(pairs)} parameters, more than {MAX_PARAMETERS}", hint="use fewer")
    found: dict[str, Parameter] = {}
    for key, entry in pairs:
        name = upper(key.text)
        try:
            _check_name(document, key, found.get(name))
            found[name] = _parameter(document, key, entry)
        except RuleFileError as error:
            document.errors += error.findings
            found.setdefault(name, Parameter(key.text, 1.0, key))
    return found


def _check_name(document: Document, key: Scalar, earlier: Parameter | None) -> None:
    written = fields.key_name(document, key)
    if not _NAME.fullmatch(written):
        raise document.refuse(key, f"{written!r} is no name", hint="letters, digits and '_', beginning with a letter")
    if upper(written) in SPELLINGS or written in CONTEXT:
        raise document.refuse(key, f"{written} is a word of the language", hint=f"use a name such as my_{written}")
    if earlier is not None:
        raise document.refuse(key, f"{written} is {earlier.written} again", hint="case makes no difference")


def _parameter(document: Document, key: Scalar, value: Value) -> Parameter:
    written = fields.text(document, value)
    assert isinstance(value, Scalar)
    return Parameter(key.text, _number(document, value, written), value)


def _number(document: Document, value: Scalar, written: str) -> float:
    amount = _AMOUNT.fullmatch(written)
    if amount is None and _DURATION.fullmatch(written):
        return fields.duration_ms(document, value) / 1000
    number = math.nan if amount is None else float(amount[1]) / (100 if amount[2] else 1)
    if not math.isfinite(number):
        hint = "write 5, 2.5, 1e6, 3% or a duration such as 5m"
        raise document.refuse(value, f"a parameter is a number, not {written[:40]!r}", hint=hint)
    return number


def put_in(formula: Formula, given: Parameters) -> Formula:
    """Return a parsed formula with its parameters as numbers, each where its name stood.

    Raises RuleFileError, with places in the formula's text, if the formula assigns one of them.
    """
    source = Source(formula.text, "formula")
    errors = [
        source.finding(
            source.span(one.span.start, one.span.start + len(one.written)),
            f"{one.written} is a parameter and can't be assigned", hint="use another name",
        )
        for one in formula.statements
        if one.name in given
    ]  # fmt: skip
    if errors:
        raise RuleFileError(errors)

    def change(expr: Expr) -> Expr:
        if isinstance(expr, Name) and expr.name in given:
            value = given[expr.name].value
            number = Number(abs(value), expr.span)
            return Negate(number, expr.span) if value < 0 else number
        return rebuild(expr, change)

    statements = tuple(replace(one, expr=change(one.expr)) for one in formula.statements)
    return replace(formula, statements=statements)


def names_in(formula: Formula) -> set[str]:
    """Return every name a formula uses, upper case."""
    return {part.name for one in formula.statements for part in walk(one.expr) if isinstance(part, Name)}


def blamed(finding_source: str | None, column: int, width: int, given: Parameters) -> Parameter | None:
    """Return the parameter whose name stands under a finding's carets, None if it is something else."""
    word = (finding_source or "")[column - 1 : column - 1 + width]
    return given.get(upper(word))


def unknown(document: Document, value: Value, own: Parameters, given: Parameters) -> Iterator[RuleFileError]:
    """Yield a complaint for each given parameter (read from `value`) that a shipped rule does not have."""
    names = [one.written for one in own.values()]
    for key, _ in fields.table(document, value, "params").pairs:
        if upper(key.text) in given and upper(key.text) not in own:
            hint = did_you_mean(key.text, names) or (f"it has {', '.join(names)}" if names else "it has none")
            yield document.refuse(key, f"the shipped rule has no parameter {key.text!r}", hint=hint)


def unused(document: Document, own: Parameters, named: Set[str]) -> list[Finding]:
    """Warn of parameters of a rule that none of its formulas and messages names."""
    return [
        document.finding(
            one.place.start, one.place.end, f"parameter {one.written} is not used",
            hint="name it in a formula or message, or leave it out", severity="warning",
        )
        for name, one in own.items()
        if name not in named
    ]  # fmt: skip
