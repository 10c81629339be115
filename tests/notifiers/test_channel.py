"""The channel: each alert once per epoch, in order; a subscription that nothing the broker does can tear."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import fakeredis
import orjson
import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from feeds.connection import heeding_cancel
from monitord.broker import EmbeddedBroker
from notifiers.alertstream import (
    Behind,
    ChannelDown,
    Envelope,
    Fenced,
    Head,
    Outgoing,
    Position,
    Receipt,
    connect_to,
    open_envelope,
)
from notifiers.channel import AlertChannel
from notifiers.errors import DeliveryError
from notifiers.group import AlertConsumer, consumer_client
from notifiers.subscription import Subscription


def outgoing(number: int, *, symbol: str | None = "600519.SH") -> Outgoing:
    return Outgoing(f"al_{number}", b'{"id":"al_%d","message":"\xe7\xaa\x81"}' % number, symbol, "brk", "page")


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def channel(server: fakeredis.FakeServer) -> AsyncIterator[AlertChannel]:
    opened = AlertChannel("", connect=lambda: fakeredis.FakeAsyncRedis(server=server))
    yield opened
    await opened.close()


async def begun(channel: AlertChannel, alerts: int = 0, *, start: int = 1) -> str:
    """Begin an epoch and publish that many alerts in it."""
    epoch, base = await channel.begin_epoch(acked=0)
    if alerts:
        await channel.publish([outgoing(n) for n in range(start, start + alerts)], epoch=epoch, acked=base)
    return epoch


async def take(subscription: Subscription, count: int, *, within_s: float = 10.0) -> list[Position | Envelope]:
    async with asyncio.timeout(within_s):
        return [await anext(subscription) for _ in range(count)]


def offs(messages: list[Position | Envelope]) -> list[int]:
    return [message.off for message in messages if isinstance(message, Envelope)]


# --- the publish script


async def test_who_made_ready_publishes_with_one_call_on_the_connection_there_is(
    channel: AlertChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await begun(channel)
    sent: list[bytes] = []
    send = AbstractConnection.send_packed_command

    async def noting(self: AbstractConnection, command: Any, *given: Any, **named: Any) -> None:
        sent.append(b"".join([command] if isinstance(command, bytes) else command))
        await send(self, command, *given, **named)

    await channel.make_ready()
    monkeypatch.setattr(AbstractConnection, "send_packed_command", noting)
    await channel.publish([outgoing(1)], epoch=epoch, acked=0)
    assert [b"EVALSHA" in command for command in sent] == [True]


async def test_offsets_are_contiguous_and_the_stream_has_the_bytes_unchanged(channel: AlertChannel) -> None:
    epoch = await begun(channel)
    receipts = await channel.publish([outgoing(1), outgoing(2), outgoing(3)], epoch=epoch, acked=0)
    assert receipts == [Receipt(1, False), Receipt(2, False), Receipt(3, False)]
    assert await channel.read(after=1) == [Envelope(n, epoch, outgoing(n).json) for n in (2, 3)]
    assert await channel.head() == Head(epoch, 3, 0)


async def test_the_keys_are_the_documented_ones(channel: AlertChannel, server: fakeredis.FakeServer) -> None:
    epoch = await begun(channel, 1)
    redis = fakeredis.FakeAsyncRedis(server=server)
    assert await redis.xrange("mon:{alerts}:stream") == [
        (b"1-0", {b"alert": outgoing(1).json, b"epoch": epoch.encode()})
    ]
    assert await redis.hget("mon:{alerts}:meta", "epoch") == epoch.encode()
    assert await redis.get("mon:{alerts}:dedup:al_1") == b"1"
    assert 172_790 < await redis.ttl("mon:{alerts}:dedup:al_1") <= 172_800
    await redis.aclose()


async def test_every_channel_gets_the_same_envelope(channel: AlertChannel, server: fakeredis.FakeServer) -> None:
    epoch = await begun(channel)
    listening = fakeredis.FakeAsyncRedis(server=server).pubsub()
    await listening.psubscribe("mon:*")
    await listening.get_message(timeout=1)
    await channel.publish([outgoing(1), outgoing(2, symbol=None)], epoch=epoch, acked=0)
    messages = [await listening.get_message(timeout=1) for _ in range(7)]
    told = {(m["channel"].decode(), orjson.loads(m["data"])["alert"]["id"]) for m in messages}
    both = {f"mon:alerts{rest}" for rest in ("", ":rule:brk", ":sev:page")}
    assert told == {(c, "al_1") for c in both | {"mon:alerts:sym:600519.SH"}} | {(c, "al_2") for c in both}
    assert orjson.loads(messages[0]["data"]) == {"off": 1, "epoch": epoch, "alert": orjson.loads(outgoing(1).json)}
    assert open_envelope(messages[0]["data"]) == Envelope(1, epoch, outgoing(1).json)
    await listening.aclose()


async def test_what_is_prepared_leaves_when_it_is_sent_also_on_a_server_without_the_script(
    channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    epoch = await begun(channel, 1)
    prepared = channel.prepare([outgoing(2), outgoing(3)], epoch=epoch, acked=1)
    assert await channel.top() == (epoch, 1)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.script_flush()
    await redis.aclose()
    assert await channel.send(prepared) == [Receipt(2, False), Receipt(3, False)]
    assert await channel.send(prepared) == [Receipt(2, True), Receipt(3, True)]
    assert [entry.alert_json for entry in await channel.read(after=1)] == [outgoing(2).json, outgoing(3).json]


async def test_what_was_prepared_for_an_epoch_that_is_over_is_refused(channel: AlertChannel) -> None:
    epoch = await begun(channel, 1)
    prepared = channel.prepare([outgoing(2)], epoch=epoch, acked=1)
    newer, base = await channel.begin_epoch(acked=1)
    with pytest.raises(Behind, match=f"BEHIND epoch {newer} top {base}"):
        await channel.send(prepared)
    assert offs(await channel.read(after=0)) == [1]


async def test_a_repeated_id_gets_its_first_offset_and_is_told_to_nobody(channel: AlertChannel) -> None:
    epoch = await begun(channel, 2)
    assert await channel.publish([outgoing(2), outgoing(3), outgoing(1)], epoch=epoch, acked=2) == [
        Receipt(2, True),
        Receipt(3, False),
        Receipt(1, True),
    ]
    assert offs(await channel.read(after=0)) == [1, 2, 3]


@pytest.mark.parametrize(("epoch", "acked"), [("other", 0), (None, 3)])
async def test_a_broker_that_is_behind_refuses_and_changes_nothing(
    channel: AlertChannel, epoch: str | None, acked: int
) -> None:
    current = await begun(channel, 2)
    with pytest.raises(Behind, match=f"BEHIND epoch {current} top 2"):
        await channel.publish([outgoing(9)], epoch=epoch or current, acked=acked)
    assert await channel.top() == (current, 2)
    assert offs(await channel.read(after=0)) == [1, 2]


async def test_a_virgin_broker_is_behind(channel: AlertChannel) -> None:
    assert await channel.top() == ("", 0)
    for epoch in ("e1", ""):
        with pytest.raises(Behind):
            await channel.publish([outgoing(1)], epoch=epoch, acked=0)
    assert await channel.read(after=0) == []


async def test_a_new_epoch_publishes_the_same_ids_again_behind_every_old_offset(channel: AlertChannel) -> None:
    first = await begun(channel, 3)
    second, base = await channel.begin_epoch(acked=40)
    assert (second != first, base) == (True, 40)
    assert await channel.publish([outgoing(2), outgoing(3)], epoch=second, acked=40) == [
        Receipt(41, False),
        Receipt(42, False),
    ]
    assert await channel.publish([outgoing(2)], epoch=second, acked=42) == [Receipt(41, True)]
    assert [(e.off, e.epoch) for e in await channel.read(after=2)] == [(3, first), (41, second), (42, second)]


async def test_a_lost_meta_hash_does_not_reuse_the_streams_offsets(
    channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    await begun(channel, 5)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.delete("mon:{alerts}:meta")
    await redis.aclose()
    assert (await channel.begin_epoch(acked=0))[1] == 5


async def test_a_command_that_fails_in_the_middle_leaves_offsets_that_can_go_on(
    channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    epoch, _ = await channel.begin_epoch(acked=0)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.xadd("mon:{alerts}:stream", {"alert": "x", "epoch": epoch}, id="3-0")  # somebody else writes there
    with pytest.raises(ChannelDown):
        await channel.publish([outgoing(n) for n in (1, 2)], epoch=epoch, acked=0)
    assert await channel.top() == (epoch, 0), "no offset was given"
    await redis.delete("mon:{alerts}:stream")
    receipts = await channel.publish([outgoing(n) for n in (1, 2)], epoch=epoch, acked=0)
    assert [(receipt.off, receipt.duplicate) for receipt in receipts] == [(1, False), (2, False)]


async def test_one_id_twice_in_a_batch_is_published_once(channel: AlertChannel) -> None:
    epoch, _ = await channel.begin_epoch(acked=0)
    receipts = await channel.publish([outgoing(n) for n in (1, 2, 1)], epoch=epoch, acked=0)
    assert [(receipt.off, receipt.duplicate) for receipt in receipts] == [(1, False), (2, False), (1, True)]
    epoch, _ = await channel.begin_epoch(acked=2)
    receipts = await channel.publish([outgoing(n) for n in (1, 1)], epoch=epoch, acked=2)
    assert [(receipt.off, receipt.duplicate) for receipt in receipts] == [(3, False), (3, True)], "also once per epoch"


async def test_an_older_holder_of_the_share_is_fenced(server: fakeredis.FakeServer) -> None:
    old, new = (AlertChannel("", share="all", connect=lambda: fakeredis.FakeAsyncRedis(server=server)) for _ in "12")
    assert await old.claim() == 1
    epoch = await begun(old, 1)
    assert await new.claim() == 2
    with pytest.raises(Fenced, match="token 1, the share is held with token 2"):
        await old.publish([outgoing(2)], epoch=epoch, acked=1)
    with pytest.raises(Fenced):
        await old.begin_epoch(acked=1)
    assert await new.publish([outgoing(2)], epoch=epoch, acked=1) == [Receipt(2, False)]
    await old.close()
    await new.close()


async def test_a_forgotten_script_is_loaded_again(channel: AlertChannel, server: fakeredis.FakeServer) -> None:
    epoch = await begun(channel, 1)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.script_flush()
    await redis.aclose()
    assert await channel.publish([outgoing(2)], epoch=epoch, acked=1) == [Receipt(2, False)]


async def test_a_broker_that_has_become_a_replica_is_asked_for_anew(
    channel: AlertChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address may lead to the new master, and the connections that stand to the old one."""
    epoch = await begun(channel, 1)
    refusing = AsyncMock(side_effect=ReadOnlyError("You can't write against a read only replica."))
    with monkeypatch.context() as demoted:
        demoted.setattr(channel._line, "read_response", refusing)
        with pytest.raises(ChannelDown, match="read only"):
            await channel.publish([outgoing(2)], epoch=epoch, acked=1)
        assert channel._line is None
    pool = channel._redis.connection_pool
    assert not any(one.is_connected for one in (*pool._available_connections, *pool._in_use_connections))
    assert [receipt.off for receipt in await channel.publish([outgoing(2)], epoch=epoch, acked=1)] == [2]


