"""A thousand rules over the whole market: beside one closure per rule and symbol, and beside a hundred rules.

All rules are made of the same 19 comparisons, as a real set is. The last 900 hold one that is never true, so that a
thousand rules tell the very events a hundred tell, and only the rules make the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations, islice
from typing import Any, Final

from feeds.decode import Decoder
from rules.alert import Alert
from rules.engine import Engine
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import Contender, race
from tests.bench.w1 import MARKET, Snapshots, make_market, rule_text, warm_engine

NEVER: Final = "LAST<0.01"
TERMS: Final = (
    *(f"PCT>{percent}" for percent in (0.4, 0.5, 0.6, 0.8, 1, 2, 5)),
    *(f"PCT<{percent}" for percent in (-0.4, -0.5, -0.6, -0.8, -1, -2)),
    "LAST>DAYOPEN*1.004", "LAST<DAYOPEN*0.996", "DAYHIGH>PRECLOSE*1.03", "DAYLOW<PRECLOSE*0.97", "VOLDAY>200000",
)  # fmt: skip
WORDS: Final = {
    "last": "LAST", "open": "DAYOPEN", "high": "DAYHIGH", "low": "DAYLOW", "prev_close": "PRECLOSE",
    "volume_lots": "VOLDAY",
}  # fmt: skip
Formula = tuple[str, ...]


def run(*, quick: bool) -> Report:
    """Time the engine on ticks as columns, and whole passes from payloads."""
    count = MARKET // 10 if quick else MARKET
    live = 18 if quick else 90
    many, few = formulas(100 if quick else 1_000, live=live), formulas(20 if quick else 100, live=live)
    markets = {len(some): make_market(count, bars=3) for some in (many, few)}
    engines = {len(some): warm_engine(markets[len(some)], _text(some)) for some in (many, few)}
    closures = Closures(many, count)
    n, fewer = len(many), len(few)
    told = {n: 0, fewer: 0}
    passes = [
        Contender(f"monitord, {size:,} rules, dict to events", _pass(engines[size], told, size), markets[size].payload)
        for size in (n, fewer)
    ]
    timings = race(passes, repeats=4 if quick else 40, cold=True)  # first, so that both tell the same events
    contenders = [
        Contender(f"monitord, {n:,} rules, ticks to events", engines[n].step, markets[n].next),
        Contender(f"{n:,} closures a symbol", closures.snapshot, lambda: _tuples(markets[n]), every=4),
    ]
    timings |= race(contenders, repeats=4 if quick else 24)
    ours, plain = (timings[contender.name] for contender in contenders)
    thousand, hundred = (timings[contender.name] for contender in passes)
    lines = [
        Line("vs one closure per rule and symbol", times_faster(plain, ours), least=60),
        Line(f"{n:,} rules ÷ {fewer:,} rules, dict to events", times_faster(thousand, hundred), most=2.5),
    ]
    return Report("1,000 rules", lines, timings, notes=[f"alerts told: {told[n]:,} and {told[fewer]:,}"])


def formulas(count: int, *, live: int) -> list[Formula]:
    """Return this many conjunctions of the 19 comparisons, the first `live` of which may become true."""
    dead = ((*some, NEVER) for some in chain(combinations(TERMS, 3), combinations(TERMS, 2)))
    return [*islice(combinations(TERMS, 2), live), *islice(dead, count - live)]


def _text(some: Sequence[Formula]) -> str:
    return rule_text(tuple(" AND ".join(terms) for terms in some), names="")


def _pass(engine: Engine, told: dict[int, int], size: int) -> Callable[[tuple[Any, int]], list[Alert]]:
    decoder = Decoder()

    def step(arrived: tuple[Any, int]) -> list[Alert]:
        alerts = engine.step(decoder.decode(arrived[0], recv_ms=arrived[1]))
        told[size] += len(alerts)
        return alerts

    return step


class Closures:
    """The plain way: one compiled function per rule, called for every symbol, and a list of what was true before."""

    def __init__(self, some: Sequence[Formula], symbols: int) -> None:
        names = ", ".join([*WORDS.values(), "PCT"])
        self._closures = [eval(f"lambda {names}: {' and '.join(terms)}") for terms in some]
        self._was = [[False] * len(some)] * symbols

    def snapshot(self, ticks: Sequence[tuple[float, ...]]) -> list[tuple[int, int]]:
        """Return (row, rule) of what became true."""
        events = []
        for row, tick in enumerate(ticks):
            now, old = [closure(*tick) for closure in self._closures], self._was[row]
            if now != old:
                events += [(row, rule) for rule, truth in enumerate(now) if truth and not old[rule]]
                self._was[row] = now
        return events


def _tuples(market: Snapshots) -> list[tuple[float, ...]]:
    batch = market.next()
    columns = [batch.column(name) for name in WORDS]
    columns.append((batch.column("last") / batch.column("prev_close") - 1) * 100)
    return list(zip(*(column.tolist() for column in columns), strict=True))
