"""What became of order intents: reports read once each, as events of the task; and everything that is no report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from fakeredis import FakeAsyncRedis

from notifiers.adviser import AdvisedFilter
from notifiers.reports import REPORTS, STATES, Report, ReportDesk, event_of
from notifiers.routing import DELIVER_LABEL, NEVER
from rules.alert import Alert, Event

ALERT = Alert(
    id="al_1", episode_id="ep_1", event=Event.FIRE, rule="task-3.entry", rev="r", symbol="600519.SH", name="贵州茅台",
    labels={"auto_trade": "buy"}, trade_date="2023-02-01", episode=1, ts_event_ms=5, period="tick", tick={"last": 18.5},
)  # fmt: skip
PLACED = Report(
    id="or_1", state="placed", at_ms=77, symbol="600519.SH", side="buy", quantity=100, price=18.5, order="7"
)  # fmt: skip
FILLED = replace(PLACED, state="filled", quantity=40, price=18.49, deal="d1")


class Daemon:
    """A desk over a Redis in memory and a store that is a dict. refuses: what the next `tell` raises."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.stored = {ALERT.id: ALERT}
        self.refuses: Exception | None = None
        self.begin()

    def begin(self) -> None:
        """Start anew, as another process would."""
        self.desk = ReportDesk(self.redis, name="orders:s1", find=self._find, tell=self._tell, language="en")

    async def _find(self, alert_id: str) -> bytes | None:
        return self.stored[alert_id].to_json() if alert_id in self.stored else None

    async def _tell(self, alert: Alert) -> None:
        if self.refuses is not None:
            error, self.refuses = self.refuses, None
            raise error
        self.stored.setdefault(alert.id, alert)

    async def told(self, *reports: Report | bytes) -> list[Alert]:
        """Put reports on the stream, let them be read, and return all events that are there now but the alert's."""
        for report in reports:
            await self.redis.xadd(REPORTS, {"report": report if isinstance(report, bytes) else report.to_json()})
        await self.desk.open()
        while await self.desk.step(block_ms=0):
            pass
        return [alert for alert in self.stored.values() if alert.id != ALERT.id]


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    redis = FakeAsyncRedis()
    yield Daemon(redis)
    await redis.aclose()


async def test_reports_become_events_of_the_task_whose_alert_they_are_about(daemon: Daemon) -> None:
    placed, first, second = await daemon.told(PLACED, FILLED, replace(FILLED, quantity=60, deal="d2"))
    assert (placed.rule, placed.symbol, placed.trade_date, placed.ts_event_ms) == (
        "task-3.order", "600519.SH", "2023-02-01", 5,
    )  # fmt: skip
    assert placed.labels == {
        "about": "al_1", "about_rule": "task-3.entry", "order_state": "placed", "side": "buy", "dry_run": "false",
        "order": "7",
    }  # fmt: skip
    assert placed.stamps == {"reported_ms": 77}
    assert [one.values["QUANTITY"] for one in (first, second)] == [40.0, 60.0]
    assert first.message == "贵州茅台 buy 40 @ 18.49: filled"
    assert daemon.desk.counters()["filled"] == 2


async def test_what_is_told_twice_or_read_again_is_one_event(daemon: Daemon) -> None:
    again = replace(PLACED, at_ms=99)
    events = await daemon.told(PLACED, again, FILLED, replace(FILLED, at_ms=99))
    assert len(events) == 2
    await daemon.redis.xgroup_destroy(REPORTS, "orders:s1")  # the server came back without the newest writes
    daemon.begin()
    assert await daemon.told() == events
    assert daemon.desk.counters()["filled"] == 2


async def test_what_the_store_refused_is_taken_by_the_next_run(daemon: Daemon) -> None:
    daemon.refuses = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        await daemon.told(PLACED, FILLED)
    daemon.begin()
    assert [one.labels["order_state"] for one in await daemon.told()] == ["placed", "filled"]
    daemon.begin()
    assert len(await daemon.told()) == 2
    assert daemon.desk.counters()["placed"] == 0, "it was acknowledged, and is not handed out again"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"{}", b'"x"', *(
            orjson.dumps({**orjson.loads(PLACED.to_json()), **wrong})
            for wrong in (
                {"id": 5}, {"state": "sold"}, {"state": ["filled"]}, {"at_ms": 1.5}, {"quantity": True},
                {"price": None}, {"dry_run": 1}, {"why": {}},
            )
        ),
    ],
)  # fmt: skip
async def test_what_is_no_report_stops_nobody(daemon: Daemon, text: bytes) -> None:
    (event,) = await daemon.told(text, PLACED)
    assert event.labels["order_state"] == "placed"
    assert daemon.desk.counters()["unreadable"] == 1


async def test_a_newer_bridge_may_say_more(daemon: Daemon) -> None:
    assert len(await daemon.told(orjson.dumps({**orjson.loads(PLACED.to_json()), "commission": 5}))) == 1


async def test_reports_about_nobodys_alert_or_one_that_does_not_trade_are_counted_alone(daemon: Daemon) -> None:
    daemon.stored["al_2"] = replace(ALERT, id="al_2", rule="mine.entry")
    before = dict(daemon.stored)
    await daemon.told(*(replace(PLACED, id=f"or_{strange}") for strange in ("2", "9", "")))
    assert daemon.stored == before
    assert daemon.desk.counters()["strange"] == 3


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("state", STATES)
def test_every_state_can_be_told(state: Any, language: str) -> None:
    bare = Report(id="or_1", state=state, at_ms=1, symbol="", side="", quantity=0, price=0.0, why="a\n" + "b" * 999)
    event = event_of(bare, ALERT, language=language)
    assert event.labels["side"] == "buy"
    assert event.values == {"QUANTITY": None, "PRICE": None}
    assert event.message.isprintable()
    assert len(event.message) < 400
    assert event.severity == ("warning" if state in ("refused", "unknown", "failed") else "info")
    assert Alert.from_json(event.to_json()).labels == event.labels
    assert not AdvisedFilter(events=(Event.FIRE,)).passes(event)


def test_practice_is_on_nobodys_phone_and_a_silent_task_stays_silent() -> None:
    silent = replace(ALERT, labels={**ALERT.labels, DELIVER_LABEL: NEVER})
    told = [
        event_of(report, alert, language="zh").labels.get(DELIVER_LABEL)
        for report, alert in ((replace(PLACED, dry_run=True), ALERT), (PLACED, silent), (PLACED, ALERT))
    ]
    assert told == [NEVER, NEVER, None]