async def test_an_unreachable_broker_is_down(channel: AlertChannel, server: fakeredis.FakeServer) -> None:
    epoch = await begun(channel)
    server.connected = False
    for attempt in (channel.publish([outgoing(1)], epoch=epoch, acked=0), channel.top(), channel.read(after=0)):
        with pytest.raises(ChannelDown, match="the broker cannot"):
            await attempt


def test_a_message_that_is_no_envelope_is_a_clear_error() -> None:
    for message in (b"hello", b'{"off":1}', b'{"off":"x","epoch":"e","alert":{}}'):
        with pytest.raises(DeliveryError, match="no envelope"):
            open_envelope(message)


def test_a_url_that_is_none_is_refused_without_being_repeated() -> None:
    with pytest.raises(DeliveryError) as caught:
        AlertChannel("http://:secret@host")
    assert "secret" not in str(caught.value)


# --- subscriptions


async def test_from_now_on_means_behind_the_top(channel: AlertChannel) -> None:
    epoch = await begun(channel, 3)
    subscription = channel.subscribe()
    assert await take(subscription, 1) == [Position(epoch, 3, recovered=True)]
    await channel.publish([outgoing(4)], epoch=epoch, acked=3)
    assert await take(subscription, 1) == [Envelope(4, epoch, outgoing(4).json)]
    await subscription.aclose()


