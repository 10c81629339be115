"""Errors of rules: every one says file, line, column and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class RuleError(Exception):
    """The one error root of the rules package."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One complaint about a rule text, with its place. line and column count from 1, columns in characters.

    line 0: the file, or what else is named there, has no lines.
    """

    file: str
    line: int
    column: int
    message: str
    severity: str = "error"
    """"error" or "warning" (a lint)."""
    rule: str | None = None
    source: str | None = None
    """The source line the carets stand under."""
    width: int = 1
    """Characters under the carets."""
    hint: str | None = None


class RuleFileError(RuleError):
    """One or more findings that make a rule file or formula unusable; str() renders all of them."""

    def __init__(self, findings: list[Finding]) -> None:
        from rules.language.report import render

        self.findings = findings
        super().__init__("\n".join(render(finding) for finding in findings))
