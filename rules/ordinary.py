"""The batch as nearly all are: a tick of every symbol, and nothing about any of them needs a decision.

Every symbol trades and has a price, all ticks are of one trading minute, no gap lies before any of them, and each joins
the open bar that its symbol holds. Such ticks are looked at, and the bars' extremes widened, by compiled code. What
they show is not copied: the columns of the latest tick borrow the batch's, and so do the bars their close; volume and
amount are worked out when somebody reads them. Where there was no compiler, or something is out of the ordinary, the
market takes them step by step, to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from feeds.compiled import compiled
from feeds.tick import TickBatch
from rules.bars import DayColumns, PeriodBars
from rules.gaps import Trail
from rules.latest import Latest

COMPILED = compiled("rules._ordinary", layout=2)
_READ: Final = ("last", "high", "low")


def take(
    batch: TickBatch,
    latest: Latest,
    *,
    day: DayColumns,
    trail: Trail,
    since_ms: int,
    bars: Sequence[tuple[PeriodBars, int]],
) -> bool:
    """Take a tick of every symbol in order; False, with nothing done, if something is out of the ordinary.

    The caller has found all that can be told from few numbers; here every symbol is looked at. since_ms: before which a
    tick would have a gap behind it. bars: each period's, and the end of the bar that takes these ticks.
    """
    if COMPILED is None:
        return False
    done: bool = COMPILED.take(
        len(batch), since_ms, [*map(batch.column, _READ), batch.status],
        [column.array for column in (day.first_ms, day.high, day.low)],
        [trail.sampled_ms.array, trail.broken.array] if bars else [],  # it is that of ticks that make bars
        [([column.array for column in one.widened], end_ms) for one, end_ms in bars],
    )  # fmt: skip
    if not done:
        return False
    for one, _ in bars:
        one.follow(batch)
    if bars:
        trail.borrow(batch.ts_event_ms)
    latest.borrow(batch)
    day.borrow(batch)
    return True