async def test_since_an_offset_replays_then_goes_live(channel: AlertChannel) -> None:
    epoch = await begun(channel, 5)
    subscription = channel.subscribe((epoch, 2))
    got = await take(subscription, 4)
    assert got[0] == Position(epoch, 2, recovered=True)
    assert offs(got) == [3, 4, 5]
    await channel.publish([outgoing(6)], epoch=epoch, acked=5)
    assert offs(await take(subscription, 1)) == [6]
    await subscription.aclose()


async def test_a_long_replay_comes_page_by_page_while_publishing_goes_on(channel: AlertChannel) -> None:
    epoch = await begun(channel, 1700)
    subscription = channel.subscribe((epoch, 0))
    got = await take(subscription, 600)
    await channel.publish([outgoing(n) for n in range(1701, 1711)], epoch=epoch, acked=1700)
    got += await take(subscription, 1111)
    assert offs(got) == list(range(1, 1711))
    assert sum(isinstance(message, Position) for message in got) == 1
    await subscription.aclose()


@pytest.mark.parametrize("since_off", [2, 99])
async def test_what_cannot_be_recovered_is_told(
    channel: AlertChannel, server: fakeredis.FakeServer, since_off: int
) -> None:
    epoch = await begun(channel, 10)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.xtrim("mon:{alerts}:stream", minid="7-0", approximate=False)
    await redis.aclose()
    subscription = channel.subscribe((epoch, since_off))
    first = await take(subscription, 1)
    assert first == [Position(epoch, 6 if since_off == 2 else 10, recovered=False)]
    await subscription.aclose()


