from __future__ import annotations

from monitord.metrics import CONTENT_TYPE, Metrics
from notifiers.retry import ReceiverStatus


def test_every_metric_is_in_the_text() -> None:
    metrics = Metrics()
    metrics.ticks.inc(5500)
    metrics.watch_engine(lambda: {"future": 2}, counters=lambda: {"passed_over": 1})
    metrics.alerts.labels(severity="critical", event="fire").inc()
    metrics.step.observe(0.002)
    metrics.loop_lag.set(0.25)
    metrics.outbox.set(7)
    metrics.clients.set(3)
    metrics.watch_receivers(
        lambda: {"ops": {"sent": 1, "in_flight": 1}},
        statuses=lambda: {"ops": ReceiverStatus.PAUSED},
        backlog=lambda: {("ops", "pending"): 3, ("ops", "dead"): 0},
    )
    lines = metrics.render().decode().splitlines()
    for line in (
        "monitord_ticks_total 5500.0",
        'monitord_ticks_dropped_total{reason="future"} 2.0',
        'monitord_engine_total{count="passed_over"} 1.0',
        'monitord_alerts_total{event="fire",severity="critical"} 1.0',
        'monitord_engine_step_seconds_bucket{le="0.0025"} 1.0',
        'monitord_engine_step_seconds_bucket{le="0.001"} 0.0',
        "monitord_loop_lag_seconds 0.25",
        "monitord_outbox_rows 7.0",
        "monitord_ws_clients 3.0",
        'monitord_deliveries_total{receiver="ops",result="sent"} 1.0',
        'monitord_receiver_state{receiver="ops",state="ok"} 0.0',
        'monitord_receiver_state{receiver="ops",state="paused"} 1.0',
        'monitord_delivery_backlog{receiver="ops",state="pending"} 3.0',
        'monitord_delivery_backlog{receiver="ops",state="dead"} 0.0',
    ):
        assert line in lines
    assert any(line.startswith("process_cpu_seconds_total") for line in lines)
    assert CONTENT_TYPE.startswith("text/plain")


def test_a_feeds_counts_are_read_when_somebody_asks() -> None:
    metrics, counts = Metrics(), {"ticks": 1}
    metrics.watch_feed(lambda: counts)
    counts.update(ticks=10, overflowed=4)
    lines = metrics.render().decode().splitlines()
    assert 'monitord_feed_total{count="ticks"} 10.0' in lines
    assert 'monitord_feed_total{count="overflowed"} 4.0' in lines


def test_two_daemons_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(), Metrics()
    one.ticks.inc()
    assert b"monitord_ticks_total 0.0" in other.render()


def test_no_metric_has_a_symbol_as_label() -> None:
    metrics = Metrics()
    names = {name for family in (metrics.alerts,) for name in family._labelnames}
    assert names == {"severity", "event"}
