"""The batch as nearly all are: a tick of every symbol, and nothing about any of them needs a decision.

Every symbol trades and has a price, all ticks are of one trading minute, no gap lies before any of them, and each joins
the open bar that its symbol holds. Such ticks join the bars in one compiled pass, and what they show is not copied: the
columns of the latest tick borrow the batch's. Where there was no compiler, or something is out of the ordinary, the
market takes them step by step, to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from numpy.typing import NDArray

from feeds.tick import TickBatch
from rules.bars import DayColumns, PeriodBars
from rules.gaps import Trail
from rules.latest import Latest

COMPILED: ModuleType | None
try:
    from rules import _ordinary as COMPILED
except ImportError:  # no compiler at installation
    COMPILED = None

_TICK_COLUMNS: Final = ("last", "high", "low", "volume_lots", "amount_cny")
_BAR_FIELDS: Final = ("H", "L", "C", "V", "AMO")


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
    ticks: list[NDArray[Any]] = [batch.ts_event_ms, *map(batch.column, _TICK_COLUMNS), batch.status]
    periods = [(_columns_of(one), end_ms) for one, end_ms in bars]
    done: bool = COMPILED.take(
        len(batch), since_ms, ticks,
        [column.array for column in (day.first_ms, day.high, day.low)],
        [trail.sampled_ms.array, trail.broken.array] if bars else [],  # it is that of ticks that make bars
        periods,
    )  # fmt: skip
    if done:
        latest.borrow(batch)
        day.borrow(batch)
    return done


def _columns_of(bars: PeriodBars) -> list[NDArray[Any]]:
    state = (bars.end_ms, bars.closed, bars.flat)
    starts = (bars.volume_at_start, bars.amount_at_start)
    return [column.array for column in (*state, *map(bars.fields.__getitem__, _BAR_FIELDS), *starts)]