async def test_since_another_epoch_begins_at_the_base_of_this_one(channel: AlertChannel) -> None:
    await begun(channel, 4)
    second = await begun(channel, 2, start=3)
    subscription = channel.subscribe(("gone", 3))
    assert await take(subscription, 3) == [
        Position(second, 4, recovered=False),
        Envelope(5, second, outgoing(3).json),
        Envelope(6, second, outgoing(4).json),
    ]
    await subscription.aclose()


async def test_a_subscriber_before_the_first_epoch_misses_nothing(channel: AlertChannel) -> None:
    subscription = channel.subscribe()
    assert await take(subscription, 1) == [Position("", 0, recovered=True)]
    epoch = await begun(channel, 2)
    got = await take(subscription, 3)
    assert got[0] == Position(epoch, 0, recovered=True)
    assert offs(got) == [1, 2]
    await subscription.aclose()


async def test_a_new_epoch_is_told_and_followed_from_its_base(channel: AlertChannel) -> None:
    first = await begun(channel, 2)
    subscription = channel.subscribe((first, 0))
    assert offs(await take(subscription, 3)) == [1, 2]
    second = await begun(channel, 3, start=2)
    got = await take(subscription, 4)
    assert got[0] == Position(second, 2, recovered=False)
    assert offs(got) == [3, 4, 5]
    await subscription.aclose()


