"""Shipped rules, for rule files to use by id: `use: rocket` with `params: {rise: 4%}`.

Each `*.yaml` beside this file is a rule file as anybody may write one. What a rule there says holds where a user's
rule says nothing else. The files are read once, when this module is imported, and their YAML when first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from rules.document import Document, Listing, Scalar, Table, Value, read
from rules.errors import RuleFileError

TEXTS: Final[Mapping[str, str]] = {
    file.name: file.read_text(encoding="utf-8")
    for file in sorted(files("rules.catalog").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".yaml")
}
"""The text of every shipped rule file by its name."""


@dataclass(frozen=True, slots=True)
class ShippedRule:
    """One shipped rule as it stands in its file; `group` is the table it stands in."""

    id: str
    file: str
    group: Table
    rule: Table

    def document(self) -> Document:
        """Return the document its places are of, free of findings."""
        return Document(TEXTS[self.file], self.file)

    def text(self) -> str:
        """Return the rule as it stands in its file, to be pasted into another; comments between rules are left out."""
        written = TEXTS[self.file][self.rule.start : self.rule.end]
        lines = [line for line in written.rstrip().split("\n") if not line.lstrip().startswith("#")]
        return "  - " + "\n".join(lines).rstrip()

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its own labels: code, zh, en."""
        return _texts(self.rule.get("labels"))

    @property
    def parameters(self) -> str:
        """Return its parameters with their defaults as written: `rise: 3%, window: 5m`."""
        return ", ".join(f"{name}: {value}" for name, value in _texts(self.rule.get("params")).items())


@cache
def shipped_rules() -> Mapping[str, ShippedRule]:
    """Return every shipped rule by its id, in order."""
    return {found.id: found for file in TEXTS for found in _rules_of(file)}


def _rules_of(file: str) -> list[ShippedRule]:
    """Find a file's rules; what they say is read where they are used."""
    document = Document(TEXTS[file], file)
    root = read(document)
    if root is None:
        raise RuleFileError(document.errors)
    groups = [group for group in _entries(root, "groups") if isinstance(group, Table)]
    return [
        ShippedRule(rule_id.text, file, group, rule)
        for group in groups
        for rule in _entries(group, "rules")
        if isinstance(rule, Table) and isinstance(rule_id := rule.get("id"), Scalar)
    ]


def _entries(value: Value, key: str) -> tuple[Value, ...]:
    found = value.get(key) if isinstance(value, Table) else None
    return found.entries if isinstance(found, Listing) else ()


def _texts(value: Value | None) -> dict[str, str]:
    pairs = value.pairs if isinstance(value, Table) else ()
    return {key.text: entry.text for key, entry in pairs if isinstance(entry, Scalar)}
