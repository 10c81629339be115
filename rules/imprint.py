"""`Imprint`: what all events of one leg of a rule have in common, made once, when rules are loaded.

An alert is told some milliseconds after its tick, and a burst brings a hundred: what does not differ between them is
not to be looked up, joined or hashed again for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rules.alert import Event, Identities
from rules.message import Template
from rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Imprint:
    """One leg's part of its events.

    labels: of the rule, one dict for all of its events. messages: the text of each event that has one.
    """

    rule: Rule
    leg: str | None
    labels: dict[str, str]
    identities: Identities
    messages: Mapping[Event, Template]

    @classmethod
    def of(cls, rule: Rule, leg: str | None) -> Imprint:
        """Make that of a rule's leg; None: of all its legs together."""
        messages = {event: template for event in Event if (template := _template(rule, event)) is not None}
        return cls(rule, leg, dict(rule.labels), Identities(rule.id, rule.rev, leg), messages)

    def message(
        self, event: Event, symbol: str, name: str | None, values: Mapping[str, float | None], *, episode: int
    ) -> str:
        """Return the text of an event of this symbol or group."""
        template, rule_id = self.messages.get(event), self.rule.id
        if template is not None:
            told = {"name": name or symbol, "symbol": symbol, "rule": rule_id, **values, "episode": str(episode)}
            return template.render(told)
        if event is Event.NODATA:
            return f"{name or symbol} {rule_id} 数据不足"
        return f"{name or symbol} {rule_id}"


def _template(rule: Rule, event: Event) -> Template | None:
    """Return the rule's own text for an event, else what it says of a fire, which is not so without data."""
    own = rule.messages.get(str(event))
    return own if own is not None or event is Event.NODATA else rule.messages.get("fire")