async def test_a_message_pubsub_dropped_is_filled_by_the_next_one(
    channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    epoch = await begun(channel)
    subscription = channel.subscribe()
    await take(subscription, 1)
    await append_silently(server, epoch, 1)
    await channel.publish([outgoing(2)], epoch=epoch, acked=0)
    assert offs(await take(subscription, 2)) == [1, 2]
    assert subscription.counters()["filled"] == 2
    await subscription.aclose()


async def test_a_last_message_pubsub_dropped_is_filled_by_the_check(
    channel: AlertChannel, server: fakeredis.FakeServer
) -> None:
    epoch = await begun(channel)
    subscription = Subscription(lambda: fakeredis.FakeAsyncRedis(server=server), channel.names, check_s=0.01)
    await take(subscription, 1)
    await append_silently(server, epoch, 1)
    assert offs(await take(subscription, 1)) == [1]
    await subscription.aclose()


async def test_a_stranger_on_the_channel_disturbs_nobody(channel: AlertChannel, server: fakeredis.FakeServer) -> None:
    epoch = await begun(channel)
    subscription = channel.subscribe()
    await take(subscription, 1)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.publish("mon:alerts", "hello")
    await redis.publish("mon:alerts", b'{"off":0,"epoch":"%s","alert":{}}' % epoch.encode())
    await redis.aclose()
    await channel.publish([outgoing(1)], epoch=epoch, acked=0)
    assert offs(await take(subscription, 1)) == [1]
    assert (subscription.counters()["foreign"], subscription.counters()["dropped_old"]) == (1, 1)
    await subscription.aclose()


async def test_a_cancelled_wait_loses_nothing(channel: AlertChannel) -> None:
    epoch = await begun(channel)
    subscription = channel.subscribe()
    await take(subscription, 1)
    for n in range(1, 6):
        with pytest.raises(TimeoutError):
            await take(subscription, 1, within_s=0.01)
        await channel.publish([outgoing(n)], epoch=epoch, acked=n - 1)
        assert offs(await take(subscription, 1)) == [n]
    await subscription.aclose()


async def append_silently(server: fakeredis.FakeServer, epoch: str, off: int) -> None:
    """Put an alert into the stream as the script does, but tell nobody."""
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.hset("mon:{alerts}:meta", "top", off)
    await redis.xadd("mon:{alerts}:stream", {"alert": outgoing(off).json, "epoch": epoch}, id=f"{off}-0")
    await redis.aclose()


# --- against a real broker


@pytest.mark.acceptance
async def test_broker_killed_five_times_while_publishing_loses_and_repeats_nothing(
    strict_broker: EmbeddedBroker,
) -> None:
    broker = strict_broker
    channel = AlertChannel(broker.url)
    epoch = await begun(channel)
    subscription = channel.subscribe((epoch, 0))
    total, kills = 1500, {200, 500, 700, 1100, 1400}

    async def publish() -> None:
        acked, sent = 0, 0
        while sent < total:
            batch = [outgoing(n) for n in range(sent + 1, min(sent + 10, total) + 1)]
            publishing = asyncio.ensure_future(channel.publish(batch, epoch=epoch, acked=acked))
            if sent in kills:
                kills.discard(sent)
                await asyncio.sleep(0)
                os.kill(broker.pid, signal.SIGKILL)
            try:
                acked = (await publishing)[-1].off
            except ChannelDown:
                await broker.start()
                continue
            sent += len(batch)

    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        got = await take(subscription, total + 1, within_s=20)
    assert not kills
    assert got[0] == Position(epoch, 0, recovered=True)
    assert got[1:] == [Envelope(n, epoch, outgoing(n).json) for n in range(1, total + 1)]
    stream = [entry for after in range(0, total, 500) for entry in await channel.read(after=after)]
    assert stream == got[1:]
    assert subscription.counters()["reconnects"] >= 1
    await subscription.aclose()
    await channel.close()


@pytest.mark.acceptance
async def test_a_frozen_broker_is_noticed_and_caught_up_with(broker: EmbeddedBroker) -> None:
    publisher, noticed = AlertChannel(broker.url), asyncio.Event()
    epoch = await begun(publisher, 1)

    async def pause(seconds: float) -> None:
        noticed.set()
        await asyncio.sleep(seconds)

    # An answer that is late by 0.3 s is tried for again, so on a slow machine that costs the follower nothing.
    hasty = partial(connect_to, broker.url, timeout_s=0.3)
    subscription = Subscription(hasty, publisher.names, since=Position(epoch, 0, recovered=True), sleep=pause)
    assert offs(await take(subscription, 2)) == [1]
    noticed.clear()
    following = asyncio.create_task(take(subscription, 1, within_s=60))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ChannelDown):
            await publisher.publish([outgoing(2)], epoch=epoch, acked=1)
        async with asyncio.timeout(30):
            await noticed.wait()
        following.cancel()
        await asyncio.wait([following])
        assert following.cancelled()
        assert subscription.counters()["reconnects"] >= 1
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    receipts = await publisher.publish([outgoing(2), outgoing(3)], epoch=epoch, acked=1)
    assert [receipt.off for receipt in receipts] == [2, 3]  # the first try may have arrived: then it is a duplicate
    assert offs(await take(subscription, 2)) == [2, 3]
    await subscription.aclose()
    await publisher.close()


@pytest.mark.acceptance
async def test_a_broker_without_memory_refuses_without_a_gap(broker: EmbeddedBroker) -> None:
    channel = AlertChannel(broker.url)
    epoch = await begun(channel, 2)
    await configure(channel, maxmemory=1)
    with pytest.raises(ChannelDown, match=r"cannot publish now: .*maxmemory"):
        await channel.publish([outgoing(3)], epoch=epoch, acked=2)
    await configure(channel, maxmemory=0)
    assert await channel.publish([outgoing(3)], epoch=epoch, acked=2) == [Receipt(3, False)]
    assert offs(await channel.read(after=0)) == [1, 2, 3]
    await channel.close()


