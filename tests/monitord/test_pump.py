"""The pump: every committed event reaches the channel once per epoch, in store order, whatever the broker does."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import fakeredis
import pytest

from monitord import pump as pump_module
from monitord.broker import EmbeddedBroker
from monitord.errors import StoreError
from monitord.pump import Pump
from monitord.store import Store
from notifiers.alertstream import Envelope, Fenced, Outgoing, Position, Receipt
from notifiers.channel import AlertChannel, Prepared
from rules.alert import Alert, Event


def alert(number: int) -> Alert:
    return Alert(
        id=f"al_{number}", episode_id="ep", event=Event.FIRE, rule="brk", rev="r", symbol="600519.SH",
        trade_date="2023-02-01", episode=number, ts_event_ms=number, period="tick",
    )  # fmt: skip


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def channel(server: fakeredis.FakeServer) -> AsyncIterator[AlertChannel]:
    opened = AlertChannel("", connect=lambda: fakeredis.FakeAsyncRedis(server=server))
    yield opened
    await opened.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.db")
    yield opened
    await opened.close()


async def committed(store: Store, numbers: range) -> list[bytes]:
    alerts = [alert(n) for n in numbers]
    await store.commit(alerts, offset=numbers.stop)
    return [one.to_json() for one in alerts]


async def published(channel: AlertChannel, *, after: int = 0) -> list[bytes]:
    """Return the records of the present epoch behind an offset."""
    epoch, top = await channel.top()
    entries = [
        entry for at in range(after, top, 500) for entry in await channel.read(after=at) if entry.off <= at + 500
    ]
    return [entry.alert_json for entry in entries if entry.epoch == epoch]


async def begin(store: Store, channel: AlertChannel) -> None:
    """Begin the first epoch, as a pump does with its first look at a new broker."""
    epoch, base = await channel.begin_epoch(acked=0)
    await store.begin_epoch(epoch, base=base)


async def drained(pump: Pump, *, deadline_s: float = 10.0) -> int:
    """Run the pump until its outbox is empty."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(pump.run())
        left = await pump.drain(deadline_s)
        running.cancel()
    return left


async def test_the_first_epoch_is_begun_and_the_outbox_told_in_store_order(store: Store, channel: AlertChannel) -> None:
    records = await committed(store, range(5, 0, -1)) + await committed(store, range(6, 900))
    pump = Pump(store, channel)
    assert await drained(pump) == 0
    assert await published(channel) == records
    assert await store.acked() == await channel.top()
    assert pump.counters() == {"published": 899, "duplicates": 0, "redrives": 0, "failures": 0, "lag_rows": 0}


async def test_a_commit_wakes_an_idle_pump(store: Store, channel: AlertChannel) -> None:
    subscription = channel.subscribe()
    assert await anext(subscription) == Position("", 0, recovered=True)
    pump = Pump(store, channel, check_s=3600)
    async with asyncio.TaskGroup() as group:
        group.create_task(pump.run())
        async with asyncio.timeout(5):
            assert isinstance(await anext(subscription), Position)
            for n in range(1, 4):
                (record,) = await committed(store, range(n, n + 1))
                message = await anext(subscription)
                assert isinstance(message, Envelope)
                assert (message.off, message.alert_json) == (n, record)
        assert await pump.drain(5) == 0
    await subscription.aclose()


