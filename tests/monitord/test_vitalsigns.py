"""What the daemon shows of itself: counts, gauges, the console's line, and the watchdog's sign."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from monitord import vitalsigns
from monitord.metrics import Metrics
from monitord.systemd import WATCHDOG_S
from monitord.vitalsigns import EVERY_S, VitalSigns
from rules.engine import Engine
from tests import virtual_time
from tests.rules import ticks


class Console:
    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.fired: list[str] = []

    def start(self, address: str) -> None:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def alert_fired(self, alert: Any) -> None:
        self.fired.append(alert.id)

    def progress(self, **shown: Any) -> None:
        self.shown.append(shown)


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(vitalsigns, "notify", said.append)
    return said


def watch(signs: VitalSigns, *, seconds: float, lives: bool = True) -> int:
    """Let it look for so many seconds; return how often the collector was asked whether it has waited too long."""
    asked: list[None] = []
    parts: dict[str, Any] = {
        "health": SimpleNamespace(lag_s=-1.0, alive=lambda: lives),
        "store": SimpleNamespace(lag_rows=7),
        "gateway": SimpleNamespace(clients=3),
        "collector": SimpleNamespace(wait_no_longer=lambda: asked.append(None)),
    }
    pipeline: Any = SimpleNamespace(engine=Engine(), warming=None)

    async def look() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await signs.run(pipeline, **parts)

    virtual_time.run(look())
    return len(asked)


def test_the_gauges_follow_what_stands_and_waits(console: Console, pings: list[str]) -> None:
    metrics = Metrics()
    looks = watch(VitalSigns(metrics, console), seconds=10.1 * EVERY_S)
    assert looks == len(console.shown) == 10
    assert console.shown[-1]["lag_ms"] == pytest.approx(0, abs=1e-6)
    lines = metrics.render().decode().splitlines()
    assert "monitord_outbox_rows 7.0" in lines
    assert "monitord_ws_clients 3.0" in lines
    assert "monitord_loop_late_seconds_count 10.0" in lines


def test_the_watchdog_hears_at_once_and_then_now_and_then(console: Console, pings: list[str]) -> None:
    watch(VitalSigns(Metrics(), console), seconds=2.5 * WATCHDOG_S)
    assert pings == ["WATCHDOG=1"] * 3


def test_the_watchdog_hears_nothing_of_a_daemon_that_does_not_live(console: Console, pings: list[str]) -> None:
    watch(VitalSigns(Metrics(), console), seconds=2.5 * WATCHDOG_S, lives=False)
    assert pings == []


def test_alerts_are_counted_by_severity_and_event_and_shown(console: Console) -> None:
    metrics = Metrics()
    alerts = ticks.Watch("id: one, select: all, when: LAST > 10, rearm: LAST < 10").take(
        ticks.tick("10:00:00", 9.0), ticks.tick("10:00:03", 11.0)
    )
    signs = VitalSigns(metrics, console)
    signs.tell(alerts)
    signs.tell([])
    assert signs.alerts == len(console.fired) == 1
    assert 'monitord_alerts_total{event="fire",severity="info"} 1.0' in metrics.render().decode()
