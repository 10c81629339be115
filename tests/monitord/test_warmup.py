"""Starts from cached bars: a daemon that has lost its checkpoint knows what one knows that never stopped."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from structlog.testing import capture_logs

from feeds.barcache import BarCache
from feeds.barfiles import read_files
from feeds.errors import FeedError
from feeds.exrights import HOLIDAYS_SINCE, ExRightTable, closed_weekdays, encode_exrights
from feeds.history import COLUMNS, HistoryRequest, PastBars
from feeds.inputs import FeedInput, Input
from feeds.instruments import Instrument
from feeds.journal import Journal
from feeds.sessions import Calendar, trade_date, unix_ms
from feeds.simulated import SimulatedFeed
from feeds.tick import TickBatch
from monitord.checkpoint import CheckpointFolder
from monitord.filling import fill
from monitord.keeping import Keeping
from monitord.pipeline import Pipeline
from monitord.store import Store
from monitord.warmup import ASK, Warmup
from rules import rulefile
from tests.rules.test_past import DAYS, FIRST, W1, agree_on, clock_of, past

PERIODS = ("1m", "5m", "1d", "1w")
RULES = "version: 1\ngroups:\n- name: g\n  rules:\n" + "".join(
    f"  - {{id: w1-{p}, select: all, period: {p}, when: '{W1}'}}\n" for p in PERIODS
)
EXRIGHTS = encode_exrights([], closed=closed_weekdays(Calendar.xshg(), since=HOLIDAYS_SINCE))


class Live:
    """A live feed that plays what it is given; `past` answers for its history."""

    has_offsets = False
    paced = True
    source_id = "live"

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = inputs
        self._closed = asyncio.Event()

    async def open(self, *, after: int = -1) -> None: ...

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        for value in self._inputs:
            assert not hasattr(value, "kind")
            yield FeedInput(-1, value)  # type: ignore[arg-type]

    async def instruments(self) -> Sequence[Instrument]:
        return ()

    async def close(self) -> None: ...

    def counters(self) -> Mapping[str, int]:
        return {}


class Vendor(Live):
    """A live feed with a history: bars up to what is asked for, or an error."""

    def __init__(self, inputs: Sequence[Input], answers: Mapping[str, PastBars], *, fails: int = 0) -> None:
        super().__init__(inputs)
        self.answers, self.fails = answers, fails
        self.asked: list[HistoryRequest] = []

    async def history(self, request: HistoryRequest) -> PastBars:
        self.asked.append(request)
        if self.fails:
            self.fails -= 1
            raise FeedError("the terminal does not answer")
        answer = self.answers[request.period]
        table = answer.table.of(request.symbols)
        return PastBars(table.take(table.ends_ms <= request.until_ms).newest(request.bars), answer.factors)


@pytest.fixture(scope="module")
def ticks() -> list[Input]:
    async def play() -> list[Input]:
        feed = SimulatedFeed(symbols=12, speed=None, start="09:15:00", days=DAYS, interval_s=60.0)
        await feed.open()
        return [given.value async for given in feed]

    return asyncio.run(play())


def date_of(value: Input) -> int:
    return trade_date(value.span_ms[1] if isinstance(value, TickBatch) else value.ts_ms)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def files(ticks: list[Input], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of bars of before the first day, as the vendor's or a user's own."""
    symbols = next(value.symbols for value in ticks if isinstance(value, TickBatch))
    until_ms = unix_ms(Calendar.xshg().previous(FIRST)) + 15 * 3_600_000
    frames = []
    for period, count in (("1m", 480), ("5m", 480), ("1d", 900)):
        table = past(symbols, period, count, until_ms)
        columns: dict[str, Any] = {name: getattr(table, name) for name in COLUMNS}
        names = np.array(table.symbols)[table.code]
        frames.append(pd.DataFrame({"symbol": names, "period": period, "ts_end": table.ends_ms, **columns}))
    file = tmp_path_factory.mktemp("bars") / "old.parquet"
    pd.concat(frames).to_parquet(file, index=False)
    return file


