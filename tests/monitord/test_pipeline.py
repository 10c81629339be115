"""Checkpoints and control records of the pipeline when the disk or the store refuses, and when a stop comes between."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from feeds.journal import Journal
from feeds.simulated import SimulatedFeed
from monitord import pipeline as module
from monitord.checkpoint import Checkpoint, CheckpointFolder
from monitord.errors import CheckpointError, StoreError
from monitord.pipeline import Pipeline
from monitord.store import Store
from rules import rulefile

RULES = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: up, select: all, when: LAST > 0}\n"


class Disk(CheckpointFolder):
    """A folder that can be full, and that can hold a write up until it is told to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.full = False
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()
        self._one = threading.Lock()
        self.overlaps = self.writes = 0

    def write(self, checkpoint: Checkpoint) -> Path:
        if self.full:
            raise CheckpointError("the disk is full")
        free = self._one.acquire(blocking=False)
        self.overlaps += not free
        self.entered.set()
        try:
            assert self.go.wait(10)
            self.writes += 1
            return super().write(checkpoint)
        finally:
            if free:
                self._one.release()


class Trims(Journal):
    """A journal that remembers what it was told to trim."""

    def __init__(self, folder: Path, *, source_id: str) -> None:
        super().__init__(folder, source_id=source_id)
        self.before: list[int] = []

    def trim(self, *, before: int) -> int:
        self.before.append(before)
        return super().trim(before=before)


class Stand:
    """A recovered pipeline over a short simulated day, with all that it writes to."""

    def __init__(self, folder: Path, store: Store) -> None:
        feed = SimulatedFeed(symbols=20, speed=None, start="14:58:30", days=1)
        self.store, self.rules = store, RULES
        self.disk = Disk(folder / "checkpoints")
        self.journal = Trims(folder / "journal", source_id=feed.source_id)
        self.pipeline = Pipeline(
            feed,
            journal=self.journal,
            store=store,
            checkpoints=self.disk,
            load_rules=lambda: rulefile.load({"r": self.rules}),
            on_alerts=lambda alerts: None,
        )


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(module, "OFFSET_EVERY_S", 0.0)  # every input is committed, also one without events
    store = await Store.open(tmp_path / "store.sqlite")
    stand = Stand(tmp_path, store)
    await stand.pipeline.recover()
    yield stand
    await store.close()


async def test_after_a_failed_checkpoint_the_journal_of_the_older_one_stays(stand: Stand) -> None:
    await stand.pipeline.checkpoint()
    first = stand.journal.end + 1
    stand.rules += "  - {id: two, select: all, when: LAST > 1}\n"
    await stand.pipeline.reload()
    stand.disk.full = True
    with pytest.raises(CheckpointError):
        await stand.pipeline.checkpoint()
    stand.disk.full = False
    await stand.pipeline.checkpoint()
    assert stand.journal.before[-1] == first, "the two checkpoints kept are the first and the third"
    await stand.pipeline.close()


async def test_a_stop_waits_for_the_checkpoint_that_is_being_written(stand: Stand) -> None:
    stand.disk.go.clear()
    periodic = asyncio.create_task(stand.pipeline.checkpoint())
    await asyncio.to_thread(stand.disk.entered.wait, 10)
    closing = asyncio.create_task(stand.pipeline.close())
    for _ in range(20):  # round trips through the engine's thread: time for a second write to begin
        await stand.pipeline.ask(lambda engine: None)
    stand.disk.go.set()
    await asyncio.gather(periodic, closing)
    assert (stand.disk.overlaps, stand.disk.writes) == (0, 2)
    await stand.pipeline.checkpoint()
    assert stand.disk.writes == 2, "nothing is written once closed"


async def test_a_stop_commits_the_last_input_also_when_nothing_came_of_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without events the offset is committed once a second at most, so the last ones may be missing until then."""
    monkeypatch.setattr(module, "OFFSET_EVERY_S", 1e9)
    stand.rules = RULES.replace("LAST > 0", "LAST < 0")
    await stand.pipeline.reload()
    await stand.pipeline.run()
    last, source = stand.pipeline.engine.offset, stand.journal.source_id
    assert await stand.store.offset(source_id=source) < last
    await stand.pipeline.close()
    assert await stand.store.offset(source_id=source) == last


async def test_a_full_disk_at_the_stop_is_told_and_the_stop_goes_on(stand: Stand) -> None:
    stand.disk.full = True
    with capture_logs() as logs:
        await stand.pipeline.close()
    assert [line["why"] for line in logs if line["event"] == "checkpoint_failed"] == ["the disk is full"]


async def test_after_a_reload_that_was_not_stored_only_a_new_process_goes_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise StoreError("the disk is full")

    stand.rules += "  - {id: two, select: all, when: LAST > 1}\n"
    with monkeypatch.context() as broken:
        broken.setattr(stand.store, "commit", refuse)
        with pytest.raises(StoreError):
            await stand.pipeline.reload()
    await stand.pipeline.checkpoint()
    assert stand.disk.writes == 0, "a checkpoint ahead of the store would lose its events"
    with pytest.raises(StoreError, match="the disk is full"):
        await stand.pipeline.run()
    await stand.pipeline.close()


async def test_a_checkpoint_whose_journal_is_gone_is_passed_over_and_the_rules_are_put_in_force_anew(
    tmp_path: Path,
) -> None:
    store = await Store.open(tmp_path / "store.sqlite")
    try:
        first = Stand(tmp_path, store)
        await first.pipeline.recover()
        await first.pipeline.close()
        shutil.rmtree(tmp_path / "journal")
        second = Stand(tmp_path, store)
        with capture_logs() as logs:
            await second.pipeline.recover()
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["checkpoint_skipped"]
        assert [rule.id for rule in second.pipeline.rules().rules] == ["up"]
        await second.pipeline.close()
    finally:
        await store.close()
