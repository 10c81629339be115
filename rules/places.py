"""Where rules stand in the texts they were read from, for findings that are made after reading."""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from rules.document import Document, Listing, Scalar, Table, read
from rules.errors import Finding
from rules.language.tree import Span
from rules.rule import Leg, RuleSet


@dataclass(frozen=True, slots=True)
class Place:
    """A rule's table in its document."""

    rule: str
    document: Document
    table: Table

    def warning(self, key: str, message: str, *, hint: str) -> Finding:
        """Return a warning at one of the rule's keys."""
        at = next((name for name, _ in self.table.pairs if name.text == key), self.table)
        end = at.end if isinstance(at, Scalar) else at.start + 1
        finding = self.document.finding(at.start, end, message, hint=hint, severity="warning")
        return replace(finding, rule=self.rule)

    def in_formula(self, leg: Leg, span: Span, message: str, *, hint: str) -> Finding:
        """Return a warning at a place in the formula of a leg; at the rule's key where the formula is not its own."""
        legs = self.table.get("legs")
        home = legs.get(leg.name) if isinstance(legs, Table) and leg.name is not None else self.table
        text = home.get("when") if isinstance(home, Table) else home
        if not isinstance(text, Scalar) or span.end > len(text.text):
            return self.warning("when" if leg.name is None else "legs", message, hint=hint)
        width = max(1, span.end - span.start)
        found = Finding(self.document.file, span.line, span.column, message, "warning", self.rule, "", width, hint)
        return self.document.place(found, text)


def places_of(rules: RuleSet) -> dict[str, Place]:
    """Find every rule in the texts the set was made from."""
    places: dict[str, Place] = {}
    for file, text in orjson.loads(rules.source)["files"]:
        document = Document(text.removeprefix("\ufeff"), file)
        root = read(document)
        groups = root.get("groups") if isinstance(root, Table) else None
        for group in groups.entries if isinstance(groups, Listing) else ():
            entries = group.get("rules") if isinstance(group, Table) else None
            for entry in entries.entries if isinstance(entries, Listing) else ():
                found = entry.get("id") or entry.get("use") if isinstance(entry, Table) else None
                if isinstance(found, Scalar) and isinstance(entry, Table):
                    places[found.text] = Place(found.text, document, entry)
    return places