class Daemon:
    """A pipeline over a folder, with the tasks around it; `play` runs it to the end of its feed."""

    def __init__(self, folder: Path, feed: Live, *, files: Sequence[Path] = (), rules: str = RULES) -> None:
        self.folder, self.feed, self.rules = folder, feed, rules
        self.cache = BarCache(folder / "bars")
        self.files = files
        self.searched = asyncio.Event()
        self.seen: list[dict[tuple[str, str, str], float]] = []

    async def play(self, *, watch: int = 0, until_searched: bool = False) -> None:
        store = await Store.open(self.folder / "store.sqlite")
        warmup = Warmup(self.feed, cache=self.cache, files=lambda: self.files, exrights=lambda: EXRIGHTS)
        self.pipeline = Pipeline(
            self.feed,
            journal=Journal(self.folder / "source" / "journal", source_id=self.feed.source_id),
            store=store,
            checkpoints=CheckpointFolder(self.folder / "source" / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": self.rules}),
            load_exrights=lambda: EXRIGHTS,
            on_alerts=lambda alerts: None,
            on_ticks=lambda batch: self._look(watch),
            history=warmup,
            keeping=Keeping(self.cache, bars=2000),
        )
        self.engine = self.pipeline.engine
        past = self.pipeline._past
        assert past is not None
        ask = past._ask_vendor

        async def asked(*args: Any) -> None:
            await ask(*args)
            self.searched.set()

        past._ask_vendor = asked  # type: ignore[method-assign]
        await self.pipeline.recover()
        async with asyncio.TaskGroup() as tasks:
            history = tasks.create_task(self.pipeline.run_history())
            keeping = tasks.create_task(self.pipeline.run_keeping())
            await self.pipeline.run()
            for _ in range(2 * until_searched):  # one may be under way that began before the last symbols came
                self.searched.clear()
                past.look_again()
                await self.searched.wait()
            history.cancel()
            keeping.cancel()
        await self.pipeline.close()
        await store.close()

    def _look(self, watch: int) -> None:
        """Note all values; the engine thread rests while this is called."""
        if len(self.seen) < watch:
            self.seen.append(values(self.pipeline))


def values(pipeline: Pipeline) -> dict[tuple[str, str, str], float]:
    found = {}
    for symbol in sorted(pipeline.engine.market.universe.symbols):
        for rule, named in pipeline.engine.values(symbol).items():
            found |= {(symbol, rule, name): np.nan if v is None else v for name, v in named.items()}
    return found


@dataclass(frozen=True, slots=True)
class Lived:
    """What a daemon knew that never stopped, and the bars it kept."""

    values: Mapping[tuple[str, str, str], float]
    bars: Path


@pytest.fixture(scope="module")
def lived(ticks: list[Input], files: Path, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("lived")

    async def play() -> Lived:
        whole = Daemon(folder, Live(ticks), files=[files])
        await whole.play()
        return Lived(values(whole.pipeline), folder / "bars")

    return asyncio.run(play())


def up_to_the_last_day(lived: Lived, ticks: list[Input], folder: Path) -> tuple[BarCache, int]:
    """Put into `folder` what was kept before the last day's first tick, and say which tick that is."""
    last = max(map(date_of, ticks))
    shutil.copytree(lived.bars, folder / "bars")
    cache = BarCache(folder / "bars")
    for period in cache.periods():
        (cache.folder / period / f"{last}.parquet").unlink()
    return cache, next(i for i, value in enumerate(ticks) if date_of(value) == last)


async def test_a_start_without_checkpoint_equals_an_uninterrupted_run(
    ticks: list[Input], files: Path, lived: Lived, tmp_path: Path
) -> None:
    cache, start = up_to_the_last_day(lived, ticks, tmp_path)
    kept = [Calendar.xshg().previous(FIRST), *sorted({*map(date_of, ticks[:start])})]
    assert cache.dates("1m") == cache.dates("1d") == kept
    after = Daemon(tmp_path, Live(ticks[start:]), files=[files])
    await after.play(watch=1)
    agree_on(values(after.pipeline), lived.values)
    at_first_tick = {key: value for key, value in after.seen[0].items() if key[1] in ("w1-1d", "w1-1w")}
    assert at_first_tick
    # Before the opening auction's result there is no price yet: all that looks at closed bars alone is known.
    assert all(not np.isnan(value) for key, value in values(after.pipeline).items())


async def test_the_journal_alone_gives_the_same_again(ticks: list[Input], files: Path, tmp_path: Path) -> None:
    first = Daemon(tmp_path, Live(ticks[:200]), files=[files])
    await first.play()
    expected = values(first.pipeline)
    shutil.rmtree(tmp_path / "source" / "checkpoints")
    shutil.rmtree(tmp_path / "bars")
    again = Daemon(tmp_path, Live(()))
    await again.play()
    agree_on(values(again.pipeline), expected)
    assert not np.isnan(expected[next(key for key in expected if key[1:] == ("w1-1d", "MA60"))])


def answers(file: Path) -> dict[str, PastBars]:
    return {period: PastBars(table, {}) for period, table in read_files([file]).items()}


async def test_the_vendor_is_asked_beside_the_ticks_for_what_is_not_at_hand(
    ticks: list[Input], files: Path, tmp_path: Path
) -> None:
    night = [value for value in ticks if date_of(value) == FIRST and clock_of(value) < 34_000_000]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    vendor = Vendor(night, answers(files))
    asked = Daemon(tmp_path / "a", vendor)
    await asked.play(until_searched=True)
    filed = Daemon(tmp_path / "b", Live(night), files=[files])
    await filed.play()
    agree_on(values(asked.pipeline), values(filed.pipeline))
    assert {request.period for request in vendor.asked} == {"1m", "5m", "1d"}
    assert all(len(request.symbols) <= ASK + 1 for request in vendor.asked)
    day = next(request for request in vendor.asked if request.period == "1d")
    assert day.bars >= 60 * 5, "weeks are made of days"


async def test_a_vendor_that_fails_is_left_alone_and_rules_stay_warming(ticks: list[Input], tmp_path: Path) -> None:
    vendor = Vendor(ticks[:60], {}, fails=99)
    daemon = Daemon(tmp_path, vendor)
    with capture_logs() as logs:
        await daemon.play(until_searched=True)
    assert [log["event"] for log in logs].count("history_call_failed") == 1, "twelve symbols are one call"
    ready = daemon.pipeline.engine.readiness()["w1-1d"]
    assert (ready.symbols, ready.ready, ready.is_warming) == (12, 0, True)
    assert ready.missing == (("1d", 1),), "CROSS(K,D) has its first value with the second bar"


async def test_a_missing_day_is_not_bridged(ticks: list[Input], lived: Lived, tmp_path: Path) -> None:
    cache, start = up_to_the_last_day(lived, ticks, tmp_path)
    middle = cache.dates("1d")[2]
    for period in cache.periods():
        (cache.folder / period / f"{middle}.parquet").unlink()
    with capture_logs() as logs:
        after = Daemon(tmp_path, Live(ticks[start : start + 5]))
        await after.play()
    broken = [log for log in logs if log["event"] == "history_broken"]
    assert {log["period"] for log in broken} >= {"1m", "5m", "1d"}
    assert after.pipeline.engine._graph.bars_seen("1d", 0) == 1, "the day behind the hole, and none before it"


async def test_damaged_days_are_refused_and_the_next_source_is_used(
    ticks: list[Input], files: Path, tmp_path: Path
) -> None:
    cache = BarCache(tmp_path / "bars")
    for table in read_files([files]).values():
        assert fill(cache, table, exrights=ExRightTable(), now_ms=unix_ms(FIRST)) > 0
    for file in (cache.folder / "1d").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with capture_logs() as logs:
        daemon = Daemon(tmp_path, Live(ticks[:40]), files=[files])
        await daemon.play()
    assert sum(log["event"] == "bars_skipped" for log in logs) >= 500
    known = {key: value for key, value in values(daemon.pipeline).items() if key[1] == "w1-1d"}
    assert not any(np.isnan(value) for value in known.values())


async def test_a_rule_that_comes_later_gets_its_past_too(ticks: list[Input], files: Path, tmp_path: Path) -> None:
    few = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: up, select: all, when: LAST > 1000}\n"
    feed = Later(ticks[:60])
    daemon = Daemon(tmp_path, feed, files=[files], rules=few)
    playing = asyncio.ensure_future(daemon.play(until_searched=True))
    await feed.halfway.wait()
    daemon.rules = RULES
    await daemon.pipeline.reload()
    daemon.searched.clear()
    await daemon.searched.wait()
    feed.go.set()
    await playing
    known = {key: value for key, value in values(daemon.pipeline).items() if key[1] in ("w1-1d", "w1-1w")}
    assert known
    assert not [key for key, value in known.items() if np.isnan(value) and key[2] != "MV"]


class Later(Live):
    """A live feed that waits after thirty inputs."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        super().__init__(inputs)
        self.halfway, self.go = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        for number, value in enumerate(self._inputs):
            if number == 30:
                self.halfway.set()
                await self.go.wait()
            yield FeedInput(-1, value)  # type: ignore[arg-type]
