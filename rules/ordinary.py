"""Ticks as nearly all are: nothing about any of their symbols needs a decision.

Every symbol trades, traded before and has a price, all ticks are of one trading minute, no gap lies before any of them,
and each joins the open bar that its symbol holds. Such ticks are looked at, and the bars' extremes widened, by compiled
code. Where the batch has one of every symbol, what they show is not copied: the columns of the latest tick borrow the
batch's, and so do the bars their close; volume and amount are worked out when somebody reads them. Where it has some,
as when a few are halted, the same pass writes it down for those. Where there was no compiler, or something is out of
the ordinary, the market takes ticks step by step, to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled
from feeds.tick import BoolArray, IntArray, TickBatch
from rules.bars import DayColumns, PeriodBars
from rules.gaps import NO_GAP
from rules.joining import Joining
from rules.latest import HALTED, Latest

COMPILED = compiled("rules._ordinary", layout=3)
_HALTS: Final = sum(1 << code for code in HALTED)
_READ: Final = ("last", "high", "low")
_Array: TypeAlias = NDArray[Any]


def news(
    batch: TickBatch, latest: Latest, *, rows: IntArray | None, midnight_ms: int, result_ms: int
) -> tuple[BoolArray, tuple[int, int, int]] | None:
    """Tell which ticks are news, and how many are of a day before, older than their symbol shows, and its very payload.

    rows: each tick's symbol, None = the batch has one of each in order. result_ms: when the opening auction's result
    comes, and prices begin to count. None where ticks must be looked at in another way.
    """
    if COMPILED is None:
        return None
    found = np.empty(len(batch), np.bool_)
    counts: tuple[int, int, int] | None = COMPILED.news(
        len(latest.ts_ms.array), rows, (batch.ts_event_ms, batch.status), (latest.ts_ms.array, latest.status.array),
        [(shown, column.array, begins) for column, shown, begins in latest.numbers(batch)],
        midnight_ms, result_ms, found,
    )  # fmt: skip
    return None if counts is None else (found, counts)


def take(
    batch: TickBatch,
    latest: Latest,
    *,
    some: tuple[IntArray, IntArray] | None,
    day: DayColumns,
    joining: Joining,
    since_ms: int,
    bars: Sequence[tuple[PeriodBars, int]],
) -> bool:
    """Take a tick of every symbol in order, or of some; False, with nothing done, if something is out of the ordinary.

    The caller has found all that can be told from few numbers; here every symbol is looked at. some: (rows, places in
    the batch) of the ticks, each symbol once. since_ms: before which a tick would have a gap behind it. bars: each
    period's, and the end of the bar that takes these ticks.
    """
    if COMPILED is None:
        return False
    trail, had_gaps = joining.trail, bool(bars) and joining.has_gaps
    done: bool = COMPILED.take(
        len(latest.ts_ms.array), *((None, None) if some is None else some), (*map(batch.column, _READ), batch.status),
        (latest.status.array, day.first_ms.array, day.high.array, day.low.array),
        (trail.sampled_ms.array, trail.broken.array) if bars else (),  # it is that of ticks that make bars
        since_ms, _HALTS, [(tuple([column.array for column in one.widened]), end_ms) for one, end_ms in bars],
        [] if some is None else _writes(batch, latest, day, joining, bars),
        [(joining.gap.array, NO_GAP), (joining.away_ms.array, -1)] if had_gaps else [],
    )  # fmt: skip
    if not done:
        return False
    if some is None:
        _borrow(batch, latest, day, joining, bars)
        joining.has_gaps &= not had_gaps
    return True


def _borrow(
    batch: TickBatch, latest: Latest, day: DayColumns, joining: Joining, bars: Sequence[tuple[PeriodBars, int]]
) -> None:
    """Show the batch's own columns, which are those of all symbols."""
    for one, _ in bars:
        one.follow(batch)
    if bars:
        joining.trail.borrow(batch.ts_event_ms)
    latest.borrow(batch)
    day.borrow(batch)


def _writes(
    batch: TickBatch, latest: Latest, day: DayColumns, joining: Joining, bars: Sequence[tuple[PeriodBars, int]]
) -> list[tuple[_Array, _Array | None, _Array]]:
    """Return what `_borrow` shows as (column of the batch, what it is counted from, column it is written to)."""
    writes: list[tuple[_Array, _Array | None, _Array]] = []
    for column, shown in (*latest.shown(batch), *day.shown(batch)):
        writes.append((shown, None, column.mine()))
    if bars:
        writes.append((batch.ts_event_ms, None, joining.trail.sampled_ms.mine()))
    for one, _ in bars:
        writes.append((batch.column("last"), None, one.fields["C"].mine()))
        writes.append((batch.column("volume_lots"), one.volume_at_start.array, one.fields["V"].array))
        writes.append((batch.column("amount_cny"), one.amount_at_start.array, one.fields["AMO"].array))
    return writes
