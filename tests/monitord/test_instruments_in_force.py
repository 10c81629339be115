"""Instruments and trading days of a live feed take effect through the journal, and a restart has them from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from feeds.exrights import encode_exrights
from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat
from feeds.instruments import Instrument, Limits, instrument_of
from feeds.journal import Journal
from feeds.known import Known
from feeds.sessions import HOUR_MS, Calendar, unix_ms
from monitord.checkpoint import CheckpointFolder
from monitord.pipeline import Pipeline
from monitord.reference import Reference
from monitord.store import Store
from rules import rulefile
from rules.errors import RuleError

RULES = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: banks, select: {sector: SW1银行}, when: LAST > LIMITUP}\n"
DAY = 20230201
BANK = replace(instrument_of("600000.SH", name="浦发银行", sectors=("SW1银行",)), limits=Limits(7.28, 5.96, 6.62, DAY))


class LiveMarket:
    """A feed that brings no ticks, and knows what the test says."""

    source_id, has_offsets, paced = "market", False, True

    def __init__(self) -> None:
        self.known: tuple[Instrument, ...] = (BANK,)
        self.dates: tuple[int, ...] = ()

    async def open(self, *, after: int = -1) -> None: ...

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        for _ in ():
            yield _

    async def instruments(self) -> Sequence[Instrument]:
        return self.known

    async def trading_dates(self) -> Sequence[int]:
        return self.dates

    def use_calendar(self, calendar: Calendar) -> None: ...

    async def close(self) -> None: ...

    def counters(self) -> Mapping[str, int]:
        return {}


class ToldMarket(LiveMarket):
    """A feed that others tell of instruments: what `told` holds at its start, then among its inputs."""

    has_offsets = True

    def __init__(self, *inputs: Heartbeat | Known, told: Known = Known()) -> None:  # noqa: B008
        super().__init__()
        self.inputs, self.told, self.after = inputs, told, -1

    async def open(self, *, after: int = -1) -> None:
        self.after = after

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        for offset, value in enumerate(self.inputs):
            if offset > self.after:
                told = isinstance(value, Known)
                yield FeedInput(offset, Heartbeat(0), value) if told else FeedInput(offset, value)

    async def reference(self) -> Known:
        return self.told


class Stand:
    def __init__(self, folder: Path, store: Store, feed: LiveMarket | None = None) -> None:
        self.feed, self.journal = feed or LiveMarket(), Journal(folder / "journal", source_id="market")
        self.reference = Reference(self.feed, folder=folder, now=lambda: unix_ms(DAY, 10 * HOUR_MS) / 1000)
        self.pipeline = Pipeline(
            self.feed,
            journal=self.journal,
            store=store,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": RULES}),
            load_exrights=lambda: encode_exrights([], closed=[] if self.is_open(DAY + 1) else [DAY + 1]),
            reference=self.reference,
            on_alerts=lambda alerts: None,
        )

    def is_open(self, date: int) -> bool:
        return self.reference.calendar().is_trading(date)

    def records(self) -> list[ControlKind]:
        return [value.kind for _, value in self.journal.read(after=-1) if isinstance(value, Control)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    one = await Store.open(tmp_path / "store.sqlite")
    yield one
    await one.close()


async def test_what_the_feed_knows_is_journaled_once_and_in_force(tmp_path: Path, store: Store) -> None:
    stand = Stand(tmp_path, store)
    await stand.pipeline.recover()
    assert stand.records() == [ControlKind.INSTRUMENTS, ControlKind.RULES]
    assert stand.pipeline.engine.market.instruments == {"600000.SH": BANK}
    await stand.pipeline.renew_instruments()
    assert len(stand.records()) == 2, "what is not new is no record"
    stand.feed.known = (replace(BANK, name="XD浦发银"),)
    stand.feed.dates = (20230131, DAY, DAY + 2)
    assert await stand.reference.refresh()
    await stand.pipeline.renew_instruments()
    assert stand.records()[2:] == [ControlKind.INSTRUMENTS, ControlKind.EXRIGHTS]
    market = stand.pipeline.engine.market
    assert market.instruments["600000.SH"].name == "XD浦发银"
    assert market.exrights.table.previous(DAY + 2) == DAY, "the feed's own days decide what the day before was"
    await stand.pipeline.close()


async def test_a_restart_without_an_answer_has_the_same(tmp_path: Path, store: Store) -> None:
    stand = Stand(tmp_path, store)
    await stand.pipeline.recover()
    await stand.pipeline.close()
    after = Stand(tmp_path, store)
    after.feed.known = ()
    records = after.records()
    await after.pipeline.recover()
    assert after.pipeline.engine.market.instruments == {"600000.SH": BANK}
    assert after.records() == records
    await after.pipeline.close()


# ── told by a bridge ──────────────────────────────────────────────────────────────────────────────────────────────

AT_MS = unix_ms(DAY, 10 * HOUR_MS)
TOLD = Known(DAY, (BANK,), (20230131, DAY, DAY + 2))
RENAMED = Known(DAY, (replace(BANK, name="XD浦发银"),), TOLD.trading_dates)


def heartbeats(*numbers: int) -> list[Heartbeat]:
    return [Heartbeat(AT_MS + number * 3000) for number in numbers]


async def ran(folder: Path, store: Store, feed: ToldMarket) -> Stand:
    stand = Stand(folder, store, feed)
    await stand.pipeline.recover()
    await stand.pipeline.run()
    return stand


def told_at(stand: Stand) -> list[tuple[int, ControlKind]]:
    return [(one.follows, one.value.kind) for one in stand.journal.records() if isinstance(one.value, Control)]


async def test_who_starts_before_its_bridge_hears_of_instruments_in_the_order_of_the_stream(
    tmp_path: Path, store: Store
) -> None:
    before, *behind = heartbeats(0, 1, 2)
    stand = await ran(tmp_path, store, ToldMarket(before, TOLD, behind[0], RENAMED, TOLD, behind[1]))
    market = stand.pipeline.engine.market
    assert market.instruments == {"600000.SH": BANK}
    assert market.exrights.table.previous(DAY + 2) == DAY
    kinds = [(follows, kind) for follows, kind in told_at(stand) if follows >= 0]
    assert kinds == [
        (0, ControlKind.INSTRUMENTS),
        (0, ControlKind.EXRIGHTS),
        (2, ControlKind.INSTRUMENTS),
        (3, ControlKind.INSTRUMENTS),
    ]
    assert stand.pipeline.engine.offset == 5
    assert stand.reference.report()["of"] == DAY
    await stand.pipeline.close()


async def test_what_is_told_again_and_what_a_restart_reads_again_is_no_news(tmp_path: Path, store: Store) -> None:
    first, *behind = heartbeats(0, 1, 2)
    stand = await ran(tmp_path, store, ToldMarket(first, TOLD, behind[0]))
    # Killed: no checkpoint was written, and the stream is read again from its beginning.
    stand.journal.sync()
    records = told_at(stand)
    stand.journal.close()
    after = await ran(tmp_path, store, ToldMarket(first, TOLD, behind[0], TOLD, behind[1]))
    assert told_at(after) == records
    assert after.pipeline.engine.market.instruments == {"600000.SH": BANK}
    await after.pipeline.close()


async def test_a_bridge_that_has_told_nothing_yet_wipes_out_nothing(tmp_path: Path, store: Store) -> None:
    stand = await ran(tmp_path, store, ToldMarket(told=TOLD))
    records = told_at(stand)
    await stand.pipeline.close()
    after = await ran(tmp_path, store, ToldMarket())
    assert after.pipeline.engine.market.instruments == {"600000.SH": BANK}
    assert told_at(after) == records
    await after.pipeline.close()


async def test_with_a_bad_file_beside_them_instruments_wait_and_ticks_go_on(tmp_path: Path, store: Store) -> None:
    stand = Stand(tmp_path, store, ToldMarket(*heartbeats(0), TOLD, *heartbeats(1)))
    await stand.pipeline.recover()

    def bad() -> Mapping[str, Sequence[str]]:
        raise RuleError("sectors.yaml: line 1")

    stand.pipeline._today._load_sectors = bad
    await stand.pipeline.run()
    assert stand.pipeline.engine.market.clock_ms == AT_MS + 3000
    assert not stand.pipeline.engine.market.instruments
    await stand.pipeline.close()
