"""The spool: what a bridge took in survives it, in order, within its bounds, and what had to go is told."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.spool import _SCHEMA, READ_BYTES, READ_ROWS, Spool
from feeds.tickstream import Kind, Spooled, decode

KEEP_S = 600


class Clock:
    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Clock, *, source: str = "xt", max_bytes: int = 1 << 20) -> Spool:
    return Spool(folder, source=source, max_bytes=max_bytes, keep_s=KEEP_S, now_us=clock)


def fill(spool: Spool, count: int, *, size: int = 10, clock: Clock | None = None, step_us: int = 1_000_000) -> None:
    for _ in range(count):
        if clock is not None:
            clock.us += step_us
        number = spool.newest + 1
        spool.append(Kind.TICKS, b"%d" % number * (size // len(b"%d" % number)), ts_ms=number * 1000, ticks=5)


def numbers(inputs: list[Spooled]) -> list[int]:
    return [one.number for one in inputs]


def test_inputs_come_back_in_order_with_growing_stamps(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 3)
    spool.append(Kind.HEARTBEAT, b"7", ts_ms=None)
    first, _, third, beat = spool.read(after=0)
    assert first == Spooled(1, clock.us, 1000, Kind.TICKS, b"1" * 10)
    assert (beat.kind, beat.value, beat.ts_ms) == (Kind.HEARTBEAT, b"7", third.ts_ms)
    assert [one.stamp - clock.us for one in spool.read(after=0)] == [0, 2, 4, 6], "a clock that stands still"
    clock.us -= 3_600_000_000
    fill(spool, 1)
    assert spool.read(after=4)[0].stamp == beat.stamp + 2, "a clock that goes back"


def test_a_read_is_bounded_by_rows_and_bytes_and_never_empty_before_the_end(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock, max_bytes=64 << 20)
    fill(spool, READ_ROWS + 5)
    assert numbers(spool.read(after=0)) == list(range(1, READ_ROWS + 1))
    fill(spool, 3, size=READ_BYTES * 2 // 3)
    big = spool.newest
    assert numbers(spool.read(after=big - 3)) == [big - 2]
    spool.append(Kind.TICKS, bytes(READ_BYTES * 2), ts_ms=1, ticks=1)
    assert numbers(spool.read(after=big)) == [big + 1]
    assert spool.read(after=big + 1) == []


def test_it_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 5)
    spool.append(Kind.TICKS, b"x", ts_ms=77_000, ticks=1, feed_offset=41)
    spool.mark_sent(4)
    kept, name = spool.read(after=0), spool.id
    spool.close()
    again = opened(tmp_path, clock)
    assert (again.id, again.feed_offset, again.ts_ms, again.newest, again.waiting) == (name, 41, 77_000, 6, 2)
    assert again.read(after=0) == kept
    fill(again, 1)
    assert again.read(after=6)[0].stamp > kept[-1].stamp
    again.close()
    other = opened(tmp_path, clock, source="replay")
    assert (other.feed_offset, other.newest) == (-1, 7), "another feed's offset means nothing to this one"


def test_what_was_sent_stays_as_long_as_the_stream_keeps_it(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 1000, clock=clock)
    spool.mark_sent(900)
    fill(spool, 1, clock=clock)
    assert numbers(spool.read(after=0))[1] == 1001 - KEEP_S
    assert spool.dropped_inputs == 0
    spool.close()


def test_a_clock_that_went_ahead_and_back_lets_nothing_grow_without_bound(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feeds.spool.KEEP_ENTRIES", 50)
    spool = opened(tmp_path, clock)
    clock.us += 86_400_000_000
    fill(spool, 1)
    clock.us -= 86_400_000_000
    with capture_logs() as logs:
        for _ in range(200):
            fill(spool, 1, clock=clock)
            spool.mark_sent(spool.newest)
    assert [(line["event"], line["ahead_s"]) for line in logs] == [("spool_ahead_of_clock", 86_399)], "once"
    assert spool.before_oldest() == 201 - 50
    assert spool.dropped_inputs == 0


def test_inputs_that_wait_are_kept_however_old(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 10, clock=clock, step_us=3_600_000_000)
    assert numbers(spool.read(after=0)) == list(range(1, 11))


def test_the_oldest_that_wait_are_dropped_counted_and_marked(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock, max_bytes=1000)
    fill(spool, 20, size=100, clock=clock)
    assert (spool.dropped_inputs, spool.dropped_ticks) == (10, 50)
    hole, *rest = spool.read(after=0)
    assert numbers(rest) == list(range(11, 21))
    assert (hole.number, hole.kind) == (10, Kind.MARK)
    assert hole.stamp < rest[0].stamp
    mark = decode(hole.kind, hole.value)
    assert isinstance(mark, Mark)
    assert (mark.kind, mark.reason) == (MarkKind.GAP, "10 inputs were dropped from the bridge's spool")
    assert spool.read(after=10) == rest, "the mark was sent"
    spool.close()
    again = opened(tmp_path, clock, max_bytes=1000)
    assert (again.dropped_inputs, again.dropped_ticks) == (10, 50)


def test_what_is_under_way_is_not_dropped_and_what_was_sent_goes_first(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock, max_bytes=1000)
    fill(spool, 10, size=100, clock=clock)
    spool.mark_sent(3)
    assert numbers(spool.read(after=3)) == [4, 5, 6, 7, 8, 9, 10]
    fill(spool, 3, size=100, clock=clock)
    assert spool.dropped_inputs == 0
    fill(spool, 3, size=100, clock=clock)
    assert spool.dropped_inputs == 3, "11 to 13: 4 to 10 may be in the server's hands already"
    spool.mark_sent(10)
    assert numbers(spool.read(after=10)) == [13, 14, 15, 16]
    assert spool.read(after=10)[0].kind is Kind.MARK


def test_a_hole_behind_what_is_under_way_is_marked_where_it_is(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock, max_bytes=1000)
    fill(spool, 4, size=100, clock=clock)
    spool.read(after=0)
    fill(spool, 10, size=100, clock=clock)
    assert [(one.number, one.kind is Kind.MARK) for one in spool.read(after=0)] == [
        *((number, False) for number in (1, 2, 3, 4)), (8, True), *((number, False) for number in range(9, 15)),
    ]  # fmt: skip


def test_a_take_over_begins_behind_a_time_of_the_exchange(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    assert spool.behind(0) == 0
    fill(spool, 5)
    assert [spool.behind(ts_ms) for ts_ms in (0, 999, 1000, 3500, 5000, 9000)] == [0, 0, 1, 3, 5, 5]


def test_the_last_minutes_of_a_spare(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 10, clock=clock)
    assert (spool.before(4.5), spool.before(100)) == (5, 0)


def test_numbers_the_disk_lost_are_known_to_be_lost(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 5)
    assert spool.knows(0)
    spool.read(after=0)
    assert spool.knows(5), "sent by this very process"
    spool.close()
    again = opened(tmp_path, clock)
    fill(again, 5)
    assert (again.knows(5), again.knows(6)) == (True, False), "6 was never sent, so another one has that number"
    before = again.id
    again.renew()
    assert (again.id != before, again.waiting) == (True, 10)


def test_a_second_bridge_on_the_same_folder_is_refused(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    program = (
        "import sys; from pathlib import Path; from feeds.spool import Spool\n"
        f"Spool(Path({str(tmp_path)!r}), source='xt')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "used by another bridge; give each a folder of its own" in found.stderr
    spool.close()
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"no database at all, but long enough to have a header " * 40)
    with pytest.raises(FeedError, match=r"spool\.sqlite.*move the file away"):
        opened(tmp_path, clock)


def test_a_file_of_another_release_is_said_to_be_one(tmp_path: Path, clock: Clock) -> None:
    opened(tmp_path, clock).close()
    with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as newer:
        newer.execute("PRAGMA user_version = 2")
    with pytest.raises(FeedError, match="has version 2, this program reads 1"):
        opened(tmp_path, clock)


def test_a_disk_that_refuses_appends_nothing_and_the_next_try_may_succeed(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 3)
    spool._db.execute("PRAGMA max_page_count = 20").fetchall()
    with pytest.raises(FeedError, match=r"full.*check the disk's space"):
        spool.append(Kind.TICKS, bytes(1 << 20), ts_ms=9, ticks=1)
    assert (spool.newest, spool.ts_ms) == (3, 3000)
    spool._db.execute("PRAGMA max_page_count = 100000").fetchall()
    fill(spool, 1)
    assert numbers(spool.read(after=0)) == [1, 2, 3, 4]


def test_where_deleting_is_refused_nothing_is_appended(tmp_path: Path, clock: Clock) -> None:
    spool = opened(tmp_path, clock)
    fill(spool, 1, clock=clock)
    spool.mark_sent(1)
    clock.us += 3_600_000_000
    spool._db.execute("CREATE TRIGGER refuse BEFORE DELETE ON inputs BEGIN SELECT RAISE(FAIL, 'disk'); END")
    with pytest.raises(FeedError, match="disk"):
        fill(spool, 1)
    assert spool.newest == 1
    spool._db.execute("DROP TRIGGER refuse")
    fill(spool, 1)
    assert numbers(spool.read(after=1)) == [2]


def test_killed_within_its_first_start_it_starts_again(tmp_path: Path, clock: Clock) -> None:
    """Whatever statement of the schema was the last one."""
    for count in range(1, len(statements := _SCHEMA.split(";\n")[:-1])):
        folder = tmp_path / str(count)
        folder.mkdir()
        killed = sqlite3.connect(folder / "spool.sqlite", isolation_level=None)
        killed.execute("PRAGMA journal_mode = WAL").fetchall()
        killed.executescript(";\n".join(statements[:count]) + ";")
        killed.close()
        spool = opened(folder, clock)
        fill(spool, 1)
        assert numbers(spool.read(after=0)) == [1]
        spool.close()


@pytest.mark.acceptance
def test_killed_at_any_moment_it_holds_a_prefix_of_what_it_was_given(tmp_path: Path, clock: Clock) -> None:
    program = (
        "import sys, time; from pathlib import Path; from feeds.spool import Spool; from feeds.tickstream import Kind\n"
        f"spool = Spool(Path({str(tmp_path)!r}), source='xt', max_bytes=1 << 30)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    n = spool.newest\n"
        "    spool.append(Kind.HEARTBEAT, b'%d' % (n + 1), ts_ms=n + 1, feed_offset=n)\n"
        "    sys.stdout.write(f'{spool.newest}\\n'); sys.stdout.flush()\n"
    )
    chance = random.Random(5)
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(chance.randrange(20, 200)):
            told = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate()
        told = max([told, *map(int, rest.split("\n")[:-1])])
        spool = opened(tmp_path, clock)
        assert told <= spool.newest <= told + 1, "what was told to be kept is kept"
        assert spool.feed_offset == spool.newest - 1
        got: list[Spooled] = []
        while more := spool.read(after=len(got)):
            got += more
        assert [decode(one.kind, one.value) for one in got] == [Heartbeat(n) for n in range(1, spool.newest + 1)]
        spool.close()
