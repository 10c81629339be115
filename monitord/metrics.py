"""Prometheus metrics of one daemon. A symbol is never a label: 5,500 of them would be 5,500 time series each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from notifiers.retry import ReceiverStatus

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter that nobody reads
CONTENT_TYPE = CONTENT_TYPE_LATEST
STEP_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds; a whole-market batch takes about 2 ms."""
LATE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds; idle the loop wakes within one ms, a commit or a burst makes it some ms late."""
LEVELS = {
    "ready": "1 while it is ready, see /readyz",
    "rules": "Rules in force",
    "symbols": "Symbols that have ticked",
    "market_clock_seconds": "The market clock, Unix time; 0 before the first tick",
    "feed_silent": "1 while the feed is silent: no rule is looked at",
}
"""Name of a gauge without its monitord_ → what it shows; `Health.levels` has the numbers."""


class Metrics:
    """All metrics, in a registry of their own; every method of the members may be called on any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.ticks = Counter("monitord_ticks", "Ticks the engine has taken", registry=registry)
        self.alerts = Counter("monitord_alerts", "Events decided", ["severity", "event"], registry=registry)
        self.step = Histogram(
            "monitord_engine_step_seconds", "One batch through the engine", buckets=STEP_BUCKETS, registry=registry
        )
        self.loop_lag = Gauge("monitord_loop_lag_seconds", "How late the event loop woke last", registry=registry)
        self.loop_late = Histogram(
            "monitord_loop_late_seconds", "How late the event loop woke, four times a second",
            buckets=LATE_BUCKETS, registry=registry,
        )  # fmt: skip
        self.outbox = Gauge("monitord_outbox_rows", "Events stored and not yet published", registry=registry)
        self.clients = Gauge("monitord_ws_clients", "Connected WebSocket clients", registry=registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def watch_feed(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Show a feed's own counts (`Feed.counters`) as monitord_feed_total{count=…}, read when somebody asks."""
        self.registry.register(_Counts("monitord_feed", "Counts of the feed since it was opened", "count", counters))

    def watch_engine(
        self, dropped: Callable[[], Mapping[str, int]], *, counters: Callable[[], Mapping[str, int]]
    ) -> None:
        """Show the engine's own counts: dropped ticks by reason, and as monitord_engine_total{count=…} the others."""
        self.registry.register(_Counts("monitord_ticks_dropped", "Ticks dropped, by reason", "reason", dropped))
        self.registry.register(_Counts("monitord_engine", "What the engine could not use", "count", counters))

    def watch_receivers(
        self,
        counters: Callable[[], Mapping[str, Mapping[str, int]]],
        *,
        statuses: Callable[[], Mapping[str, str]],
        backlog: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        """Show receivers: monitord_deliveries_total{receiver,result}, monitord_receiver_state{receiver,state}.

        backlog: deliveries that are pending or dead, as monitord_delivery_backlog{receiver,state}.
        """
        self.registry.register(_Receivers(counters, statuses, backlog))

    def watch_reference(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Show what is known of instruments, and where feed and tables disagree, as monitord_reference{what=…}."""
        self.registry.register(_ReferenceCounts(counters))

    def watch_orders(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Show what became of order intents as monitord_order_reports_total{state=…}."""
        self.registry.register(_Counts("monitord_order_reports", "Reports about order intents", "state", counters))

    def watch_daemon(
        self,
        levels: Callable[[], Mapping[str, float]],
        *,
        pump: Callable[[], Mapping[str, int]],
        gateway: Callable[[], Mapping[str, int]],
    ) -> None:
        """Show the gauges of LEVELS, monitord_build_info{version}, and the counts of pump and gateway.

        What these tell as it is now, rows that wait and clients, is a gauge already.
        """

        def counted(counters: Callable[[], Mapping[str, int]], now: str) -> Callable[[], Mapping[str, int]]:
            return lambda: {name: count for name, count in counters().items() if name != now}

        self.registry.register(_Levels(levels))
        self.registry.register(
            _Counts("monitord_pump", "What the pump did with the outbox", "count", counted(pump, "lag_rows"))
        )
        self.registry.register(
            _Counts("monitord_gateway", "What the gateway counted", "count", counted(gateway, "clients"))
        )

    def render(self) -> bytes:
        """Return the text of /metrics; its content type is CONTENT_TYPE."""
        return generate_latest(self.registry)


class _Counts(Collector):
    """Counts that somebody else keeps."""

    def __init__(self, name: str, text: str, label: str, counters: Callable[[], Mapping[str, int]]) -> None:
        self._name, self._text, self._label, self._counters = name, text, label, counters

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label])
        for name, count in dict(self._counters()).items():
            family.add_metric([name], count)
        yield family


class _Levels(Collector):
    """Gauges that somebody else keeps, and which program this is."""

    def __init__(self, levels: Callable[[], Mapping[str, float]]) -> None:
        self._levels = levels

    def collect(self) -> Iterable[Metric]:
        for name, value in self._levels().items():
            yield GaugeMetricFamily(f"monitord_{name}", LEVELS[name], value=value)
        build = GaugeMetricFamily("monitord_build_info", "Which monitord this is", labels=["version"])
        build.add_metric([version("monitord")], 1.0)
        yield build


class _Receivers(Collector):
    """Counts and states of receivers; in every state but its own a receiver is 0."""

    def __init__(
        self,
        counters: Callable[[], Mapping[str, Mapping[str, int]]],
        statuses: Callable[[], Mapping[str, str]],
        backlog: Callable[[], Mapping[tuple[str, str], int]],
    ) -> None:
        self._counters, self._statuses, self._backlog = counters, statuses, backlog

    def collect(self) -> Iterable[Metric]:
        deliveries = CounterMetricFamily(
            "monitord_deliveries", "What became of alerts and attempts", labels=["receiver", "result"]
        )
        for receiver, counts in self._counters().items():
            for result, count in counts.items():
                if result != "in_flight":
                    deliveries.add_metric([receiver, result], count)
        yield deliveries
        states = GaugeMetricFamily("monitord_receiver_state", "1 in the state it is in", labels=["receiver", "state"])
        for receiver, status in self._statuses().items():
            for state in ReceiverStatus:
                states.add_metric([receiver, str(state)], float(state == status))
        yield states
        waiting = GaugeMetricFamily(
            "monitord_delivery_backlog", "Deliveries that wait, and dead letters", labels=["receiver", "state"]
        )
        for (receiver, kind), count in self._backlog().items():
            waiting.add_metric([receiver, kind], count)
        yield waiting


class _ReferenceCounts(Collector):
    def __init__(self, counters: Callable[[], Mapping[str, int]]) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "monitord_reference", "Instruments, limits and trading days of the feed, and disagreements", labels=["what"]
        )
        for name, count in self._counters().items():
            family.add_metric([name], count)
        yield family
