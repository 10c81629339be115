"""What the daemon says of itself to systemd's watchdog and to the metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from monitord.health import LONGEST_LAG_S, LONGEST_STEP_S, Health
from monitord.metrics import LEVELS, Metrics
from rules.engine import Engine
from tests.rules import ticks


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def parts() -> Any:
    """Return what Health looks at, as it is while all is well."""
    engine = Engine()
    engine.step(ticks.rules("id: one, select: all, when: LAST > 10"))
    return SimpleNamespace(
        feed=SimpleNamespace(source_id="fake", counters=lambda: {"ticks": 1}),
        pipeline=SimpleNamespace(
            engine=engine, caught_up=SimpleNamespace(is_set=lambda: True), warming=None, counters=dict
        ),
        store=SimpleNamespace(lag_rows=0),
        pump=SimpleNamespace(up=True, steps=1, counters=dict),
    )


def health_of(parts: Any, clock: Clock) -> Health:
    return Health(parts.feed, parts.pipeline, store=parts.store, pump=parts.pump, deliveries=(), monotonic=clock)


def test_the_watchdog_hears_nothing_while_the_loop_is_late(parts: Any, clock: Clock) -> None:
    health = health_of(parts, clock)
    assert health.alive()
    health.lag_s = LONGEST_LAG_S
    assert not health.alive()
    health.lag_s = 0.1
    assert health.alive()


def test_nor_when_the_pump_stands_still_for_a_minute_whatever_the_broker_does(parts: Any, clock: Clock) -> None:
    health = health_of(parts, clock)
    parts.pump.up = False  # the broker is away: it tries again and again
    for _ in range(10):
        clock.now_s += LONGEST_STEP_S / 2
        parts.pump.steps += 1
        assert health.alive()
    clock.now_s += LONGEST_STEP_S - 1
    assert health.alive()
    clock.now_s += 1
    assert not health.alive()
    parts.pump.steps += 1
    assert health.alive()


def test_a_pump_that_has_ended_at_a_stop_is_no_reason(parts: Any, clock: Clock) -> None:
    health = health_of(parts, clock)
    assert health.alive()
    health.stopping = True
    clock.now_s += 2 * LONGEST_STEP_S
    assert health.alive()


def test_what_stands_now_is_in_the_metrics(parts: Any, clock: Clock) -> None:
    health, metrics = health_of(parts, clock), Metrics()
    metrics.watch_daemon(health.levels, pump=lambda: {"published": 3, "lag_rows": 9}, gateway=lambda: {"clients": 4})
    assert set(health.levels()) == set(LEVELS)
    lines = metrics.render().decode().splitlines()
    for line in (
        "monitord_ready 1.0",
        "monitord_rules 1.0",
        "monitord_symbols 0.0",
        "monitord_market_clock_seconds 0.0",
        "monitord_feed_silent 0.0",
        'monitord_pump_total{count="published"} 3.0',
    ):
        assert line in lines
    assert any(line.startswith('monitord_build_info{version="') for line in lines)
    assert not any("lag_rows" in line or 'count="clients"' in line for line in lines)
    parts.pump.up = False
    parts.pipeline.engine.step(ticks.batch(ticks.tick("10:00:03", 10.0)))
    lines = metrics.render().decode().splitlines()
    assert "monitord_ready 0.0" in lines
    assert "monitord_symbols 1.0" in lines


def test_a_silent_feed_is_told(parts: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    health = health_of(parts, clock)
    assert health.report()["feed"] == {"source": "fake", "silent": False, "ticks": 1}
    monkeypatch.setattr(Engine, "is_silent", True)
    assert health.report()["feed"]["silent"]
    assert health.levels()["feed_silent"] == 1.0
