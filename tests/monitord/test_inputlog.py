"""A journal synced beside the engine: what cannot be written is refused, a failed sync is told to who comes next."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feeds import journal as journal_module
from feeds.errors import FeedError
from feeds.inputs import Control, ControlKind, Heartbeat
from feeds.journal import Journal
from feeds.tick import CORE, TickBatch
from monitord.cpus import kept_to
from monitord.inputlog import EARLY_SYNC_TICKS, InputLog


def market(number: int = 0) -> TickBatch:
    n = EARLY_SYNC_TICKS
    columns = {name: np.full(n, float(number)) for name in CORE}
    return TickBatch(tuple(f"{row:06d}.SZ" for row in range(n)), np.arange(n) + number, columns=columns)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", source_id="s")


def test_whatever_is_appended_stands_in_order_under_the_offset_it_was_given(journal: Journal) -> None:
    log = InputLog(journal)
    inputs = [market(1), Heartbeat(2), market(3), market(4), Control(ControlKind.POSITIONS, "{}"), market(5)]
    offsets = [
        log.append_control(value, follows=None) if isinstance(value, Control) else log.append(value, rest_later=False)
        for value in inputs
    ]
    log.secure()
    assert [(record.offset, record.value) for record in journal.records()] == list(zip(offsets, inputs, strict=True))
    assert offsets == [0, 1, 2, 3, 4, 5]
    log.close()


def test_a_large_batch_is_synced_while_its_caller_goes_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, go_on, sync = threading.Event(), threading.Event(), journal.sync

    def slow_sync() -> None:
        assert go_on.wait(10)
        sync()
        on_disk.set()

    monkeypatch.setattr(journal, "sync", slow_sync)
    log = InputLog(journal)
    assert log.append(market(), rest_later=False) == 0
    assert list(journal.read()) == [(0, market())], "a kill of this process leaves it"
    assert not on_disk.is_set()
    go_on.set()
    log.secure()
    assert on_disk.is_set()
    log.close()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_a_sync_beside_the_engine_need_not_wait_for_the_engine_s_processor(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    available, seen, sync = os.sched_getaffinity(0), list[set[int]](), journal.sync

    def watched_sync() -> None:
        seen.append(os.sched_getaffinity(0))
        sync()

    monkeypatch.setattr(journal, "sync", watched_sync)
    with kept_to(str(min(available))):
        log = InputLog(journal)
        log.append(market(), rest_later=False)
        log.secure()
        assert os.sched_getaffinity(0) == {min(available)}
    assert seen == [available]
    log.close()


def test_a_small_batch_is_synced_early_only_behind_events(journal: Journal) -> None:
    log, small = InputLog(journal), market().take(slice(0, 3))
    log.append(small, rest_later=False)
    log.append(Heartbeat(1), rest_later=False)
    assert journal.counters()["syncs"] == 0
    log.secure()
    log.append(small, rest_later=False)
    log.append(small, rest_later=False)  # waits for the one before
    assert journal.counters()["syncs"] == 2
    log.close()


def broken(fd: int) -> None:
    raise OSError(errno.EIO, "Input/output error")


NEXT_CALLS: list[Callable[[InputLog], object]] = [
    InputLog.secure,
    InputLog.sync,
    lambda log: log.append(Heartbeat(1), rest_later=False),
    lambda log: log.append_control(Control(ControlKind.POSITIONS, "{}"), follows=None),
]


@pytest.mark.parametrize("next_call", [*NEXT_CALLS, InputLog.close])
def test_a_sync_that_failed_is_told_to_whoever_comes_next(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, next_call: Callable[[InputLog], object]
) -> None:
    monkeypatch.setattr(journal_module, "datasync", broken)
    log = InputLog(journal)
    log.append(market(), rest_later=False)
    with pytest.raises(FeedError, match=r"cannot sync the journal .*: Input/output error"):
        next_call(log)
    assert list(journal.read()) == [(0, market())], "nothing behind it"
    log.close()


def test_nothing_is_appended_behind_an_input_that_may_not_be_on_the_disk(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = InputLog(journal)
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "datasync", broken)
        log.append(market(), rest_later=False)
        log.finish()  # in the quiet behind the batch: nobody hears it there
    for call in NEXT_CALLS:  # the disk is well again, but what it lost stays lost
        with pytest.raises(FeedError, match="takes no more records: an earlier sync failed"):
            call(log)
    log.close()
    assert list(journal.read()) == [(0, market())]


def test_a_batch_that_cannot_be_written_is_refused_at_once_and_the_next_one_may_be_taken(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = InputLog(journal)
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        with pytest.raises(FeedError, match="No space left on device; free space"):
            log.append(market(), rest_later=False)
    assert log.append(market(1), rest_later=False) == 0
    log.secure()
    log.close()
    assert list(journal.read()) == [(0, market(1))]
