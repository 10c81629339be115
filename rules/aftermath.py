"""What the price did after each fire: LAST so many minutes of trading time later, over lunch, night and all.

Replay follows its engine with this, so that a rule can be judged before it is enabled.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from feeds.history import Bars
from feeds.inputs import Control, Input
from feeds.sessions import TRADING_DAY_MS, day_number, trading_clock_ms
from feeds.tick import TickBatch
from rules.alert import Alert, Event
from rules.market import FUTURE_MS, Market

MINUTES: Final = (5, 30)
"""After so many minutes of trading time the price is looked at again."""
_MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class Outcome:
    """A fire and LAST then and later, by minutes; None = unknown then, or not reached yet (yuan)."""

    alert: Alert
    last: float | None
    later: dict[int, float | None] = field(default_factory=dict)

    def change(self, minutes: int) -> float | None:
        """Return the change of LAST in % after so many minutes; None where a price is unknown."""
        later = self.later.get(minutes)
        return None if later is None or not self.last else (later / self.last - 1.0) * 100.0


class Aftermath:
    """Follows the fires of one engine. Call `before` with every input, then `note` with the events it gave.

    Days that were not recorded at all don't count: the first minute of a recorded day follows the last of the one
    before. The price of a time is the last one known then, so a halted symbol has not moved.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self.outcomes: list[Outcome] = []
        self._waiting: list[tuple[int, int, int, Outcome]] = []
        self._day = 0
        self._days = 0
        self._now_ms = 0
        self._noted = 0

    def before(self, value: Input) -> None:
        """Look at the prices that are due before this input, which the engine has not taken yet."""
        ts_ms = self._begins_ms(value)
        if not ts_ms:
            return
        day = day_number(ts_ms)
        if day > self._day:
            self._settle((self._days + 1) * TRADING_DAY_MS + 1)  # the old day's close, before the new day forgets it
            self._days += bool(self._day)
            self._day = day
        self._now_ms = max(self._now_ms, self._days * TRADING_DAY_MS + trading_clock_ms(ts_ms))
        self._settle(self._now_ms)

    def note(self, alert: Alert) -> None:
        """Follow a fire of one symbol; other events are nothing to follow."""
        if alert.event is not Event.FIRE or alert.symbol is None:
            return
        last = None if alert.tick is None else alert.tick.get("last")
        outcome = Outcome(alert, last)
        self.outcomes.append(outcome)
        # A day's last bar may be closed by the first input of the next day.
        days = self._days - (day_number(alert.ts_event_ms) < self._day)
        fired_ms = days * TRADING_DAY_MS + trading_clock_ms(alert.ts_event_ms)
        for minutes in MINUTES:
            self._noted += 1
            heapq.heappush(self._waiting, (fired_ms + minutes * _MINUTE_MS, self._noted, minutes, outcome))

    def finish(self) -> None:
        """Look at the prices that are due by the last input; those of later stay unknown."""
        self._settle(self._now_ms + 1)

    def _begins_ms(self, value: Input) -> int:
        """Return the earliest time in what the engine takes of an input; 0 where time does not go on.

        A push may hold the last ticks of days long past, and ticks that are ahead of their arrival: it takes neither.
        """
        if isinstance(value, Control | Bars):
            return 0
        today_ms = self._market.midnight_ms
        if not isinstance(value, TickBatch):
            return value.ts_ms if value.ts_ms >= today_ms else 0
        ts_ms = value.ts_event_ms
        taken = ts_ms[(ts_ms >= today_ms) & (ts_ms <= value.recv_ms + FUTURE_MS)]
        return int(taken.min()) if len(taken) else 0

    def _settle(self, before_ms: int) -> None:
        while self._waiting and self._waiting[0][0] < before_ms:
            _, _, minutes, outcome = heapq.heappop(self._waiting)
            row = self._market.universe.row(outcome.alert.symbol or "")
            last = np.nan if row is None else self._market.latest.raw("last")[row]
            outcome.later[minutes] = None if np.isnan(last) else float(last)
