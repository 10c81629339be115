"""The simulated market: a day that a rule engine can believe, made twice the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.inputs import FeedInput, Heartbeat
from feeds.instruments import Board, board_of, is_st, price_limits_of
from feeds.sessions import Calendar, day_ms, day_number, trade_date, unix_ms
from feeds.simulated import Market, SimulatedFeed
from feeds.tick import LEVELS, FloatArray, TickBatch
from tests.virtual_time import run

SYMBOLS = 1_200
INTERVAL_MS = 20_000
MINUTE_MS = 60_000


def clock(hour: int, minute: int, second: int = 0) -> int:
    return ((hour * 60 + minute) * 60 + second) * 1000


def told(market: Market) -> Iterator[TickBatch | Heartbeat]:
    while (value := market.next()) is not None:
        yield value


def grid(column: FloatArray, tick: FloatArray) -> FloatArray:
    """Return how far prices are from whole ticks, in ticks."""
    ticks = column / tick
    return np.abs(ticks - np.rint(ticks))


@dataclass
class Watch:
    """One pass over two days: checks every tick against the one before, and keeps what the tests ask for."""

    market: Market
    faults: Counter[str] = field(default_factory=Counter)
    phases: dict[int, Counter[int]] = field(default_factory=dict)
    seals: Counter[str] = field(default_factory=Counter)
    breaks: Counter[str] = field(default_factory=Counter)
    closes: list[FloatArray] = field(default_factory=list)
    prev_closes: list[FloatArray] = field(default_factory=list)
    lots_by_minute: Counter[int] = field(default_factory=Counter)
    halted: list[set[str]] = field(default_factory=list)
    odd: Counter[Board] = field(default_factory=Counter)
    rows: int = 0

    def run(self) -> Watch:
        listing = self.market.listing
        n = len(listing)
        self.row_of = {one.symbol: row for row, one in enumerate(listing.instruments)}
        self.tick = np.array([one.tick for one in listing.instruments])
        self.boards = [one.board for one in listing.instruments]
        self.last, self.prev, self.high, self.low, self.open = (np.full(n, np.nan) for _ in range(5))
        self.lots, self.amount, self.trades, self.ts_ms = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
        self.sealed = np.zeros(n, np.bool_)
        for place, value in enumerate(told(self.market)):
            if place % len(self.market.timetable) == 0:
                self._day_begins(n)
            if isinstance(value, TickBatch):
                self._look(value)
        self._day_ends()
        return self

    def _day_begins(self, n: int) -> None:
        if self.rows:
            self._day_ends()
        for column in (self.last, self.high, self.low, self.open):
            column[:] = np.nan
        for column in (self.lots, self.amount, self.trades):
            column[:] = 0
        self.sealed[:] = False
        self.halted.append(set())

    def _day_ends(self) -> None:
        self.closes.append(np.where(np.isnan(self.last), self.prev, self.last))
        self.prev_closes.append(self.prev.copy())

    def _fault(self, name: str, bad: np.ndarray) -> None:
        self.faults[name] += int(np.count_nonzero(bad))

    def _look(self, batch: TickBatch) -> None:
        rows = np.array([self.row_of[symbol] for symbol in batch.symbols])
        self.rows += len(rows)
        self._fault("a symbol twice in one batch", np.array([len(set(batch.symbols)) != len(rows)]))
        c, tick = batch.column, self.tick[rows]
        last, up, down = c("last"), c("limit_up"), c("limit_down")
        lots, amount, trades, ts_ms = c("volume_lots"), c("amount_cny"), c("trades"), batch.ts_event_ms
        self._fault("time goes back", ts_ms <= self.ts_ms[rows])
        age_ms = batch.recv_ms - ts_ms
        self._fault("stamped before its interval or in the future", (age_ms <= 0) | (age_ms > INTERVAL_MS))
        self._fault("volume falls", lots < self.lots[rows])
        self._fault("amount falls", amount < self.amount[rows])
        self._fault("trades fall", trades < self.trades[rows])
        self._fault("volume without amount", (lots > 0) != (amount > 0))
        on_grid = ("last", "open", "high", "low", "prev_close", "limit_up", "limit_down")
        off = grid(np.stack([c(name) for name in on_grid]), tick) > 1e-6
        for name, bad in zip(on_grid, off, strict=True):
            self._fault(f"{name} off the grid", bad)
        self._fault("beyond a limit", (last > up) | (last < down) | (c("high") > up) | (c("low") < down))
        before_high, before_low = self.high[rows], self.low[rows]
        self._fault("high is not the running maximum", ~same(c("high"), np.fmax(before_high, last)))
        self._fault("low is not the running minimum", ~same(c("low"), np.fmin(before_low, last)))
        self._fault("open moves", ~np.isnan(self.open[rows]) & (c("open") != self.open[rows]))
        mean = np.divide(amount, lots * 100, out=np.full(len(rows), np.nan), where=lots > 0)
        self._fault(
            "average price outside the day's range", (mean > c("high") * (1 + 1e-12)) | (mean < c("low") * (1 - 1e-12))
        )
        self._fault(
            "previous close changes within a day",
            (self.ts_ms[rows] > 0) & self._same_day(rows, ts_ms) & (c("prev_close") != self.prev[rows]),
        )
        self._fault("a halted stock has a price or trades", (batch.status == 1) & (~np.isnan(last) | (lots > 0)))
        self._books(batch, tick, up, down)
        self._seals(batch, rows)
        phase = int(day_ms(int(batch.recv_ms[0])) // MINUTE_MS)
        self.phases.setdefault(phase, Counter()).update(batch.status.tolist())
        self.lots_by_minute[phase] += int((lots - self.lots[rows]).sum())
        self.halted[-1] |= {batch.symbols[place] for place in np.flatnonzero(batch.status == 1)}
        for row in rows[lots % 1 != 0]:
            self.odd[self.boards[row]] += 1
        self.prev[rows], self.ts_ms[rows] = c("prev_close"), ts_ms
        self.last[rows], self.high[rows], self.low[rows], self.open[rows] = last, c("high"), c("low"), c("open")
        self.lots[rows], self.amount[rows], self.trades[rows] = lots, amount, trades

    def _same_day(self, rows: np.ndarray, ts_ms: np.ndarray) -> np.ndarray:
        return day_number(self.ts_ms[rows]) == day_number(ts_ms)

    def _books(self, batch: TickBatch, tick: FloatArray, up: FloatArray, down: FloatArray) -> None:
        c = batch.column
        is_auction = np.isin(batch.status, (12, 18))
        for side, sign in (("bid", -1.0), ("ask", 1.0)):
            prices = np.stack([c(f"{side}_price_{level}") for level in range(1, LEVELS + 1)])
            lots = np.stack([c(f"{side}_lots_{level}") for level in range(1, LEVELS + 1)])
            self._fault(f"{side} prices off the grid", grid(prices, tick) > 1e-6)
            self._fault(f"{side} prices beyond a limit", (prices > up) | (prices < down))
            self._fault(f"{side} levels out of order", sign * np.diff(prices, axis=0) <= 0)
            gaps = np.isnan(prices[:-1]) & ~np.isnan(prices[1:])
            self._fault(f"{side} levels with a gap", gaps & ~is_auction)
            self._fault(f"{side} lots without a price", (np.isnan(prices) & (lots > 0)) & ~is_auction)
            self._fault(f"{side} price without lots", ~np.isnan(prices) & (lots <= 0))
            self._fault(f"{side} lots are not whole", lots % 1 != 0)
        bid, ask = c("bid_price_1"), c("ask_price_1")
        live = ~np.isnan(bid) & ~np.isnan(ask)
        self._fault("crossed or locked in trading", live & ~is_auction & (bid >= ask))
        self._fault("auction without one virtual price", is_auction & live & (bid != ask))
        self._fault("auction with different lots", is_auction & (c("bid_lots_1") != c("ask_lots_1")))
        self._fault("no book in an auction", is_auction & ~live)
        traded = np.isin(batch.status, (13, 14, 15)) & ~np.isnan(c("last"))
        self._fault("last is not at the best price", traded & (c("last") != bid) & (c("last") != ask))
        one_sided = traded & (np.isnan(bid) | np.isnan(ask))
        at_limit = same(c("last"), up) | same(c("last"), down)
        self._fault("one side empty away from a limit", one_sided & ~at_limit)

    def _seals(self, batch: TickBatch, rows: np.ndarray) -> None:
        c = batch.column
        up = same(c("last"), c("limit_up")) & same(c("bid_price_1"), c("limit_up")) & (c("bid_lots_1") > 0)
        sealed = up & (c("ask_lots_1") == 0)
        judged = np.isin(batch.status, (13, 14, 15))
        for place in np.flatnonzero(judged & (sealed != self.sealed[rows])):
            (self.seals if sealed[place] else self.breaks)[batch.symbols[place]] += 1
        self.sealed[rows] = np.where(judged, sealed, self.sealed[rows])


def same(a: FloatArray, b: FloatArray) -> np.ndarray:
    """Return where both are equal and there, or both missing."""
    return (a == b) | (np.isnan(a) & np.isnan(b))


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch(Market(seed=5, symbols=SYMBOLS, date=20250102, interval_ms=INTERVAL_MS, days=2)).run()


def test_no_tick_of_two_days_has_a_fault(watch: Watch) -> None:
    assert watch.rows > 1_500_000
    assert {name: count for name, count in watch.faults.items() if count} == {}
    assert len(watch.faults) > 30, "the checks ran"


def test_a_day_closes_where_the_next_one_starts_from(watch: Watch) -> None:
    np.testing.assert_array_equal(watch.prev_closes[1], watch.closes[0])
    moved = watch.closes[0] != watch.prev_closes[0]
    assert moved.mean() > 0.9


def test_limits_are_those_of_board_name_and_date(watch: Watch) -> None:
    market = Market(seed=5, symbols=900, date=20250102, interval_ms=3000, days=1)
    first = market.next()
    assert isinstance(first, TickBatch)
    assert first.symbols == tuple(one.symbol for one in market.listing.instruments)
    up, down = price_limits_of(
        market.listing.instruments, first.column("prev_close"), date=20250102, calendar=Calendar.xshg()
    )
    np.testing.assert_array_equal(first.column("limit_up"), up)
    np.testing.assert_array_equal(first.column("limit_down"), down)
    assert np.isnan(up).any(), "a new listing has no limit"


def test_stocks_are_sealed_at_their_limit_and_some_seals_break(watch: Watch) -> None:
    assert len(watch.seals) >= 3
    assert watch.breaks.total() >= 3
    assert watch.seals.total() > watch.breaks.total(), "some stay sealed to the close"


def test_phases_of_a_day_have_the_vendors_status(watch: Watch) -> None:
    at = {f"{minute // 60:02d}:{minute % 60:02d}": set(codes) - {1} for minute, codes in watch.phases.items()}
    assert at["09:20"] == {12}
    assert at["09:25"] == {12, 13, 14}, "the call's last ticks, then its result: Shanghai knows no break"
    assert at["10:00"] == at["13:00"] == at["14:56"] == {13}
    assert at["11:30"] == {13, 14}
    assert at["14:58"] == {18}
    assert at["15:00"] == {15, 18}
    assert not {"09:26", "09:29", "11:31", "12:30", "12:59", "15:01"} & set(at), "nothing is told in the breaks"


def test_volume_is_u_shaped_and_auctions_trade_at_once(watch: Watch) -> None:
    def lots(hour: int, minute: int, length: int) -> float:
        start = hour * 60 + minute
        return sum(watch.lots_by_minute[at] for at in range(start, start + length)) / length

    assert lots(9, 15, 10) == 0
    assert watch.lots_by_minute[9 * 60 + 25] > 0
    assert lots(9, 31, 10) > 2.5 * lots(11, 10, 10)
    assert lots(14, 47, 10) > 1.2 * lots(13, 30, 10)
    assert lots(14, 58, 2) == 0
    assert watch.lots_by_minute[15 * 60] > 0


def test_halted_stocks_are_told_of_once_a_day_and_never_move(watch: Watch) -> None:
    assert any(watch.halted)
    row_of = watch.row_of
    for day, halted in enumerate(watch.halted):
        for symbol in halted:
            assert watch.closes[day][row_of[symbol]] == watch.prev_closes[day][row_of[symbol]]


def test_only_star_trades_odd_lots(watch: Watch) -> None:
    assert set(watch.odd) == {Board.STAR}


def test_the_boards_are_mixed_as_in_the_real_market() -> None:
    listing = Market(seed=1, symbols=5500, date=20250102, interval_ms=3000).listing
    boards = Counter(one.board for one in listing.instruments)
    assert boards == Counter(board_of(one.symbol) for one in listing.instruments)
    assert len({one.symbol for one in listing.instruments}) == len({one.name for one in listing.instruments}) == 5500
    shares = {board: boards[board] / 5500 for board in boards}
    expected = {Board.MAIN: 0.57, Board.CHINEXT: 0.25, Board.STAR: 0.105, Board.BSE: 0.05, Board.ETF: 0.025}
    assert shares == pytest.approx(expected, abs=0.01)
    names = [one.name or "" for one in listing.instruments]
    assert 0.01 < np.mean([is_st(name) for name in names]) < 0.04
    assert any(name.startswith("N") for name in names)
    assert all(one.sectors for one in listing.instruments)
    a_shares = {one.board for one in listing.instruments if "沪深A股" in one.sectors}
    assert a_shares == {Board.MAIN, Board.CHINEXT, Board.STAR}
    assert {"600519.SH", "000001.SZ", "300750.SZ", "688981.SH"} <= {one.symbol for one in listing.instruments}


# ── the same again ──


def played(*, after: int = -1, **chosen: object) -> list[FeedInput]:
    async def scenario() -> list[FeedInput]:
        feed = SimulatedFeed(**({"symbols": 30, "interval_s": 60, "days": 3, "speed": 0} | chosen))  # type: ignore[arg-type]
        await feed.open(after=after)
        return [given async for given in feed]

    return run(scenario())


@cache
def whole() -> list[FeedInput]:
    """Return three days from their beginning on: made when a test runs, not by every worker that collects this file."""
    return played(start="09:15:00")


@given(after=st.deferred(lambda: st.integers(-1, len(whole()))))
@settings(max_examples=3, deadline=None)
def test_opened_behind_any_moment_of_any_day_it_goes_on_the_same(after: int) -> None:
    assert played(start="09:15:00", after=after) == whole()[after + 1 :]


def test_another_seed_is_another_market() -> None:
    assert played(start="09:15:00", seed=2, days=1)[50] != whole()[50]


def test_settings_that_change_what_is_told_change_the_source() -> None:
    ids = {
        SimulatedFeed(**chosen).source_id  # type: ignore[arg-type]
        for chosen in ({}, {"seed": 2}, {"symbols": 9}, {"start": "10:00"}, {"date": "2025-01-03"}, {"interval_s": 5})
    }
    assert len(ids) == 6
    assert SimulatedFeed(speed=None).source_id == SimulatedFeed(speed=5.0).source_id


def test_the_first_input_is_the_whole_market_as_it_stands() -> None:
    late = played(start="13:30:00", days=1)
    (first, second), earlier = late[:2], {}
    for one in whole():
        if isinstance(one.value, TickBatch) and one.value.recv_ms[0] <= first.value.recv_ms[0]:  # type: ignore[union-attr]
            for row, symbol in enumerate(one.value.symbols):
                earlier[symbol] = (int(one.value.ts_event_ms[row]), one.value.column("last")[row])
    assert isinstance(first.value, TickBatch)
    assert len(first.value) == 30
    for row, symbol in enumerate(first.value.symbols):
        assert earlier[symbol] == pytest.approx(
            (int(first.value.ts_event_ms[row]), first.value.column("last")[row]), nan_ok=True
        )
    at_30 = next(place for place, one in enumerate(whole()) if shanghai(one) >= clock(13, 30))
    assert second.value == whole()[at_30 + 1].value


def shanghai(given: FeedInput) -> int:
    """Return the time of day at which an input came."""
    value = given.value
    return day_ms(int(value.recv_ms[0])) if isinstance(value, TickBatch) else day_ms(value.ts_ms)


def test_by_default_trading_starts_within_seconds() -> None:
    async def scenario() -> tuple[list[FeedInput], float]:
        feed = SimulatedFeed(symbols=50)
        await feed.open()
        came = []
        async for one in feed:
            came.append(one)
            if isinstance(one.value, TickBatch) and one.offset > 0:
                break
        return came, asyncio.get_running_loop().time()

    came, at_s = run(scenario())
    assert at_s <= 9
    assert came[-1].value.status.max() == 13  # type: ignore[union-attr]


def test_heartbeats_close_the_bars_of_morning_and_day() -> None:
    beats = [shanghai(one) for one in whole() if isinstance(one.value, Heartbeat)]
    assert any(clock(11, 30, 3) <= at <= clock(11, 31) for at in beats)
    assert any(clock(15, 1) <= at < clock(15, 2) for at in beats)
    told = [one.value for one in whole()]
    times = [value.ts_ms if isinstance(value, Heartbeat) else int(value.ts_event_ms.max()) for value in told]  # type: ignore[union-attr]
    assert times == sorted(times), "the market clock never goes back"


def test_lunch_and_night_take_one_interval_of_real_time() -> None:
    async def scenario() -> tuple[float, float]:
        feed = SimulatedFeed(symbols=10, interval_s=20, days=2, start="11:29:00", speed=1.0)
        await feed.open()
        at = {}
        async for one in feed:
            at.setdefault((trade_date_of(one), shanghai(one) // clock(1, 0)), asyncio.get_running_loop().time())
        lunch = at[(20250102, 13)] - at[(20250102, 11)]
        night = at[(20250103, 9)] - at[(20250102, 15)]
        return lunch, night

    lunch_s, night_s = run(scenario())
    assert lunch_s <= 60 + 3 * 20
    assert night_s <= 3 * 20


def trade_date_of(given: FeedInput) -> int:
    value = given.value
    return trade_date(int(value.recv_ms[0]) if isinstance(value, TickBatch) else value.ts_ms)  # type: ignore[union-attr]


def test_days_follow_the_exchange_calendar() -> None:
    dates = list(dict.fromkeys(trade_date_of(one) for one in played(date="2025-01-24", days=4)))
    assert dates == [20250124, 20250127, 20250205, 20250206]  # the Spring Festival lies between


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"date": "2025-01-01"}, "20250101 is no trading day; the next one is 20250102"),
        ({"date": "02.01.2025"}, "expected a day such as 2025-01-02"),
        ({"date": "2025-02-30"}, "20250230"),
        ({"start": "9h30"}, "expected a time of day"),
        ({"start": "15:00:01"}, "the market closes at 15:00"),
        ({"symbols": 0}, "1 to 7500 instruments"),
        ({"symbols": 10_000}, "1 to 7500 instruments"),
        ({"interval_s": 0.0}, "0.1 to 60 seconds"),
        ({"speed": -1.0}, "speed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(chosen: dict[str, object], said: str) -> None:
    with pytest.raises(FeedError, match=said):
        played(**chosen)


@pytest.mark.parametrize(
    ("symbols", "interval_s"), [(1, 0.5), (2, 7.0), (5, 60.0), (6, 7.0), (7, 60.0), (99, 7.0), (100, 0.5)]
)
def test_markets_of_every_size_and_interval_begin(symbols: int, interval_s: float) -> None:
    market = Market(seed=3, symbols=symbols, date=20250102, interval_ms=round(interval_s * 1000), days=1)
    assert len(market.listing) == symbols
    market.skip_to(len(market.timetable) // 2)
    batch = market.next(whole=True)
    assert isinstance(batch, TickBatch)
    assert len(batch) == symbols
    assert (batch.column("bid_lots_1") >= 0).all()
    assert market.timetable[-1].clock_ms >= clock(15, 1)


def test_a_week_of_halts_comes_and_goes() -> None:
    market = Market(seed=1, symbols=2000, date=20250102, interval_ms=60_000, days=20)
    suspended: list[set[str]] = []
    for day in range(20):
        market.skip_to(day * len(market.timetable))
        first = market.next()
        assert isinstance(first, TickBatch)
        suspended.append({s for s, status in zip(first.symbols, first.status, strict=True) if status == 1})
    assert all(suspended)
    assert suspended[0] != suspended[19]
    stays = sum(len(a & b) for a, b in pairwise(suspended))
    assert stays > 0.6 * sum(map(len, suspended[1:])), "a halt lasts several days"


def test_unix_times_are_those_of_the_date() -> None:
    first = whole()[0].value
    assert isinstance(first, TickBatch)
    assert unix_ms(20250102, clock(9, 15)) <= first.ts_event_ms.min() <= unix_ms(20250102, clock(9, 15, 20))
