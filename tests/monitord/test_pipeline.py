"""Checkpoints and control records of the pipeline when the disk or the store refuses, and when a stop comes between."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from structlog.testing import capture_logs

from feeds.errors import FeedError
from feeds.exrights import NO_EXRIGHTS, ExRight, encode_exrights
from feeds.inputs import FeedInput, Heartbeat, Input
from feeds.instruments import Instrument
from feeds.journal import Journal
from feeds.simulated import SimulatedFeed
from feeds.tick import CORE, TickBatch
from monitord import inputlog
from monitord import pipeline as module
from monitord.checkpoint import Checkpoint, CheckpointFolder
from monitord.errors import CheckpointError, EngineError, Stopping, StoreError
from monitord.pipeline import Pipeline
from monitord.store import Store
from rules import rulefile
from rules.alert import Alert, Event
from rules.errors import RuleError

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

    def __init__(self, folder: Path, store: Store, *, rules: str = RULES) -> None:
        """rules: the text of the one rule file, "" = there is none."""
        feed = SimulatedFeed(symbols=20, speed=None, start="14:58:30", days=1)
        self.store, self.rules, self.exrights = store, rules, NO_EXRIGHTS
        self.disk = Disk(folder / "checkpoints")
        self.journal = Trims(folder / "journal", source_id=feed.source_id)
        self.pipeline = Pipeline(
            feed,
            journal=self.journal,
            store=store,
            checkpoints=self.disk,
            load_rules=lambda: rulefile.load({"r": self.rules} if self.rules else {}),
            load_exrights=lambda: self.exrights,
            on_alerts=lambda alerts: None,
        )

    async def take(self, count: int) -> None:
        """Let the engine take so many inputs."""
        feed = aiter(self.pipeline._feed)
        for _ in range(count):
            await self.pipeline._take(await anext(feed))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.sqlite")
    yield opened
    await opened.close()


@pytest.fixture
async def stand(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setattr(module, "OFFSET_EVERY_S", 0.0)  # every input is committed, also one without events
    stand = Stand(tmp_path, store)
    await stand.pipeline.recover()
    return stand


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


async def test_ex_rights_files_are_read_again_and_outlive_a_restart(stand: Stand, tmp_path: Path) -> None:
    records = stand.journal.end
    await stand.pipeline.reload()
    assert stand.journal.end == records, "what is not new is no record"
    stand.exrights = encode_exrights([ExRight("600519.SH", 20250103, factor=0.5)])
    await stand.pipeline.reload()
    assert stand.pipeline.engine.market.exrights.source == stand.exrights
    await stand.pipeline.close()
    after = Stand(tmp_path, stand.store)
    after.exrights = stand.exrights
    records = after.journal.end
    await after.pipeline.recover()
    assert after.pipeline.engine.market.exrights.table.days.keys() == {"600519.SH"}
    assert after.journal.end == records
    await after.pipeline.close()


@pytest.mark.parametrize("meanwhile", ["", RULES])
async def test_a_daemon_without_rules_comes_back_with_those_given_meanwhile(
    tmp_path: Path, store: Store, meanwhile: str
) -> None:
    before = Stand(tmp_path, store, rules="")
    await before.pipeline.recover()
    await before.take(5)
    await before.pipeline.close()
    after = Stand(tmp_path, store, rules=meanwhile)
    await after.pipeline.recover()
    assert after.pipeline.engine.offset == before.pipeline.engine.offset >= 0, "it goes on from the checkpoint"
    assert [rule.id for rule in after.pipeline.rules().rules] == (["up"] if meanwhile else [])
    await after.pipeline.run()
    await after.pipeline.close()


TWO = RULES + "  - {id: two, select: all, when: LAST > 1}\n"
THREE = TWO + "  - {id: three, select: all, when: LAST > 2}\n"


async def test_todays_rules_come_behind_a_record_that_nothing_followed(stand: Stand, tmp_path: Path) -> None:
    """Killed right behind a reload, and the files changed once more before the next start."""
    await stand.pipeline.checkpoint()
    stand.rules = TWO
    await stand.pipeline.reload()
    stand.journal.close()  # killed: no checkpoint holds the reload
    after = Stand(tmp_path, stand.store)
    after.rules = THREE
    await after.pipeline.recover()
    assert [rule.id for rule in after.pipeline.rules().rules] == ["up", "two", "three"]
    await after.pipeline.run()
    assert [rule.id for rule in after.pipeline.rules().rules] == ["up", "two", "three"]
    await after.pipeline.checkpoint()
    newest = next(after.disk.usable(after.pipeline._feed.source_id, state_format=module.STATE_FORMAT))
    assert newest is not None
    assert newest.meta["journal"] == after.journal.end, "else the next start would miss a journal that it needs"
    await after.pipeline.close()


class Trimmed(SimulatedFeed):
    """A feed that does not hold its first inputs any more."""

    first = 0

    async def open(self, *, after: int = -1) -> None:
        await super().open(after=max(after, self.first - 1))


async def test_a_trimmed_stream_that_begins_behind_the_newest_record_is_gone_on_with(
    stand: Stand, tmp_path: Path
) -> None:
    """No checkpoint was ever written, and the inputs that would lead to the records are gone."""
    await stand.take(5)
    stand.rules = TWO
    await stand.pipeline.reload()
    stand.journal.close()  # killed
    after = Stand(tmp_path, stand.store)
    feed = Trimmed(symbols=20, speed=None, start="14:58:30", days=1)
    feed.first = 9
    after.pipeline._feed = feed
    after.rules = THREE
    await after.pipeline.recover()
    assert not after.pipeline.caught_up.is_set()
    await after.pipeline.run()
    assert [rule.id for rule in after.pipeline.rules().rules] == ["up", "two", "three"]
    assert after.pipeline.caught_up.is_set()
    await after.pipeline.close()
    again = Stand(tmp_path, stand.store)
    again.rules = THREE
    await again.pipeline.recover()
    assert [rule.id for rule in again.pipeline.rules().rules] == ["up", "two", "three"]
    await again.pipeline.close()


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


async def test_a_stopped_pipeline_answers_until_its_end_and_changes_nothing(stand: Stand) -> None:
    """The gateway goes last, and its clients ask until it has."""
    await stand.pipeline.run()
    end, ticks = stand.journal.end, await stand.pipeline.ask(lambda engine: engine.market.ticks)
    await stand.pipeline.close()
    assert await stand.pipeline.ask(lambda engine: engine.market.ticks) == ticks > 0
    stand.rules = TWO
    with pytest.raises(Stopping, match="try again when it is back"):
        await stand.pipeline.reload()
    assert [rule.id for rule in stand.pipeline.rules().rules] == ["up"]
    assert stand.journal.end == end
    stand.pipeline.end()


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
    assert stand.disk.writes == 0


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


async def test_checkpoints_whose_rules_the_program_refuses_now_are_passed_over(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Stand(tmp_path, store, rules=RULES.replace("LAST >", "LAST > 0 AND LAST >"))
    await before.pipeline.recover()
    await before.pipeline.checkpoint()
    await before.take(1)
    await before.pipeline.close()
    assert before.disk.writes == 2
    monkeypatch.setattr("rules.language.parser.MAX_TOKENS", 3)
    monkeypatch.setattr(rulefile, "_alone", rulefile._alone.__wrapped__)  # a new program has read nothing yet
    after = Stand(tmp_path, store)
    with capture_logs() as logs:
        await after.pipeline.recover()
    skipped = [line["why"] for line in logs if line["event"] == "checkpoint_skipped"]
    assert len(skipped) == 2
    assert all("more than 3 words" in why for why in skipped)
    await after.pipeline.run()
    assert after.pipeline.rules().rules == rulefile.load({"r": RULES}).rules
    await after.pipeline.close()


class Pushes:
    """A live feed without offsets: what is put into it comes out, until `close`."""

    source_id, has_offsets, paced = "pushes", False, True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[TickBatch | Heartbeat | None] = asyncio.Queue()

    async def open(self, *, after: int = -1) -> None: ...

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        while (value := await self.queue.get()) is not None:
            yield FeedInput(-1, value)

    async def instruments(self) -> Sequence[Instrument]:
        return ()

    async def close(self) -> None:
        self.queue.put_nowait(None)

    def counters(self) -> Mapping[str, int]:
        return {}


class Spied(Journal):
    """A journal that notes what is asked of it; `full`: it takes no more books."""

    def __init__(self, folder: Path, did: list[str]) -> None:
        super().__init__(folder, source_id=Pushes.source_id)
        self.did, self.full = did, False
        self.finished = threading.Event()

    def append(self, value: Input, *, rest_later: bool = False, **others: Any) -> int:
        self.did.append("append")
        offset = super().append(value, rest_later=rest_later, **others)
        if self._unfinished is None and isinstance(value, TickBatch):
            self.finished.set()
        return offset

    def append_rest(self) -> bool:
        if self.full and self._unfinished is not None:
            self.finished.set()
            raise FeedError("the disk is full")
        added = super().append_rest()
        if added:
            self.did.append("book")
            self.finished.set()
        return added

    def sync(self) -> None:
        super().sync()
        self.did.append("sync")


class LiveStand:
    """A pipeline over pushes, with a note of what it did in which order."""

    def __init__(self, folder: Path, store: Store, when: str, *, checkpoint_s: float = 60.0) -> None:
        self.feed, self.did, self.store, self.when = Pushes(), list[str](), store, when
        self.journal = Spied(folder / "journal", self.did)
        self.committed, self.alerts = asyncio.Event(), list[Alert]()
        self.pipeline = Pipeline(
            self.feed,
            journal=self.journal,
            store=self,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": RULES.replace("LAST > 0", self.when)}),
            on_alerts=self.alerts.extend,
            checkpoint_s=checkpoint_s,
        )
        self.offset, self.episodes = store.offset, store.episodes

    async def commit(
        self, alerts: Sequence[Alert], *, offset: int, source_id: str, records: Sequence[bytes] | None = None
    ) -> int:
        if alerts:
            self.did.append("commit")
            self.committed.set()
        return await self.store.commit(alerts, offset=offset, source_id=source_id)


def with_book(last: float) -> TickBatch:
    """Return a tick of 10:02:03 and later, the best bid at its price."""
    columns = {name: np.array([last]) for name in CORE}
    ts_ms = np.array([1_675_216_923_000 + round(last * 1000)])
    return TickBatch(("600519.SH",), ts_ms, columns=columns, load=lambda: {"bid_price_1": np.array([last])})


async def one_event(stand: LiveStand) -> None:
    """Let the rule fire once, and keep the notes of that batch alone."""
    await stand.pipeline.recover()
    running = asyncio.create_task(stand.pipeline.run())
    stand.feed.queue.put_nowait(with_book(1.0))
    await asyncio.to_thread(stand.journal.finished.wait, 10)
    await stand.pipeline.ask(lambda engine: None)
    stand.did.clear()
    stand.journal.finished.clear()
    stand.feed.queue.put_nowait(with_book(2.0))
    await asyncio.wait_for(stand.committed.wait(), 10)
    await asyncio.to_thread(stand.journal.finished.wait, 10)
    await stand.feed.close()
    await running


@pytest.mark.parametrize("early", [1, 1000])
async def test_a_book_no_rule_has_read_is_journaled_behind_the_events(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, early: int
) -> None:
    monkeypatch.setattr(inputlog, "EARLY_SYNC_TICKS", early)
    monkeypatch.setattr(module, "QUIET_AFTER_S", 0.0)
    stand = LiveStand(tmp_path, store, "LAST > 1.5")
    await one_event(stand)
    await stand.pipeline.ask(lambda engine: None)
    assert stand.did == ["append", "sync", "commit", "book", "sync"]
    await stand.pipeline.close()
    assert [record.value for record in stand.journal.records()][-1] == with_book(2.0)


async def test_a_heartbeat_soon_behind_a_batch_does_not_put_off_what_waits_for_the_quiet(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, rested = LiveStand(tmp_path, store, "LAST > 1.5"), threading.Event()
    monkeypatch.setattr(stand.pipeline._room, "on_rest", rested.set)
    await stand.pipeline.recover()
    running = asyncio.create_task(stand.pipeline.run())
    batch = with_book(1.0)
    stand.feed.queue.put_nowait(batch)
    stand.feed.queue.put_nowait(Heartbeat(batch.span_ms[1] + 1000))
    assert await asyncio.to_thread(rested.wait, 10), "no batch came, and the quiet was not used"
    await stand.feed.close()
    await running
    await stand.pipeline.close()


@pytest.mark.parametrize("early", [1, 1000])
async def test_a_book_a_rule_reads_is_on_the_disk_with_its_batch_before_its_events_are_committed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, early: int
) -> None:
    monkeypatch.setattr(inputlog, "EARLY_SYNC_TICKS", early)
    stand = LiveStand(tmp_path, store, "BIDP1 > 1.5")
    await one_event(stand)
    # The early sync of the batch before may end late, but before this one is appended.
    assert stand.did[stand.did.index("append") :] == ["append", "sync", "commit"]
    await stand.pipeline.close()


@pytest.mark.parametrize("reloaded", [False, True])
async def test_a_batch_is_journaled_with_its_book_before_a_rule_that_reads_it_decides(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, reloaded: bool
) -> None:
    """Killed within the step, recovery would read no lots and find every sealed stock open."""
    stand = LiveStand(tmp_path, store, "LAST > 1.5" if reloaded else "NOT(SEALUP)")
    await stand.pipeline.recover()
    if reloaded:
        stand.when = "NOT(SEALUP)"
        await stand.pipeline.reload()
    engine, journaled = stand.pipeline.engine, list[Input]()
    step = engine.step

    def looks(value: Input, *, offset: int = -1) -> list[Alert]:
        journaled.append([record.value for record in stand.journal.records()][-1])
        return step(value, offset=offset)

    monkeypatch.setattr(engine, "step", looks)
    stand.feed.queue.put_nowait(with_book(1.0))
    await stand.feed.close()
    await stand.pipeline.run()
    assert journaled == [with_book(1.0)]
    await stand.pipeline.close()


async def test_a_book_that_cannot_be_written_is_tried_again_with_the_next_batch_and_ends_the_pipeline(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_AFTER_S", 0.0)
    stand = LiveStand(tmp_path, store, "LAST > 1.5")
    await stand.pipeline.recover()
    running = asyncio.create_task(stand.pipeline.run())
    stand.journal.full = True
    with capture_logs() as logs:
        stand.feed.queue.put_nowait(with_book(1.0))
        await asyncio.to_thread(stand.journal.finished.wait, 10)
        await stand.pipeline.ask(lambda engine: None)
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["journal_rest_failed"]
    stand.feed.queue.put_nowait(with_book(2.0))
    with pytest.raises(FeedError, match="the disk is full"):
        await running
    stand.journal.full = False
    await stand.pipeline.close()


async def test_a_book_that_cannot_be_decoded_is_told_though_nobody_waits_for_it(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = LiveStand(tmp_path, store, "LAST > 1.5")
    await stand.pipeline.recover()

    def bad() -> bool:
        raise ValueError("no book")

    with capture_logs() as logs, monkeypatch.context() as broken:
        broken.setattr(stand.journal, "append_rest", bad)
        stand.pipeline._on_quiet()
        await stand.pipeline.ask(lambda engine: None)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["journal_rest_failed"]
    await stand.pipeline.close()


async def test_events_decided_from_a_journal_that_lost_its_last_book_are_decided_again(
    tmp_path: Path, store: Store
) -> None:
    first = LiveStand(tmp_path, store, "LAST > 1.5")
    await first.pipeline.recover()
    running = asyncio.create_task(first.pipeline.run())
    for last in (1.0, 2.0):
        first.feed.queue.put_nowait(with_book(last))
    await asyncio.wait_for(first.committed.wait(), 10)
    shutil.copytree(tmp_path / "journal", tmp_path / "killed" / "journal")  # before the last book was written
    await first.feed.close()
    await running
    await first.pipeline.close()
    (told,) = first.alerts
    other = await Store.open(tmp_path / "other.sqlite")
    second = LiveStand(tmp_path / "killed", other, "LAST > 1.5")
    await second.pipeline.recover()
    assert [row.id for row in await other.pending(limit=9)] == [told.id]
    await second.pipeline.close()
    await other.close()


def fail_once(stand: LiveStand, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Let the first batch with events break off, after the engine has moved on."""
    engine, failed = stand.pipeline.engine, list[str]()
    step, commit = engine.step, stand.commit

    def break_off(error: Exception) -> None:
        if not failed:
            failed.append(broken)
            raise error

    def steps(value: Input, *, offset: int = -1) -> list[Alert]:
        if alerts := step(value, offset=offset):
            break_off(ZeroDivisionError("a bug"))
        return alerts

    async def commits(alerts: Sequence[Alert], *, offset: int, source_id: str, records: object = None) -> int:
        if alerts:
            break_off(StoreError("the store is full"))
        return await commit(alerts, offset=offset, source_id=source_id)

    if broken == "engine":
        monkeypatch.setattr(engine, "step", steps)
    elif broken == "store":
        monkeypatch.setattr(stand, "commit", commits)
    else:
        monkeypatch.setattr(stand.journal, broken, lambda: break_off(FeedError("the disk is full")))


