"""The past of a market is lived through beside its ticks: they wait for one short turn, and a kill changes nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from structlog.testing import capture_logs

from feeds.history import Bars
from feeds.inputs import FeedInput, Input
from feeds.journal import Journal, read_journal
from feeds.tick import TickBatch
from monitord.checkpoint import CheckpointFolder
from monitord.pastsearch import MOST_ROWS, Pace, in_groups
from monitord.pipeline import Pipeline
from monitord.store import Store
from monitord.warmup import no_bars
from rules import rulefile
from rules.engine import Engine
from rules.needs import Lack
from rules.pastlife import PastLife
from rules.rehearsal import TOGETHER, Rehearsal, foreseen
from tests.given_past import Given
from tests.monitord.test_warmup import Live
from tests.rules.test_rehearsal import BARS, RULES, Play, play, state_of

__all__ = ["play"]
T = TypeVar("T")
SLOW_S = 1.0


class Pushed(Live):
    """A live feed that tells what it is given."""

    def __init__(self) -> None:
        super().__init__(())
        self.waiting: asyncio.Queue[Input | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        while (value := await self.waiting.get()) is not None:
            yield FeedInput(-1, value)  # type: ignore[arg-type]


class Watched(Pipeline):
    """Notes how many bars of the past are lived through in each turn of the engine's thread."""

    closed = 0
    turns: list[int]
    behind: Callable[[], None] = staticmethod(lambda: None)

    async def in_engine(self, work: Callable[[], T]) -> T:
        self.closed = 0
        try:
            return await super().in_engine(work)
        finally:
            self.turns.append(self.closed)
            self.behind()


class Daemon:
    """A pipeline with a market in the middle of its day, whose past is found when `search` is set."""

    def __init__(self, folder: Path, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.inputs, self.taken, self.events = folder, list(play.inputs), 0, []  # type: ignore[var-annotated]
        self.feed = Pushed()
        self.history = Given(self.feed)
        self.bars = [bars for group in play.groups for bars in group]
        close = PastLife.close

        def counted(life: PastLife, bar: Any, at: Any) -> None:
            self.pipeline.closed += 1
            close(life, bar, at)

        monkeypatch.setattr(PastLife, "close", counted)

    async def run(self, use: Callable[[], Any], *, begin: int = 6, again: int = 0) -> None:
        """Run it while `use` does, behind the first inputs; again: how often the search fails with OSError."""
        store = await Store.open(self.folder / "store.sqlite")
        self.pipeline = Watched(
            self.feed, journal=Journal(self.folder / "s" / "journal", source_id="live"), store=store,
            checkpoints=CheckpointFolder(self.folder / "s" / "checkpoints"),
            load_rules=lambda: rulefile.from_source(RULES.text), on_alerts=self.events.extend,
            on_step=lambda outcome: self._count(), history=self.history, window=BARS,
        )  # fmt: skip
        self.pipeline.turns = []
        self.past = self.pipeline._past
        assert self.past is not None
        times = iter(np.arange(0.0, 1e6, SLOW_S).tolist())
        self.past._clock = lambda: float(next(times))
        await self.pipeline.recover()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.pipeline.run())
            searching = tasks.create_task(self._search(again))
            await self.tick(begin)
            await use()
            self.feed.waiting.put_nowait(None)
            await running
            searching.cancel()
        await self.pipeline.close()
        await store.close()

    async def _search(self, again: int) -> None:
        for _ in range(again):
            with pytest.raises(OSError, match="the disk is gone"):
                await self.pipeline.run_history()
        await self.pipeline.run_history()

    def _count(self) -> None:
        self.taken += 1

    async def tick(self, count: int) -> None:
        """Let so many inputs come, and wait until they are taken."""
        until = self.taken + count
        for _ in range(count):
            self.feed.waiting.put_nowait(self.inputs.pop(0))
        while self.taken < until:  # noqa: ASYNC110  # the pipeline does it
            await asyncio.sleep(0)

    async def search(self) -> None:
        """Let the past be found, and wait until all of it has taken effect."""
        found = asyncio.Event()
        assert self.past is not None
        ask = self.past._ask_vendor

        async def asked(lacks: Sequence[Lack]) -> None:
            await ask(lacks)
            if not self.history.found:
                found.set()

        self.past._ask_vendor = asked  # type: ignore[method-assign]
        self.history.found = self.bars
        self.past.look_again()
        await found.wait()