@pytest.mark.acceptance
class Astray:
    """Lets a cancel come in the very turn of the loop in which a command has gone out; asyncio.wait_for forgets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sending: str = "_send_packed_command") -> None:
        self.victim: asyncio.Task[Any] | None = None
        self.cancels = 0
        send = getattr(AbstractConnection, sending)

        async def sends(connection: AbstractConnection, *args: Any, **options: Any) -> None:
            await send(connection, *args, **options)
            if self.victim is not None:
                victim, self.victim = self.victim, None
                self.cancels += 1
                victim.cancel()

        monkeypatch.setattr(AbstractConnection, sending, sends)

    async def ends(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task at its next command; it must end by that."""
        self.victim = task
        await asyncio.wait([task], timeout=10)
        assert (task.cancelled(), self.cancels) == (True, 1)


async def test_a_cancel_that_goes_astray_ends_a_subscription_all_the_same(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race of a stop against the top offset's check: the gateway followed on, and the daemon never ended."""
    channel = AlertChannel(broker.url)
    epoch = await begun(channel, 3)
    subscription = channel.subscribe((epoch, 0))

    async def follow() -> None:
        async for _ in subscription:
            pass

    await take(subscription, 4)
    await Astray(monkeypatch).ends(asyncio.create_task(follow()))
    await channel.publish([outgoing(4)], epoch=epoch, acked=3)
    assert offs(await take(subscription, 1)) == [4]  # it goes on where it was
    await subscription.aclose()
    await channel.close()


async def test_a_cancel_that_goes_astray_ends_a_publisher_all_the_same(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = AlertChannel(broker.url)
    epoch = await begun(channel, 1)

    async def publish() -> None:
        while True:
            await channel.publish([outgoing(2)], epoch=epoch, acked=1)

    await Astray(monkeypatch, "send_packed_command").ends(asyncio.create_task(publish()))  # under our own timeout
    assert await channel.publish([outgoing(2)], epoch=epoch, acked=1) == [Receipt(2, True)]  # it had gone out
    await channel.close()


async def test_a_cancel_that_goes_astray_ends_a_reader_of_a_group_all_the_same(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = AlertChannel(broker.url)
    await begun(channel, 3)
    consumer = AlertConsumer(consumer_client(broker.url), "hook")
    await consumer.open(from_start=True)

    async def read() -> None:
        while True:
            await consumer.read(block_ms=50, limit=100)

    await Astray(monkeypatch).ends(asyncio.create_task(read()))
    assert [entry.id for entry in await consumer.read(block_ms=50, limit=100)] == ["1-0", "2-0", "3-0"]
    await consumer.close()
    await channel.close()


async def test_a_cancel_that_was_heard_before_is_no_new_one() -> None:
    """Cleaning up after a cancel may talk to the broker."""
    done = asyncio.Event()

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with heeding_cancel():
                await asyncio.sleep(0)
            done.set()

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert done.is_set()


async def test_a_cancelled_publish_leaves_no_reply_behind_for_the_next(broker: EmbeddedBroker) -> None:
    channel = AlertChannel(broker.url)
    epoch = await begun(channel)
    acked = 0
    for number in range(1, 40):
        publishing = asyncio.ensure_future(channel.publish([outgoing(number)], epoch=epoch, acked=acked))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        (receipt,) = await channel.publish([outgoing(number)], epoch=epoch, acked=acked)
        assert receipt.off == number
        acked = number
    await channel.close()


async def configure(channel: AlertChannel, **settings: Any) -> None:
    for name, value in settings.items():
        try:
            await channel._redis.config_set(name, value)
        except ResponseError as error:
            raise AssertionError(error) from error


async def test_a_burst_is_taken_in_one_piece(channel: AlertChannel) -> None:
    epoch = await begun(channel)
    subscription = channel.subscribe()
    await take(subscription, 1)
    await channel.publish([outgoing(n) for n in range(1, 61)], epoch=epoch, acked=0)
    await take(subscription, 1)
    taken = list(iter(lambda: step_without_waiting(subscription), None))
    assert offs(taken) == list(range(2, 61))
    assert subscription.counters()["filled"] == 0
    await subscription.aclose()


def step_without_waiting(subscription: Subscription) -> Position | Envelope | None:
    """Return what the subscription has at hand, None if it would wait."""
    step = subscription.__anext__()
    if not subscription._ready:
        step.close()
        return None
    with pytest.raises(StopIteration) as returned:
        step.send(None)
    found: Position | Envelope = returned.value.value
    return found
