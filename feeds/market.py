"""One trading day of the simulated market: where every price goes, and the ticks that tell of it.

Each stock has a pressure: a price without limits that walks from the day's open to a target drawn beforehand, a
Brownian bridge with a U-shaped variance. The last price is the pressure rounded and held within the price limits, so a
stock whose pressure goes beyond its limit is sealed there, and the seal breaks when the pressure comes back. The close
is the target held within the limits, whatever the way there, so closes form a chain that needs no intraday path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from feeds import orderbook
from feeds.instruments import price_limits_of
from feeds.listing import Listing
from feeds.sessions import Calendar, unix_ms
from feeds.tick import BoolArray, FloatArray, IntArray, TickBatch
from feeds.timetable import USUAL_MS, Moment, Phase

_SUSPENDED: Final = 1
_STATUS: Final = {
    Phase.CALL: (12, 12),
    Phase.OPEN: (13, 14),
    Phase.TRADE: (13, 13),
    Phase.TRAIL: (13, 14),
    Phase.CLOSE_CALL: (18, 18),
    Phase.CLOSE: (15, 15),
}
"""The vendor's status in Shanghai, which knows no breaks, and elsewhere."""

_PLAN, _WALK, _HALT_DAY, _HALTS = 1, 2, 3, 4
"""Streams of random numbers, so that a day's plan does not depend on how many numbers the day before took."""

_HALTED: Final = 0.003
_AUCTION_CHANGES: Final = 0.6
"""Share of the stocks of which a call auction has something new at a moment."""
_SEALED_TRADES: Final = 0.3
"""Lots traded at a sealed limit, compared with open trading."""
_BURSTS: Final = 0.15
"""Bursts a day and stock: for a minute or two it moves by 1.5 to 5 % with eight times the trades."""
_BURST_HEAT: Final = 8.0

_Turn: TypeAlias = tuple[int, float, float]
"""A row, how hot it is from now on (1 = as usual), and how many ticks each moment pulls it."""


