"""The reader's end of the tick stream over a real server: what every feed promises, and what a server does to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from structlog.testing import capture_logs

from feeds import frame, remote
from feeds.connection import Client, connect
from feeds.errors import FeedError
from feeds.feed import load_feed
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.instruments import Instrument, board_of
from feeds.known import Known
from feeds.remote import RemoteFeed
from feeds.tick import CORE, TickBatch
from feeds.tickstream import UNKNOWN, Kind, Spooled, TickStreamWriter, encode
from monitord.broker import EmbeddedBroker

T0_US = 1_700_000_000_000_000
MISSING = "entries of the tick stream are missing"
Send = Callable[..., Awaitable[None]]


def batch(n: int) -> TickBatch:
    ts = np.array([n * 3000, n * 3000 + 500])
    return TickBatch(("600519.SH", "000001.SZ"), ts, columns={name: np.full(2, float(n)) for name in CORE})


def value(n: int) -> TickBatch | Heartbeat | Mark:
    """Return the n-th input: every third is a heartbeat, every tenth says that the feed is silent or alive."""
    if n % 10 == 0:
        return Mark(MarkKind.SILENT if n % 20 else MarkKind.ALIVE, n * 3000, "x")
    return Heartbeat(n * 3000) if n % 3 == 0 else batch(n)


def offset(n: int) -> int:
    return T0_US + n * 1_000_000


def given(*numbers: int) -> list[FeedInput]:
    return [FeedInput(offset(n), value(n)) for n in numbers]


@pytest.fixture
async def redis(broker: EmbeddedBroker) -> AsyncIterator[Client]:
    client = connect(broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def send(broker: EmbeddedBroker) -> AsyncIterator[Send]:
    """Return what appends the inputs of these numbers, whatever the stream holds."""
    writer = TickStreamWriter(broker.url, bridge="a", keep_s=10_000)

    async def append(*numbers: int) -> None:
        _, head = await writer.append([], spool="s", head=UNKNOWN, now_us=0, after=0)
        inputs = [Spooled(n, offset(n), n * 3000, *encode(value(n))) for n in numbers]
        await writer.append(inputs, spool="s", head=head, now_us=0, after=0)

    yield append
    await writer.close()


@pytest.fixture
async def make(broker: EmbeddedBroker) -> AsyncIterator[Callable[[], RemoteFeed]]:
    made: list[RemoteFeed] = []

    def feed() -> RemoteFeed:
        made.append(load_feed("redis")(url=broker.url))  # type: ignore[arg-type]
        return made[-1]

    yield feed
    for one in made:
        await one.close()


async def take(feed: RemoteFeed, count: int) -> list[FeedInput]:
    taken = []
    async with asyncio.timeout(20):
        async for one in feed:
            taken.append(one)
            if len(taken) == count:
                break
    return taken


async def read(make: Callable[[], RemoteFeed], count: int, *, after: int = -1) -> list[FeedInput]:
    feed = make()
    await feed.open(after=after)
    return await take(feed, count)


async def test_inputs_come_as_they_were_sent_under_growing_offsets(send: Send, make: Callable[[], RemoteFeed]) -> None:
    await send(*range(1, 41))
    assert await read(make, 40) == given(*range(1, 41))


async def test_opened_behind_any_offset_it_goes_on_as_if_never_stopped(
    send: Send, make: Callable[[], RemoteFeed]
) -> None:
    await send(*range(1, 41))
    for n in (1, 2, 17, 39):
        assert await read(make, 40 - n, after=offset(n)) == given(*range(n + 1, 41))
        assert make().source_id == "redis:main"


async def test_what_comes_later_is_waited_for(send: Send, make: Callable[[], RemoteFeed]) -> None:
    feed = make()
    await feed.open()
    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(take(feed, 3))
        await asyncio.sleep(0)
        await send(1, 2)
        await send(3)
    assert taking.result() == given(1, 2, 3)
    assert feed.counters() == {"ticks": 4, "inputs": 3, "gaps": 0, "unreadable": 0, "reconnects": 0}


async def test_a_trimmed_stream_is_a_gap_and_the_same_one_each_time(
    redis: Client, send: Send, make: Callable[[], RemoteFeed]
) -> None:
    await send(*range(1, 21))
    await redis.xtrim("mon:ticks:main", minid=f"{offset(11)}-0", approximate=False)
    expected = [FeedInput(offset(11) - 1, Mark(MarkKind.GAP, 33_000, MISSING)), *given(*range(11, 21))]
    for _ in range(2):
        assert await read(make, 11, after=offset(5)) == expected
    assert await read(make, 10, after=offset(11) - 1) == expected[1:], "stopped behind the mark itself"
    assert await read(make, 10, after=offset(10)) == expected[1:], "10 was the last one taken"
    assert await read(make, 10) == expected[1:], "who begins misses nothing"


async def test_an_emptied_stream_is_a_gap_and_it_goes_on(
    redis: Client, send: Send, make: Callable[[], RemoteFeed]
) -> None:
    await send(1, 2, 3)
    feed = make()
    await feed.open()
    assert await take(feed, 3) == given(1, 2, 3)
    await redis.flushall()
    await send(7, 8)
    assert await take(feed, 3) == [FeedInput(offset(7) - 1, Mark(MarkKind.GAP, 21_000, MISSING)), *given(7, 8)]


async def test_what_the_server_lost_and_got_again_is_no_gap(
    redis: Client, send: Send, make: Callable[[], RemoteFeed]
) -> None:
    await send(*range(1, 6))
    feed = make()
    await feed.open()
    assert await take(feed, 5) == given(*range(1, 6))
    kept = await redis.xrange("mon:ticks:main", count=2)
    await redis.delete("mon:ticks:main")
    for at, fields in kept:
        await redis.xadd("mon:ticks:main", fields, id=at)
    await send(*range(3, 8))
    assert await take(feed, 2) == given(6, 7)


async def test_a_frozen_server_is_noticed_within_two_seconds(
    broker: EmbeddedBroker, send: Send, make: Callable[[], RemoteFeed]
) -> None:
    await send(1)
    feed = make()
    await feed.open()
    assert await take(feed, 1) == given(1)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        async with asyncio.timeout(10):
            while not feed.counters()["reconnects"]:
                await feed._next_entries()
        assert time.monotonic() - began_s < 3.5, "an answer is due after one second, and the socket's time is two"
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    await send(2)
    assert await take(feed, 1) == given(2)


async def test_a_killed_server_loses_nothing_it_kept(
    broker: EmbeddedBroker, send: Send, make: Callable[[], RemoteFeed]
) -> None:
    feed = make()
    await feed.open()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(broker.run())
        taking = tasks.create_task(take(feed, 10))
        await send(*range(1, 6))
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            while True:
                try:
                    await send(*range(6, 11))
                    break
                except FeedError:
                    await asyncio.sleep(0.05)
        assert await taking == given(*range(1, 11))
        watching.cancel()
    assert feed.counters()["gaps"] == 0


async def test_an_entry_that_cannot_be_read_is_a_gap(redis: Client, send: Send, make: Callable[[], RemoteFeed]) -> None:
    await send(1, 2)
    whole = bytearray(frame.encode(batch(3)))
    whole[-20] ^= 1
    fields = {"p": offset(2), "b": "a", "s": "s", "n": 3, "ts": 9500, "k": Kind.TICKS, "v": bytes(whole)}
    await redis.xadd("mon:ticks:main", fields, id=f"{offset(3)}-0")
    await redis.xadd("mon:ticks:main", {**fields, "p": offset(3), "v": frame.encode(batch(4))}, id=f"{offset(4)}-0")
    feed = make()
    await feed.open()
    mark = FeedInput(offset(3), Mark(MarkKind.GAP, 9500, "an entry of the tick stream cannot be read"))
    assert await take(feed, 4) == [*given(1, 2), mark, *given(4)]
    assert (feed.counters()["unreadable"], feed.counters()["gaps"]) == (1, 0)


@pytest.mark.parametrize(
    "garbled",
    [
        {"p": b"x"},
        {"k": b"\xff"},
        {"k": b"mark", "v": b"{"},
        {"k": b"mark", "v": b'["gap",1e300,"x"]'},
        {"k": b"mark", "v": b'[[1],1,"a version"]'},
        {"k": b"version", "v": b""},
        {"v": b"zz", "ts": b"q"},
        {"v": b"zz", "ts": b"9" * 30},
        {"v": b"9" * 30},
        {"v": b"-99999999999999999"},
    ],
)
async def test_whatever_an_entry_holds_it_is_a_gap_and_ends_nothing(garbled: dict[str, bytes]) -> None:
    feed = RemoteFeed(url="redis://127.0.0.1:1/0")
    good = {"p": b"-1", "k": b"heartbeat", "v": b"1700000000000", "ts": b"0"}
    fields = {name.encode(): text for name, text in {**good, **garbled}.items()}
    (taken,) = feed._taken(b"1700000000000000-0", fields)
    assert taken == FeedInput(1700000000000000, Mark(MarkKind.GAP, 0, "an entry of the tick stream cannot be read"))
    assert feed.counters()["unreadable"] == 1


async def test_frames_of_another_release_and_a_stream_of_somebody_elses_end_it(
    redis: Client, make: Callable[[], RemoteFeed]
) -> None:
    newer = bytearray(frame.encode(batch(1)))
    newer[4] += 1
    await redis.xadd("mon:ticks:main", {"p": 0, "k": "ticks", "ts": 0, "v": bytes(newer)}, id="5-0")
    with pytest.raises(FeedError, match=r"version 2.*run the same release on both ends"):
        await read(make, 1)
    await redis.delete("mon:ticks:main")
    await redis.xadd("mon:ticks:main", {"news": "x"})
    with pytest.raises(FeedError, match="no bridge wrote; name another stream"):
        await read(make, 1)


async def test_close_ends_an_iterator_that_waits_and_may_come_before_open_and_twice(
    send: Send, make: Callable[[], RemoteFeed]
) -> None:
    feed = make()
    await feed.close()
    await feed.open()
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(take(feed, 1))
        await asyncio.sleep(0.05)
        await feed.close()
        for _ in range(3):
            await asyncio.sleep(0)
            await feed.close()
        assert await taking == []
    assert time.monotonic() - began_s < 0.9, "it does not wait for the block to end"
    await feed.close()
    await send(1)
    assert [one async for one in feed] == []
    await feed.open()
    assert await take(feed, 1) == given(1), "and it can be opened again"


async def test_a_cancelled_iterator_goes_on_behind_the_last_input(send: Send, make: Callable[[], RemoteFeed]) -> None:
    await send(1, 2)
    feed = make()
    await feed.open()
    assert await take(feed, 2) == given(1, 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await take(feed, 1)
    await send(3)
    assert await take(feed, 1) == given(3)


async def test_before_open_it_is_an_error(make: Callable[[], RemoteFeed]) -> None:
    with pytest.raises(FeedError, match=r"call open\(\) before"):
        await take(make(), 1)


async def test_a_server_that_is_not_there_or_refuses_is_said_at_open(broker: EmbeddedBroker, redis: Client) -> None:
    with pytest.raises(FeedError, match="cannot read the tick stream now"):
        await RemoteFeed(url="redis://127.0.0.1:1/0").open()
    with pytest.raises(FeedError, match="not usable") as refused:
        RemoteFeed(url="nonsense://secret@x")
    assert "secret" not in str(refused.value)
    await redis.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~other", "+@all")
    with pytest.raises(FeedError, match=r"refuses to read the tick stream.*ACL"):
        await RemoteFeed(url=broker.url.replace("unix://", "unix://poor:pw@")).open()


async def test_instruments_are_those_the_bridge_told(broker: EmbeddedBroker, make: Callable[[], RemoteFeed]) -> None:
    feed = make()
    await feed.open()
    assert await feed.instruments() == ()
    maotai = Instrument(symbol="600519.SH", board=board_of("600519.SH"), name="贵州茅台")
    writer = TickStreamWriter(broker.url, bridge="a")
    told = Known(20250102, (maotai,), (20241231, 20250102))
    await writer.put_reference(encode(told)[1])
    assert list(await feed.instruments()) == [maotai]
    assert await feed.reference() == told
    await writer.put_reference(b"of another release")
    with capture_logs() as logs:
        assert await feed.reference() == Known()
    assert [line["event"] for line in logs] == ["remote_reference_unknown"]
    await writer.close()


async def test_what_is_told_later_comes_at_its_place(broker: EmbeddedBroker, make: Callable[[], RemoteFeed]) -> None:
    writer = TickStreamWriter(broker.url, bridge="a", keep_s=10_000)
    told = Known(20250102, (Instrument(symbol="600519.SH", board=board_of("600519.SH"), name="贵州茅台"),))
    values = [batch(1), told, batch(3)]
    _, head = await writer.append([], spool="s", head=UNKNOWN, now_us=0, after=0)
    inputs = [Spooled(n, offset(n), n * 3000, *encode(one)) for n, one in enumerate(values, 1)]
    await writer.append(inputs, spool="s", head=head, now_us=0, after=0)
    await writer.close()
    heard = FeedInput(offset(2), Heartbeat(6000), told)
    assert await read(make, 3) == [FeedInput(offset(1), batch(1)), heard, FeedInput(offset(3), batch(3))]
    assert await read(make, 2, after=offset(1)) == [heard, FeedInput(offset(3), batch(3))]


async def test_a_silent_stream_is_worth_one_word(
    make: Callable[[], RemoteFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "QUIET_S", 0.15)
    monkeypatch.setattr(remote, "BLOCK_MS", 50)
    feed = make()
    await feed.open()
    with capture_logs() as logs:
        for _ in range(12):
            assert await feed._next_entries() == ()
    assert [line["event"] for line in logs].count("tick_stream_silent") == 1
    said = feed.complaint()
    assert said is not None
    assert said.startswith("the tick stream mon:ticks:main has said nothing for")
    feed._note_quiet(quiet=False)
    assert feed.complaint() is None


async def test_a_bridge_whose_clock_is_behind_on_an_emptied_server_is_told_of(
    redis: Client, send: Send, make: Callable[[], RemoteFeed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "QUIET_S", 0.15)
    monkeypatch.setattr(remote, "BLOCK_MS", 50)
    await send(1, 2, 300)
    feed = make()
    await feed.open()
    await take(feed, 3)
    await redis.flushall()
    await send(3, 4)
    with capture_logs() as logs:
        for _ in range(12):
            assert await feed._next_entries() == ()
    assert [(line["event"], line["behind_s"]) for line in logs] == [("tick_stream_behind", 296.0)]
    await send(301)
    assert await take(feed, 2) == [FeedInput(offset(301) - 1, Mark(MarkKind.GAP, 903_000, MISSING)), *given(301)]


def test_it_is_read_where_the_broker_is_unless_told_otherwise() -> None:
    """The daemon's own broker is the natural place for a bridge to write to."""
    program = (
        "from config.settings import Settings\n"
        "from monitord.choice import build_feed\n"
        "feed = build_feed(Settings(feed={'name': 'redis'}), broker_url='redis://here:1/0')\n"
        "print(feed._client.connection_pool.connection_kwargs['host'])\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "here"


def test_without_any_address_it_says_which_settings_to_give() -> None:
    from config.settings import Settings
    from monitord.choice import build_feed

    with pytest.raises(FeedError, match=r"feed\.redis\.url is not set, and neither is broker\.url"):
        build_feed(Settings(feed={"name": "redis"}))  # type: ignore[arg-type]
