"""`Health`: what the daemon says of itself, to probes (ready or why not) and to people."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from feeds.feed import Feed, complaint_of
from feeds.sessions import day_ms
from monitord.pipeline import Pipeline
from monitord.pump import Pump
from monitord.reference import Reference
from monitord.store import Store
from notifiers.delivery import Delivery

if TYPE_CHECKING:
    from monitord.recording import Recording

LONGEST_LAG_S: Final = 2.0
"""A loop that wakes this late serves nobody."""
LONGEST_STEP_S: Final = 60.0
"""A pump that neither publishes nor fails for so long hangs; by itself it looks again every second or few."""


class Health:
    """Reads the parts' own counters; every method is quick and is called on the event loop."""

    def __init__(
        self,
        feed: Feed,
        pipeline: Pipeline,
        *,
        store: Store,
        pump: Pump,
        deliveries: tuple[Delivery, ...],
        reference: Reference | None = None,
        recording: Recording | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed, self._pipeline = feed, pipeline
        self._store, self._pump, self._deliveries = store, pump, deliveries
        self._reference = reference
        self._recording = recording
        self._monotonic = monotonic
        self._started_s = monotonic()
        self.lag_s = 0.0
        """How late the loop woke last; set by whoever measures it."""
        self.stopping = False
        self._pumped = (-1, self._started_s)
        """The pump's steps when they were last more, and when that was seen."""

    def alive(self) -> bool:
        """Return whether systemd's watchdog may hear that we live: the loop wakes in time, and the pump goes on.

        A broker that is away is no reason: the pump fails and tries again, and a new process could do no more. Called
        now and then.
        """
        now_s = self._monotonic()
        if self._pump.steps != self._pumped[0] or self.stopping:
            self._pumped = (self._pump.steps, now_s)
        return self.lag_s < LONGEST_LAG_S and now_s - self._pumped[1] < LONGEST_STEP_S

    def levels(self) -> Mapping[str, float]:
        """Return what stands now, for metrics: ready and silent are 0 or 1, market_clock_seconds is Unix time."""
        engine = self._pipeline.engine
        return {
            "ready": float(not self.reasons()),
            "rules": len(engine.rules.rules),
            "symbols": len(engine.market.universe),
            "market_clock_seconds": (engine.market.clock_ms or 0) / 1000,
            "feed_silent": float(engine.is_silent),
        }

    def reasons(self) -> list[str]:
        """Return why the daemon is not ready, in words for people; empty when it is."""
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if not self._pipeline.caught_up.is_set():
            reasons.append("recovering: the journal is being run again")
        if not self._pump.up:
            reasons.append(f"the broker takes nothing; {self._store.lag_rows} events wait in the outbox")
        if (complaint := complaint_of(self._feed)) is not None:
            reasons.append(complaint)
        elif (since_ms := self._pipeline.engine.silent_since_ms) is not None:
            minutes = day_ms(since_ms) // 60_000
            reasons.append(f"the feed has been silent since {minutes // 60:02}:{minutes % 60:02}; its rules rest")
        if self.lag_s > LONGEST_LAG_S:
            reasons.append(f"the event loop is {self.lag_s:.1f} s late")
        reasons += [
            f"receiver {delivery.name} is switched off: {delivery.state.disabled}"
            for delivery in self._deliveries
            if delivery.state.disabled and not delivery.state.by_hand
        ]
        return reasons

    def report(self) -> Mapping[str, Any]:
        """Return the health report, JSON-able."""
        engine = self._pipeline.engine
        return {
            "version": version("monitord"),
            "uptime_s": round(self._monotonic() - self._started_s, 1),
            "feed": {"source": self._feed.source_id, "silent": engine.is_silent, **self._feed.counters()},
            "engine": {
                "ticks": engine.market.ticks,
                "symbols": len(engine.market.universe),
                "clock_ms": engine.market.clock_ms,
                "offset": engine.offset,
                "rules": len(engine.rules.rules),
                "dropped": dict(engine.market.dropped),
                **self._pipeline.counters(),
            },
            "history": None if (searched := self._pipeline.warming) is None else asdict(searched),
            "reference": {} if self._reference is None else dict(self._reference.report()),
            "outbox": dict(self._pump.counters()),
            "receivers": {delivery.name: dict(delivery.counters()) for delivery in self._deliveries},
            **({} if self._recording is None else {"recording": dict(self._recording.counters())}),
            "loop_lag_s": round(self.lag_s, 4),
        }
