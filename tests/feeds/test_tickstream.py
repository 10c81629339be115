"""The writer's end of the tick stream over a real server: each input once, one bridge at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from feeds.connection import Client, connect
from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.instruments import instrument_of
from feeds.known import Known, pack
from feeds.tick import BOOK, CORE, TickBatch
from feeds.tickstream import (
    KEEP_S,
    UNKNOWN,
    Head,
    Kind,
    Outcome,
    Spooled,
    StreamDown,
    StreamRefused,
    TickStreamWriter,
    decode,
    encode,
    newest_ts_ms,
)
from monitord.broker import EmbeddedBroker

T0_US = 1_700_000_000_000_000
ENTRY = tuple[int, dict[bytes, bytes]]


def spooled(number: int, *, ts_ms: int | None = None) -> Spooled:
    ts_ms = number * 1000 if ts_ms is None else ts_ms
    return Spooled(number, T0_US + number * 1_000_000, ts_ms, Kind.HEARTBEAT, b"%d" % ts_ms)


@pytest.fixture
async def redis(broker: EmbeddedBroker) -> AsyncIterator[Client]:
    client = connect(broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def write(broker: EmbeddedBroker) -> AsyncIterator[Callable[..., Writing]]:
    made: list[TickStreamWriter] = []

    def make(bridge: str = "a", *, spool: str = "s1", timeout_s: float = 2.0, keep_s: float = KEEP_S) -> Writing:
        made.append(TickStreamWriter(broker.url, bridge=bridge, timeout_s=timeout_s, keep_s=keep_s))
        return Writing(made[-1], spool)

    yield make
    for writer in made:
        await writer.close()


class Writing:
    """A bridge that knows what it sent and where the stream is, as monitord/bridge.py does."""

    def __init__(self, writer: TickStreamWriter, spool: str) -> None:
        self.writer, self.spool, self.head = writer, spool, UNKNOWN

    async def look(self) -> Outcome:
        return await self.append()

    async def append(self, *inputs: Spooled, after: int = 0) -> Outcome:
        outcome, self.head = await self.writer.append(
            inputs, spool=self.spool, head=self.head, now_us=T0_US, after=after
        )
        return outcome

    async def beat(self, *, ttl_s: int = 30, feed: str = "alive") -> float | None:
        return await self.writer.beat({"feed": feed}, spool=self.spool, ttl_s=ttl_s)


async def entries(redis: Client) -> list[ENTRY]:
    return [(int(at.partition(b"-")[0]), fields) for at, fields in await redis.xrange("mon:ticks:main")]


async def numbers(redis: Client) -> list[tuple[str, int]]:
    return [(fields[b"b"].decode(), int(fields[b"n"])) for _, fields in await entries(redis)]


async def test_an_entry_is_what_the_documents_say(redis: Client, write: Callable[..., Writing]) -> None:
    a = write()
    assert await a.look() is Outcome.MOVED
    assert a.head == Head(0, "", "", 0, 0)
    assert await a.append(spooled(1), spooled(2)) is Outcome.OK
    assert await entries(redis) == [
        (T0_US + n * 1_000_000, {
            b"p": b"%d" % before, b"b": b"a", b"s": b"s1", b"n": b"%d" % n, b"ts": b"%d" % (n * 1000),
            b"k": b"heartbeat", b"v": b"%d" % (n * 1000),
        })
        for n, before in ((1, 0), (2, T0_US + 1_000_000))
    ]  # fmt: skip
    assert a.head == Head(T0_US + 2_000_000, "a", "s1", 2, 2000)


async def test_ids_grow_by_two_at_least_whatever_the_clock_does(redis: Client, write: Callable[..., Writing]) -> None:
    a = write()
    await a.look()
    late = [spooled(n)._replace(stamp=T0_US - n * 1_000_000) for n in range(2, 5)]
    await a.append(spooled(1), *late)
    assert [at - T0_US for at, _ in await entries(redis)] == [1_000_000, 1_000_002, 1_000_004, 1_000_006]


async def test_an_append_whose_answer_never_came_is_not_done_twice(
    redis: Client, broker: EmbeddedBroker, write: Callable[..., Writing]
) -> None:
    """Plain XADD left 25 duplicates in 25 stalls: the command waits in the socket of a frozen server."""
    a = write(timeout_s=0.05)
    await a.look()
    sent = 0
    for _ in range(25):
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        batch = [spooled(sent + n) for n in (1, 2, 3)]
        try:
            with pytest.raises(StreamDown, match="append to the tick stream"):
                await a.append(*batch)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        for _ in range(100):
            try:
                outcome = await a.append(*[one for one in batch if one.number > a.head.number])
                break
            except StreamDown:  # it has not woken up yet
                continue
        if outcome is Outcome.MOVED and a.head.number < sent + 3:  # thawed between our two calls
            await a.append(*[one for one in batch if one.number > a.head.number])
        sent += 3
    assert await numbers(redis) == [("a", n) for n in range(1, 76)]


async def test_what_the_server_lost_gets_the_ids_it_had(redis: Client, write: Callable[..., Writing]) -> None:
    a = write()
    await a.look()
    await a.append(*(spooled(n)._replace(stamp=T0_US) for n in range(1, 7)))
    whole = await entries(redis)
    await redis.delete("mon:ticks:main")
    for at, fields in whole[:3]:
        await redis.xadd("mon:ticks:main", fields, id=f"{at}-0")
    assert await a.append(spooled(7)) is Outcome.MOVED
    assert a.head.number == 3
    await a.append(*(spooled(n)._replace(stamp=T0_US) for n in range(4, 7)))
    assert await entries(redis) == whole


async def test_entries_deleted_by_hand_stop_nothing(redis: Client, write: Callable[..., Writing]) -> None:
    a = write()
    await a.look()
    await a.append(*(spooled(n)._replace(stamp=T0_US) for n in range(1, 7)))
    await redis.xtrim("mon:ticks:main", maxlen=0)
    assert await a.append(spooled(7)) is Outcome.MOVED
    assert a.head.id == 0
    assert await a.append(spooled(7)._replace(stamp=T0_US)) is Outcome.OK
    assert [at - T0_US for at, _ in await entries(redis)] == [12]


async def test_it_is_trimmed_to_its_time(redis: Client, write: Callable[..., Writing]) -> None:
    a = write(keep_s=100)
    await a.look()
    big = [spooled(n)._replace(value=bytes(5000)) for n in range(1, 301)]
    for at in range(0, 300, 50):
        await a.append(*big[at : at + 50])
    assert await numbers(redis) == [("a", n) for n in range(200, 301)]


async def test_a_clock_that_went_ahead_and_back_lets_it_not_grow_without_bound(
    redis: Client, write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feeds.tickstream.KEEP_ENTRIES", 200)
    a = write(keep_s=100)
    await a.look()
    day_us = 86_400_000_000
    await a.append(spooled(1)._replace(stamp=T0_US + day_us))
    late = [spooled(n)._replace(stamp=T0_US + day_us + 2 * n, value=bytes(500)) for n in range(2, 1002)]
    for at in range(0, 1000, 50):
        await a.append(*late[at : at + 50])
    kept = await numbers(redis)
    assert 200 <= len(kept) <= 300, "whole nodes of the stream go"
    assert kept[-1] == ("a", 1001)


async def test_a_spare_waits_for_the_holders_heart_and_takes_over_behind_a_mark(
    redis: Client, write: Callable[..., Writing]
) -> None:
    a, b = write("a"), write("b", spool="s2")
    await a.beat()
    await a.look()
    await a.append(spooled(1), spooled(2))
    assert [await b.look(), await b.look(), await b.append(spooled(9))] == [Outcome.MOVED, *[Outcome.HELD] * 2]
    await redis.delete("mon:bridge:a")
    assert await b.append(spooled(41), spooled(42), after=40) is Outcome.OK
    assert await numbers(redis) == [("a", 1), ("a", 2), ("b", 40), ("b", 41), ("b", 42)]
    mark = (await entries(redis))[2][1]
    assert decode(mark[b"k"].decode(), mark[b"v"]) == Mark(MarkKind.GAP, 2000, "bridge b took over from a")
    assert mark[b"ts"] == b"2000"


async def test_a_zombie_writes_nothing_more(redis: Client, write: Callable[..., Writing]) -> None:
    a, b = write("a"), write("b", spool="s2")
    await a.look()
    await a.append(spooled(1))
    await b.look()
    await b.beat()
    assert await b.append() is Outcome.OK
    assert [await a.append(spooled(2)), await a.append(spooled(2))] == [Outcome.MOVED, Outcome.HELD]
    assert await numbers(redis) == [("a", 1), ("b", 0)]


async def test_of_two_spares_one_takes_over(redis: Client, write: Callable[..., Writing]) -> None:
    a, b, c = write("a"), write("b", spool="s2"), write("c", spool="s3")
    await a.look()
    await a.append(spooled(1))
    for one in (b, c):
        await one.beat()
        await one.look()
    assert {await b.append(), await c.append()} == {Outcome.OK, Outcome.MOVED}
    assert await c.append() is Outcome.HELD


async def test_a_holder_whose_feed_is_silent_is_taken_over_from(write: Callable[..., Writing]) -> None:
    a, b = write("a"), write("b", spool="s2")
    await a.beat(feed="silent")
    await a.look()
    await a.append(spooled(1))
    await b.look()
    assert await b.append() is Outcome.OK


async def test_a_lost_spool_is_another_bridge_until_its_heart_has_stopped(
    redis: Client, write: Callable[..., Writing]
) -> None:
    a, again = write("a"), write("a", spool="s2")
    await a.beat()
    await a.look()
    await a.append(spooled(1))
    await again.look()
    assert await again.append(spooled(1)) is Outcome.HELD
    assert await again.beat() is None, "two bridges of one name"
    assert await a.beat(ttl_s=0) is not None
    assert await again.beat() is not None
    assert await again.append(spooled(1)) is Outcome.OK
    assert await numbers(redis) == [("a", 1), ("a", 0), ("a", 1)]


async def test_a_heartbeat_lives_thirty_seconds_and_tells_the_servers_time(
    redis: Client, write: Callable[..., Writing]
) -> None:
    a = write()
    told = await a.writer.beat({"last_tick": 7, "dropped": 3}, spool="s1")
    seconds, _ = await redis.time()
    assert told == pytest.approx(seconds, abs=2)
    assert await redis.hgetall("mon:bridge:a") == {b"spool": b"s1", b"last_tick": b"7", b"dropped": b"3"}
    assert 28 <= await redis.ttl("mon:bridge:a") <= 30


async def test_a_refused_login_or_command_is_told_from_a_server_that_is_away(
    redis: Client, broker: EmbeddedBroker
) -> None:
    await redis.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~*", "-@all", "+eval")
    cases = {
        "poor:pw": (StreamRefused, "no permissions|no permission|can't run"),
        "poor:wrong": (StreamRefused, "login|append"),
    }
    for login, (error, text) in cases.items():
        writer = TickStreamWriter(broker.url.replace("unix://", f"unix://{login}@"), bridge="a")
        with pytest.raises(error, match=text):
            await writer.append([], spool="s", head=UNKNOWN, now_us=0, after=0)
        await writer.close()
    away = TickStreamWriter("redis://127.0.0.1:1/0", bridge="a", timeout_s=0.5)
    with pytest.raises(StreamDown):
        await away.append([], spool="s", head=UNKNOWN, now_us=0, after=0)


@pytest.mark.parametrize(
    "url",
    ["http://:secret@host", "redis://:secret@host:no/0", "rediss://:secret@host/0?ssl_ca_cert=C:/ca.crt"],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(FeedError, match="address of Redis is not usable") as refused:
        TickStreamWriter(url, bridge="a")
    assert "secret" not in str(refused.value)


def batch() -> TickBatch:
    ts = np.array([3000, 9_999_999_999_999, 5000])
    columns = {name: np.arange(3.0) for name in (*CORE, *BOOK)}
    return TickBatch(("a", "b", "c"), ts, columns=columns, recv_ms=np.full(3, 5001))


def test_every_input_comes_back_as_it_was() -> None:
    known = Known(20250102, (instrument_of("600519.SH", name="贵州茅台", sectors=("白酒",)),), (20241231, 20250102))
    for value in (batch(), Heartbeat(5), Mark(MarkKind.SILENT, 7, "真的"), known):
        assert decode(*encode(value)) == value


def test_a_tick_from_the_future_says_nothing_about_the_time() -> None:
    assert newest_ts_ms(batch()) == 5000
    assert newest_ts_ms(batch().take(slice(1, 2))) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("heartbeat", b"x"),
        ("mark", b"[1]"),
        ("mark", b'["gone",1,""]'),
        ("ticks", b"junk"),
        ("news", b""),
        ("reference", b"junk"),
        ("reference", pack(Known())[:-3]),
        ("reference", zlib.compress(b"[1]")),
        ("reference", zlib.compress(b'{"date": 1, "trading_dates": [], "table": "[1]"}')),
    ],
)
def test_what_is_no_input_is_refused(kind: str, value: bytes) -> None:
    with pytest.raises(FeedError):
        decode(kind, value)


async def test_a_cancelled_append_leaves_no_half_read_reply_behind(
    redis: Client, broker: EmbeddedBroker, write: Callable[..., Writing]
) -> None:
    a = write()
    await a.look()
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await a.append(spooled(1))
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert await a.beat() is not None
    await a.append(spooled(1))
    await a.append(*[spooled(n) for n in (1, 2) if n > a.head.number])
    assert await numbers(redis) == [("a", 1), ("a", 2)]
