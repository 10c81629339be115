"""Instruments and trading days: the feed's, a day's on the disk, and what is built in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feeds.errors import FeedError
from feeds.feed import Referenced
from feeds.instruments import Instrument, Limits, instrument_of
from feeds.sessions import HOUR_MS, Calendar, unix_ms
from monitord.reference import START_WAIT_S, Known, Reference
from tests.virtual_time import run

DAY = 20240102
BANK = replace(instrument_of("600000.SH", name="浦发银行"), limits=Limits(7.28, 5.96, 6.62, DAY))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of threads is done at once: virtual time passes while a thread works, and the order would be anybody's."""

    async def at_once(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return work(*arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


class Market:
    """A live feed that knows what the test says; counts how often it is asked."""

    source_id = "market"

    def __init__(self, *instruments: Instrument, dates: Sequence[int] = ()) -> None:
        self.known, self.dates = instruments, tuple(dates)
        self.asked = 0
        self.hangs = False
        self.calendar: Calendar | None = None

    async def instruments(self) -> Sequence[Instrument]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return self.known

    async def trading_dates(self) -> Sequence[int]:
        return self.dates

    def use_calendar(self, calendar: Calendar) -> None:
        self.calendar = calendar


class Recording:
    """A feed whose instruments never change."""

    source_id = "recording"

    async def instruments(self) -> Sequence[Instrument]:
        return [BANK]


def reference(feed: Any, folder: Path, *, date: int = DAY, hour: float = 10.0) -> Reference:
    return Reference(feed, folder=folder, now=lambda: unix_ms(date, int(hour * HOUR_MS)) / 1000)


async def started(feed: Any, folder: Path, **when: Any) -> tuple[Sequence[Instrument], Reference]:
    one = reference(feed, folder, **when)
    await one.start()
    return await one.instruments(), one


def test_a_live_feed_is_asked_once_a_day_and_its_answer_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        feed = Market(BANK)
        assert (await started(feed, tmp_path))[0] == (BANK,)
        assert (await started(feed, tmp_path))[0] == (BANK,)
        assert feed.asked == 1
        renamed = replace(BANK, name="XD浦发银")
        feed.known = (renamed,)
        assert (await started(feed, tmp_path, date=20240103))[0] == (renamed,)
        assert feed.asked == 2

    run(scenario())


def test_without_an_answer_an_older_day_is_better_than_none_and_none_is_no_obstacle(tmp_path: Path) -> None:
    async def scenario() -> None:
        silent = Market()
        assert (await started(silent, tmp_path))[0] == ()
        await started(Market(BANK), tmp_path)
        assert (await started(silent, tmp_path, date=20240105))[0] == (BANK,)

    run(scenario())


def test_a_feed_that_hangs_holds_a_start_up_for_a_while_only(tmp_path: Path) -> None:
    async def scenario() -> float:
        feed = Market(BANK)
        feed.hangs = True
        began_s = asyncio.get_running_loop().time()
        assert (await started(feed, tmp_path))[0] == ()
        return asyncio.get_running_loop().time() - began_s

    assert run(scenario()) == START_WAIT_S


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', '{"format": 2, "source": "market"}'])
def test_a_file_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        tmp_path.joinpath("instruments.json").write_text(text)
        assert (await started(Market(BANK), tmp_path))[0] == (BANK,)

    run(scenario())


def test_what_another_source_said_is_not_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        await started(Market(BANK), tmp_path)
        other = Market()
        other.source_id = "another"
        assert (await started(other, tmp_path))[0] == ()

    run(scenario())


def test_a_disk_that_takes_nothing_is_told_and_the_day_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        blocked = tmp_path / "file"
        blocked.write_text("")
        assert (await started(Market(BANK), blocked))[0] == (BANK,)

    run(scenario())


def test_a_recording_is_simply_asked_and_nothing_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        instruments, one = await started(Recording(), tmp_path)
        assert list(instruments) == [BANK]
        assert not one.is_daily
        assert isinstance(Market(), Referenced)
        assert not os.listdir(tmp_path)
        assert one.calendar() is Calendar.xshg()

    run(scenario())


def test_it_asks_again_at_its_times_and_tells_only_news(tmp_path: Path) -> None:
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        start_s = unix_ms(DAY, 8 * HOUR_MS) / 1000
        feed = Market(BANK)
        one = Reference(feed, folder=tmp_path, now=lambda: start_s + loop.time())
        await one.start()
        told: list[float] = []

        async def on_news() -> None:
            told.append(loop.time())

        running = asyncio.ensure_future(one.run(on_news))
        await asyncio.sleep(3600)  # 09:00: asked at 08:50, and told the same
        assert (feed.asked, told) == (2, [])
        feed.known = (replace(BANK, name="ST浦发"),)
        await asyncio.sleep(3600)
        feed.known = ()  # from now on it answers nothing: what was stays
        await asyncio.sleep(24 * 3600)
        running.cancel()
        assert [each.name for each in await one.instruments()] == ["ST浦发"]
        assert one.report()["refreshes_failed"] > 3
        return told

    assert run(scenario()) == [72 * 60.0]


def test_without_any_it_asks_again_soon(tmp_path: Path) -> None:
    async def scenario() -> int:
        feed = Market()
        loop = asyncio.get_running_loop()
        one = Reference(feed, folder=tmp_path, now=lambda: unix_ms(DAY, 10 * HOUR_MS) / 1000 + loop.time())
        await one.start()

        async def on_news() -> None:
            raise AssertionError("there is none")

        running = asyncio.ensure_future(one.run(on_news))
        await asyncio.sleep(1000)
        running.cancel()
        return feed.asked

    assert run(scenario()) == 1 + 16


# ── disagreement ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_that_differ_from_ours_are_counted_with_examples(tmp_path: Path) -> None:
    async def scenario() -> Mapping[str, Any]:
        odd = replace(BANK, symbol="600001.SH", limits=Limits(6.95, 6.29, 6.62, DAY))
        _, one = await started(Market(BANK, odd), tmp_path)
        assert one.counters()["limits_differ"] == 1
        return one.report()

    report = run(scenario())
    assert (report["limits_compared"], report["limits_differ"]) == (2, 1)
    assert report["limits_examples"] == ["600001.SH 浦发银行: 6.29..6.95, ours 5.96..7.28"]


def days(first: int, last: int) -> list[int]:
    """Return the built-in trading days of a stretch."""
    calendar, day = Calendar.xshg(), first
    found = []
    while day <= last:
        found.append(day)
        day = calendar.next(day)
    return found


def test_the_feeds_trading_days_win_where_it_has_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = [day for day in days(20230103, 20231229) if day != 20230602] + [20230603]
        feed = Market(BANK, dates=told)
        _, one = await started(feed, tmp_path)
        calendar = one.calendar()
        assert not calendar.is_trading(20230602)
        assert calendar.is_trading(20230603)
        assert calendar.is_trading(20240103) == Calendar.xshg().is_trading(20240103)
        assert not calendar.is_trading(20221231)
        assert one.report()["days_disputed"] == 2
        assert feed.calendar is calendar
        assert (await started(Market(), tmp_path))[1].calendar().is_trading(20230603), "kept with the day's table"

    run(scenario())


def test_a_feed_that_lacks_too_many_days_is_not_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        whole = days(20230103, 20231229)
        _, one = await started(Market(BANK, dates=whole[:100] + whole[130:]), tmp_path)
        assert one.calendar() is Calendar.xshg()
        assert one.report()["days_disputed"] == 30

    run(scenario())


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(FeedError):
        Calendar([20230101]).overridden([20231399])


def test_nothing_known_has_no_date() -> None:
    assert Known().date == 0
