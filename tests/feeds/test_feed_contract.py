"""What every feed promises, asked of each entry of FEEDS that can be opened without a vendor's terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feeds.errors import FeedError
from feeds.feed import FEEDS, Feed, load_feed
from feeds.inputs import FeedInput, Heartbeat, Mark
from feeds.instruments import Instrument, board_of
from feeds.quotes_http import QuotesHttpFeed
from feeds.sessions import Calendar, day_number, unix_ms
from feeds.tick import CORE, REST, TickBatch
from tests.feeds.quote_page import DAY, TEN, Page, Stock
from tests.virtual_time import run

NEEDS_A_TERMINAL = {"xt"}
"""Feeds whose source exists on the vendor's platform only; their own tests open them over a stand-in."""
NEEDS_A_SERVER = {"redis"}
"""Feeds that other processes write: their own tests ask the same of them over a real server, in real time."""


def replay(folder: Path, **settings: Any) -> Feed:
    """Return a feed over two days of three stocks with a hole, written on the first use of the folder."""
    path = folder / "two-days.csv"
    if not path.exists():
        lines = ["symbol,ts_event,last,open,high,low,prev_close,volume_lots,amount_cny,bid_price_1,bid_lots_1,status"]
        for date in (20250102, 20250103):
            for step in (*range(60), *range(100, 160)):  # 120 s of silence in the middle
                for number, symbol in enumerate(("600519.SH", "000001.SZ", "300750.SZ")):
                    ts_ms = unix_ms(date, 36_000_000) + 3000 * step + 700 * number
                    bid = 0 if step % 7 == 0 else 9.99
                    lots = 100 * (step + 1)
                    lines.append(
                        f"{symbol},{ts_ms},10.0,10.0,10.5,9.5,{0 if number else 9.9},{lots},{lots * 1e3},{bid},5,13"
                    )
        path.write_text("\n".join(lines) + "\n")
    return load_feed("replay")(inputs=[path], **settings)


def simulated(folder: Path, **settings: Any) -> Feed:
    """Return a small market of two coarse days."""
    settings = {"seed": 7, "symbols": 40, "interval_s": 60, "days": 2, "speed": None, "start": "09:20:00"} | settings
    return load_feed("simulated")(**settings)


class _Quotes(QuotesHttpFeed):
    """Quotes of a page on this machine, which moves for 40 requests; then the feed is closed."""

    def __init__(self, **settings: Any) -> None:
        self.page = Page()
        self.page.on_request = self._move
        symbols = ("600519.SH", "000001.SZ")
        super().__init__(symbols=symbols, now=self._time_s, calendar=Calendar([DAY]), jitter=lambda: 1.0, **settings)

    def _time_s(self) -> float:
        return TEN / 1000 + asyncio.get_running_loop().time()

    def _move(self) -> None:
        self.page.stocks = {code: stock.later(3) for code, stock in self.page.stocks.items()}
        if len(self.page.asked) == 40:
            self._closed.set()

    async def _first_round(self) -> None:
        self.page.asked.clear()
        self.page.stocks = {code: Stock(name=f"股{code[-2:]}") for code in ("sh600519", "sz000001")}
        await self.page.start()
        self._client._url = self.page.url
        await super()._first_round()

    async def close(self) -> None:
        await super().close()
        await self.page.stop()


def quotes_http(folder: Path, **settings: Any) -> Feed:
    """Return a feed over a page of two stocks; it has no speed but that of life."""
    return _Quotes(**{name: value for name, value in settings.items() if name != "speed"})


OPENED_HERE: dict[str, Callable[..., Feed]] = {"replay": replay, "simulated": simulated, "quotes_http": quotes_http}
LIVE = {"quotes_http"}
"""Feeds whose inputs come once: they have no offsets, and cannot be played faster."""


def test_every_feed_of_the_registry_is_asked() -> None:
    assert set(OPENED_HERE) | NEEDS_A_TERMINAL | NEEDS_A_SERVER == set(FEEDS)


def test_an_unknown_feed_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(FeedError, match=r"no feed named 'qmt'; there are: .*simulated"):
        load_feed("qmt")


@pytest.fixture(params=sorted(set(OPENED_HERE) - LIVE))
def make_again(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Feed]:
    """Return a maker of equal feeds of one kind that can be played again."""
    return lambda **settings: OPENED_HERE[request.param](tmp_path, **settings)


@pytest.fixture(params=sorted(OPENED_HERE))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Feed]:
    """Return a maker of equal feeds of one kind."""
    return lambda **settings: OPENED_HERE[request.param](tmp_path, **settings)


def play(feed: Feed, *, after: int = -1, most: int | None = None) -> list[FeedInput]:
    async def scenario() -> list[FeedInput]:
        await feed.open(after=after)
        played = []
        async for given in feed:
            played.append(given)
            if most is not None and len(played) >= most:
                break
        await feed.close()
        return played

    return run(scenario())


def test_offsets_count_the_inputs_from_0(make_again: Callable[..., Feed]) -> None:
    played = play(make_again())
    assert len(played) > 100
    assert [given.offset for given in played] == list(range(len(played)))
    assert {type(given.value) for given in played} <= {TickBatch, Heartbeat, Mark}


