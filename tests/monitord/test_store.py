"""The store: one transaction for events and offset, one process per file, no event twice, none lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitord import store as store_module
from monitord.errors import StoreError
from monitord.schema import MIGRATIONS
from monitord.store import Batch, EpisodeCounter, HistoryFilter, Store
from notifiers.retry import HEALTHY
from rules.alert import Alert, Event

DAY_MS = 24 * 3_600_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def alert(number: int, **fields: object) -> Alert:
    made: dict[str, object] = {
        "id": f"al_{number}", "episode_id": f"ep_{number}", "event": Event.FIRE, "rule": "brk", "rev": "r1",
        "symbol": "600519.SH", "trade_date": "2023-02-01", "episode": number, "ts_event_ms": 1000 * number,
        "period": "tick", "message": "突破",
    }  # fmt: skip
    return Alert(**{**made, **fields})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state" / "monitord.db", clock_ms=clock)
    yield opened
    await opened.close()


async def test_events_and_offset_are_there_after_opening_again(store: Store) -> None:
    alerts = [alert(n) for n in (3, 1, 2)]
    records = [one.to_json(evaluated_ms=5) for one in alerts]
    assert await store.commit(alerts, offset=41, records=records) == 3
    await store.close()
    again = await Store.open(store.path)
    assert await again.offset() == 41
    assert again.lag_rows == 3
    assert again.committed.is_set()
    rows = await again.pending(limit=10)
    assert [(row.id, row.record) for row in rows] == list(zip([one.id for one in alerts], records, strict=True))
    assert [(row.symbol, row.rule, row.severity) for row in rows] == [("600519.SH", "brk", "info")] * 3
    await again.close()


async def test_a_repeated_id_is_a_duplicate_and_keeps_the_first_record(store: Store) -> None:
    await store.commit([alert(1)], offset=1)
    assert await store.commit([alert(1, message="other"), alert(2), alert(2)], offset=2) == 1
    assert store.duplicates == 2
    assert store.lag_rows == 2
    assert (await store.alert("al_1")).record == alert(1).to_json()


async def test_the_offset_never_goes_back_and_is_kept_per_source(store: Store) -> None:
    assert await store.offset() == -1
    await store.commit([], offset=9)
    await store.commit([], offset=4)
    await store.commit([], offset=2, source_id="replay")
    assert (await store.offset(), await store.offset(source_id="replay")) == (9, 2)
    assert not store.committed.is_set()


async def test_closed_by_two_at_the_same_time_it_is_closed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    close = os.close

    def noted(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)  # a second time it may be somebody else's by now

    monkeypatch.setattr("monitord.database.os.close", noted)
    await asyncio.gather(store.close(), store.close())
    await store.close()
    assert len(closed) == 1
    again = await Store.open(store.path)
    assert await again.offset() == -1
    await again.close()


async def test_a_commit_that_fails_leaves_neither_events_nor_offset(store: Store) -> None:
    await store.commit([alert(1)], offset=1)
    await store.file.run(
        lambda db: db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    )
    with pytest.raises(StoreError, match="database or disk is full; check the disk's space"):
        await store.commit([alert(n, message="x" * 3000) for n in range(2, 30)], offset=2)
    assert (await store.offset(), store.lag_rows) == (1, 1)
    await store.file.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
    assert await store.commit([alert(2)], offset=2) == 1
    assert [row.id for row in await store.pending(limit=9)] == ["al_1", "al_2"]


async def test_a_batch_is_told_of_while_it_is_committed_and_is_the_very_one_that_comes_next(store: Store) -> None:
    staged: list[tuple[Batch, bool]] = []
    store.on_staged = lambda batch: staged.append((batch, store.committed.is_set()))
    await store.commit([alert(1), alert(2)], offset=1)
    ((batch, was_told),) = staged
    assert [row.id for row in batch.rows] == ["al_1", "al_2"]
    assert not was_told
    assert await store.batch(limit=2) is batch


async def test_what_comes_behind_a_full_outbox_or_brings_nothing_new_is_not_told_of_beforehand(store: Store) -> None:
    staged: list[Batch] = []
    await store.commit([alert(1)], offset=1)
    store.on_staged = staged.append
    await store.commit([alert(2)], offset=2)  # al_1 still waits
    batch = await store.batch(limit=9)
    await store.mark_sent([(row.seq, off) for off, row in enumerate(batch.rows, 1)], epoch="")
    await store.commit([alert(2)], offset=3)
    await store.commit([alert(2), alert(3)], offset=4)
    await store.commit([], offset=5)
    assert staged == []


async def test_a_commit_outlives_the_loop_it_was_to_be_told_on(store: Store) -> None:
    gone = asyncio.new_event_loop()
    gone.close()
    given = [alert(1)]
    await store.file.run(lambda db: store._commit(db, given, None, 1, "", loop=gone))
    assert [row.id for row in await store.pending(limit=9)] == ["al_1"]


@pytest.mark.parametrize("before", [0, 1])
async def test_a_batch_right_after_a_commit_is_what_the_file_holds(store: Store, before: int) -> None:
    """With nothing waiting it is made of what was committed, else it is read."""
    await store.begin_epoch("e1", base=5)
    await store.commit([alert(n) for n in range(before)], offset=1)
    if before:
        await store.batch(limit=9)
    await store.commit([alert(n) for n in range(10, 14)], offset=2)
    handed_on = await store.batch(limit=9)
    assert handed_on == await store.batch(limit=9)
    assert [row.id for row in handed_on.rows] == [
        *(f"al_{n}" for n in range(before)),
        *(f"al_{n}" for n in range(10, 14)),
    ]
    assert (handed_on.epoch, handed_on.acked) == ("e1", 5)


async def test_a_cancelled_commit_is_counted_and_tells_the_pump_all_the_same(store: Store) -> None:
    """Race: the transaction runs on when the task that waits for it is cancelled."""
    committing = asyncio.create_task(store.commit([alert(1)], offset=1))
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    await asyncio.wait_for(store.committed.wait(), 10)
    assert (store.lag_rows, await store.offset(), len(await store.pending(limit=9))) == (1, 1, 1)


async def test_what_a_cancelled_call_has_done_to_the_outbox_is_counted(store: Store) -> None:
    """Race: the pump or a receiver's task is cancelled while its transaction runs on."""
    await store.begin_epoch("e1", base=0)
    await store.commit([alert(n) for n in range(4)], offset=1)
    first, second, *_ = await store.pending(limit=9)
    calls: list[tuple[Coroutine[Any, Any, Any], int]] = [
        (store.mark_sent([(first.seq, 1), (second.seq, 2)], epoch="e1"), 2),
        (store.tell(alert(5)), 3),
        (store.deliveries.set_receiver_state("hook", HEALTHY, alarm=alert(6)), 4),
        (store.begin_epoch("e2", base=2), 6),
    ]
    for call, left in calls:
        cancelled = asyncio.create_task(call)
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        rows = await store.pending(limit=9)  # behind it on the store's thread
        assert (store.lag_rows, len(rows)) == (left, left)