async def test_a_burst_is_made_ready_once_while_it_is_committed(
    store: Store, channel: AlertChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(store, channel)
    was_told: list[bool] = []
    prepare = channel.prepare

    def noted(batch: Sequence[Outgoing], *, epoch: str, acked: int) -> Prepared:
        was_told.append(store.committed.is_set())
        return prepare(batch, epoch=epoch, acked=acked)

    monkeypatch.setattr(channel, "prepare", noted)
    pump = Pump(store, channel)
    records = await committed(store, range(1, 80))
    assert await drained(pump) == 0
    assert was_told == [False]
    assert await published(channel) == records


async def test_what_was_made_ready_is_not_sent_where_the_commit_fails(store: Store, channel: AlertChannel) -> None:
    await begin(store, channel)
    pump = Pump(store, channel)
    await store.file.run(_let_commits_fail)
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        await committed(store, range(1, 4))
    assert pump._staged is not None, "else this shows nothing"
    assert await drained(pump) == 0
    assert await published(channel) == []
    await store.file.run(lambda db: db.execute("DROP TRIGGER refused"))
    records = await committed(store, range(3, 6))
    assert await drained(Pump(store, channel)) == 0
    assert await published(channel) == records


def _let_commits_fail(db: sqlite3.Connection) -> None:
    """Let a transaction that brings events do all its work and then fail at its COMMIT."""
    db.execute("CREATE TABLE held_back (source_id REFERENCES inputs DEFERRABLE INITIALLY DEFERRED)")
    db.execute("CREATE TRIGGER refused AFTER INSERT ON events BEGIN INSERT INTO held_back VALUES ('nobody'); END")


async def test_what_was_made_ready_for_another_epoch_is_made_anew(store: Store, channel: AlertChannel) -> None:
    await begin(store, channel)
    pump = Pump(store, channel)
    records = await committed(store, range(1, 4))
    await begin(store, channel)  # the outbox has changed behind it
    assert await drained(pump) == 0
    assert await published(channel) == records
    assert pump.counters()["redrives"] == 0


async def test_a_kill_of_what_was_made_ready_loses_nothing(
    store: Store, channel: AlertChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(store, channel)
    pump = Pump(store, channel)
    offered: list[int] = []
    send = channel.send

    async def killed(prepared: Prepared) -> list[Receipt]:
        offered.append(len(prepared.alerts))
        raise asyncio.CancelledError

    monkeypatch.setattr(channel, "send", killed)
    records = await committed(store, range(1, 4))
    with pytest.raises(asyncio.CancelledError):
        await pump.run()
    monkeypatch.setattr(channel, "send", send)
    assert await drained(Pump(store, channel)) == 0
    assert (offered, await published(channel)) == ([3], records)


async def test_who_tells_hears_of_a_batch_before_its_receipts(
    store: Store, channel: AlertChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(store, channel)
    send = channel.send

    async def answering_later(prepared: Prepared) -> list[Receipt]:
        await asyncio.sleep(0)
        return await send(prepared)

    monkeypatch.setattr(channel, "send", answering_later)
    heard: list[tuple[str, str, list[str]]] = []
    pump = Pump(
        store, channel,
        on_offered=lambda epoch, alerts: heard.append(("offered", epoch, [alert.id for alert in alerts])),
        on_published=lambda epoch, alerts: heard.append(("published", epoch, [alert.id for _, alert in alerts])),
    )  # fmt: skip
    await committed(store, range(1, 4))
    assert await drained(pump) == 0
    epoch, _ = await store.acked()
    ids = ["al_1", "al_2", "al_3"]
    assert heard == [("offered", epoch, ids), ("published", epoch, ids)]


async def test_what_was_published_and_not_marked_sent_is_a_duplicate(store: Store, channel: AlertChannel) -> None:
    await begin(store, channel)
    records = await committed(store, range(1, 5))
    mark_sent = store.mark_sent

    async def killed(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    store.mark_sent = killed  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await Pump(store, channel).run()
    store.mark_sent = mark_sent  # type: ignore[method-assign]
    pump = Pump(store, channel)
    assert await drained(pump) == 0
    assert (pump.counters()["duplicates"], pump.counters()["published"]) == (4, 0)
    assert await published(channel) == records


async def test_an_absent_broker_lets_the_outbox_grow_and_is_tried_again_with_growing_pauses(
    store: Store, channel: AlertChannel, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(pump_module, "LONGEST_PAUSE_S", 0.004)
    await begin(store, channel)
    pump = Pump(store, channel, random_share=lambda: 1.0)
    pauses: list[float] = []
    wait = pump._back_off

    async def observed(error: Exception) -> None:
        pauses.append(pump._pause_s)
        if len(pauses) == 5:
            server.connected = True
        await wait(error)

    monkeypatch.setattr(pump, "_back_off", observed)
    server.connected = False
    records = await committed(store, range(1, 4))
    async with asyncio.TaskGroup() as group:
        group.create_task(pump.run())
        async with asyncio.timeout(5):
            while store.lag_rows:  # noqa: ASYNC110  # the store tells of commits, not of what leaves it
                await asyncio.sleep(0.001)
        assert await pump.drain(5) == 0
    assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004]
    assert pump.counters()["failures"] == 5
    assert pump.up
    assert await published(channel) == records


async def test_closing_wakes_a_long_pause_and_the_deadline_is_kept(
    store: Store, channel: AlertChannel, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "FIRST_PAUSE_S", 0.01)
    await begin(store, channel)
    server.connected = False
    pump = Pump(store, channel)
    pump._pause_s = 3600.0
    await committed(store, range(1, 4))
    assert await drained(pump, deadline_s=0.2) == 3
    assert pump.counters()["failures"] > 1
    assert not pump.up


async def test_a_wiped_broker_gets_everything_kept_again_in_a_new_epoch(
    store: Store, channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    await begin(store, channel)
    records = await committed(store, range(1, 301))
    await drained(Pump(store, channel))
    epoch, _ = await channel.top()
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.flushall()
    await redis.aclose()
    records += await committed(store, range(301, 311))
    pump = Pump(store, channel)
    assert await drained(pump) == 0
    again, top = await channel.top()
    assert (again != epoch, top) == (True, 610)  # 300 old offsets are never given again
    assert await published(channel, after=300) == records
    assert pump.counters()["redrives"] == 1


async def test_an_idle_pump_notices_a_wiped_broker_by_itself(
    store: Store, channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    await begin(store, channel)
    records = await committed(store, range(1, 4))
    await drained(Pump(store, channel))
    pump = Pump(store, channel, check_s=0.01)
    async with asyncio.TaskGroup() as group:
        group.create_task(pump.run())
        redis = fakeredis.FakeAsyncRedis(server=server)
        await redis.flushall()
        await redis.aclose()
        async with asyncio.timeout(5):
            while pump.counters()["published"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await pump.drain(5)
    assert await published(channel, after=3) == records


async def test_a_crash_between_the_brokers_new_epoch_and_the_stores_is_redriven(
    store: Store, channel: AlertChannel
) -> None:
    await begin(store, channel)
    records = await committed(store, range(1, 4))
    await drained(Pump(store, channel))
    await channel.begin_epoch(acked=3)
    pump = Pump(store, channel)
    await committed(store, range(4, 5))
    assert await drained(pump) == 0
    assert await published(channel, after=3) == [*records, alert(4).to_json()]


async def test_a_fenced_pump_stops(store: Store, server: fakeredis.FakeServer) -> None:
    old, new = (AlertChannel("", share="all", connect=lambda: fakeredis.FakeAsyncRedis(server=server)) for _ in "12")
    await old.claim()
    await begin(store, old)
    await new.claim()
    await committed(store, range(1, 2))
    with pytest.raises(Fenced):
        await Pump(store, old).run()
    await old.close()
    await new.close()


@pytest.mark.acceptance
async def test_a_broker_killed_again_and_again_gets_every_event_once_in_order(
    store: Store, strict_broker: EmbeddedBroker
) -> None:
    broker = strict_broker
    channel = AlertChannel(broker.url)
    pump = Pump(store, channel, batch_rows=7)
    subscription = channel.subscribe()
    assert await anext(subscription) == Position("", 0, recovered=True)
    records: list[bytes] = []
    got: list[bytes] = []
    killed: list[int | None] = []
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(broker.run())
        group.create_task(pump.run())

        async def commit() -> None:
            for n in range(1, 401):
                records.extend(await committed(store, range(n, n + 1)))
                if n % 80 == 40:  # the 79 commits behind each kill meet a dead, a loading and a living broker
                    while broker.pid in killed:  # noqa: ASYNC110  # the next kill needs the next server
                        await asyncio.sleep(0.001)
                    killed.append(broker.pid)
                    os.kill(broker.pid, signal.SIGKILL)

        group.create_task(commit())
        async with asyncio.timeout(15):
            while len(got) < 400:
                message = await anext(subscription)
                if isinstance(message, Envelope):
                    got.append(message.alert_json)
        assert await pump.drain(5) == 0
        await subscription.aclose()
        assert await published(channel) == records
        await channel.close()
        await broker.stop()
        await watching
    assert got == records
    assert len(killed) == broker.counters()["deaths"] == 5
    assert pump.counters()["redrives"] == 0


@pytest.mark.acceptance
async def test_a_truncated_append_only_file_is_redriven_in_a_new_epoch(store: Store, broker: EmbeddedBroker) -> None:
    channel = AlertChannel(broker.url)
    await begin(store, channel)
    records = await committed(store, range(1, 51))
    await drained(Pump(store, channel, batch_rows=10))  # one call of the script is one transaction of the log
    subscription = channel.subscribe()
    old = await anext(subscription)
    assert isinstance(old, Position)
    os.kill(broker.pid, signal.SIGKILL)
    await broker._until_unlocked()
    (log,) = (broker.folder / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size * 2 // 3)
    await broker.start()
    assert 0 < (await channel.top())[1] < 50
    records += await committed(store, range(51, 53))
    pump = Pump(store, channel)
    assert await drained(pump) == 0
    async with asyncio.timeout(10):
        told = await anext(subscription)
        envelopes = [await anext(subscription) for _ in range(52)]
    assert told == Position((await channel.top())[0], 50, recovered=False)
    assert told.epoch != old.epoch
    assert [(one.off, one.alert_json) for one in envelopes if isinstance(one, Envelope)] == [
        *zip(range(51, 103), records, strict=True)
    ]
    assert pump.counters()["redrives"] == 1
    await subscription.aclose()
    await channel.close()


@pytest.mark.acceptance
async def test_a_broker_that_dies_with_what_it_acknowledged_gets_it_again_from_the_pump_that_runs(
    store: Store, broker: EmbeddedBroker
) -> None:
    """What a busy disk does: the server has acknowledged a tail that it has not written yet when it is killed."""
    channel = AlertChannel(broker.url)
    pump = Pump(store, channel, batch_rows=10, check_s=3600)
    subscription = channel.subscribe()
    assert await anext(subscription) == Position("", 0, recovered=True)
    records = await committed(store, range(1, 51))
    async with asyncio.TaskGroup() as group:
        group.create_task(pump.run())
        async with asyncio.timeout(60):
            first = await anext(subscription)
            assert isinstance(first, Position)
            heard = [await anext(subscription) for _ in range(50)]
            os.kill(broker.pid, signal.SIGKILL)
            await broker._until_unlocked()
            (log,) = (broker.folder / "appendonlydir").glob("*.incr.aof")
            os.truncate(log, log.stat().st_size * 2 // 3)
            await broker.start()
            records += await committed(store, range(51, 53))  # the pump has not looked since, and meets it with these
            again = await anext(subscription)
            heard_again = [await anext(subscription) for _ in range(52)]
        assert await pump.drain(10) == 0
    assert again == Position((await channel.top())[0], 50, recovered=False)
    assert [one.alert_json for one in heard if isinstance(one, Envelope)] == records[:50]
    assert [(one.epoch, one.off, one.alert_json) for one in heard_again if isinstance(one, Envelope)] == [
        (again.epoch, off, record) for off, record in enumerate(records, 51)
    ]
    assert again.epoch != first.epoch
    assert pump.counters()["redrives"] == 1
    await subscription.aclose()
    await channel.close()


async def test_a_batch_is_told_with_its_offsets_before_anything_else_is_waited_for(
    store: Store, channel: AlertChannel
) -> None:
    await begin(store, channel)
    await committed(store, range(1, 8))
    told: list[tuple[str, list[tuple[int, str]], int]] = []

    def hear(epoch: str, alerts: Sequence[tuple[int, Outgoing]]) -> None:
        told.append((epoch, [(off, alert.id) for off, alert in alerts], store.lag_rows))

    assert await drained(Pump(store, channel, batch_rows=3, on_published=hear)) == 0
    epoch, _ = await channel.top()
    assert told == [
        (epoch, [(1, "al_1"), (2, "al_2"), (3, "al_3")], 7),
        (epoch, [(4, "al_4"), (5, "al_5"), (6, "al_6")], 4),
        (epoch, [(7, "al_7")], 1),
    ]
