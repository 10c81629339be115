"""range-volume on simulated and recorded minutes, against bars made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

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


@pytest.mark.parametrize("given", [{}, {"minutes": 3, "base": 10, "times": 2, "back": 1.5, "cny": 1e6}])
def test_minutes_swell_as_reckoned_by_hand_on_the_simulated_market(given: dict[str, float]) -> None:
    values, frame = simulated(40, 15_000, 1)
    params = "" if not given else "params: {" + ", ".join(f"{name}: {value}" for name, value in given.items()) + "}"
    told = run(used(f"use: range-volume, {params}".rstrip(", ")), values)
    ticks = oracle.ticks(frame)
    session = recorded(ticks, [value.ts_ms for value in values if hasattr(value, "ts_ms")] + frame.ts_event.tolist())
    fires = 0
    for symbol, rows in ticks.items():
        bars = hand.bars(session, symbol, "1m")
        settings = {"minutes": 5, "base": 30, "times": 4, "back": 2, "cny": 3e7, **given}
        expected = [str(one) for one in hand.live(swells(bars, rows, **settings), **LIFE)]
        events = told["range-volume", symbol]
        assert [str(hand.Happened(str(e.event), e.ts_event_ms, e.episode, e.why)) for e in events] == expected, symbol
        fires += len(expected)
    assert fires > 0 or not given
