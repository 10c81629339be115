"""A journal written beside the engine: offsets are known at once, and a failed write is told to whoever comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feeds.errors import FeedError
from feeds.inputs import Control, ControlKind, Heartbeat
from feeds.journal import Journal
from feeds.tick import CORE, TickBatch
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


def test_a_large_batch_is_written_while_its_caller_goes_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, go_on, sync = threading.Event(), threading.Event(), journal.sync

    def slow_sync() -> None:
        assert go_on.wait(10)
        sync()
        on_disk.set()

    monkeypatch.setattr(journal, "sync", slow_sync)
    log = InputLog(journal)
    assert log.append(market(), rest_later=False) == 0
    assert not on_disk.is_set()
    go_on.set()
    log.secure()
    assert on_disk.is_set()
    log.close()


@pytest.mark.parametrize(
    "next_call",
    [
        InputLog.secure,
        InputLog.sync,
        InputLog.close,
        lambda log: log.append(Heartbeat(1), rest_later=False),
        lambda log: log.append_control(Control(ControlKind.POSITIONS, "{}"), follows=None),
    ],
)
def test_a_write_that_failed_is_told_to_whoever_comes_next(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, next_call: Callable[[InputLog], object]
) -> None:
    def full(*_: object, **__: object) -> int:
        raise FeedError("no space left")

    log = InputLog(journal)
    with monkeypatch.context() as patched:
        patched.setattr(journal, "append", full)
        log.append(market(), rest_later=False)
        with pytest.raises(FeedError, match="no space left"):
            next_call(log)
    assert list(journal.records()) == []


def test_nothing_is_appended_behind_an_input_that_is_missing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise FeedError("no space left")

    log = InputLog(journal)
    with monkeypatch.context() as patched:
        patched.setattr(journal, "append", full)
        log.append(market(), rest_later=False)
        log.finish()  # in the quiet behind the batch: nobody hears it there
    for call in (lambda: log.append(market(1), rest_later=False), log.secure, log.sync):
        with pytest.raises(FeedError, match="no space left"):
            call()
    log.close()
    assert list(journal.records()) == []
