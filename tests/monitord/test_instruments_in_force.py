"""Instruments and trading days of a live feed take effect through the journal, and a restart has them from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from feeds.exrights import encode_exrights
from feeds.inputs import Control, ControlKind, FeedInput
from feeds.instruments import Instrument, Limits, instrument_of
from feeds.journal import Journal
from feeds.sessions import HOUR_MS, Calendar, unix_ms
from monitord.checkpoint import CheckpointFolder
from monitord.pipeline import Pipeline
from monitord.reference import Reference
from monitord.store import Store
from rules import rulefile

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


class Stand:
    def __init__(self, folder: Path, store: Store) -> None:
        self.feed, self.journal = LiveMarket(), Journal(folder / "journal", source_id="market")
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