async def test_sent_rows_leave_the_outbox_and_raise_what_is_acknowledged(store: Store) -> None:
    await store.begin_epoch("e1", base=0)
    await store.commit([alert(n) for n in range(4)], offset=1)
    rows = await store.pending(limit=3)
    await store.mark_sent([(rows[0].seq, 1), (rows[2].seq, 2)], epoch="e1")
    assert [row.id for row in await store.pending(limit=9)] == ["al_1", "al_3"]
    assert await store.acked() == ("e1", 2)
    assert store.lag_rows == 2
    await store.mark_sent([(rows[0].seq, 1)], epoch="e1")
    assert store.lag_rows == 2
    stored = await store.alert("al_2")
    assert (stored.epoch, stored.off) == ("e1", 2)


async def test_a_new_epoch_puts_the_last_24_hours_back_in_store_order(store: Store, clock: Clock) -> None:
    await store.commit([alert(1)], offset=1)
    await store.mark_sent([(1, 1)], epoch="e1")
    clock.now_ms += DAY_MS + 1
    await store.commit([alert(2), alert(3)], offset=2)
    await store.mark_sent([(2, 2)], epoch="e1")
    assert await store.begin_epoch("e2", base=7) == 2
    assert [row.id for row in await store.pending(limit=9)] == ["al_2", "al_3"]
    assert await store.acked() == ("e2", 7)
    await store.mark_sent([(2, 8)], epoch="e1")
    assert await store.acked() == ("e2", 7)  # a late answer of the old epoch acknowledges nothing in the new one


async def test_pruning_spares_the_outbox_and_what_a_redrive_needs(store: Store, clock: Clock) -> None:
    await store.commit([alert(1), alert(2), alert(3)], offset=1)
    await store.mark_sent([(1, 1)], epoch="e1")
    clock.now_ms += DAY_MS + 1
    await store.mark_sent([(2, 2)], epoch="e1")
    assert await store.prune(before_ms=clock.now_ms + 5) == (1, 0)
    assert [row.id for row in (await store.history(HistoryFilter())).rows] == ["al_3", "al_2"]