def again(folder: Path, *, ahead: bool) -> tuple[list[bytes], Any]:
    """Return events and state of an engine that runs a journal anew; ahead: as recovery does."""
    engine, events = Engine(window=BARS), []
    records: Any = read_journal(folder)
    for record in foreseen(records, engine, value_of=lambda one: one.value) if ahead else records:
        events += engine.step(record.value, offset=record.offset)
    return [event.to_json() for event in events], state_of(engine)


async def test_what_the_first_batch_lacks_is_looked_for_right_behind_it(
    tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be beside the second, which may bring the first alerts."""
    daemon, asked = Daemon(tmp_path, play, monkeypatch), list[tuple[int, int]]()
    lacks = Engine.lacks

    def watched(engine: Engine, symbols: Sequence[str]) -> Sequence[Lack]:
        asked.append((daemon.taken, len(symbols)))
        return lacks(engine, symbols)

    monkeypatch.setattr(Engine, "lacks", watched)
    first = next(place for place, value in enumerate(daemon.inputs) if isinstance(value, TickBatch))

    async def use() -> None:
        async with asyncio.timeout(20):
            while sum(symbols for taken, symbols in asked if taken) < symbols_there:  # noqa: ASYNC110
                await asyncio.sleep(0)

    symbols_there = len(set(daemon.inputs[first].symbols))
    await daemon.run(use, begin=first + 1)
    assert asked[0][0] == first, "before the batch is taken: what is at hand"
    assert {taken for taken, _ in asked[1:]} == {first + 1}


@pytest.mark.parametrize("where", ["near", "far"])
async def test_a_search_that_fails_is_begun_again_later_and_asks_for_all_of_it(
    tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    daemon = Daemon(tmp_path, play, monkeypatch)
    monkeypatch.setattr("monitord.pastsearch.AGAIN_AFTER_S", 0.01)
    asked: list[list[str]] = []
    search = getattr(daemon.history, where)

    async def failing(lacks: Sequence[Lack], now: Any, **how: Any) -> AsyncIterator[Bars]:
        if how.get("met", True):  # what is looked for before the first batch is another search
            asked.append(sorted(symbol for lack in lacks for symbol in lack.symbols))
            if len(asked) == 1:
                raise OSError("the disk is gone")
        async for bars in search(lacks, now, **how):
            yield bars

    monkeypatch.setattr(daemon.history, where, failing)

    async def use() -> None:
        async with asyncio.timeout(20):
            while len(asked) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)

    await daemon.run(use, again=1)
    assert asked[0]
    assert set(asked[0]) <= set(asked[1]), "and of what has come since"


async def test_a_tick_waits_for_one_turn_and_a_turn_is_as_long_as_it_may_be(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counting: the clock says that every turn takes too long, so none may do more than one bar of all symbols."""
    daemon = Daemon(tmp_path, play, monkeypatch)
    waits: list[int] = []

    async def use() -> None:
        searching = asyncio.ensure_future(daemon.search())
        begin = len(daemon.pipeline.turns)
        while not searching.done() and len(daemon.inputs) > 2:
            before = len(daemon.pipeline.turns)
            await daemon.tick(1)
            waits.append(len(daemon.pipeline.turns) - before)
        await searching
        turns = daemon.pipeline.turns[begin:]
        assert sum(turns) > BARS * 3
        assert max(turns) <= 4, "a bar of the past, or those that have closed while it was lived through"

    await daemon.run(use)
    assert len(waits) > 20
    assert max(waits) <= 3, "the turn under way, and the tick's own"
    assert daemon.events


@pytest.mark.parametrize("moment", [40, None])
async def test_killed_at_any_moment_the_journal_gives_the_same_state_bit_for_bit(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int | None
) -> None:
    daemon = Daemon(tmp_path, play, monkeypatch)
    kept: list[Any] = []

    def keep() -> None:
        shutil.copytree(tmp_path / "s" / "journal", tmp_path / "killed")
        kept.append(state_of(daemon.pipeline.engine))

    async def use() -> None:
        searching = asyncio.ensure_future(daemon.search())
        begin = len(daemon.pipeline.turns)

        def behind() -> None:
            if moment is not None and len(daemon.pipeline.turns) == begin + moment:
                keep()

        daemon.pipeline.behind = behind  # type: ignore[method-assign]
        while not searching.done() and len(daemon.inputs) > 2:
            await daemon.tick(1)
        await searching
        await daemon.tick(1)
        if moment is None:
            keep()

    await daemon.run(use)
    (expected,) = kept
    for ahead in (True, False):
        events, state = again(tmp_path / "killed", ahead=ahead)
        assert state == expected
        assert events == [event.to_json() for event in daemon.events][: len(events)]


def bars_of(period: str, symbols: int, first: int = 0) -> Bars:
    names = tuple(f"{600000 + first + number}.SH" for number in range(symbols))
    none = np.zeros(0)
    return no_bars([Bars(period, 0, names, *[none] * 11)])  # type: ignore[arg-type]


async def test_bars_are_lived_through_a_thousand_symbols_of_one_period_at_a_time() -> None:
    sizes = [("1d", 400), ("1d", 400), ("1d", 400), ("5m", 400), ("5m", TOGETHER + 1), ("5m", 1)]

    async def found() -> AsyncIterator[Bars]:
        for period, symbols in sizes:
            yield bars_of(period, symbols)

    groups = [[len(bars.symbols) for bars in group] async for group in in_groups(found())]
    assert groups == [[400, 400], [400], [400], [TOGETHER + 1], [1]]


def test_a_turn_follows_how_long_the_last_ones_took() -> None:
    took, now = iter([0.001] * 8 + [0.007, 0.05, 0.05]), [0.0, 0.0]

    class Idle(Rehearsal):
        def go_on(self, rows: int) -> bool:
            seen.append(rows)
            self.lived += rows
            now[0] += next(took)
            return True

    seen: list[int] = []
    pace, idle = Pace(lambda: now[0]), Idle([], None, lambda bars: None)
    for _ in range(11):
        assert pace.let(idle)
    assert seen == [1, 2, 4, 8, 16, 32, MOST_ROWS, MOST_ROWS, MOST_ROWS, MOST_ROWS, MOST_ROWS // 2]
    assert pace.rows == MOST_ROWS // 4


def test_a_part_that_is_no_bars_does_not_change_the_pace() -> None:
    class Laying(Rehearsal):
        def go_on(self, rows: int) -> bool:
            return True

    pace = Pace(lambda: 0.0)
    assert pace.let(Laying([], None, lambda bars: None))
    assert pace.rows == 1


async def test_a_rehearsal_that_fails_leaves_the_work_to_the_inputs(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path, play, monkeypatch)

    def fails(rehearsal: Rehearsal, rows: int) -> bool:
        raise ZeroDivisionError("of a node")

    async def use() -> None:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(Rehearsal, "go_on", fails)
            await daemon.search()
        failed = [line["why"] for line in logs if line["event"] == "rehearsal_failed"]
        assert failed == ["ZeroDivisionError: of a node"] * 3
        await daemon.tick(1)
        assert again(tmp_path / "s" / "journal", ahead=True)[1] == state_of(daemon.pipeline.engine)

    await daemon.run(use)
