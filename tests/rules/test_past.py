"""Bars of the past as an input: an engine that took them knows what one that was there all the time knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from feeds.history import Bars, BarTable, decode, encode, table_of
from feeds.inputs import FeedInput, Heartbeat, Input
from feeds.sessions import Calendar, day_ms, trade_date, unix_ms
from feeds.simulated import SimulatedFeed
from feeds.tick import TickBatch
from rules.assembly import adjusted_by, ends_of, joined, longer, to_bars
from rules.engine import Engine
from tests.rules.ticks import rules
from tests.rules.whole_market import WHOLE

SYMBOLS = 12
FIRST = 20250102
DAYS = 4
W1 = (
    "MA5:MA(C,5); MA10:MA(C,10); MA20:MA(C,20); MA60:MA(C,60); DIF:EMA(C,12)-EMA(C,26); DEA:EMA(DIF,9); "
    "MACD:(DIF-DEA)*2; RSI:SMA(MAX(C-REF(C,1),0),14,1)/SMA(ABS(C-REF(C,1)),14,1)*100; W:STD(C,20)*2; UP:MA20+W; "
    "LO:MA20-W; RSV:(C-LLV(L,9))/(HHV(H,9)-LLV(L,9))*100; K:SMA(RSV,3,1); D:SMA(K,3,1); J:3*K-2*D; MV:MA(V,5); "
    "CROSS(K,D)"
)
PERIODS = ("1m", "5m", "1d", "1w")
RULES = rules(*(f"id: w1-{p}, select: all, period: {p}, when: '{W1}'" for p in PERIODS))


async def _inputs(days: int, start: str) -> list[FeedInput]:
    feed = SimulatedFeed(symbols=SYMBOLS, speed=None, start=start, days=days, interval_s=30.0)
    await feed.open()
    return [given async for given in feed]


@pytest.fixture(scope="module")
def ticks() -> list[Input]:
    """Return four days of a small market."""
    return [given.value for given in asyncio.run(_inputs(DAYS, "09:15:00"))]


def date_of(value: Input) -> int:
    return trade_date(value.span_ms[1] if isinstance(value, TickBatch) else value.ts_ms)


def clock_of(value: Input) -> int:
    return day_ms(value.span_ms[1] if isinstance(value, TickBatch) else value.ts_ms)


def past(symbols: Sequence[str], period: str, bars: int, until_ms: int) -> BarTable:
    """Return made-up bars of trading days up to a time, of prices about those of the first day."""
    rng = np.random.default_rng(len(period) * bars)
    calendar = Calendar.xshg()
    ends: list[int] = []
    date = trade_date(until_ms)
    while len(ends) < bars:
        minutes = {"1m": 1, "5m": 5, "1d": 240}[period]
        clocks = np.arange(240, 0, -minutes)
        every = ends_of(unix_ms(date) + (9 * 60 + 30 + clocks + 90 * (clocks > 120)) * 60_000, period)
        ends += every.tolist()
        date = calendar.previous(date)
    times = np.array(sorted(ends[:bars]))
    n = len(symbols)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.01, (bars, n)), axis=0)), 2)
    high, low = np.round(close * 1.01, 2), np.round(close * 0.99, 2)
    volume = np.round(rng.uniform(1, 1e4, close.shape))
    columns = {
        "open": close,
        "high": high,
        "low": low,
        "close": close,
        "volume_lots": volume,
        "amount_cny": volume * close,
    }
    flat = {name: column.T.ravel() for name, column in columns.items()}
    return table_of(
        period, np.repeat(np.array(symbols), bars), np.tile(times, n), columns=flat, as_of=trade_date(until_ms)
    )


def values(engine: Engine) -> dict[tuple[str, str, str], float]:
    found = {}
    for symbol in sorted(engine.market.universe.symbols):
        for rule, named in engine.values(symbol).items():
            for name, value in named.items():
                found[symbol, rule, name] = np.nan if value is None else value
    return found


def agree(mine: Engine, theirs: Engine) -> None:
    agree_on(values(mine), values(theirs))


def agree_on(mine: Mapping[Any, float], theirs: Mapping[Any, float]) -> None:
    """Compare as `pytest.approx` does with rel and abs 1e-9 and NaN equal to itself, all values at once."""
    assert mine.keys() == theirs.keys()
    a, b = np.array([*mine.values()]), np.array([theirs[key] for key in mine])
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= np.maximum(1e-9 * np.abs(b), 1e-9))
    differing = [(key, mine[key], theirs[key]) for key, equal in zip(mine, same.tolist(), strict=True) if not equal]
    assert not differing


class Long:
    """An engine that took made-up bars before the first day and then saw every tick; its own bars day by day."""

    def __init__(self, ticks: Sequence[Input], until: int) -> None:
        first = next(value for value in ticks if isinstance(value, TickBatch))
        self.symbols = first.symbols
        self.until_ms = unix_ms(Calendar.xshg().previous(FIRST)) + 15 * 3_600_000
        self.old = {p: past(self.symbols, p, n, self.until_ms) for p, n in (("1m", 400), ("5m", 400), ("1d", 700))}
        self.own: dict[str, BarTable] = {}
        self.factors: dict[int, dict[str, tuple[float, float]]] = {}
        self.engine = Engine()
        self.engine.step(RULES)
        for bars in self.bars(self.until_ms):
            self.engine.step(bars)
        before = FIRST
        for value in ticks[:until]:
            if date_of(value) != before:
                self.keep(before)
            before = date_of(value)
            self.engine.step(value)
        self.keep(before)

    def keep(self, date: int) -> None:
        """Remember the day's bars and ex-rights, as the cache does.

        The made-up bars do not end at the market's first previous close, which so is an ex-rights day of all.
        """
        self.factors[date] = dict(self.engine.exright_factors(date))
        for period in ("1m", "5m", "1d"):
            own = self.engine.bars(period, date)
            assert own is not None
            own = own.of(self.symbols)
            self.own[period] = joined(self.own.get(period, own), own)

    def bars(self, until_ms: int) -> Iterator[Bars]:
        """Yield what a cache would give at a time: all bars up to it, the forming ones from the day's minutes."""
        tables = {p: joined(old, self.own[p]) if p in self.own else old for p, old in self.old.items()}
        date = trade_date(until_ms)
        tables = {p: table.take(table.ends_ms <= until_ms) for p, table in tables.items()}
        tables = {p: adjusted_by(table, self.factors, as_of=date) for p, table in tables.items()}
        minutes = tables["1m"].take(tables["1m"].ends_ms >= unix_ms(trade_date(until_ms)))
        if date >= FIRST:  # the made-up minutes do not make the made-up days
            tables["5m"] = joined(tables["5m"], longer(minutes, "5m"))
            tables["1d"] = joined(tables["1d"], longer(minutes, "1d"))
        tables["1w"] = longer(tables["1d"], "1w")
        for period in ("1d", "1w", "5m", "1m"):
            yield decode(encode(to_bars(tables[period], until_ms=until_ms, day=tables["1d"])))


