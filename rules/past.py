"""`Past`: how bars of before the first tick come into the engine, and how its own bars are read out again.

Bars of a period take the place of all that the engine knows of their symbols on that period up to a time; bars of its
own behind that time stay. The newest bar of the clock's day is not committed but held as a closed one: a tick of that
very bar then finds it there, and the next bar commits it as it does any other.

What is still forming (a week, or the minutes of a day that we come late to) is put where ticks will widen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feeds.history import COLUMNS, Bars, BarTable, table_of
from feeds.sessions import midnight_ms, unix_ms
from feeds.tick import BoolArray, FloatArray, IntArray
from rules.adjuster import Adjuster
from rules.bars import DAY_MS, FINAL, LONG_PERIODS, OPEN, PeriodBars
from rules.gaps import NO_GAP
from rules.graph import END, Graph, Layer
from rules.joining import OPENING_MS
from rules.lifecycle import Ledger
from rules.market import Market
from rules.pastlife import Course, PastLife, rows_of
from rules.rehearsal import Rehearsal

WORDS: Final = {"open": "O", "high": "H", "low": "L", "close": "C", "volume_lots": "V", "amount_cny": "AMO"}
_SHARED: Final = ("V", "AMO")


class Past:
    """Takes bars in and reads them out. The engine owns it; see there for its one thread."""

    def __init__(self, market: Market, graph: Graph, adjuster: Adjuster) -> None:
        self._market = market
        self._graph = graph
        self._adjuster = adjuster
        self._rehearsal: Rehearsal | None = None

    def take(self, bars: Bars, rows: IntArray, ledger: Ledger) -> None:
        """Let these bars be the past of the symbols of `rows`; the market clock has reached their day."""
        self._take(bars, rows, ledger)
        if self._rehearsal is not None and self._rehearsal.ends_with(bars):
            self._rehearsal = None  # a thousand symbols' bars and states are 80 MB

    def _take(self, bars: Bars, rows: IntArray, ledger: Ledger) -> None:
        there = bars.counts > 0
        self._read_exrights(bars, rows[there], bars.as_of[there], ledger)
        past = _Columns.of(bars, rows, *self._market.exrights.factors_since(rows, bars.as_of))
        self._begin(bars, past)
        if bars.period == "1d":
            self._begin_day(past, bars.until_ms)
        layer, held = self._graph.layers.get(bars.period), self._market.bars.get(bars.period)
        if layer is None or held is None:
            return
        cut = self._cut(layer, held, past, until_ms=bars.until_ms, midnight=self._market.midnight_ms)
        self._live(layer, bars, cut.course(past), rows)
        self._hold(held, past, cut.newest)
        self._show(held, past, past.last & ~cut.forming & ~cut.newest & cut.longer)
        self._form(held, bars, past, cut.forming)

    def rehearse(self, bars: Sequence[Bars]) -> Rehearsal:
        """Return how the past of these bars, all of one period, is lived through before they come; see there."""
        self._rehearsal = Rehearsal(bars, self._graph.layers.get(bars[0].period), self._foresee)
        return self._rehearsal

    def has_rehearsed(self, bars: Bars) -> bool:
        """Tell whether these very bars are among those rehearsed last."""
        return self._rehearsal is not None and self._rehearsal.holds(bars)

    def _foresee(self, bars: Bars) -> Course | None:
        """Return the course that `take` would let symbols live through now, as far as can be told without taking."""
        market = self._market
        layer, held = self._graph.layers.get(bars.period), market.bars.get(bars.period)
        if layer is None or held is None:
            return None
        n = market.state.n
        found = [market.universe.row(symbol) for symbol in bars.symbols]
        rows = np.array([n + place if row is None else row for place, row in enumerate(found)], np.int64)
        price, shares = np.ones(len(rows)), np.ones(len(rows))
        known = np.flatnonzero((rows < n) & (bars.counts > 0))
        price[known], shares[known] = market.exrights.factors_to_be(
            rows[known], dates=bars.as_of[known], close=bars.close[np.cumsum(bars.counts)[known] - 1],
            prev=market.latest.raw("prev_close")[rows[known]], symbols=market.universe.symbols,
            instruments=market.instruments, date=market.date,
        )  # fmt: skip
        past = _Columns.of(bars, rows, price, shares)
        midnight = max(market.midnight_ms, midnight_ms(bars.until_ms))
        return self._cut(layer, held, past, until_ms=bars.until_ms, midnight=midnight).course(past)

    def _cut(self, layer: Layer, held: PeriodBars, past: _Columns, *, until_ms: int, midnight: int) -> _Cut:
        """Tell which bars are over, and which are not."""
        forming = past.last & (past.ends_ms > until_ms) & (past.ends_ms >= midnight)
        rows = past.rows[past.last]
        own = self._own(layer, rows[rows < self._market.state.n], after_ms=until_ms)
        counts = np.bincount(past.rows[~forming], minlength=1 + int(past.rows.max(initial=0)))
        counts += np.bincount(own.rows, minlength=len(counts))
        # A symbol's past does not become shorter: else what is there stays.
        longer = (counts >= _padded(layer.rings.counts.array, np.arange(len(counts))))[past.rows]
        idle = _padded(held.end_ms.array, past.rows) == 0
        newest = past.last & ~forming & longer & idle & (past.ends_ms >= midnight)
        return _Cut(forming, np.asarray(longer), newest, own)

    # ── ex-rights ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_exrights(self, bars: Bars, rows: IntArray, dates: IntArray, ledger: Ledger) -> None:
        """Let what is known follow the table up to the date that the bars' prices are of."""
        exrights = self._market.exrights
        late = exrights.behind(rows, dates)
        for date in np.unique(dates[late]):
            those = rows[late & (dates == date)]
            found = exrights.catch_up(those, date=int(date), symbols=self._market.universe.symbols)
            if found is not None:
                self._adjuster.apply(found, ledger)
        market = self._market
        lasts = np.cumsum(bars.counts)[bars.counts > 0] - 1
        exrights.hear_late(
            rows, dates=dates, close=bars.close[lasts], prev=market.latest.raw("prev_close")[rows],
            symbols=market.universe.symbols, instruments=market.instruments, date=market.date,
        )  # fmt: skip

    def _begin(self, bars: Bars, past: _Columns) -> None:
        """Let symbols that have never ticked be measured by their last close, and by when it was."""
        last = past.last
        rows, ends_ms = past.rows[last], past.ends_ms[last]
        self._market.exrights.begin(rows, dates=past.as_of[last], close=past.fields["C"][last])
        sampled_ms = self._market.gaps.bars.sampled_ms.mine()
        unseen = self._market.latest.ts_ms.array[rows] == 0
        seen_ms = np.minimum(ends_ms[unseen], bars.until_ms)
        sampled_ms[rows[unseen]] = np.maximum(sampled_ms[rows[unseen]], seen_ms)

    def _begin_day(self, past: _Columns, until_ms: int) -> None:
        """Let the day be known up to `until_ms`, of symbols that have not ticked yet: volume counts on from there."""
        day, midnight = self._market.day, self._market.midnight_ms
        if midnight_ms(until_ms) != midnight:
            return
        today = past.last & (past.ends_ms >= midnight) & (day.first_ms.array[past.rows] == 0)
        rows = past.rows[today]
        day.first_ms.array[rows] = midnight + OPENING_MS
        for column, word in ((day.volume, "V"), (day.amount, "AMO"), (day.high, "H"), (day.low, "L")):
            column.mine()[rows] = past.fields[word][today]

    # ── bars that are over ────────────────────────────────────────────────────────────────────────────────────────

    def _live(self, layer: Layer, bars: Bars, course: Course, rows: IntArray) -> None:
        """Let symbols have lived through these bars, and no others: in the rehearsal, where they had it."""
        rest = np.arange(len(course.places))
        rehearsed = None if self._rehearsal is None else self._rehearsal.of(bars, course)
        if rehearsed is not None:
            life, those = rehearsed
            layer.take_over(life, rows_of(rows[course.places[those]]))
            rest = np.setdiff1d(rest, those)
        if rest.size:
            life = PastLife(layer, counts=np.zeros(rest.size, np.int64))
            life.live(course.take(rest), since=np.zeros(rest.size, np.int64))
            layer.take_over(life, rows_of(rows[course.places[rest]]))

    def _own(self, layer: Layer, rows: IntArray, *, after_ms: int) -> _Columns:
        """Return the committed bars of these symbols that are kept and end after a time, by symbol."""
        if not layer.rings.counts.array[rows].any():
            return _Columns(rows[:0], rows[:0], {word: np.empty(0) for word in WORDS.values()})
        kept = {word: np.stack(list(ring.rows(rows, ring.depth))) for word, ring in layer.history.items()}
        with np.errstate(invalid="ignore"):
            wanted = kept[END] > after_ms  # NaN where there was no bar
        place, bar = np.nonzero(wanted.T)
        fields = {word: column[bar, place] for word, column in kept.items() if word != END}
        return _Columns(rows[place], kept[END][bar, place].astype(np.int64), fields)

    def _hold(self, held: PeriodBars, past: _Columns, newest: BoolArray) -> None:
        """Put the newest bar of the clock's day where it stands until the next one begins: closed, and for good."""
        self._lay(held, past, newest)
        held.closed.array[past.rows[newest]] = FINAL

    def _show(self, held: PeriodBars, past: _Columns, last: BoolArray) -> None:
        """Let symbols that have no bar of the clock's day yet show their last one, as they do after any night."""
        rows = past.rows[last]
        idle = held.end_ms.array[rows] == 0
        for word, column in held.fields.items():
            column.mine()[rows[idle]] = past.fields[word][last][idle]

    # ── bars that go on ───────────────────────────────────────────────────────────────────────────────────────────

    def _form(self, held: PeriodBars, bars: Bars, past: _Columns, forming: BoolArray) -> None:
        """Put forming bars in place, and widen those that ticks have begun by what had been before them."""
        rows, ends_ms = past.rows[forming], past.ends_ms[forming]
        own_ms = held.end_ms.array[rows]
        lots, cny = past.before["V"][forming], past.before["AMO"][forming]
        if midnight_ms(bars.until_ms) != self._market.midnight_ms:
            lots, cny = -past.fields["V"][forming], -past.fields["AMO"][forming]
        fresh = np.zeros(len(forming), np.bool_)
        fresh[np.flatnonzero(forming)[own_ms == 0]] = True
        self._lay(held, past, fresh)
        begun = own_ms == ends_ms
        places, at = np.flatnonzero(forming)[begun], rows[begun]
        held.fields["O"].array[at] = past.fields["O"][places]
        held.fields["H"].array[at] = np.fmax(held.fields["H"].array[at], past.fields["H"][places])
        held.fields["L"].array[at] = np.fmin(held.fields["L"].array[at], past.fields["L"][places])
        takes = (own_ms == 0) | begun
        day = self._market.day
        for word, start, base, now in (
            ("V", held.volume_at_start, lots, day.volume),
            ("AMO", held.amount_at_start, cny, day.amount),
        ):
            start.array[rows[takes]] = base[takes]
            held.fields[word].array[at] = now.array[at] - base[begun]
        held.partial.array[rows[takes]] = False

    def _lay(self, held: PeriodBars, past: _Columns, those: BoolArray) -> None:
        rows = past.rows[those]
        held.end_ms.array[rows] = past.ends_ms[those]
        held.closed.array[rows] = OPEN
        held.flat.array[rows] = False
        held.gap.array[rows], held.away_ms.array[rows] = NO_GAP, -1
        for word, column in held.fields.items():
            column.mine()[rows] = past.fields[word][those]

    # ── reading out ───────────────────────────────────────────────────────────────────────────────────────────────

    def bars(self, period: str, date: int, *, over: bool = False) -> BarTable | None:
        """Return our own closed bars of a trade date (yyyymmdd), at its prices; None if the period is not made.

        over: the date is over, and so is every bar of it.
        """
        layer, held = self._graph.layers.get(period), self._market.bars.get(period)
        if layer is None or held is None or period in LONG_PERIODS:
            return None
        own = self._own(layer, np.arange(self._market.state.n), after_ms=0)
        closed = np.flatnonzero((held.end_ms.array > 0) & (over | (held.closed.array != OPEN)))
        fields = {word: np.concatenate([own.fields[word], held.fields[word].array[closed]]) for word in WORDS.values()}
        ends_ms = np.concatenate([own.ends_ms, held.end_ms.array[closed]])
        code = np.concatenate([own.rows, closed])
        begins_ms = unix_ms(date)
        that_day = np.flatnonzero((ends_ms >= begins_ms) & (ends_ms < begins_ms + DAY_MS) & ~np.isnan(fields["C"]))
        order = that_day[np.lexsort((ends_ms[that_day], code[that_day]))]
        columns = {name: fields[WORDS[name]][order] for name in COLUMNS}
        symbols = self._market.universe.symbols
        as_of = np.zeros(len(symbols), np.int64)
        return BarTable(period, symbols, code[order], ends_ms[order], **columns, as_of=as_of)

    def recent(self, period: str, symbols: Sequence[str]) -> BarTable:
        """Return all bars of some symbols, the forming ones too, at the prices of now; unknown ones have none."""
        market = self._market
        known = {row: symbol for symbol in symbols if (row := market.universe.row(symbol)) is not None}
        rows = np.array(sorted(known), np.int64)
        layer, held = self._graph.layers.get(period), market.bars.get(period)
        if held is None:
            rows = rows[:0]
        fields = {name: np.empty(0) for name in COLUMNS}
        code, ends_ms = rows[:0], rows[:0]
        if held is not None and len(rows):
            now = rows[held.end_ms.array[rows] > 0]
            fields = {name: held.fields[word].array[now] for name, word in WORDS.items()}
            code, ends_ms = now, held.end_ms.array[now]
            if layer is not None:
                own = self._own(layer, rows, after_ms=0)
                fields = {name: np.concatenate([own.fields[WORDS[name]], fields[name]]) for name in COLUMNS}
                code, ends_ms = np.concatenate([own.rows, code]), np.concatenate([own.ends_ms, ends_ms])
        priced = ~np.isnan(fields["close"])
        names = np.array([known[row] for row in code[priced].tolist()], dtype=str)
        columns = {name: column[priced] for name, column in fields.items()}
        return table_of(period, names, ends_ms[priced], columns=columns, as_of=market.date).of(symbols)

    def factors(self, date: int) -> Mapping[str, tuple[float, float]]:
        """Return what the past of symbols was multiplied by on a date, prices and volumes; of those alone that were."""
        price, shares = self._market.exrights.factors_on(date)
        symbols = self._market.universe.symbols
        moved = np.flatnonzero((price != 1) | (shares != 1))
        return {symbols[row]: (float(price[row]), float(shares[row])) for row in moved}