def random(seed: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream of a seed."""
    return np.random.Generator(np.random.SFC64([seed, *stream]))


# ── what is settled before the day ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Plan:
    """What is settled before a day begins; (n,) each, prices in ticks.

    limit_up, limit_down: infinity and 1 where there is no limit. halted: suspended all day. open, target: the pressure
    when the market opens and closes, not held within the limits. auction_lots: traded in the opening auction, 0 = none.
    """

    day: int
    date: int
    prev_close: FloatArray
    limit_up: FloatArray
    limit_down: FloatArray
    halted: BoolArray
    open: FloatArray
    target: FloatArray
    auction_lots: FloatArray

    @property
    def close(self) -> FloatArray:
        """Return the closing prices; the previous one of what is halted."""
        return np.where(self.halted, self.prev_close, self.held(self.target))

    def held(self, pressure: FloatArray) -> FloatArray:
        """Return the prices that a pressure (n,) comes to: whole ticks within the limits."""
        held: FloatArray = np.clip(np.rint(pressure), self.limit_down, self.limit_up)
        return held


def plan_day(listing: Listing, prev_close: FloatArray, *, seed: int, day: int, date: int, calendar: Calendar) -> Plan:
    """Draw a day's open, target, halts and auction volume; the same for the same arguments."""
    rng, n = random(seed, _PLAN, day), len(listing)
    up, down = price_limits_of(listing.instruments, prev_close / listing.per_yuan, date=date, calendar=calendar)
    is_first_day = np.array([one.list_date == date for one in listing.instruments])
    # Half of a move is the market's and the sector's; Student's t with 3 degrees gives the few that reach their limits.
    sector = 0.006 * rng.standard_normal() + 0.008 * rng.standard_normal(int(listing.sector.max()) + 1)
    own = 0.8 * listing.daily_move * np.clip(rng.standard_t(3, n), -12, 12)
    move = np.where(is_first_day, 0.5 + 4 * np.abs(own), sector[listing.sector] + own)
    gap = 0.3 * move + 0.003 * rng.standard_normal(n)
    lots = np.ceil(40 * listing.trade_lots * rng.standard_exponential(n))
    return Plan(
        day=day,
        date=date,
        prev_close=prev_close,
        limit_up=np.where(np.isnan(up), np.inf, np.rint(up * listing.per_yuan)),
        limit_down=np.where(np.isnan(down), 1.0, np.rint(down * listing.per_yuan)),
        halted=_halted(n, seed, day) & ~is_first_day,
        open=prev_close * np.exp(np.clip(gap, -0.5, 1.0)),
        target=prev_close * np.exp(np.clip(move, -0.5, 1.0)),
        auction_lots=np.where(rng.random(n) < 0.985, lots, 0.0),
    )


def _halted(n: int, seed: int, day: int) -> BoolArray:
    """Return (n,) bool: suspended. Halts last five days; each stock's begin on a day of the week of its own."""
    week = (day + random(seed, _HALT_DAY).integers(0, 5, n)) // 5
    drawn = np.stack([random(seed, _HALTS, number).random(n) for number in (day // 5, day // 5 + 1)])
    halted: BoolArray = drawn[week - day // 5, np.arange(n)] < _HALTED
    return halted


# ── the day itself ────────────────────────────────────────────────────────────────────────────────────────────────


class Day:
    """The state of the market within one day; `step` goes through its moments in order, `batch` tells of the last one.

    Prices and volumes are whole ticks and shares in float64, exact to 2**53, so that cumulative columns never fall and
    an average price never leaves the day's range. NaN = no trade yet.
    """

    def __init__(
        self, listing: Listing, plan: Plan, timetable: tuple[Moment, ...], *, seed: int, interval_ms: int
    ) -> None:
        n = len(listing)
        self._listing, self._plan, self._interval_ms = listing, plan, interval_ms
        self._rng = random(seed, _WALK, plan.day)
        self.midnight_ms = unix_ms(plan.date)
        self._symbols = np.array([one.symbol for one in listing.instruments], object)
        self._all_symbols = tuple(self._symbols.tolist())
        self._moves = plan.prev_close * listing.daily_move
        self._margin = np.maximum(0.6, 0.001 * plan.prev_close)
        self._trades = np.where(plan.halted, 0.0, listing.frame_trades * interval_ms / USUAL_MS)
        self._quotes = self._trades / (0.5 + self._trades)
        self._bursts = _bursts(timetable, plan, listing, self._rng)
        # what walks
        self._pressure = plan.prev_close.copy()
        self._heat, self._pull = np.ones(n), np.zeros(n)
        self._normal, self._uniform = np.zeros(n), np.zeros(n)
        # what is known of it
        self._last, self._open, self._high, self._low = (np.full(n, np.nan) for _ in range(4))
        self._shares, self._turnover = np.zeros(n), np.zeros(n)
        self._sealed, self._is_ask = np.zeros(n, np.int8), np.zeros(n, np.bool_)
        self._seen_ms = np.zeros(n, np.int64)
        self._changed = np.zeros(n, np.bool_)
        self._phase, self._place, self._clock_ms = Phase.CALL, -1, 0
        self._progress = 0.0

    def step(self, moment: Moment) -> None:
        """Let the market come to the next moment of the timetable."""
        self._place += 1
        self._clock_ms = moment.clock_ms
        if moment.phase is Phase.QUIET:
            self._changed[:] = False
            return
        self._phase = moment.phase
        self._rng.random(out=self._uniform)
        if moment.phase is Phase.OPEN:
            self._print(self._plan.open, self._plan.auction_lots)
        elif moment.phase is Phase.CLOSE:
            self._print(self._plan.target, np.ceil(self._plan.auction_lots / 2) + 1)
        elif moment.phase is Phase.CALL:
            self._call(moment, self._plan.open, self._moves * 0.2)
        elif moment.phase is Phase.CLOSE_CALL:
            self._call(moment, self._plan.target, self._moves)
        else:
            self._trade(moment)
        if self._place == 0:
            self._changed[:] = True  # a day begins with all that is listed, the suspended too
        seen_ms = self.midnight_ms + moment.clock_ms - self._listing.third * self._interval_ms // 3
        np.copyto(self._seen_ms, seen_ms, where=self._changed)

    def _walk(self, moment: Moment, target: FloatArray, moves: FloatArray) -> None:
        """Take one step of the bridge to `target` (n,), whose usual size over the segment is `moves` (n,), in ticks."""
        self._rng.standard_normal(out=self._normal)
        self._normal *= moves
        self._normal *= moment.spread
        self._pressure += (target - self._pressure) * moment.weight + self._normal
        np.maximum(self._pressure, 1.0, out=self._pressure)

    def _call(self, moment: Moment, target: FloatArray, moves: FloatArray) -> None:
        """Let a call auction go on: its virtual price moves, nothing is traded."""
        self._walk(moment, target, moves)
        self._progress = moment.progress
        np.greater(self._normal, 0, out=self._is_ask)
        self._changed = (self._uniform < _AUCTION_CHANGES) & ~self._plan.halted

    def _print(self, pressure: FloatArray, lots: FloatArray) -> None:
        """Trade the result of a call auction, `lots` (n,) of each stock."""
        self._pressure = pressure.copy()
        self._changed = (lots > 0) & ~self._plan.halted
        self._report(np.flatnonzero(self._changed), shares=lots[self._changed] * 100)

    def _trade(self, moment: Moment) -> None:
        """Let continuous trading go on: some trade, some more have new quotes only."""
        for row, heat, pull in self._bursts.get(self._place, ()):
            self._heat[row], self._pull[row] = heat, pull
        self._pressure += self._pull
        self._walk(moment, self._plan.target, self._moves)
        rate = self._trades * self._heat
        rate *= moment.volume
        trading = rate / (1 + rate)
        self._changed = self._uniform < trading + (1 - trading) * self._quotes
        rows = np.flatnonzero(self._uniform < trading)
        # A uniform number below p is, over p, uniform again: one draw says whether and how much.
        size = -np.log((self._uniform[rows] + 1e-12) / trading[rows])
        size *= np.where(self._sealed[rows] != 0, _SEALED_TRADES, 1.0)
        lots = np.ceil(self._listing.trade_lots[rows] * (1 + rate[rows]) * size) + 1  # rate / trading is 1 + rate
        odd = np.where(self._listing.has_odd_lots[rows], np.floor(self._uniform[rows] * 1e6 % 100), 0.0)
        self._report(rows, shares=lots * 100 + odd)

    def _report(self, rows: IntArray, *, shares: FloatArray) -> None:
        """Trade `shares` of these rows at the price their pressure comes to."""
        pressure, was = self._pressure[rows], self._sealed[rows]
        up, down, margin = self._plan.limit_up[rows], self._plan.limit_down[rows], self._margin[rows]
        # A seal takes a little more than the limit and holds until a little less.
        is_up = pressure > up + np.where(was > 0, -margin, margin)
        is_down = pressure < down - np.where(was < 0, -margin, margin)
        is_down &= down > 1
        price = np.where(is_up, up, np.where(is_down, down, np.clip(np.rint(pressure), down, up)))
        self._sealed[rows] = is_up.astype(np.int8) - is_down
        self._is_ask[rows] = self._normal[rows] > 0
        self._last[rows] = price
        self._open[rows] = np.where(np.isnan(self._open[rows]), price, self._open[rows])
        self._high[rows] = np.fmax(self._high[rows], price)
        self._low[rows] = np.fmin(self._low[rows], price)
        self._shares[rows] += shares
        self._turnover[rows] += price * shares

    # ── its ticks ──

    def batch(self, *, whole: bool = False) -> TickBatch:
        """Return the ticks of the stocks that changed at this moment; `whole`: all of them, each with its last tick."""
        rows = np.arange(len(self._symbols)) if whole else np.flatnonzero(self._changed)
        per_yuan, in_sh = self._listing.per_yuan[rows], self._listing.is_sh[rows]
        status = np.where(in_sh, *_STATUS[self._phase])
        shares = self._shares[rows]
        return TickBatch(
            self._all_symbols if len(rows) == len(self._symbols) else tuple(self._symbols[rows].tolist()),
            self._seen_ms[rows],
            columns={
                "last": self._last[rows] / per_yuan,
                "open": self._open[rows] / per_yuan,
                "high": self._high[rows] / per_yuan,
                "low": self._low[rows] / per_yuan,
                "prev_close": self._plan.prev_close[rows] / per_yuan,
                "volume_lots": shares / 100,
                "amount_cny": self._turnover[rows] / per_yuan,
            },
            recv_ms=np.full(len(rows), self.midnight_ms + self._clock_ms),
            status=np.where(self._plan.halted[rows], _SUSPENDED, status).astype(np.int16),
            load=self._rest(rows, shares),
        )

    def _rest(self, rows: IntArray, shares: FloatArray) -> Callable[[], Mapping[str, FloatArray]]:
        """Return what decodes the lazy columns; it keeps all that will have changed by the time it is called."""
        plan, listing = self._plan, self._listing
        matched = self._progress if self._phase in (Phase.CALL, Phase.CLOSE_CALL) else None
        pressure, last, sealed = self._pressure[rows], self._last[rows], self._sealed[rows]
        up, down, per_yuan = plan.limit_up[rows], plan.limit_down[rows], listing.per_yuan[rows]
        price = np.clip(np.rint(pressure), down, up)  # the virtual price, and what is quoted before a first trade
        if matched is None:
            price = np.where(np.isnan(last), price, last)
        quotes = orderbook.Quotes(
            price=np.where(plan.halted[rows], np.nan, price),
            is_ask=self._is_ask[rows],
            sealed=sealed,
            excess=np.abs(pressure - last),
            limit_up=up,
            limit_down=down,
            per_yuan=per_yuan,
            depth=listing.trade_lots[rows],
            keys=rows,
            moment=self._place,
        )

        def load() -> Mapping[str, FloatArray]:
            book = orderbook.continuous(quotes) if matched is None else orderbook.auction(quotes, matched)
            limits = {
                "limit_up": np.where(np.isinf(up), np.nan, up / per_yuan),
                "limit_down": np.where(np.isinf(up), np.nan, down / per_yuan),
            }
            return {**limits, **book, "trades": np.ceil(shares / 700)}

        return load


def _bursts(
    timetable: tuple[Moment, ...], plan: Plan, listing: Listing, rng: np.random.Generator
) -> Mapping[int, list[_Turn]]:
    """Return, by place in the timetable, which rows grow hot or cool and how far each moment pulls them, in ticks.

    Half of the bursts come in the first and last quarter of those moments, so that a run from the open has some soon.
    """
    places = [place for place, moment in enumerate(timetable) if moment.phase is Phase.TRADE][: -len(timetable) // 8]
    n = len(listing)
    count = rng.poisson(_BURSTS * n)
    rows = rng.integers(0, n, count)
    begins = (rng.beta(0.6, 0.9, count) * len(places)).astype(int)
    lengths = rng.integers(len(timetable) // 240, len(timetable) // 80, count) + 1
    moves = rng.uniform(0.015, 0.05, count) * rng.choice([-1.0, 1.0], count) * plan.prev_close[rows] / lengths
    turns: dict[int, list[_Turn]] = defaultdict(list)
    for row, begin, length, move in zip(rows, begins, lengths, moves, strict=True):
        turns[places[begin]].append((int(row), _BURST_HEAT, float(move)))
        turns[places[begin] + int(length)].append((int(row), 1.0, 0.0))
    return turns
