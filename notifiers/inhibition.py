"""Inhibition: while one alert lasts, others that say less of the same thing are withheld.

Judged by the alerts' own times, so that it does not matter how fast a receiver reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from notifiers.matching import Known, Matcher, check_words, nothing_known, value_of
from rules.alert import Alert, Event

ENDS: Final = frozenset({Event.RESOLVE, Event.WITHDRAWN, Event.EXPIRED})
"""Events that end their episode."""
TIDY_AFTER: Final = 10_000
LATE_MS: Final = 3_600_000
"""How much older than the newest alert one may be and still be judged rightly, once there was tidying."""
_Key: TypeAlias = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inhibition:
    """A fire of `source` withholds alerts of `target` that have the same `equal` words (`value_of`).

    It lasts from the fire until its episode ends, hold_ms at most. What both lack is the same. An alert that is source
    and target at once is not withheld by others of that kind. Raises DeliveryError for an unknown word.
    """

    name: str
    source: Matcher
    target: Matcher
    equal: tuple[str, ...] = ("symbol",)
    hold_ms: int = 3_600_000

    def __post_init__(self) -> None:
        check_words(f"inhibition {self.name}: equal", self.equal)


@dataclass(slots=True)
class _Lasting:
    """An inhibiting episode: start_ms ≤ t < end_ms."""

    alert_id: str
    start_ms: int
    end_ms: int
    is_target: bool


class Inhibitor:
    """What inhibits now, as one reader of the stream has seen it. `note` every alert in order, then ask `why`."""

    def __init__(self, inhibitions: Sequence[Inhibition], known: Known = nothing_known) -> None:
        self._inhibitions, self._known = tuple(inhibitions), known
        self._lasting: dict[_Key, dict[str, _Lasting]] = {}
        self._episodes: dict[str, list[_Lasting]] = {}
        self._newest_ms = 0

    @property
    def longest_ms(self) -> int:
        """How far back alerts matter; 0 without any inhibition."""
        return max((one.hold_ms for one in self._inhibitions), default=0)

    def note_all(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self.note(alert)

    def note(self, alert: Alert) -> None:
        """Remember a source's fire, or the end of its episode; the same alert again changes nothing."""
        self._newest_ms = max(self._newest_ms, alert.ts_event_ms)
        if alert.event in ENDS:
            for lasting in self._episodes.get(alert.episode_id, ()):
                lasting.end_ms = min(lasting.end_ms, alert.ts_event_ms)
        elif alert.event is Event.FIRE:
            for number, inhibition in enumerate(self._inhibitions):
                if inhibition.source.matches(alert, self._known):
                    self._begin(number, inhibition, alert)

    def why(self, alert: Alert) -> str | None:
        """Return what withholds this alert, in words; None if nothing does."""
        for number, inhibition in enumerate(self._inhibitions):
            if not inhibition.target.matches(alert, self._known):
                continue
            is_source = inhibition.source.matches(alert, self._known)
            lasting = self._lasting.get((number, _values(inhibition, alert)), {})
            for episode_id, one in lasting.items():
                if episode_id == alert.episode_id or (is_source and one.is_target):
                    continue
                if one.start_ms <= alert.ts_event_ms < one.end_ms:
                    return f"inhibited by {one.alert_id} ({inhibition.name})"
        return None

    def _begin(self, number: int, inhibition: Inhibition, alert: Alert) -> None:
        episodes = self._lasting.setdefault((number, _values(inhibition, alert)), {})
        if alert.episode_id in episodes:
            return
        end_ms = alert.ts_event_ms + inhibition.hold_ms
        is_target = inhibition.target.matches(alert, self._known)
        episodes[alert.episode_id] = lasting = _Lasting(alert.id, alert.ts_event_ms, end_ms, is_target)
        self._episodes.setdefault(alert.episode_id, []).append(lasting)
        if len(self._episodes) > TIDY_AFTER:
            self._tidy()

    def _tidy(self) -> None:
        """Forget what ended long ago."""
        before_ms = self._newest_ms - LATE_MS
        for key, episodes in list(self._lasting.items()):
            self._lasting[key] = kept = {name: one for name, one in episodes.items() if one.end_ms > before_ms}
            if not kept:
                del self._lasting[key]
        alive = {name for episodes in self._lasting.values() for name in episodes}
        self._episodes = {name: ones for name, ones in self._episodes.items() if name in alive}


def _values(inhibition: Inhibition, alert: Alert) -> tuple[str, ...]:
    return tuple(value_of(alert, word) for word in inhibition.equal)
