"""Recorded sessions reckoned by hand: bars, edges and their lives, one symbol at a time, in plain loops.

Nothing here knows the engine. Prices are whole cents and volumes whole shares, so a tie is a tie; None is unknown. What
the loops follow is written in the rule reference: which bar a tick counts to, when that bar closes, when an edge fires.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

MINUTE, SECOND = 60_000, 1_000
NOON = (11 * 60 + 30) * MINUTE, 13 * 60 * MINUTE
OPEN, CLOSE = (9 * 60 + 30) * MINUTE, 15 * 60 * MINUTE
PERIODS = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "1d": 240}
HALTED = (1, 16, 17, 20)
ENDED = (15, 22, 23)


def day_ms(ts_ms: int) -> int:
    """Return ms since Shanghai midnight."""
    return (ts_ms + 8 * 3_600_000) % 86_400_000


def midnight(ts_ms: int) -> int:
    return ts_ms - day_ms(ts_ms)


def at(ts_ms: int) -> str:
    """Return the Shanghai time of day, for messages and expectations."""
    clock = day_ms(ts_ms) // 1000
    return f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"


def traded_ms(ts_ms: int) -> int:
    """Return how much of 09:30–11:30 and 13:00–15:00 has passed."""
    clock = day_ms(ts_ms)
    return min(max(clock - OPEN, 0), 120 * MINUTE) + min(max(clock - NOON[1], 0), 120 * MINUTE)


def is_continuous(ts_ms: int) -> bool:
    clock = day_ms(ts_ms)
    return OPEN <= clock <= NOON[0] or NOON[1] <= clock < CLOSE - 3 * MINUTE


def continuous_ms(ts_ms: int) -> int:
    """Return how much of 09:30–11:30 and 13:00–14:57 has passed that day."""
    clock = day_ms(ts_ms)
    return min(max(clock - OPEN, 0), 120 * MINUTE) + min(max(clock - NOON[1], 0), 117 * MINUTE)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Row:
    """One tick: prices in cents, `shares` cumulative, None = none or unknown."""

    ts_ms: int
    last: int | None
    high: int | None
    low: int | None
    shares: int
    amount_cny: float
    status: int = 13
    limit_up: int | None = None
    bid: tuple[int | None, int] = (None, 0)
    ask: tuple[int | None, int] = (None, 0)


@dataclass(slots=True)
class Recorded:
    """A session: the rows of each symbol, the seconds of every row, and the silences between rows of any symbol."""

    rows: dict[str, list[Row]]
    clock: list[int]
    silences: list[tuple[int, int]] = field(default_factory=list)

    @property
    def end_ms(self) -> int:
        return self.clock[-1]


def _cents(price: float) -> int | None:
    return None if price != price or price == 0 else round(price * 100)


def read(*paths: Path) -> Recorded:
    """Read sessions one after the other; identical rows of one symbol in succession count once."""
    frame = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    rows: dict[str, list[Row]] = {}
    for symbol, part in frame.groupby("symbol", sort=False):
        part = part[~_repeated(part)]
        rows[str(symbol)] = [_row(one) for one in part.itertuples(index=False)]
    clock = frame.ts_event.tolist()
    return Recorded(rows, clock, silences_of(clock))


def _repeated(part: pd.DataFrame) -> pd.Series:
    before = part.shift()
    return ((part == before) | (part.isna() & before.isna())).all(axis=1)


def _row(one: Any) -> Row:
    early = day_ms(one.ts_event) < OPEN - 5 * MINUTE  # before 09:25:00 there is no last price, whatever a vendor says
    return Row(
        one.ts_event,
        None if early else _cents(one.last),
        _cents(one.high),
        _cents(one.low),
        round(one.volume_lots * 100),
        one.amount_cny,
        one.status,
        _cents(one.limit_up),
        (_cents(one.bid_price_1), round(one.bid_lots_1)),
        (_cents(one.ask_price_1), round(one.ask_lots_1)),
    )


def silences_of(clock: Sequence[int]) -> list[tuple[int, int]]:
    """Return (start, end) of each stretch of over 60 s of trading time without a row, from 10 s after the last row."""
    return [
        (a + 10 * SECOND, b)
        for a, b in pairwise(clock)
        if midnight(a) == midnight(b) and traded_ms(b) - traded_ms(a) > 60 * SECOND
    ]


# ── bars ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Bar:
    """One bar; volume and amount None = unknown. `told` is what stood in it when it closed, before any late tick.

    late: its first tick came after the clock had come to its close, and closed it.
    """

    end_ms: int
    open: int
    high: int
    low: int
    close: int
    shares: int | None
    amount_cny: float | None
    closed_ms: int | None = None
    told: tuple[Any, ...] = ()
    flat: bool = False
    late: bool = False

    @property
    def values(self) -> tuple[Any, ...]:
        return self.open, self.high, self.low, self.close, self.shares, self.amount_cny


@cache
def ends_of(minutes: int, day: int) -> list[int]:
    """Return the ends of a day's bars of so many trading minutes, the day given by its midnight."""
    clocks = [OPEN + n * MINUTE if n <= 120 else NOON[1] + (n - 120) * MINUTE for n in range(minutes, 241, minutes)]
    return [day + clock for clock in clocks]


