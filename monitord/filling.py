"""Filling the cache of bars ahead of time: days that it has not yet, from files or from a feed's own history."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from feeds.barcache import BarCache
from feeds.errors import FeedError
from feeds.exrights import ExRightTable
from feeds.feed import Feed, history_of
from feeds.history import COLUMNS, BarTable, Factors, HistoryRequest, sound, table_of
from feeds.sessions import DAY_MS, unix_ms
from feeds.universe import is_symbol
from monitord.warmup import ASK, BASES, WITNESS, base_of
from rules.assembly import factors_on_record, longer, whole_dates


def fill(
    cache: BarCache, table: BarTable, *, exrights: ExRightTable, now_ms: int, factors: Factors | None = None
) -> int:
    """Write the whole days of these bars that the cache has not; return how many. Weeks and months are made of days.

    factors: of the table's ex-rights days, where they are known better than from what is on record.
    """
    if table.period in ("1w", "1mon"):
        return 0
    dates = sorted(whole_dates(table) - set(cache.dates(table.period)))
    moved = factors_on_record(table, exrights, as_of=max(dates, default=0)) if factors is None else factors
    written = 0
    for date in dates:
        begins_ms = unix_ms(date)
        day = table.take((table.ends_ms >= begins_ms) & (table.ends_ms < begins_ms + DAY_MS))
        if int(day.ends_ms.max()) <= now_ms and cache.write(day, date, moved.get(date, {})) is not None:
            written += 1
    return written


async def fill_from_feed(
    cache: BarCache,
    feed: Feed,
    depth: Mapping[str, int],
    now_ms: int,
    *,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Ask an open feed for the bars of all its symbols and write them; return the days written of each period.

    depth: period → bars. show: called with the symbols done and all. Raises FeedError where the feed has no history, or
    knows of no symbols.
    """
    ask = history_of(feed)
    if ask is None:
        raise FeedError(f"the feed {feed.source_id} has no history of its own; use --fill files")
    symbols = tuple(one.symbol for one in await feed.instruments() if is_symbol(one.symbol))
    if not symbols:
        raise FeedError("the feed names no instruments; is the terminal logged in?")
    bases: dict[str, int] = {}
    for period, bars in depth.items():
        base, count = base_of(period, bars)
        bases[base] = max(count, bases.get(base, 0))
    parts: dict[str, list[BarTable]] = {base: [] for base in BASES if base in bases}
    factors: dict[int, dict[str, tuple[float, float]]] = {}
    for start in range(0, len(symbols), ASK):
        show(start, len(symbols))
        asked = tuple(dict.fromkeys((*symbols[start : start + ASK], WITNESS)))
        for base, tables in parts.items():
            answer = await ask(HistoryRequest(base, asked, bases[base], now_ms))
            tables.append(longer(answer.table.take(sound(answer.table)), base))
            for date, moved in answer.factors.items():
                factors.setdefault(date, {}).update(moved)
    show(len(symbols), len(symbols))
    nothing = ExRightTable()
    return {
        base: fill(cache, _one(tables), exrights=nothing, now_ms=now_ms, factors=factors)
        for base, tables in parts.items()
    }


def _one(tables: list[BarTable]) -> BarTable:
    """Return the bars of several tables of one period as one."""
    symbols = np.concatenate([np.array(table.symbols)[table.code] for table in tables])
    ends_ms = np.concatenate([table.ends_ms for table in tables])
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
    return table_of(tables[0].period, symbols, ends_ms, columns=columns)
