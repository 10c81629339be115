"""What the pipeline hands to a recording: every input at its offset, also what a killed recorder had not written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat, Input, Mark, MarkKind
from feeds.instruments import Instrument, instrument_of
from feeds.journal import Journal
from feeds.sessions import HOUR_MS, unix_ms
from monitord.checkpoint import CheckpointFolder
from monitord.errors import EngineError
from monitord.pipeline import Pipeline
from monitord.store import Store
from rules import rulefile

RULES = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: up, select: all, when: LAST > 1, rearm: LAST < 1}\n"
AT_MS = unix_ms(20250102, 10 * HOUR_MS)


class Market:
    """A feed of heartbeats, with offsets or without."""

    source_id, paced = "market", False

    def __init__(self, *numbers: int, has_offsets: bool) -> None:
        self.numbers, self.has_offsets, self.after = numbers, has_offsets, -1

    async def open(self, *, after: int = -1) -> None:
        self.after = after if self.has_offsets else -1

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        for number in self.numbers:
            if number > self.after:
                yield FeedInput(number if self.has_offsets else -1, Heartbeat(AT_MS + 3000 * number))

    async def instruments(self) -> Sequence[Instrument]:
        return [instrument_of("600000.SH", name="浦发银行")]

    async def close(self) -> None: ...

    def counters(self) -> Mapping[str, int]:
        return {}


class Stand:
    """A pipeline that records; `taken` is what came, in order."""

    def __init__(self, folder: Path, store: Store, feed: Market) -> None:
        self.taken: list[tuple[Input, int, int]] = []
        self.journal = Journal(folder / "journal", source_id="market")
        self.pipeline = Pipeline(
            feed,
            journal=self.journal,
            store=store,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": RULES}),
            on_alerts=lambda alerts: None,
            record=self.take,
        )

    async def take(self, value: Input, offset: int = -1, *, behind: int = -1) -> None:
        self.taken.append((value, offset, behind))

    async def run(self, *, fails_at: int | None = None) -> None:
        await self.pipeline.recover()
        engine = self.pipeline.engine
        step = engine.step

        def failing(value: Input, offset: int = -1) -> object:
            if fails_at is not None and value == Heartbeat(AT_MS + 3000 * fails_at):
                raise ZeroDivisionError("as it happens")
            return step(value, offset=offset)

        engine.step = failing  # type: ignore[method-assign, assignment]
        await self.pipeline.run()

    def kill(self) -> None:
        """End as a killed process does: the journal stays, no checkpoint is written."""
        self.journal.sync()
        self.journal.close()

    def kinds(self) -> list[str]:
        return [str(value.kind) if isinstance(value, Control | Mark) else "beat" for value, _, _ in self.taken]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    one = await Store.open(tmp_path / "store.sqlite")
    yield one
    await one.close()


async def test_a_restart_hands_on_again_what_the_journal_holds(tmp_path: Path, store: Store) -> None:
    first = Stand(tmp_path, store, Market(0, 1, has_offsets=False))
    await first.run()
    first.kill()
    again = Stand(tmp_path, store, Market(5, has_offsets=False))
    await again.run()
    assert again.taken[: len(first.taken)] == first.taken
    assert [offset for _, offset, _ in again.taken] == list(range(len(again.taken))), "no hole, and nothing twice"
    assert again.kinds() == ["instruments", "rules", "beat", "beat", "gap", "beat"]
    await again.pipeline.close()


async def test_an_input_that_failed_leaves_no_hole(tmp_path: Path, store: Store) -> None:
    first = Stand(tmp_path, store, Market(0, 1, has_offsets=False))
    with pytest.raises(EngineError):
        await first.run(fails_at=1)
    first.kill()
    again = Stand(tmp_path, store, Market(5, has_offsets=False))
    await again.run()
    assert [offset for _, offset, _ in again.taken] == list(range(len(again.taken)))
    assert again.kinds() == ["instruments", "rules", "beat", "beat", "failed", "gap", "beat"]
    await again.pipeline.close()


async def test_records_that_are_run_again_say_what_they_are_behind(tmp_path: Path, store: Store) -> None:
    first = Stand(tmp_path, store, Market(0, 1, has_offsets=True))
    await first.run()
    await first.pipeline.reload()
    first.kill()
    again = Stand(tmp_path, store, Market(0, 1, 2, has_offsets=True))
    await again.run()
    assert [(kind, offset, behind) for kind, (_, offset, behind) in zip(again.kinds(), again.taken, strict=True)] == [
        ("instruments", -1, -1),
        ("rules", -1, -1),
        ("beat", 0, -1),
        ("beat", 1, -1),
        ("beat", 2, -1),
    ]
    assert MarkKind.GAP not in again.kinds()
    assert {ControlKind.INSTRUMENTS, ControlKind.RULES} <= set(again.kinds())
    await again.pipeline.close()
