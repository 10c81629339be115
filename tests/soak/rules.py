"""A thousand rules as a large installation has them: most watch the whole market and stay quiet, some fire all day."""

from __future__ import annotations

from itertools import chain, combinations, islice
from typing import Final

from feeds.listing import make_listing
from feeds.sessions import Calendar

NEVER: Final = "LAST<0.01"
TERMS: Final = (
    *(f"PCT>{percent}" for percent in (0.4, 0.5, 0.6, 0.8, 1, 2, 5)),
    *(f"PCT<{percent}" for percent in (-0.4, -0.5, -0.6, -0.8, -1, -2)),
    "LAST>DAYOPEN*1.004", "LAST<DAYOPEN*0.996", "DAYHIGH>PRECLOSE*1.03", "DAYLOW<PRECLOSE*0.97", "VOLDAY>200000",
)  # fmt: skip
"""What quiet rules are made of, as a real set is made of the same few comparisons over and over."""
LIVE: Final = 120
SYMBOLS_EACH: Final = 15
LEVELS: Final = (-1.5, -1.0, -0.7, -0.4, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0, 1.5)
"""Percent of a day's change at which ticks cross now and then, from the first on."""
WINDOWS: Final = (5, 8, 13, 20, 30, 60)


def rule_file(count: int, *, symbols: int, seed: int, date: int) -> str:
    """Return the text of `count` rules over a simulated market of so many symbols."""
    watched = _symbols(symbols, seed=seed, date=date)
    live = min(LIVE, count // 4)
    quiet = count - live
    rules = chain(
        (_live(number, watched) for number in range(live)),
        (_quiet(number, text, "tick") for number, text in enumerate(_conjunctions(quiet * 2 // 3))),
        (_quiet(number, text, "1m") for number, text in enumerate(_crossings(quiet - quiet * 2 // 3), start=count)),
    )
    return "\n".join(["version: 1", "groups:", "- name: soak", "  rules:", *rules, ""])


def _symbols(count: int, *, seed: int, date: int) -> list[str]:
    return [one.symbol for one in make_listing(count, seed=seed, first_date=date, calendar=Calendar.xshg()).instruments]


def _live(number: int, watched: list[str]) -> str:
    """Write a rule that fires ever again: a level of ticks, or an average of minutes."""
    some = [watched[(number * SYMBOLS_EACH + at) % len(watched)] for at in range(SYMBOLS_EACH)]
    if number % 2:
        level = LEVELS[number % len(LEVELS)]
        what = f'when: "PCT > {level}", rearm: "PCT < {level - 0.15:g}"'
    else:
        what = f'period: 1m, eval: bar_close, when: "CROSS(C, MA(C,{WINDOWS[number % len(WINDOWS)]}))"'
    return f"  - {{id: live{number}, select: [{', '.join(some)}], {what}, freq: always}}"


def _quiet(number: int, text: str, period: str) -> str:
    return f'  - {{id: quiet{number}, select: all, period: {period}, when: "{text}", freq: always}}'


def _conjunctions(count: int) -> list[str]:
    """Return conditions over ticks that are computed and never true."""
    some = chain(combinations(TERMS, 3), combinations(TERMS, 2))
    return [" AND ".join((*terms, NEVER)) for terms in islice(some, count)]


def _crossings(count: int) -> list[str]:
    """Return conditions over averages of minutes that are computed and never true."""
    pairs = ((fast, slow) for slow in range(6, 100) for fast in range(2, min(slow, 12)))
    return [f"CROSS(MA(C,{fast}), MA(C,{slow})) AND {NEVER}" for fast, slow in islice(pairs, count)]
