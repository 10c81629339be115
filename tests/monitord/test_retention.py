"""Retention: what is too old goes, in its time, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from monitord import store as store_room
from monitord.deliveries import DeliveryFilter
from monitord.errors import StoreError
from monitord.retention import DAY_MS, EVERY_S, FIRST_S, Retention
from monitord.store import REDRIVE_MS, HistoryFilter, Store
from notifiers.notifier import Verdict
from notifiers.recorded import Arrival, Attempt, DeliveryState
from tests.monitord.test_store import Clock, alert


class Rests:
    """Stands in for sleeping: moves the clock on, and cancels the run after so many rests."""

    def __init__(self, clock: Clock, *, until: int) -> None:
        self._clock, self._until = clock, until
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) > self._until:
            raise asyncio.CancelledError
        self._clock.now_ms += round(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.sqlite", clock_ms=clock)
    yield opened
    await opened.close()


async def send(store: Store, *numbers: int) -> None:
    await store.commit([alert(n) for n in numbers], offset=max(numbers))
    rows = await store.pending(limit=10_000)
    await store.mark_sent([(row.seq, row.seq) for row in rows], epoch="e1")


async def kept(store: Store) -> list[str]:
    return [row.id for row in (await store.history(HistoryFilter())).rows][::-1]


async def test_what_was_sent_longer_ago_than_wanted_goes_and_the_rest_stays(store: Store, clock: Clock) -> None:
    await send(store, 1, 2)
    clock.now_ms += DAY_MS
    await send(store, 3)
    clock.now_ms += 2 * DAY_MS
    await store.commit([alert(4)], offset=4)
    retention = Retention(store, keep_days=3, clock_ms=clock)
    assert await retention.prune() == 0  # to the millisecond it is not over yet
    clock.now_ms += 1
    with capture_logs() as logs:
        assert await retention.prune() == 2
    assert logs == [{"event": "history_pruned", "events": 2, "deliveries": 0, "keep_days": 3, "log_level": "info"}]
    assert await kept(store) == ["al_3", "al_4"]
    clock.now_ms += 100 * DAY_MS
    assert await retention.prune() == 1
    assert await kept(store) == ["al_4"]  # never sent: in the outbox until it is
    assert store.lag_rows == 1


async def test_deliveries_and_their_attempts_go_too_and_none_that_is_still_to_be_made(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_room, "PRUNED_AT_ONCE", 2)
    arrivals = [Arrival(alert_id=f"al_{n}", record=b"{}", dead="off" if n == 5 else None) for n in range(6)]
    await store.deliveries.begin("ops", arrivals)
    tried = Attempt(at_ms=clock.now_ms, latency_ms=1, verdict=Verdict.OK, code=200, text="")
    for number in range(1, 5):
        await store.deliveries.settle(number, tried, state=DeliveryState.DELIVERED)
    clock.now_ms += 3 * DAY_MS
    await store.deliveries.begin("ops", [Arrival(alert_id="al_9", record=b"{}", dead="off")])
    retention = Retention(store, keep_days=3, clock_ms=clock)
    await retention.prune()
    assert (await store.deliveries.listing(DeliveryFilter())).total == 7
    clock.now_ms += 1
    with capture_logs() as logs:
        await retention.prune()
    assert [line["deliveries"] for line in logs] == [5]
    listed = (await store.deliveries.listing(DeliveryFilter())).rows
    assert [(one.alert_id, str(one.state)) for one in listed] == [("al_9", "dead"), ("al_4", "pending")]
    assert [await store.deliveries.attempts(number) for number in range(1, 5)] == [[]] * 4


async def test_within_a_redrive_no_delivery_goes_by_which_an_event_is_known_to_have_arrived(
    store: Store, clock: Clock
) -> None:
    await store.deliveries.begin("ops", [Arrival(alert_id="al_1", record=b"{}", dead="off")])
    clock.now_ms += REDRIVE_MS
    assert await store.prune(before_ms=clock.now_ms) == (0, 0)
    assert await store.deliveries.begin("ops", [Arrival(alert_id="al_1", record=b"{}")]) == 0


async def test_it_prunes_an_hour_after_the_start_and_then_once_a_day(store: Store, clock: Clock) -> None:
    await send(store, 1)
    clock.now_ms += 3 * DAY_MS + 1 - round(FIRST_S * 1000) - DAY_MS
    await send(store, 2)
    rests = Rests(clock, until=4)
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await Retention(store, keep_days=3, clock_ms=clock, sleep=rests).run()
    assert rests.seconds == [FIRST_S, EVERY_S, EVERY_S, EVERY_S, EVERY_S]
    assert [line["events"] for line in logs if line["event"] == "history_pruned"] == [0, 1, 0, 1]
    assert await kept(store) == []


async def test_history_is_kept_for_ever_if_so_wanted(store: Store, clock: Clock) -> None:
    await send(store, 1)
    clock.now_ms += 10_000 * DAY_MS
    rests = Rests(clock, until=0)
    await Retention(store, keep_days=0, clock_ms=clock, sleep=rests).run()
    assert rests.seconds == []
    assert await kept(store) == ["al_1"]


async def test_a_long_history_goes_in_parts_between_which_events_are_committed(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race: a commit that comes while a long history goes must wait for one part of it, not for all."""
    monkeypatch.setattr(store_room, "PRUNED_AT_ONCE", 10)
    await send(store, *range(1, 96))
    clock.now_ms += 9 * DAY_MS
    left: list[int] = []

    async def commit() -> None:
        await store.commit([alert(100)], offset=100)
        left.append((await store.history(HistoryFilter(), page_size=1)).total)

    pruned, _ = await asyncio.gather(Retention(store, keep_days=3, clock_ms=clock).prune(), commit())
    assert pruned == 95
    assert left[0] > 60
    assert await kept(store) == ["al_100"]


async def test_a_store_that_fails_is_told_of(store: Store, clock: Clock) -> None:
    await store.close()
    with pytest.raises(StoreError):
        await Retention(store, keep_days=3, clock_ms=clock, sleep=Rests(clock, until=9)).run()
