"""The feed of a rule test, laid out in time: what the engine is given, in order, with restarts and reloads.

What a segment leaves open is filled in as a market would have it: the day's open, high and low follow LAST, the status
code follows the clock, words keep their value until they are set again, and a new date's previous close is the old
date's last price. Volumes and books are unknown or empty until a segment gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import isnan, nan
from typing import Final, TypeAlias

import numpy as np

from feeds.inputs import Heartbeat, Input, Mark, MarkKind
from feeds.sessions import DAY_MS, day_ms, midnight_ms
from feeds.tick import ABSENT, TickBatch
from rules.bars import PERIOD_MINUTES, bar_start_ms, minute_end_ms
from rules.evaluate import BarTable
from rules.testcase import (
    STATUS,
    TICK_COLUMNS,
    BarSegment,
    Case,
    ExRight,
    FileSegment,
    Halt,
    Reload,
    Restart,
    Series,
    TickSegment,
)

FileReader: TypeAlias = Callable[[FileSegment], "BarTable | Iterable[Input]"]
"""Reads a file that a feed names: bars as a table, a recorded session as inputs."""
Happening: TypeAlias = Input | Restart | Reload

HALTED: Final = 17
_HALF_DAYS_MS: Final = ((9 * 60 + 30) * 60_000, 13 * 3_600_000)
_STATUS: Final = (
    ((9 * 60 + 15) * 60_000, 11), ((9 * 60 + 25) * 60_000, 12), ((9 * 60 + 30) * 60_000, 14),
    ((11 * 60 + 30) * 60_000 + 1, 13), (13 * 3_600_000, 14), ((14 * 60 + 57) * 60_000, 13), (15 * 3_600_000, 18),
)  # fmt: skip
"""Until when (ms of the day, exclusive) a tick has which status code; 15 after the last."""
_CLOSE_MS: Final = 15 * 3_600_000
_BAR_DELAY_MS: Final = 3_000
_CALM, _TICK, _SILENT = 0, 1, 2
"""Order at one ms: what begins or mends, ticks, and a silence that begins behind them."""


@dataclass(frozen=True, slots=True)
class _Tick:
    """What one symbol sends: the words set, NaN = unknown."""

    symbol: str
    words: Mapping[str, float]


@dataclass(slots=True)
class _Entry:
    """Something at a time; `order` settles what comes first at one ms."""

    ts_ms: int
    order: int
    what: _Tick | Happening


def lay_out(case: Case, *, read: FileReader) -> Iterator[Happening]:
    """Yield everything that happens in a case, in order of time; ticks of one ms are one batch."""
    entries = [entry for segment in case.feed for entry in _entries(segment, case, read)]
    entries += _marks(case)
    entries.sort(key=lambda entry: (entry.ts_ms, entry.order))
    tape = _Tape(case)
    for (ts_ms, _), group in groupby(entries, key=lambda entry: (entry.ts_ms, entry.order)):
        yield from tape.play(ts_ms, [entry.what for entry in group])


def _entries(segment: object, case: Case, read: FileReader) -> Iterator[_Entry]:
    if isinstance(segment, TickSegment):
        yield from _ticks(segment)
    elif isinstance(segment, BarSegment):
        yield from _bars(segment)
    elif isinstance(segment, FileSegment):
        content = read(segment)
        yield from _table(content, segment) if isinstance(content, BarTable) else _recorded(content, segment)


def _marks(case: Case) -> Iterator[_Entry]:
    for gap in case.gaps:
        if gap.until_ms is None:
            yield _Entry(gap.from_ms, _CALM, Mark(MarkKind.GAP, gap.from_ms, "test"))
        else:
            yield _Entry(gap.from_ms, _SILENT, Mark(MarkKind.SILENT, gap.from_ms, "test"))
            yield _Entry(gap.until_ms, _CALM, Mark(MarkKind.ALIVE, gap.until_ms))
    for restart in case.restarts:
        yield _Entry(restart.back_ms, _CALM, restart)
        if restart.gap:
            yield _Entry(restart.back_ms, _CALM, Mark(MarkKind.GAP, restart.at_ms, "restart"))
    for reload in case.reloads:
        yield _Entry(reload.at_ms, _CALM, reload)
    for halt in case.halts:
        for symbol in halt.symbols:
            yield _Entry(halt.from_ms, _TICK, _Tick(symbol, {}))


# ── segments ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _ticks(segment: TickSegment) -> Iterator[_Entry]:
    """Yield a tick per sample and symbol; where LAST (or, without LAST, every word) is `_`, a heartbeat."""
    deciding = {"LAST": segment.words["LAST"]} if "LAST" in segment.words else segment.words
    for k in range(segment.n):
        ts_ms = segment.start_ms + k * segment.step_ms
        if all(_sample(samples, k) is None for samples in deciding.values()):
            yield _Entry(ts_ms, _TICK, Heartbeat(ts_ms))
            continue
        words = {word: value for word, samples in segment.words.items() if (value := _sample(samples, k)) is not None}
        for symbol in segment.symbols:
            yield _Entry(ts_ms, _TICK, _Tick(symbol, words))


def _sample(samples: Series, k: int) -> float | None:
    return samples[0] if len(samples) == 1 else samples[k]


def _bars(segment: BarSegment) -> Iterator[_Entry]:
    """Yield the ticks of bars that follow each other, from day to day over Saturdays and Sundays."""
    start_ms = segment.start_ms
    for symbol in segment.symbols:
        at, close, volume = start_ms, nan, _Cumulated()
        for k in range(segment.n):
            bar = {word: value for word, samples in segment.words.items() if (value := _sample(samples, k)) is not None}
            start, end = _bounds(at, segment.period)
            bar.setdefault("O", bar["C"] if isnan(close) else close)
            yield from _bar_ticks(symbol, start, end, bar, volume)
            close, at = bar["C"], end


def _bounds(at_ms: int, period: str) -> tuple[int, int]:
    """Return start and end of the bar that begins at `at_ms`, or next after it."""
    midnight, minutes = midnight_ms(at_ms), PERIOD_MINUTES[period]
    ends = [minute_end_ms(minute) for minute in range(minutes, 241, minutes)]
    for end in ends:
        if midnight + end > at_ms:
            return max(bar_start_ms(midnight + end, period), midnight), midnight + end
    following = midnight + DAY_MS
    while (following + 8 * 3_600_000) // DAY_MS % 7 in (2, 3):  # 1970-01-01 was a Thursday
        following += DAY_MS
    return _bounds(following, period)


@dataclass(slots=True)
class _Cumulated:
    """Volume and amount of the day so far, over bars."""

    midnight: int = 0
    lots: float = 0.0
    cny: float = 0.0

    def begin(self, ts_ms: int) -> None:
        if midnight_ms(ts_ms) != self.midnight:
            self.midnight, self.lots, self.cny = midnight_ms(ts_ms), 0.0, 0.0


def _bar_ticks(symbol: str, start: int, end: int, bar: Mapping[str, float], so_far: _Cumulated) -> Iterator[_Entry]:
    """Yield the ticks that make a bar: its open, the extremes that neither open nor close reach, its close.

    The first bar of a half-day takes its own start; elsewhere a tick there would belong to the bar before.
    """
    so_far.begin(end)
    first = start if day_ms(start) in _HALF_DAYS_MS else start + 1000
    opening, closing = bar["O"], bar["C"]
    high, low = bar.get("H", max(opening, closing)), bar.get("L", min(opening, closing))
    extremes = [price for price in (high, low) if price not in (opening, closing)]
    if closing < opening:
        pass  # up first, then down, as a falling bar goes
    else:
        extremes.reverse()
    before = {"VOLDAY": so_far.lots, "AMTDAY": so_far.cny}
    so_far.lots += bar.get("V", nan)
    so_far.cny += bar.get("AMO", nan)
    prices = [opening, *extremes]
    for k, price in enumerate(prices):
        ts_ms = first + (end - first) * k // (len(prices) * 1000) * 1000
        yield _Entry(ts_ms, _TICK, _Tick(symbol, {"LAST": price, **before}))
    yield _Entry(end, _TICK, _Tick(symbol, {"LAST": closing, "VOLDAY": so_far.lots, "AMTDAY": so_far.cny}))
    if day_ms(end) != _CLOSE_MS:  # the day's last bar is closed by its last tick's status
        yield _Entry(end + _BAR_DELAY_MS, _TICK, Heartbeat(end + _BAR_DELAY_MS))


def _table(table: BarTable, segment: FileSegment) -> Iterator[_Entry]:
    """Yield the ticks of the bars of a file."""
    so_far: dict[str, _Cumulated] = {}
    for i in np.argsort(table.ts_end, kind="stable").tolist():
        symbol, end = str(table.symbol[i]), int(table.ts_end[i])
        if table.suspended[i] or (segment.symbols and symbol not in segment.symbols):
            continue
        values = (table.open[i], table.high[i], table.low[i], table.close[i], table.volume_lots[i], table.amount_cny[i])
        bar = {word: float(value) for word, value in zip(("O", "H", "L", "C", "V", "AMO"), values, strict=True)}
        if isnan(bar["C"]):
            continue
        bar = {word: bar["C"] if word in "OHL" and isnan(value) else value for word, value in bar.items()}
        start = bar_start_ms(end, table.period)
        yield from _bar_ticks(symbol, start, end, bar, so_far.setdefault(symbol, _Cumulated()))


def _recorded(inputs: Iterable[Input], segment: FileSegment) -> Iterator[_Entry]:
    """Yield the inputs of a recorded session between the segment's times."""
    for given in inputs:
        if isinstance(given, TickBatch):
            ts_ms = int(given.ts_event_ms.max())
        elif isinstance(given, Heartbeat | Mark):
            ts_ms = given.ts_ms
        else:
            continue
        early = segment.from_ms is not None and ts_ms < segment.from_ms
        if not early and (segment.until_ms is None or ts_ms <= segment.until_ms):
            yield _Entry(ts_ms, _TICK, given)


