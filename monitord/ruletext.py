"""Rules made of fields as the text of a rule file, and which field each of its lines is.

What comes by API is written as a file would be, so that there is one reader and one kind of complaint. Each field has a
line of its own, by which a finding is told with the field it is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rules.errors import Finding

_PERCENT: Final = re.compile(r"[0-9][0-9.]*%")
"""Shares are read without quotes only."""
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRAPS: Final = re.compile(r"y|n|yes|no|on|off|true|false|null", re.IGNORECASE)
_FIRST_COLUMN: Final = 5
"""Where a rule begins, and the key of its first field."""


@dataclass(frozen=True, slots=True)
class RuleField:
    """One field of a rule. value: JSON; origin: what the user calls it, such as `quant_config.0.when`."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class RuleText:
    """A rule file. name: what stands in findings for its path; origins: line, from 1 → field of the user's.

    whole: what the user calls a rule, for a finding about no field of it, as where one is missing.
    """

    name: str
    text: str
    origins: Mapping[int, str]
    whole: str = ""

    def field_of(self, finding: Finding) -> str | None:
        """Return the field that a finding is about, None where it is about another file."""
        if finding.file != self.name:
            return None
        is_whole = finding.column == _FIRST_COLUMN and self.text.split("\n")[finding.line - 1].startswith("  - ")
        return self.whole if self.whole and is_whole else self.origins.get(finding.line)


def rule_text(name: str, group: str, rules: Sequence[Sequence[RuleField]], *, whole: str = "") -> RuleText:
    """Write rules of one group; None as a value leaves its field out."""
    lines = ["version: 1", "groups:", f"- name: {_flow(group)}", "  rules:"]
    origins: dict[int, str] = {}
    for rule in rules:
        for number, field in enumerate(one for one in rule if one.value is not None):
            lines.append(f"  {'  ' if number else '- '}{_key(field.key)}: {_flow(field.value)}")
            origins[len(lines)] = field.origin
    return RuleText(name, "\n".join(lines) + "\n", origins, whole)


def _flow(value: Any) -> str:
    """Write a JSON value in YAML's flow style, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return key if _KEY.fullmatch(key) and not _TRAPS.fullmatch(key) else json.dumps(key, ensure_ascii=False)