class _Columns:
    """Bars, one behind the other, with the row of each one's symbol.

    fields: by the graph's word, at the prices that the engine has now. last: the newest bar of its symbol. codes: the
    place of its symbol among those of the input; a symbol that is not in the universe yet has a row behind all others.
    """

    __slots__ = ("as_of", "before", "codes", "ends_ms", "fields", "last", "rows")

    def __init__(self, rows: IntArray, ends_ms: IntArray, fields: Mapping[str, FloatArray]) -> None:
        self.rows = rows
        self.ends_ms = ends_ms
        self.fields = dict(fields)
        self.last: BoolArray = np.append(rows[1:] != rows[:-1], True)[: len(rows)]
        self.codes = rows
        self.as_of = np.zeros(len(rows), np.int64)
        self.before: dict[str, FloatArray] = {}

    @classmethod
    def of(cls, bars: Bars, rows: IntArray, price: FloatArray, shares: FloatArray) -> _Columns:
        code = np.repeat(np.arange(len(rows)), bars.counts)
        fields = {word: getattr(bars, name) * price[code] for name, word in WORDS.items() if word not in _SHARED}
        fields["V"], fields["AMO"] = bars.volume_lots * shares[code], bars.amount_cny.copy()
        past = cls(rows[code], bars.ends_ms, fields)
        past.codes = code
        past.as_of = bars.as_of[code]
        past.before = {"V": (bars.before_lots * shares)[code], "AMO": bars.before_cny[code]}
        return past