def end_of(ts_ms: int, minutes: int) -> int:
    """Return the end of the bar a tick counts to."""
    day, clock = midnight(ts_ms), day_ms(ts_ms)
    if clock <= OPEN:
        return ends_of(minutes, day)[0]
    if NOON[0] < clock < NOON[1]:
        clock = NOON[0]
    if clock == NOON[1]:
        clock += 1
    ends = ends_of(minutes, day)
    return ends[bisect_left(ends, min(clock, CLOSE) + day)]


def due_ms(end_ms: int) -> int:
    """Return when the clock closes a bar that no tick has closed."""
    return end_ms + (3 * SECOND if day_ms(end_ms) < CLOSE else MINUTE)


def minutes_of(end_ms: int, minutes: int) -> list[int]:
    """Return the ends of the trading minutes inside a bar."""
    ends = ends_of(1, midnight(end_ms))
    place = ends.index(end_ms)
    return ends[place + 1 - minutes : place + 1]


def is_silent(end_ms: int, minutes: int, silences: Sequence[tuple[int, int]]) -> bool:
    """Tell whether every minute of a bar lies wholly inside a silence."""
    return all(any(a <= end - MINUTE and end <= b for a, b in silences) for end in minutes_of(end_ms, minutes))


def bars(session: Recorded, symbol: str, period: str) -> list[Bar]:
    """Return every bar of a symbol in order, the forming ones of each day's end included (closed_ms None)."""
    minutes, found = PERIODS[period], []
    for day in dict.fromkeys(midnight(row.ts_ms) for row in session.rows[symbol]):
        rows = [row for row in session.rows[symbol] if midnight(row.ts_ms) == day]
        found += _bars_of_day(rows, day, minutes, session.silences, session.end_ms // SECOND * SECOND)
    return found


def _bars_of_day(
    rows: list[Row], day: int, minutes: int, silences: Sequence[tuple[int, int]], clock_end: int
) -> list[Bar]:
    traded = (row.shares != before.shares for before, row in pairwise([Row(0, None, None, None, 0, 0.0), *rows]))
    # A halted symbol's ticks repeat what was; the first of them may still bring the last trades before the halt.
    priced = [
        row for row, new in zip(rows, traded, strict=True) if row.last is not None and (new or row.status not in HALTED)
    ]
    if not priced:
        return []
    by_end: dict[int, list[Row]] = {}
    for row in priced:
        by_end.setdefault(end_of(row.ts_ms, minutes), []).append(row)
    whole = day_ms(rows[0].ts_ms) <= OPEN
    cumulative: tuple[int, float] | None = (0, 0.0) if whole else None
    before: Row | None = None
    found: list[Bar] = []
    first_end = min(by_end)
    for end in ends_of(minutes, day):
        if end < first_end:
            continue
        mine = by_end.get(end, [])
        closes_ms = due_ms(end)
        if not mine:
            if closes_ms > clock_end and not any(later > end for later in by_end):
                break
            halted = [row.status in HALTED for row in rows if end_of(row.ts_ms, minutes) <= end][-1]
            if is_silent(end, minutes, silences) or halted:
                continue
            assert before is not None
            assert before.last is not None
            bar = Bar(end, before.last, before.last, before.last, before.last, 0, 0.0, closes_ms, flat=True)
            bar.told = bar.values
            found.append(bar)
            continue
        # There was no bar to close when its time came: the late tick begins it, and what follows amends it.
        late = before is None or is_silent(end, minutes, silences)
        late = late and mine[0].ts_ms // SECOND * SECOND >= closes_ms
        bar = _bar(mine, end, before, cumulative, closes_ms, whole=whole, late=late)
        later_tick = min((by_end[later][0].ts_ms for later in by_end if later > end), default=None)
        if bar.closed_ms is None and (closes_ms <= clock_end or later_tick is not None):
            bar.closed_ms = closes_ms if later_tick is None else min(closes_ms, later_tick)
            bar.told = bar.told or bar.values
        before = mine[-1]
        cumulative = before.shares, before.amount_cny
        found.append(bar)
    return found


def _bar(
    mine: list[Row],
    end: int,
    before: Row | None,
    cumulative: tuple[int, float] | None,
    closes_ms: int,
    *,
    whole: bool,
    late: bool,
) -> Bar:
    """Make one bar of its ticks; those from `closes_ms` on only amend it, and after a closing status none count.

    late: the first of them begins it after its time, and closes it.
    before: the symbol's last priced tick; `whole`: its day was seen from before 09:30:00 on, so the extremes of the
    first priced tick, too, have come about in this bar.
    """
    first = mine[0]
    assert first.last is not None
    bar = Bar(end, first.last, first.last, first.last, first.last, None, None)
    for row in mine:
        assert row.last is not None
        if row.ts_ms // SECOND * SECOND >= closes_ms and not bar.told and not late:
            flat = before is not None and row is first  # nothing had come when the clock closed it
            bar.told, bar.closed_ms = (*(before.last,) * 4, 0, 0.0) if flat and before else bar.values, closes_ms
        bar.close = row.last
        bar.high, bar.low = max(bar.high, row.last), min(bar.low, row.last)
        if before is not None or whole:
            if row.high is not None and row.high != (before.high if before else None):
                bar.high = max(bar.high, row.high)
            if row.low is not None and row.low != (before.low if before else None):
                bar.low = min(bar.low, row.low)
        if cumulative is not None:
            bar.shares = row.shares - cumulative[0]
            bar.amount_cny = row.amount_cny - cumulative[1]
        before = row
        if day_ms(end) == CLOSE and row.status in ENDED and day_ms(row.ts_ms) >= CLOSE and not bar.told:
            bar.told, bar.closed_ms = bar.values, row.ts_ms
            break
        if late and not bar.told:
            bar.told, bar.closed_ms, bar.late = bar.values, row.ts_ms, True
    return bar


# ── the life of an edge ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sample:
    """One evaluation: condition and rearm may be None (unknown); `bar_end` tells bars apart."""

    ts_ms: int
    condition: bool | None
    rearm: bool | None
    bar_end: int | None = None


@dataclass(frozen=True, slots=True)
class Happened:
    """What an event of an edge must say."""

    event: str
    ts_ms: int
    episode: int
    why: str | None = None
    late: bool = False
    suppressed: int = 0

    def __str__(self) -> str:
        return f"{at(self.ts_ms)} {self.event} #{self.episode} {self.why or ''}"


def live(
    samples: Iterable[Sample],
    *,
    freq: str = "always",
    cooldown_ms: int | None = None,
    max_per_day: int | None = None,
    on_start: str = "suppress",
    silences: Sequence[tuple[int, int]] = (),
) -> list[Happened]:
    """Walk an edge through its samples and return every event, the suppressed ones too."""
    events: list[Happened] = []
    armed: bool | None = None
    sent: list[Sample] = []
    held_back, episode, day = 0, 0, None
    for sample in samples:
        if sample.condition is None:
            continue
        if midnight(sample.ts_ms) != day:
            day, episode = midnight(sample.ts_ms), 0
        start = armed is None
        if start:
            armed = not sample.condition or on_start == "fire"
        elif not armed and sample.rearm:
            armed = True
        if not (armed and sample.condition):
            continue
        armed, episode = False, episode + 1
        today = [one for one in sent if midnight(one.ts_ms) == day]
        why = None
        same_bar = [one for one in sent if one.bar_end == sample.bar_end]
        if {"once": sent, "once_per_day": today, "once_per_bar": same_bar}.get(freq):
            why = "freq"
        elif cooldown_ms is not None and sent and cooled_ms(sent[-1].ts_ms, sample.ts_ms, silences) < cooldown_ms:
            why = "cooldown"
        elif max_per_day is not None and len(today) >= max_per_day:
            why = "max_per_day"
        if why:
            held_back += 1
            events.append(Happened("suppressed", sample.ts_ms, episode, why, start))
        else:
            events.append(Happened("fire", sample.ts_ms, episode, None, start, held_back))
            sent.append(sample)
            held_back = 0
    return events


def cooled_ms(start_ms: int, end_ms: int, silences: Sequence[tuple[int, int]] = ()) -> int:
    """Return the continuous session between two times, silences left out; days in between are whole trading days."""
    days = (midnight(end_ms) - midnight(start_ms)) // 86_400_000
    passed = days * 237 * MINUTE + continuous_ms(end_ms) - continuous_ms(start_ms)
    for a, b in silences:
        if b > start_ms and a < end_ms and midnight(a) == midnight(b):
            passed -= max(0, continuous_ms(min(b, end_ms)) - continuous_ms(max(a, start_ms)))
    return passed


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def tick_samples(
    rows: Iterable[Row], condition: Callable[[Row, Row | None], bool | None], rearm: Callable[[Row], bool | None] | None
) -> Iterator[Sample]:
    """Sample a tick rule: each priced tick of the continuous session, with the one evaluated before it."""
    before: Row | None = None
    for row in rows:
        if row.last is None or not is_continuous(row.ts_ms):
            continue
        true = condition(row, before)
        again = (None if true is None else not true) if rearm is None else rearm(row)
        yield Sample(row.ts_ms, true, again)
        before = row


def crosses(level: int) -> Callable[[Row, Row | None], bool | None]:
    """Return CROSS(LAST, level): at or below it before, above it now; without a tick before it is false."""

    def condition(row: Row, before: Row | None) -> bool:
        assert row.last is not None
        return before is not None and before.last is not None and before.last <= level < row.last

    return condition


def falls_below(level: int) -> Callable[[Row], bool | None]:
    return lambda row: None if row.last is None else row.last < level


def at_limit(row: Row, before: Row | None = None) -> bool | None:
    """LAST >= LIMITUP."""
    return None if row.limit_up is None or row.last is None else row.last >= row.limit_up


def sealed_up(row: Row, before: Row | None = None) -> bool | None:
    """SEALUP: last and bid 1 at the limit, lots bid, none asked."""
    if row.limit_up is None or row.last is None:
        return None
    return row.last == row.limit_up == row.bid[0] and row.bid[1] > 0 and row.ask[1] == 0


def overlaps_continuous(bar: Bar, minutes: int) -> bool:
    """Tell whether some of a bar, (start, end], lies in the continuous session."""
    return any(
        OPEN < day_ms(end) <= NOON[0] or NOON[1] < day_ms(end) <= CLOSE - 3 * MINUTE
        for end in minutes_of(bar.end_ms, minutes)
    )


def is_heard(bar: Bar, silences: Sequence[tuple[int, int]]) -> bool:
    """Tell whether the bar closed while the feed was not silent: rules freeze from the mark on.

    The clock closes bars as it enters a second, so before a mark of that second; ticks come in no silence.
    """
    if bar.late or bar.closed_ms is None or bar.closed_ms != due_ms(bar.end_ms):
        return bar.closed_ms is not None
    return not any(a // SECOND * SECOND < bar.closed_ms <= b for a, b in silences)


def ma_cross_samples(found: Sequence[Bar], minutes: int, silences: Sequence[tuple[int, int]]) -> Iterator[Sample]:
    """Sample CROSS(MA(C,5), MA(C,10)) at each bar's close, in whole cents: twice the sum of 5 against the sum of 10."""
    for place, bar in enumerate(found):
        if bar.closed_ms is None or not overlaps_continuous(bar, minutes) or not is_heard(bar, silences):
            continue
        true = False
        if place >= 10:
            before = [one.close for one in found[place - 10 : place]]
            now = [*before[1:], bar.told[3]]
            true = 2 * sum(before[5:]) <= sum(before) and 2 * sum(now[5:]) > sum(now)
        yield Sample(bar.end_ms, true, not true, bar.end_ms)


def is_burst(shares: int | None, before: Sequence[Bar], *, times: int = 3) -> bool | None:
    """V > times * MA(REF(V,1),5), in whole shares; None before there are five bars of known volume."""
    last = [bar.shares for bar in before[-5:]]
    if shares is None or len(last) < 5 or any(one is None for one in last):
        return None
    return 5 * shares > times * sum(one for one in last if one is not None)


def burst_at_close(
    found: Sequence[Bar], minutes: int, silences: Sequence[tuple[int, int]], *, times: int = 3
) -> Iterator[Sample]:
    for place, bar in enumerate(found):
        if bar.closed_ms is not None and overlaps_continuous(bar, minutes) and is_heard(bar, silences):
            true = is_burst(bar.told[4], found[:place], times=times)
            yield Sample(bar.end_ms, true, None if true is None else not true, bar.end_ms)


def burst_on_ticks(rows: Sequence[Row], found: Sequence[Bar], minutes: int, *, times: int = 3) -> Iterator[Sample]:
    """Sample the same at each tick of the continuous session with the bar as it forms."""
    places = {bar.end_ms: place for place, bar in enumerate(found)}
    base: dict[int, int | None] = {}
    shares_before: int | None = 0 if day_ms(rows[0].ts_ms) <= OPEN else None
    day = midnight(rows[0].ts_ms)
    for row in rows:
        if midnight(row.ts_ms) != day:
            day, shares_before = midnight(row.ts_ms), 0 if day_ms(row.ts_ms) <= OPEN else None
        if row.last is None:
            continue
        end = end_of(row.ts_ms, minutes)
        base.setdefault(end, shares_before)
        shares_before = row.shares
        if not is_continuous(row.ts_ms):
            continue
        start = base[end]
        true = is_burst(None if start is None else row.shares - start, found[: places[end]], times=times)
        yield Sample(row.ts_ms, true, None if true is None else not true, end)