async def test_history_filters_and_pages_newest_first(store: Store) -> None:
    await store.commit([alert(n) for n in range(10)], offset=1)
    odd = [
        alert(10, rule="other"), alert(11, symbol="000001.SZ"), alert(12, severity="page"),
        alert(13, event=Event.RESOLVE), alert(14, trade_date="2023-02-02"),
    ]  # fmt: skip
    await store.commit(odd, offset=2)

    async def ids(page: int = 1, page_size: int = 100, **wanted: object) -> tuple[list[str], int]:
        got = await store.history(HistoryFilter(**wanted), page=page, page_size=page_size)
        return [row.id.removeprefix("al_") for row in got.rows], got.total

    assert await ids(rule="other") == (["10"], 1)
    assert await ids(symbol="000001.SZ") == (["11"], 1)
    assert await ids(severity="page") == (["12"], 1)
    assert await ids(event="resolve") == (["13"], 1)
    assert await ids(trade_date="2023-02-02") == (["14"], 1)
    assert await ids(since_ms=3000, until_ms=6000) == (["5", "4", "3"], 3)
    assert await ids(page=2, page_size=4) == (["10", "9", "8", "7"], 15)
    assert await ids(page=9, page_size=4) == ([], 15)
    with pytest.raises(StoreError, match="pages count from 1"):
        await ids(page=0)


async def test_counters_tell_episodes_fires_and_what_was_held_back_since(store: Store) -> None:
    await store.commit(
        [
            alert(1, event=Event.SUPPRESSED, episode=1),
            alert(2, event=Event.FIRE, episode=2),
            alert(3, event=Event.SUPPRESSED, episode=3),
            alert(4, event=Event.SUPPRESSED, episode=4),
            alert(5, event=Event.PENDING, episode=1, symbol=None, group="bank", leg="up"),
            alert(6, trade_date="2023-01-31", episode=9),
            alert(7, rev="r2", episode=5),
        ],
        offset=1,
    )
    first = {"rule": "brk", "leg": None, "symbol": "600519.SH", "group": None}
    assert await store.counters("2023-02-01") == [
        EpisodeCounter(**first, rev="r1", episode=4, fires=1, last_fire_ms=2000, suppressed=2),
        EpisodeCounter(
            rule="brk",
            rev="r1",
            leg="up",
            symbol=None,
            group="bank",
            episode=1,
            fires=0,
            last_fire_ms=None,
            suppressed=0,
        ),
        EpisodeCounter(**first, rev="r2", episode=5, fires=1, last_fire_ms=7000, suppressed=0),
    ]
    assert await store.counters("2023-02-03") == []


async def test_episodes_are_the_greatest_of_each_date_from_the_one_asked_for(store: Store) -> None:
    dates = {1: "2023-01-31", 2: "2023-02-01", 3: "2023-02-01", 4: "2023-02-02"}
    await store.commit([alert(n, trade_date=date) for n, date in dates.items()], offset=1)
    await store.commit([alert(5, symbol=None, leg="up", rev="r2", episode=2), alert(6, rev="r2", episode=1)], offset=2)
    assert await store.episodes(since_date="2023-02-01") == {
        ("brk", "", "600519.SH", "2023-02-01"): 3,
        ("brk", "", "600519.SH", "2023-02-02"): 4,
        ("brk", "up", "", "2023-02-01"): 2,
    }
    assert len(await store.episodes(since_date="")) == 4
    await store.commit([replace(alert(7, symbol=None, episode=6), group="银行")], offset=3)
    assert (await store.episodes(since_date="2023-02-01"))["brk", "", "银行", "2023-02-01"] == 6


async def test_a_second_opener_is_told_who_has_the_file(store: Store) -> None:
    with pytest.raises(StoreError, match=f"already open by pid {os.getpid()}; stop that process"):
        await Store.open(store.path)
    await store.close()
    await (await Store.open(store.path)).close()


