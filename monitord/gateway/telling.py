"""`Telling`: what is told to many is made once: messages by dialect and channel, bursts by dialect and channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from heapq import merge

from monitord.gateway.protocol import Burst, Dialect, Published


class Telling:
    """Alerts that are told together: each message encoded once per dialect and channel, each burst made once."""

    def __init__(self, alerts: list[Published], followed: frozenset[str]) -> None:
        """followed: the channels that anybody is live on; no others are asked for."""
        self.alerts = alerts
        self._by_channel: dict[str, list[Published]] = defaultdict(list)
        for alert in alerts:
            for ch in followed.intersection(alert.channels):
                self._by_channel[ch].append(alert)
        self._texts: dict[tuple[int, str], list[tuple[int, bytes]]] = {}
        self._bursts: dict[tuple[Dialect, frozenset[str]], Burst | None] = {}

    def burst(self, dialect: Dialect, channels: frozenset[str]) -> Burst | None:
        """Return the messages for these channels in order of their offsets, None if there are none."""
        key = (dialect, channels)
        if key not in self._bursts:
            texts = self._due(dialect, channels)
            self._bursts[key] = dialect.burst(texts) if texts else None
        return self._bursts[key]

    def _due(self, dialect: Dialect, channels: frozenset[str]) -> list[bytes]:
        lists = [self._of(dialect, ch) for ch in channels if ch in self._by_channel]
        return [text for _, text in (lists[0] if len(lists) == 1 else dict.fromkeys(merge(*lists)))]

    def _of(self, dialect: Dialect, ch: str) -> list[tuple[int, bytes]]:
        key = (id(dialect), ch)
        if key not in self._texts:
            self._texts[key] = [(alert.off, dialect.alert(ch, alert)) for alert in self._by_channel[ch]]
        return self._texts[key]


class Once:
    """One burst for all, made once per dialect."""

    def __init__(self, text: Callable[[Dialect], bytes]) -> None:
        self._text = text
        self._made: dict[int, Burst] = {}

    def burst(self, dialect: Dialect) -> Burst:
        """Return it in this dialect."""
        if id(dialect) not in self._made:
            self._made[id(dialect)] = dialect.burst([self._text(dialect)])
        return self._made[id(dialect)]
