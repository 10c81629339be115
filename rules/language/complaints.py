"""`Complaints`: what the checker finds wrong with a formula, and what it warns of, each at its place in the text."""

from __future__ import annotations

from typing import Final

from rules.errors import Finding
from rules.language.facts import BROKEN, Found
from rules.language.syntax import Source, did_you_mean, prepare
from rules.language.tree import Call, Expr, Name

MAX_ERRORS: Final = 50
"""Complaints collected about one formula; further ones would not help."""


class Complaints:
    """The findings about one formula, in the order in which they are made."""

    def __init__(self, source: Source) -> None:
        self.errors: list[Finding] = []
        self.warnings: list[Finding] = []
        self._source = source
        self._blank = prepare(source)

    def meant(self, word: str, known: list[str]) -> str | None:
        """Search for the word that was meant, for the first mistakes only: the search takes a millisecond each."""
        return did_you_mean(word, known) if len(self.errors) < 10 else None

    def error(self, place: Expr, message: str, *, hint: str) -> None:
        """Complain of an expression, once: UPNDAY(X,N) and its like have their X looked at twice."""
        if len(self.errors) < MAX_ERRORS:
            found = self._source.finding(place.span, message, hint=hint)
            if found not in self.errors:
                self.errors.append(found)

    def warning(self, place: Expr, message: str, *, hint: str) -> None:
        """Warn of an expression."""
        self.warnings.append(self._source.finding(place.span, message, hint=hint, severity="warning"))

    def refused(self, expr: Expr, message: str, *, hint: str, lowered: Expr | None = None) -> Found:
        """Complain of an expression, and return it as broken, in its `lowered` form if there is one."""
        self.error(expr, message, hint=hint)
        return (expr if lowered is None else lowered), BROKEN

    def refused_call(self, expr: Call, message: str, *, hint: str) -> Found:
        """Refuse a call with the carets under the function's name alone."""
        start = self._name_start(expr)
        self.error(Name(expr.name, self._source.span(start, start + len(expr.name))), message, hint=hint)
        return expr, BROKEN

    def written(self, call: Call) -> str:
        """Return a call's name as it was written."""
        start = self._name_start(call)
        return self._source.text[start : start + len(call.name)]

    def _name_start(self, call: Call) -> int:
        """Return where a call's name begins: its place may begin with parentheses around it."""
        return next(at for at in range(call.span.start, call.span.end) if self._blank[at] not in "( \n\r\t")
