"""How a finding is shown: for people as text with carets, for programs as a record.

A terminal shows Chinese and full-width characters two columns wide; the carets below them count that in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from unicodedata import combining, east_asian_width

from rules.errors import Finding

SHOWN: Final = 160
"""Characters of a source line that are shown at most; a longer one is cut around the carets."""


def render(finding: Finding) -> str:
    """Return the finding as lines: place and complaint, source line, carets, hint; no trailing newline."""
    rule = f"rule {finding.rule}: " if finding.rule else ""
    place = f"{finding.file}:{finding.line}:{finding.column}" if finding.line else finding.file
    lines = [f"{place}: {finding.severity}: {rule}{finding.message}"]
    if finding.source is not None:
        source, column = _window(finding.source.expandtabs(1), finding.column)
        width = max(1, min(finding.width, len(source) - column + 1))
        lines.append(source)
        lines.append(
            " " * _columns(source[: column - 1]) + "^" * max(1, _columns(source[column - 1 : column - 1 + width]))
        )
    if finding.hint is not None:
        lines.append(f"    hint: {finding.hint}")
    return "\n".join(lines)


def record(finding: Finding) -> dict[str, Any]:
    """Return the finding as a JSON object; `end_column` is exclusive."""
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "end_column": finding.column + finding.width,
        "severity": finding.severity,
        "rule": finding.rule,
        "message": finding.message,
        "hint": finding.hint,
        "source": finding.source,
    }


def summary(findings: Iterable[Finding]) -> str:
    """Render all findings, one after another."""
    return "\n".join(map(render, findings))


def _window(source: str, column: int) -> tuple[str, int]:
    """Cut a long line to the part around `column`; return it with the column in the cut line."""
    if len(source) <= SHOWN:
        return source, min(column, len(source) + 1)
    start = max(0, min(column - SHOWN // 2, len(source) - SHOWN))
    cut = source[start : start + SHOWN]
    head, tail = "…" if start else "", "…" if start + SHOWN < len(source) else ""
    return f"{head}{cut}{tail}", min(column, len(source) + 1) - start + len(head)


def _columns(text: str) -> int:
    """Return how many terminal columns the text takes."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)