def test_a_live_feed_has_no_offsets(tmp_path: Path) -> None:
    for name in LIVE:
        feed = OPENED_HERE[name](tmp_path)
        assert (feed.has_offsets, feed.paced) == (False, True)
        played = play(feed)
        assert len(played) > 40
        assert {given.offset for given in played} == {-1}
        assert {type(given.value) for given in played} <= {TickBatch, Heartbeat, Mark}
        assert feed.source_id == OPENED_HERE[name](tmp_path).source_id


def test_the_same_source_gives_the_same_inputs(make_again: Callable[..., Feed]) -> None:
    assert make_again().source_id == make_again().source_id
    assert play(make_again()) == play(make_again())


def test_opened_behind_any_offset_it_goes_on_as_if_never_stopped(make_again: Callable[..., Feed]) -> None:
    whole = play(make_again())
    last = len(whole) - 1
    for after in sorted(
        {0, 1, last // 3, last // 2, last // 2 + 1, last - 1, *np.random.default_rng(3).integers(0, last, 5)}
    ):
        assert play(make_again(), after=int(after)) == whole[int(after) + 1 :], f"after={after}"


@pytest.mark.parametrize("beyond", [0, 1, 1000])
def test_opened_behind_its_end_it_gives_nothing(make_again: Callable[..., Feed], beyond: int) -> None:
    assert play(make_again(), after=len(play(make_again())) - 1 + beyond) == []


def test_a_feed_can_be_opened_again(make_again: Callable[..., Feed]) -> None:
    feed = make_again()
    first = play(feed, most=20)
    assert play(feed)[:20] == first
    assert play(feed, after=9, most=10) == first[10:]


def test_pacing_changes_when_inputs_come_and_nothing_else(make_again: Callable[..., Feed]) -> None:
    fast, slow = make_again(speed=None), make_again(speed=2.0)
    assert (fast.paced, slow.paced) == (False, True)
    assert fast.source_id == slow.source_id
    assert play(fast) == play(slow)


def test_batches_have_the_columns_and_types_of_ticks(make: Callable[..., Feed]) -> None:
    for batch in batches(play(make())):
        assert len(batch) > 0
        assert (batch.ts_event_ms.dtype, batch.recv_ms.dtype, batch.status.dtype) == (np.int64, np.int64, np.int16)
        for name in (*CORE, *REST):
            column = batch.column(name)
            assert (column.dtype, column.shape) == (np.float64, (len(batch),)), name
            if name in CORE[:5] or "_price_" in name or name.startswith("limit"):
                assert not (column <= 0).any(), f"{name}: no price is NaN, never 0"
            elif name != "trades":
                assert (column >= 0).all(), name
        assert all(isinstance(symbol, str) for symbol in batch.symbols)
        assert (batch.ts_event_ms <= batch.recv_ms).all(), "no tick is stamped after it came"


def test_no_symbol_goes_back_in_time_or_volume(make: Callable[..., Feed]) -> None:
    seen: dict[str, tuple[int, int, float, float]] = {}
    for batch in batches(play(make())):
        rows = zip(batch.ts_event_ms.tolist(), batch.column("volume_lots"), batch.column("amount_cny"), strict=True)
        for symbol, (ts_ms, lots, amount) in zip(batch.symbols, rows, strict=True):
            day = day_number(ts_ms)
            last_day, last_ms, last_lots, last_amount = seen.get(symbol, (day, 0, 0.0, 0.0))
            assert ts_ms >= last_ms
            assert day > last_day or (lots >= last_lots and amount >= last_amount), symbol
            seen[symbol] = (day, ts_ms, lots, amount)


def batches(played: list[FeedInput]) -> list[TickBatch]:
    return [given.value for given in played if isinstance(given.value, TickBatch)]


def test_instruments_are_those_of_its_ticks(make: Callable[..., Feed]) -> None:
    async def scenario() -> list[Instrument]:
        feed = make()
        await feed.open()
        known = list(await feed.instruments())
        await feed.close()
        return known

    table = {one.symbol: one for one in run(scenario())}
    played = {symbol for batch in batches(play(make())) for symbol in batch.symbols}
    assert not table or set(table) == played
    assert all(one.board is board_of(symbol) for symbol, one in table.items())


def test_counters_count_the_ticks(make: Callable[..., Feed]) -> None:
    feed = make()
    played = play(feed)
    counters = feed.counters()
    assert counters["ticks"] == sum(map(len, batches(played)))
    assert counters["inputs"] == len(played)
    assert all(isinstance(count, int) for count in counters.values())
    play(feed, most=1)
    assert feed.counters()["inputs"] == 1, "counts are since open"


def test_iterating_before_open_is_an_error(make: Callable[..., Feed]) -> None:
    async def scenario() -> None:
        async for _ in make():
            pass

    with pytest.raises(FeedError, match="open"):
        run(scenario())


def test_close_may_come_before_open_and_twice(make: Callable[..., Feed]) -> None:
    async def scenario() -> None:
        feed = make()
        await feed.close()
        await feed.open()
        await feed.close()
        await feed.close()
        assert [given async for given in feed] == []

    run(scenario())


def test_close_ends_an_iterator_that_waits(make_again: Callable[..., Feed]) -> None:
    async def scenario() -> tuple[int, float]:
        feed = make_again(speed=0.01)
        await feed.open()
        loop = asyncio.get_running_loop()
        count = 0
        async for _ in feed:
            count += 1
            if count == 3:
                began_s = loop.time()
                loop.call_later(5, lambda: closing.append(loop.create_task(feed.close())))
        return count, loop.time() - began_s

    closing: list[asyncio.Task[None]] = []
    assert run(scenario()) == (3, 5.0)