# ── the tape ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Board:
    """What a symbol shows: its words, of one day."""

    midnight: int
    words: dict[str, float] = field(default_factory=dict)


class _Tape:
    """Turns what is written into what a feed sends: whole ticks, none of them in a silence or while we are down."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._boards: dict[str, _Board] = {}

    def play(self, ts_ms: int, happenings: Sequence[_Tick | Happening]) -> Iterator[Happening]:
        """Yield the inputs of one ms."""
        down = any(restart.at_ms < ts_ms < restart.back_ms for restart in self._case.restarts)
        lost = down or any(gap.until_ms is not None and gap.from_ms < ts_ms < gap.until_ms for gap in self._case.gaps)
        ticks = [happening for happening in happenings if isinstance(happening, _Tick)]
        shown = [self._show(tick, ts_ms) for tick in ticks]
        if shown and not lost:
            yield _batch([tick.symbol for tick in ticks], ts_ms, shown)
        heard = lost and bool(ticks)
        for happening in happenings:
            if isinstance(happening, _Tick) or (isinstance(happening, TickBatch) and lost):
                heard |= lost
            elif not (isinstance(happening, Heartbeat) and (down or (shown and not lost))):
                yield happening
        if heard and not down:  # the clock of a live feed goes on in a silence
            yield Heartbeat(ts_ms)

    def _show(self, tick: _Tick, ts_ms: int) -> dict[str, float]:
        """Return all words of a tick: those set, and those that follow from them or hold on."""
        board = self._board(tick.symbol, ts_ms)
        words = board.words
        words |= tick.words
        last = words.get("LAST", nan)
        if "LAST" in tick.words and not isnan(last):
            for word, least in (("DAYOPEN", None), ("DAYHIGH", max), ("DAYLOW", min)):
                if word not in tick.words:
                    known = words.get(word, nan)
                    words[word] = last if isnan(known) else known if least is None else least(known, last)
        shown = {"STATUS": float(_status(ts_ms)), **words}
        if any(_is_halted(halt, tick.symbol, ts_ms) for halt in self._case.halts):
            shown[STATUS] = HALTED
        return shown

    def _board(self, symbol: str, ts_ms: int) -> _Board:
        """Return what a symbol shows, begun anew with a new day: then only the previous close is known."""
        midnight = midnight_ms(ts_ms)
        board = self._boards.get(symbol)
        if board is None or board.midnight != midnight:
            words: dict[str, float] = {}
            if board is not None and "LAST" in board.words:
                factors = [one.factor for one in self._case.exrights if _is_ex(one, symbol, board.midnight, midnight)]
                words["PRECLOSE"] = round(board.words["LAST"] * float(np.prod(factors)), 4)
            board = self._boards[symbol] = _Board(midnight, words)
        return board


def _is_halted(halt: Halt, symbol: str, ts_ms: int) -> bool:
    return symbol in halt.symbols and halt.from_ms <= ts_ms < halt.until_ms


def _is_ex(exright: ExRight, symbol: str, before: int, midnight: int) -> bool:
    return symbol in exright.symbols and before < exright.from_ms <= midnight


def _status(ts_ms: int) -> int:
    clock = day_ms(ts_ms)
    return next((code for until_ms, code in _STATUS if clock < until_ms), 15)


def _batch(symbols: Sequence[str], ts_ms: int, shown: Sequence[Mapping[str, float]]) -> TickBatch:
    columns = {
        column: np.array([words.get(word, ABSENT[column]) for words in shown]) for word, column in TICK_COLUMNS.items()
    }
    return TickBatch(
        tuple(symbols),
        np.full(len(symbols), ts_ms, np.int64),
        columns=columns,
        status=np.array([words[STATUS] for words in shown], np.int16),
    )
