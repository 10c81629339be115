"""The batch as nearly all are: a tick of every symbol, and nothing about any of them needs a decision.

Every symbol trades and has a price, all ticks are of one trading minute, no gap lies before any of them, and each joins the
open bar that its symbol holds. Such ticks are taken in one compiled pass over the columns; where there was no compiler, or
something is out of the ordinary, the market takes them step by step, to the same bits.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from numpy.typing import NDArray

from feeds.tick import CORE, TickBatch
from rules.bars import DayColumns, PeriodBars
from rules.gaps import Trail
from rules.latest import Latest

COMPILED: ModuleType | None
try:
    from rules import _ordinary as COMPILED
except ImportError:  # no compiler at installation
    COMPILED = None

_BAR_FIELDS: Final = ("H", "L", "C", "V", "AMO")


def take(
    batch: TickBatch, latest: Latest, *, day: DayColumns, trail: Trail, since_ms: int, bars: list[tuple[PeriodBars, int]]
) -> bool:
    """Take a tick of every symbol in order; False, with nothing done, if something is out of the ordinary.

    The caller has found all that can be told from few numbers; here every symbol is looked at. since_ms: before which a
    tick would have a gap behind it. bars: each period's, and the end of the bar that takes these ticks.
    """
    if COMPILED is None:
        return False
    columns: list[NDArray[Any]] = [batch.ts_event_ms, *map(batch.column, CORE), batch.status]
    periods = [(_columns_of(one), end_ms) for one, end_ms in bars]
    done: bool = COMPILED.take(
        len(batch), since_ms, columns,
        [latest.ts_ms.array, *map(latest.raw, CORE), latest.status.array],
        [column.array for column in (day.first_ms, day.volume, day.amount, day.high, day.low)],
        [trail.sampled_ms.array, trail.broken.array] if bars else [],  # it is that of ticks that make bars
        periods,
    )  # fmt: skip
    return done


def _columns_of(bars: PeriodBars) -> list[NDArray[Any]]:
    state = (bars.end_ms, bars.closed, bars.flat)
    starts = (bars.volume_at_start, bars.amount_at_start)
    return [column.array for column in (*state, *map(bars.fields.__getitem__, _BAR_FIELDS), *starts)]