async def told_after_restart(folder: Path, store: Store, broken: LiveStand) -> None:
    """Stop a pipeline whose events are not stored; a new one decides them, once."""
    before = await store.offset(source_id=Pushes.source_id)
    await broken.pipeline.checkpoint()
    await broken.pipeline.close()
    assert list((folder / "checkpoints").glob("*")) == [], "a checkpoint ahead of the store would lose its events"
    assert await store.offset(source_id=Pushes.source_id) == before < broken.journal.end
    assert (broken.alerts, await store.pending(limit=9)) == ([], [])
    assert broken.pipeline.counters()["passed_over"] == 0
    for _ in range(2):
        second = LiveStand(folder, store, broken.when)
        await second.pipeline.recover()
        (row,) = await store.pending(limit=9)
        assert [alert.id for alert in second.alerts] in ([row.id], [])
        await second.pipeline.close()


@pytest.mark.parametrize(
    ("broken", "why"),
    [("sync", "disk is full"), ("engine", "a bug"), ("store", "store is full")],
)
async def test_events_in_hand_when_their_batch_breaks_off_are_decided_by_the_next_process(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, broken: str, why: str
) -> None:
    monkeypatch.setattr(module, "QUIET_AFTER_S", 1000.0)
    stand = LiveStand(tmp_path, store, "BIDP1 > 1.5")
    await stand.pipeline.recover()
    with monkeypatch.context() as once:
        fail_once(stand, once, broken)
        for last in (1.0, 2.0):
            stand.feed.queue.put_nowait(with_book(last))
        with pytest.raises((FeedError, StoreError, EngineError), match=why):
            await stand.pipeline.run()
    stand.feed.queue.put_nowait(with_book(3.0))
    with pytest.raises(StoreError, match=f"not stored.*{why}"):
        await stand.pipeline.run()
    await told_after_restart(tmp_path, store, stand)


