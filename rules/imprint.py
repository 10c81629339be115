"""`Imprint`: what all events of one leg of a rule have in common, made once, when rules are loaded.

An alert is told some milliseconds after its tick, and a burst brings a hundred: what does not differ between them is
not to be looked up, joined or hashed again for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rules.alert import Alert, Draft, Event, Identities
from rules.lifecycle import Moment
from rules.message import Template
from rules.rule import Rule

_NODATA: Final = Event.NODATA  # to look a member up is a call in Python 3.11, 0.1 µs at each event


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

    def alert(
        self,
        event: Event,
        key: str,
        name: str | None,
        moment: Moment,
        *,
        date: str,
        episode: int,
        values: dict[str, float | None],
        tick: dict[str, float | None] | None,
        gap: str | None,
        late: bool,
        provisional: bool = False,
        suppressed: int = 0,
        why: str | None = None,
    ) -> Alert:
        """Make the record of an event of this symbol or group, in an episode that began on this trade date."""
        rule = self.rule
        made: Any = Draft()
        made.id, made.episode_id = self.identities.of(key, date, episode, event)
        made.event = event
        made.rule, made.rev, made.leg = rule.id, rule.rev, self.leg
        made.symbol, made.group = (key, None) if rule.over is None else (None, key)
        made.name = name
        made.severity, made.labels = rule.severity, self.labels
        made.trade_date, made.episode = date, episode
        made.ts_event_ms, made.period, made.bar_end_ms = moment.ts_ms, rule.period, moment.bar_end_ms
        made.provisional, made.gap, made.late = provisional, gap, late
        made.values, made.tick = values, tick
        made.suppressed, made.why = suppressed, why
        made.message = self.message(event, key, name, values, episode=episode)
        made.stamps = None
        alert: Alert = made.sealed()
        return alert

    def message(
        self, event: Event, symbol: str, name: str | None, values: Mapping[str, float | None], *, episode: int
    ) -> str:
        """Return the text of an event of this symbol or group."""
        template, rule_id = self.messages.get(event), self.rule.id
        if template is not None:
            told = {"name": name or symbol, "symbol": symbol, "rule": rule_id, **values, "episode": str(episode)}
            return template.render(told)
        return f"{name or symbol} {rule_id} 数据不足" if event is _NODATA else f"{name or symbol} {rule_id}"


def _template(rule: Rule, event: Event) -> Template | None:
    """Return the rule's own text for an event, else what it says of a fire, which is not so without data."""
    own = rule.messages.get(str(event))
    return own if own is not None or event is Event.NODATA else rule.messages.get("fire")