@dataclass(frozen=True, slots=True)
class _Cut:
    """What becomes of bars, (n,) bool each; the symbols' own bars of after them.

    forming: goes on. longer: of a symbol whose past does not become shorter. newest: over, but held until the next one.
    """

    forming: BoolArray
    longer: BoolArray
    newest: BoolArray
    own: _Columns

    def course(self, past: _Columns) -> Course:
        """Return what is lived through: the bars that are over, and behind them the symbols' own of after them."""
        over = ~self.forming & ~self.newest & self.longer
        codes, columns = past.codes, {**past.fields, END: past.ends_ms.astype(np.float64)}
        if not over.all():
            codes, columns = codes[over], {word: column[over] for word, column in columns.items()}
        if len(self.own.rows):
            codes, columns = self._and_own(codes, columns, past)
        closed = ~np.isnan(columns["C"])
        if not closed.all():
            codes, columns = codes[closed], {word: column[closed] for word, column in columns.items()}
        return Course.of(codes, columns)

    def _and_own(
        self, codes: IntArray, columns: Mapping[str, FloatArray], past: _Columns
    ) -> tuple[IntArray, dict[str, FloatArray]]:
        """Return the bars with their symbols' own behind them."""
        code_of = dict(zip(past.rows[past.last].tolist(), past.codes[past.last].tolist(), strict=True))
        own_codes = np.array([code_of[row] for row in self.own.rows.tolist()], np.int64)
        behind = np.isin(own_codes, codes[np.diff(codes, prepend=-1) != 0])
        own = {**self.own.fields, END: self.own.ends_ms.astype(np.float64)}
        joined = {word: np.concatenate([column, own[word][behind]]) for word, column in columns.items()}
        return np.concatenate([codes, own_codes[behind]]), joined


def _padded(array: IntArray, rows: IntArray) -> IntArray:
    """Return the numbers of these rows, 0 for those that are not there yet."""
    return np.asarray(np.append(array, 0)[np.minimum(rows, len(array))])