async def test_a_newer_schema_is_refused_and_left_as_it_is(store: Store) -> None:
    await store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(
        StoreError, match=f"schema version 99, this program knows up to {len(MIGRATIONS)}; it was written by a newer"
    ):
        await Store.open(store.path)
    with sqlite3.connect(store.path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "monitord.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        await Store.open(tmp_path / "monitord.db")


async def test_it_writes_ahead_and_syncs_every_commit(store: Store) -> None:
    assert await store.file.row("PRAGMA journal_mode") == ("wal",)
    assert await store.file.row("PRAGMA synchronous") == (2,)


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.commit([], offset=1)


async def test_calls_from_many_tasks_lose_nothing(store: Store) -> None:
    await asyncio.gather(*(store.commit([alert(n)], offset=n) for n in range(100)))
    assert (await store.history(HistoryFilter())).total == 100
    assert await store.offset() == 99


async def test_a_consumers_position_is_kept(store: Store) -> None:
    assert await store.position("notify:ops") is None
    await store.set_position("notify:ops", epoch="e1", off=4)
    await store.set_position("notify:ops", epoch="e2", off=2)
    assert await store.position("notify:ops") == ("e2", 2)


COMMITTER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from monitord.store import Store
from rules.alert import Alert, Event

async def commit():
    store = await Store.open(Path(sys.argv[1]))
    for n in range(10**6):
        pair = [Alert(id=f"al_{n}_{half}", episode_id="", event=Event.FIRE, rule="r", rev="1", trade_date="2023-02-01",
                      episode=n, ts_event_ms=n, period="tick") for half in "ab"]
        await store.commit(pair, offset=n)
        print(n, flush=True)

asyncio.run(commit())
"""


@pytest.mark.acceptance
async def test_a_writer_killed_at_any_moment_keeps_every_commit_it_was_told_of_whole(tmp_path: Path) -> None:
    for kill in range(5):
        path = tmp_path / f"{kill}.db"
        told = await asyncio.to_thread(commit_and_be_killed, path, 30 + 17 * kill)
        store = await Store.open(path)
        offset = await store.offset()
        assert offset >= told
        assert [row.id for row in await store.pending(limit=10**6)] == [
            f"al_{n}_{half}" for n in range(offset + 1) for half in "ab"
        ]
        await store.close()


def commit_and_be_killed(path: Path, commits: int) -> int:
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen([sys.executable, "-c", COMMITTER, str(path), root], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= commits:
                writer.send_signal(signal.SIGKILL)
                return int(line)
    raise AssertionError("the writer ended by itself")


async def test_a_batch_holds_the_first_events_of_the_outbox_and_what_was_acknowledged(store: Store) -> None:
    assert await store.batch(limit=9) == Batch([], "", 0)
    await store.begin_epoch("e1", base=4)
    await store.commit([alert(n) for n in (1, 2, 3)], offset=1)
    await store.mark_sent([(1, 5)], epoch="e1")
    batch = await store.batch(limit=1)
    assert ([row.id for row in batch.rows], batch.epoch, batch.acked) == (["al_2"], "e1", 5)


async def test_what_a_commit_finds_in_the_outbox_is_handed_on_once(store: Store) -> None:
    await store.begin_epoch("e1", base=0)
    await store.commit([alert(n) for n in (1, 2, 3)], offset=1)
    assert [row.id for row in (await store.batch(limit=2)).rows] == ["al_1", "al_2"]
    batch = await store.batch(limit=10)
    assert [row.id for row in batch.rows] == ["al_1", "al_2", "al_3"]
    await store.mark_sent([(row.seq, off) for off, row in enumerate(batch.rows, start=1)], epoch="e1")
    assert (await store.batch(limit=10)).rows == []


async def test_a_batch_marked_sent_behind_a_commit_is_not_handed_on_again(store: Store) -> None:
    await store.begin_epoch("e1", base=0)
    await store.commit([alert(1)], offset=1)
    batch = await store.batch(limit=10)
    marking = store.mark_sent([(batch.rows[0].seq, 1)], epoch="e1")
    await asyncio.gather(store.commit([alert(2)], offset=2), marking)  # the commit still finds the first in the outbox
    found = await store.batch(limit=10)
    assert ([row.id for row in found.rows], found.acked) == (["al_2"], 1)


async def test_a_commit_behind_a_new_epoch_hands_on_all_that_waits_in_it(store: Store) -> None:
    await store.begin_epoch("e1", base=0)
    await store.commit([alert(1)], offset=1)
    row = (await store.batch(limit=10)).rows[0]
    await store.mark_sent([(row.seq, 1)], epoch="e1")
    await asyncio.gather(store.begin_epoch("e2", base=7), store.commit([alert(2)], offset=2))
    found = await store.batch(limit=10)
    assert ([row.id for row in found.rows], found.epoch, found.acked) == (["al_1", "al_2"], "e2", 7)


async def test_the_log_is_copied_into_the_file_behind_what_is_sent_and_never_by_a_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_ROWS", 20)
    await store.begin_epoch("e1", base=0)

    def in_file() -> int:
        with closing(sqlite3.connect(f"file:{store.path}?immutable=1", uri=True)) as file:  # without the log beside it
            tables = file.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'events'").fetchone()[0]
            return int(file.execute("SELECT count(*) FROM events").fetchone()[0]) if tables else 0

    await store.commit([alert(n) for n in range(1, 6001)], offset=1)
    assert store.path.with_name("monitord.db-wal").stat().st_size > 1000 * 4096, "SQLite itself would have done it"
    assert in_file() == 0
    await store.mark_sent([(seq, seq) for seq in range(1, 5901)], epoch="e1")
    assert in_file() == 0, "not while events wait"
    await store.mark_sent([(seq, seq) for seq in range(5901, 6001)], epoch="e1")
    assert in_file() == 6000