async def test_a_stop_while_a_cancelled_batch_is_still_in_the_engine_writes_no_checkpoint_of_it(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Race: the turn is over when its task is cancelled, and the engine's thread takes the batch all the same."""
    stand = LiveStand(tmp_path, store, "LAST > 1.5")
    await stand.pipeline.recover()
    entered, go, step = threading.Event(), threading.Event(), stand.pipeline.engine.step

    def slow(value: Input, *, offset: int = -1) -> list[Alert]:
        if value == with_book(2.0):
            entered.set()
            assert go.wait(10)
        return step(value, offset=offset)

    monkeypatch.setattr(stand.pipeline.engine, "step", slow)
    running = asyncio.create_task(stand.pipeline.run())
    for last in (1.0, 2.0):
        stand.feed.queue.put_nowait(with_book(last))
    assert await asyncio.to_thread(entered.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    asyncio.get_running_loop().call_soon(go.set)
    await told_after_restart(tmp_path, store, stand)


async def test_a_control_record_the_engine_refuses_changes_nothing_and_the_pipeline_goes_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.exrights, records = "nonsense", stand.journal.end
    with pytest.raises((FeedError, RuleError)):
        await stand.pipeline.reload()
    assert stand.journal.end == records, "what is refused is no record"
    await stand.pipeline.run()
    await stand.pipeline.close()
    assert stand.disk.writes == 1


async def test_a_periodic_checkpoint_is_written_in_the_quiet_behind_a_batch(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_AFTER_S", 0.0)
    monkeypatch.setattr(module, "QUIET_WITHIN_S", 1000.0)
    stand = LiveStand(tmp_path, store, "LAST > 1.5", checkpoint_s=0.0)
    await stand.pipeline.recover()
    running = asyncio.create_task(stand.pipeline.run())
    writing = asyncio.create_task(stand.pipeline.run_checkpoints())
    for _ in range(20):
        await stand.pipeline.ask(lambda engine: None)
    assert list((tmp_path / "checkpoints").glob("*")) == [], "no batch has come yet"
    stand.feed.queue.put_nowait(with_book(1.0))
    async with asyncio.timeout(10):
        while not list((tmp_path / "checkpoints").glob("*")):
            await stand.pipeline.ask(lambda engine: None)
    writing.cancel()
    await stand.feed.close()
    await running
    await stand.pipeline.close()


async def test_without_batches_a_checkpoint_is_written_all_the_same(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_WITHIN_S", 0.0)
    stand.pipeline._checkpoint_s = 0.0
    writing = asyncio.create_task(stand.pipeline.run_checkpoints())
    assert await asyncio.to_thread(stand.disk.entered.wait, 10)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await stand.pipeline.close()


async def test_what_a_control_record_decides_bears_the_stamps_of_its_moment(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when instruments change and a rule's episode ends with a stock it covers no more."""
    event = Alert(
        id="al_1", episode_id="ep_1", event=Event.RESOLVE, rule="up", rev="r", trade_date="2025-01-02", episode=1,
        ts_event_ms=1, period="tick",
    )  # fmt: skip
    monkeypatch.setattr(type(stand.pipeline.engine), "step", lambda self, value, **offset: [event])
    now_ms = time.time_ns() // 1_000_000
    stand.rules = TWO
    await stand.pipeline.reload()
    stored = await stand.store.alert("al_1")
    assert stored is not None
    stamps = orjson.loads(stored.record)["stamps"]
    assert stamps["recv_ms"] == stamps["evaluated_ms"] >= now_ms
    monkeypatch.undo()
    await stand.pipeline.close()
