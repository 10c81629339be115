"""`VitalSigns`: how a daemon shows that it lives: gauges and counts, the console's line, systemd's watchdog."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from monitord.collector import Collector
from monitord.console import Console
from monitord.engineroom import Outcome
from monitord.gateway.server import Gateway
from monitord.health import Health
from monitord.metrics import Metrics
from monitord.pipeline import Pipeline
from monitord.store import Store
from monitord.systemd import WATCHDOG_S, notify
from rules.alert import Alert

EVERY_S: Final = 0.25


class VitalSigns:
    """Is told of every step and alert, and looks at the rest four times a second. Event loop only."""

    def __init__(self, metrics: Metrics, console: Console) -> None:
        self._metrics = metrics
        self._console = console
        self.alerts = 0
        """Alerts since the start."""

    def count(self, outcome: Outcome) -> None:
        """Count a step of the engine."""
        self._metrics.ticks.inc(outcome.ticks)
        self._metrics.step.observe(outcome.seconds)

    def tell(self, alerts: Sequence[Alert]) -> None:
        """Count alerts, and show them on the console."""
        for (severity, event), count in Counter((alert.severity, alert.event) for alert in alerts).items():
            self._metrics.alerts.labels(severity=severity, event=event).inc(count)
        for alert in alerts:
            self._console.alert_fired(alert)
        self.alerts += len(alerts)

    async def run(
        self, pipeline: Pipeline, *, health: Health, store: Store, gateway: Gateway, collector: Collector
    ) -> None:
        """Measure how late the loop wakes, tell systemd that it does, and keep the gauges of what stands and waits.

        A collector that has waited for a quiet moment for long waits no longer.
        """
        loop = asyncio.get_running_loop()
        ping_due = loop.time()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            health.lag_s = max(loop.time() - due, 0.0)
            if loop.time() >= ping_due and health.alive():
                notify("WATCHDOG=1")
                ping_due = loop.time() + WATCHDOG_S
            self._metrics.loop_lag.set(health.lag_s)
            self._metrics.loop_late.observe(health.lag_s)
            self._metrics.outbox.set(store.lag_rows)
            self._metrics.clients.set(gateway.clients)
            self._show_progress(pipeline, health)
            collector.wait_no_longer()

    def _show_progress(self, pipeline: Pipeline, health: Health) -> None:
        market = pipeline.engine.market
        self._console.progress(
            ticks=market.ticks,
            symbols=len(market.universe),
            clock_ms=market.clock_ms,
            lag_ms=health.lag_s * 1000,
            alerts=self.alerts,
            warming=pipeline.warming,
        )
