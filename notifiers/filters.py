"""`AlertFilter`: which alerts a receiver is told of. Delivery asks it for every alert, reach.py for whole rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from rules.alert import Alert, Event

DEFAULT_EVENTS: Final = (
    Event.FIRE,
    Event.RESOLVE,
    Event.CONFIRMED,
    Event.WITHDRAWN,
    Event.NODATA,
    Event.FLAPPING,
    Event.EXPIRED,
)
"""What a receiver is told unless it says otherwise: all but `pending` (undecided yet) and `suppressed` (held back)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSource:
    """What alerts come from: one that is there, or a rule and all that may come of it.

    events: those it may have; concerns: tells whether a symbol may be what it is about, never true of a group;
    has_symbols: whether any may be.
    """

    rule: str
    severity: str
    events: Collection[Event]
    concerns: Callable[[str], bool]
    labels: Mapping[str, str] = field(default_factory=dict)
    has_symbols: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFilter:
    """Events, and include filters of which an empty one lets all pass.

    An alert without a symbol passes only an empty `symbols`.
    """

    events: tuple[Event, ...] = DEFAULT_EVENTS
    rules: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()

    def passes(self, alert: Alert) -> bool:
        """Tell whether the receiver is told of this alert."""
        return self.may_pass(
            AlertSource(
                rule=alert.rule, severity=alert.severity, events=(alert.event,),
                concerns=lambda symbol: symbol == alert.symbol,
            )
        )  # fmt: skip

    def may_pass(self, source: AlertSource) -> bool:
        """Tell whether there may be an alert of this source that the receiver is told of."""
        return (
            any(event in self.events for event in source.events)
            and (not self.rules or source.rule in self.rules)
            and (not self.severities or source.severity in self.severities)
            and (not self.symbols or any(map(source.concerns, self.symbols)))
        )