@pytest.mark.parametrize("clock", ["night", "10:41:00", *(["13:30:00"] if WHOLE else [])])
def test_values_after_a_start_from_cached_bars_equal_those_of_an_uninterrupted_run(
    ticks: list[Input], clock: str
) -> None:
    last = max(date_of(value) for value in ticks)
    if clock == "night":
        begin_ms, stop = 0, Calendar.xshg().previous(last)
        until_ms = unix_ms(stop) + 15 * 3_600_000
    else:
        hours, minutes, _ = map(int, clock.split(":"))
        begin_ms = (hours * 60 + minutes) * 60_000
        until_ms = unix_ms(last) + begin_ms
    start = next(i for i, v in enumerate(ticks) if date_of(v) == last and clock_of(v) > begin_ms)
    long, rest = Long(ticks, start), list(ticks[start:])
    if clock != "night":
        batch = rest[0]
        assert isinstance(batch, TickBatch)
        long.engine.step(batch.take(np.flatnonzero(batch.ts_event_ms <= until_ms)))
        rest[0] = batch.take(np.flatnonzero(batch.ts_event_ms > until_ms))
        long.engine.step(Heartbeat(until_ms + 3000))  # the bar that ends here is over then
        long.keep(last)
    late = Engine()
    late.step(RULES)
    for bars in long.bars(until_ms):
        late.step(bars)
    for number, value in enumerate(rest):
        long.engine.step(value)
        late.step(value)
        if isinstance(value, TickBatch) and (number < 40 or number % 50 == 0):
            agree(late, long.engine)
    first = {key: value for key, value in values(late).items() if key[1] == "w1-1d"}
    assert not any(np.isnan(value) for value in first.values())


def test_values_are_known_at_the_very_first_tick(ticks: list[Input]) -> None:
    long = Long(ticks, 0)
    at = next(i for i, v in enumerate(ticks) if isinstance(v, TickBatch) and clock_of(v) > 34_205_000)
    for value in ticks[: at + 1]:
        long.engine.step(value)
    found = values(long.engine)
    assert found
    assert not any(np.isnan(value) for (_, _, name), value in found.items() if name != "MV")
