"""range-volume on simulated minutes, against bars made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import pytest

from feeds.inputs import Heartbeat
from rules.alert import Alert
from tests.rules import sessions_by_hand as hand
from tests.rules.catalog import pankou_by_hand as oracle
from tests.rules.catalog.pankou_by_hand import Tick, every, least, less
from tests.rules.catalog.test_pankou import run, simulated, used
from tests.rules.sessions_by_hand import MINUTE, Bar, Recorded, Row, Sample

LIFE = {"cooldown_ms": 30 * MINUTE, "max_per_day": 3}


def recorded(ticks: dict[str, list[Tick]], clock: list[int]) -> Recorded:
    return Recorded({symbol: [_row(one) for one in rows] for symbol, rows in ticks.items()}, clock)


def _row(one: Tick) -> Row:
    last, high, low = (None if price is None else round(price * 1000) for price in (one.last, one.high, one.low))
    return Row(one.ts_ms, last, high, low, round(one.lots * 100), one.amount_cny, one.status)


def swells(
    bars: Sequence[Bar], rows: Sequence[Tick], *, minutes: int, base: int, times: float, back: float, cny: float
) -> Iterator[Sample]:
    """Sample the rule at the close of each minute of the continuous session."""
    for place, bar in enumerate(bars):
        if bar.closed_ms is None or not hand.overlaps_continuous(bar, 1):
            continue
        known = [row for row in rows if row.ts_ms // 1000 * 1000 < bar.closed_ms and row.ts_ms <= bar.end_ms]
        late_enough = hand.traded_ms(known[-1].ts_ms) // MINUTE >= base + minutes
        shares = [one.shares for one in bars[: place + 1]]
        shares[-1], amounts = bar.told[4], [*(one.amount_cny for one in bars[:place]), bar.told[5]]
        now, then = _sum(shares[-minutes:], minutes), _sum(shares[:-minutes][-base:], base)
        traded = _sum(amounts[-minutes:], minutes)
        if now is None or then is None or then == 0:
            swollen = again = None
        else:
            usual = then / base * minutes
            swollen, again = least(now / usual, times), less(now, back * usual)
        if now is not None and then == 0:
            again = less(now, 0.0)
        yield Sample(
            bar.end_ms, every(swollen, None if traded is None else least(traded, cny), late_enough), again, bar.end_ms
        )


def _sum(numbers: Sequence[float | None], count: int) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) == count else None


GIVEN: dict[str, dict[str, float]] = {
    "range-volume": {},
    "nervous": {"minutes": 3, "base": 10, "times": 1.5, "back": 1.2, "cny": 1e5},
}
DEFAULTS: dict[str, float] = {"minutes": 5, "base": 30, "times": 4, "back": 2, "cny": 3e7}


@cache
def play() -> tuple[dict[tuple[str, str], list[Alert]], dict[str, list[Tick]], Recorded]:
    """Run both over a morning; at 3 s no symbol's ticks trail by so much that a bar closes without them."""
    values, frame = simulated(30, 3_000, 1, moments=1_500)
    lines = [
        f"id: {rule}, use: range-volume, params: {{{', '.join(f'{name}: {value}' for name, value in given.items())}}}"
        for rule, given in GIVEN.items()
    ]
    ticks = oracle.ticks(frame)
    clock = [value.ts_ms for value in values if isinstance(value, Heartbeat)] + frame.ts_event.tolist()
    return run(used(*lines), values), ticks, recorded(ticks, sorted(clock))


@pytest.mark.parametrize("rule", GIVEN)
def test_minutes_swell_as_reckoned_by_hand_on_the_simulated_market(rule: str) -> None:
    told, ticks, session = play()
    fires = 0
    for symbol, rows in ticks.items():
        bars = hand.bars(session, symbol, "1m")
        expected = [str(one) for one in hand.live(swells(bars, rows, **{**DEFAULTS, **GIVEN[rule]}), **LIFE)]
        events = told[rule, symbol]
        assert [str(hand.Happened(str(e.event), e.ts_event_ms, e.episode, e.why)) for e in events] == expected, symbol
        fires += len(expected)
    assert fires > 0 or rule == "range-volume"
