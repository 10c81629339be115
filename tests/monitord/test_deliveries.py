"""Deliveries in the store: each alert once per receiver, every attempt kept, a dead letter never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from monitord.deliveries import Deliveries, DeliveryFilter
from monitord.errors import StoreError
from monitord.store import Store
from notifiers.notifier import Verdict
from notifiers.recorded import Arrival, Attempt, DeliveryState, DeliveryStore, PendingDelivery
from notifiers.retry import ReceiverState

NOW_MS = 1_700_000_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.db", clock_ms=lambda: NOW_MS)
    yield opened
    await opened.close()


@pytest.fixture
def deliveries(store: Store) -> Deliveries:
    agreed: DeliveryStore = store.deliveries  # checked by mypy: it is what the notifiers ask for
    assert agreed is store.deliveries
    return store.deliveries


def arrival(number: int, *, dead: str | None = None) -> Arrival:
    return Arrival(alert_id=f"al_{number}", record=b"{%d}" % number, dead=dead)


def attempt(verdict: Verdict = Verdict.RETRY, *, text: str = "503") -> Attempt:
    return Attempt(at_ms=NOW_MS, latency_ms=12, verdict=verdict, code=503, text=text)


async def test_an_arrival_is_due_at_once_and_known_alerts_are_ignored(deliveries: Deliveries) -> None:
    assert await deliveries.begin("ops", [arrival(2), arrival(1), arrival(2)]) == 2
    assert await deliveries.begin("ops", [arrival(1), arrival(3)]) == 1
    assert await deliveries.begin("desk", [arrival(1)]) == 1
    due = await deliveries.due("ops", NOW_MS, limit=10)
    assert [(one.alert_id, one.record, one.failures) for one in due] == [
        ("al_2", b"{2}", 0),
        ("al_1", b"{1}", 0),
        ("al_3", b"{3}", 0),
    ]
    assert [one.id for one in due] == sorted(one.id for one in due)
    assert len(await deliveries.due("ops", NOW_MS, limit=2)) == 2
    assert await deliveries.due("ops", NOW_MS - 1, limit=10) == []


async def test_a_failed_attempt_waits_for_its_time(deliveries: Deliveries) -> None:
    await deliveries.begin("ops", [arrival(1)])
    assert await deliveries.next_due_ms("ops") == NOW_MS
    await deliveries.settle(1, attempt(), state=DeliveryState.PENDING, due_ms=NOW_MS + 5000)
    assert await deliveries.next_due_ms("ops") == NOW_MS + 5000
    assert await deliveries.due("ops", NOW_MS + 4999, limit=9) == []
    assert await deliveries.due("ops", NOW_MS + 5000, limit=9) == [
        PendingDelivery(id=1, alert_id="al_1", record=b"{1}", failures=1)
    ]
    await deliveries.settle(1, attempt(Verdict.OK, text=""), state=DeliveryState.DELIVERED)
    assert await deliveries.next_due_ms("ops") is None
    assert [one.verdict for one in await deliveries.attempts(1)] == [Verdict.RETRY, Verdict.OK]
    assert (await deliveries.attempts(1))[0] == attempt()


async def test_dead_letters_keep_their_reason_and_can_be_replayed(deliveries: Deliveries) -> None:
    await deliveries.begin("ops", [arrival(1), arrival(2, dead="no such card"), arrival(3)])
    await deliveries.settle(1, attempt(Verdict.PERMANENT, text="keyword"), state=DeliveryState.DEAD)
    dead = await deliveries.listing(DeliveryFilter(state=DeliveryState.DEAD))
    assert [(one.alert_id, one.reason, one.due_ms, one.attempts) for one in dead.rows] == [
        ("al_2", "no such card", None, 0),
        ("al_1", "keyword", None, 1),
    ]
    assert await deliveries.replay("desk") == 0
    assert await deliveries.replay("ops", [1, 3, 99]) == 1
    assert await deliveries.replay("ops") == 1
    assert [(one.id, one.failures) for one in await deliveries.due("ops", NOW_MS, limit=9)] == [(1, 0), (2, 0), (3, 0)]
    assert len(await deliveries.attempts(1)) == 1
    assert await deliveries.counts() == {("ops", "pending"): 3}


async def test_an_attempts_text_is_cut_at_1_kb_between_characters(deliveries: Deliveries) -> None:
    await deliveries.begin("ops", [arrival(1)])
    await deliveries.settle(1, attempt(text="错" * 1000), state=DeliveryState.DEAD)
    assert (await deliveries.attempts(1))[0].text == "错" * 341
    assert (await deliveries.listing(DeliveryFilter())).rows[0].reason == "错" * 341


async def test_a_settlement_that_cannot_be_changes_nothing(deliveries: Deliveries) -> None:
    await deliveries.begin("ops", [arrival(1)])
    with pytest.raises(StoreError, match="there is no delivery 9"):
        await deliveries.settle(9, attempt(), state=DeliveryState.DEAD)
    for state, due_ms in ((DeliveryState.PENDING, None), (DeliveryState.DEAD, 5)):
        with pytest.raises(StoreError, match="due_ms belongs to a pending delivery"):
            await deliveries.settle(1, attempt(), state=state, due_ms=due_ms)
    assert await deliveries.attempts(9) == []
    assert await deliveries.attempts(1) == []


async def test_the_listing_filters_and_pages_newest_first(deliveries: Deliveries) -> None:
    await deliveries.begin("ops", [arrival(n) for n in range(7)])
    await deliveries.begin("desk", [arrival(3)])
    assert [one.receiver for one in (await deliveries.listing(DeliveryFilter(alert_id="al_3"))).rows] == ["desk", "ops"]
    page = await deliveries.listing(DeliveryFilter(receiver="ops"), page=2, page_size=3)
    assert ([one.alert_id for one in page.rows], page.total) == (["al_3", "al_2", "al_1"], 7)
    with pytest.raises(StoreError, match="1 to 1000 rows"):
        await deliveries.listing(DeliveryFilter(), page_size=1001)


async def test_a_receivers_health_is_kept_over_a_restart(store: Store, deliveries: Deliveries) -> None:
    assert await deliveries.receiver_state("ops") is None
    state = ReceiverState(failures=3, failing_since_ms=NOW_MS, hold_until_ms=NOW_MS + 1, disabled="410")
    await deliveries.set_receiver_state("ops", ReceiverState(failures=1))
    await deliveries.set_receiver_state("ops", state)
    await store.close()
    again = await Store.open(store.path)
    assert await again.deliveries.receiver_state("ops") == state
    await again.close()
