"""What the rules in force need of the past, and what of it an engine lacks: symbols, period, number of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feeds.tick import BoolArray, IntArray
from rules.errors import RuleError
from rules.graph import Graph, reach
from rules.lints import needs_of
from rules.market import Market
from rules.node import is_tick
from rules.program import Group, Slot
from rules.rule import Rule, RuleSet
from rules.selector import Coverage

_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Lack:
    """Symbols that have fewer bars of a period than some rule needs.

    bars: what to look for, a quarter more than is needed. What is needed leaves 1e-9 of the price; MACD and its like
    are differences of averages, a hundredth of the price, and shall be as exact.
    """

    period: str
    bars: int
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far a rule's symbols are: those watched that have ticked, and how many of them have their first value.

    missing: (period, bars) that the furthest behind of the rest still lack, the longest first.
    """

    symbols: int
    ready: int
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def is_warming(self) -> bool:
        return self.ready < self.symbols


class Needs:
    """Knows what rules need; a rule is looked at once."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], Mapping[str, int]] = {}

    def of(self, rule: Rule) -> Mapping[str, int]:
        """Return the bars of each period a rule needs until its values no longer depend on what was before."""
        key = rule.id, rule.rev
        if key not in self._of:
            if len(self._of) >= _REMEMBERED:
                self._of.clear()
            try:
                self._of[key] = needs_of(rule)
            except RuleError:  # it was compiled, so it is checked; what cannot be told is nothing
                self._of[key] = {}
        return self._of[key]

    def lacking(self, rules: RuleSet, market: Market, graph: Graph, *, symbols: Sequence[str]) -> list[Lack]:
        """Return what of these symbols' past is missing for rules that watch them, longest period last."""
        bars, wanted = self._wanted(rules, market, symbols)
        rows = np.array([-1 if (row := market.row(symbol)) is None else row for symbol in symbols], np.int64)
        found = []
        for period, watched in wanted.items():
            there = bars_there(market, graph, period)
            have = np.where(rows >= 0, there[rows] if there.size else 0, 0)
            short = watched & (have < bars[period])
            if short.any():
                found.append(
                    Lack(period, bars[period] * 5 // 4, tuple(symbols[i] for i in np.flatnonzero(short).tolist()))
                )
        return found

    def _wanted(
        self, rules: RuleSet, market: Market, symbols: Sequence[str]
    ) -> tuple[dict[str, int], dict[str, BoolArray]]:
        """Return the bars of each period that the neediest rule needs, and which symbols any such rule watches."""
        coverage = Coverage(symbols, market.instruments, held=market.books.held)
        bars: dict[str, int] = {}
        wanted: dict[str, BoolArray] = {}
        for rule in rules.rules:
            for period, count in self.of(rule).items():
                if count > 1:
                    bars[period] = max(count, bars.get(period, 0))
                    wanted[period] = coverage.of(rule.select) | wanted.get(period, False)
        return bars, wanted


def bars_there(market: Market, graph: Graph, period: str) -> IntArray:
    """Return (n,) how many bars of a period each symbol has, its forming one counted."""
    layer, held = graph.layers.get(period), market.bars.get(period)
    if layer is None or held is None:
        return np.zeros(market.state.n, np.int64)
    return layer.rings.counts.array + (held.end_ms.array > 0)


def readiness_of(groups: Sequence[Group], slots: Sequence[Slot], market: Market, graph: Graph) -> dict[str, Readiness]:
    """Return by rule of these groups how many of the symbols it watches, and that have ticked, have their first value.

    slots: all there are, those of groups over groups of symbols too.
    """
    first = first_values(slots)
    there: dict[str, IntArray] = {}
    found: dict[str, Readiness] = {}
    ticked = market.latest.ts_ms.array > 0
    for group in groups:
        for slot_row, slot in enumerate(group.slots):
            if slot.rule.id in found:
                continue
            watched = group.watched(slot_row) & ticked
            ready, missing = watched.copy(), []
            for period, bars in first[slot.rule.id].items():
                if period not in there:
                    there[period] = bars_there(market, graph, period) - 1
                short = watched & (there[period] < bars)
                ready &= ~short
                if short.any():
                    missing.append((period, int(bars - there[period][short].min())))
            counts = int(np.count_nonzero(watched)), int(np.count_nonzero(ready))
            found[slot.rule.id] = Readiness(*counts, tuple(missing[::-1]))
    return found


def first_values(slots: Sequence[Slot]) -> dict[str, dict[str, int]]:
    """Return by rule the bars of each period that its conditions need before their first value, as `explain` says."""
    found: dict[str, dict[str, int]] = {}
    for slot in slots:
        needed = found.setdefault(slot.rule.id, {})
        for node in reach([slot.condition]):
            if node.warmup and not is_tick(node.period):
                needed[node.period] = max(needed.get(node.period, 0), node.warmup)
    return found
