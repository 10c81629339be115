"""Functions with a clock of their own: RISE, HIGHS, LOWS by seconds, BIGTICK by ticks, VRATIO by trading minutes."""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.functions.across import BarEnd
from rules.functions.columns import TOLERANCE
from rules.functions.function import (
    Args,
    Builder,
    Clock,
    Constants,
    Function,
    Param,
    ParamKind,
    Value,
    call_key,
    window,
)
from rules.functions.references import earlier
from rules.functions.values import NumberNode
from rules.functions.windows import extreme, mean
from rules.language.tree import Kind
from rules.node import Selection
from rules.state import Column, StateTable

SLOT_S: Final = 3
LONGEST_S: Final = 3_600
DAY_MINUTES: Final = 240
_BIGTICK_WORDS: Final = ("AMTDAY", "LAST", "ASKP1", "BIDP1")
_MEAN_OF: Final = 5
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_SHANGHAI_MS: Final = 8 * 3_600_000
_MORNING: Final = 9 * 60 + 30
_AFTERNOON: Final = 13 * 60


class TickAmount(NumberNode):
    """The amount traded with this tick, from the day's: all of it with the first tick known, and after a day's roll.

    State: the day's amount at the last tick.
    """

    __slots__ = ("_before", "_day")

    def __init__(self, key: str, day: NumberNode) -> None:
        super().__init__(key, period=day.period, args=(day,))
        self._day = day

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._before = self.claim("before")

    def peek(self, at: Selection) -> None:
        out, day, before = self.room(at), self._day.value, self._before.array[at]
        np.copyto(out, np.where(np.isnan(before) | (day < before), day, day - before))
        self.value = out

    def commit(self, at: IntArray) -> None:
        day = self._day.value
        self._before.array[at] = np.where(np.isnan(day), self._before.array[at], day)


class BigTick(NumberNode):
    """BIGTICK: +1 or −1 for a big tick at the previous ask or bid, else 0; NaN until five ticks lie before it."""

    __slots__ = ("_amount", "_ask", "_bid", "_last", "_least", "_mean", "_times")

    def __init__(
        self, key: str, amounts: tuple[NumberNode, NumberNode], prices: tuple[NumberNode, NumberNode, NumberNode],
        least: float, times: float,
    ) -> None:  # fmt: skip
        super().__init__(key, period=amounts[0].period, args=(*amounts, *prices), warmup=_MEAN_OF)
        self._amount, self._mean = amounts
        self._last, self._ask, self._bid = prices
        self._least, self._times = least, times

    def peek(self, at: Selection) -> None:
        out, last, amount = self.room(at), self._last.value, self._amount.value
        floor = np.maximum(self._least, self._times * self._mean.value)
        slack = TOLERANCE * np.maximum(1.0, np.abs(last))
        bought, sold = last >= self._ask.value - slack, last <= self._bid.value + slack
        out[...] = np.where(amount >= floor * (1 - TOLERANCE), np.where(bought, 1.0, np.where(sold, -1.0, 0.0)), 0.0)
        out[np.isnan(amount) | np.isnan(floor) | np.isnan(last)] = np.nan
        self.value = out


class VolumeRatio(NumberNode):
    """VRATIO: the day's volume so far over the mean of D days at the end of the same trading minute.

    State: per trading minute the day's volume at its end today, on each of the last D days on which the symbol traded,
    and their mean; the end of the last minute committed, NaN once its day is among the last. A minute without a bar has
    the volume of the one before.
    """

    __slots__ = ("_days", "_end", "_last_end", "_mean", "_today", "_volume", "days")
    _today: Column
    _days: Column
    _mean: Column

    def __init__(self, key: str, volume: NumberNode, end: BarEnd, days: int) -> None:
        super().__init__(key, period=volume.period, args=(volume, end), warmup=days * DAY_MINUTES)
        self._volume = volume
        self._end = end
        self.days = days

    def open(self, state: StateTable) -> None:
        super().open(state)
        name = f"{self.period}/{self.key}"
        self._last_end = self.claim("last_end")
        self._today = state.claim(f"{name}/today", shape=(DAY_MINUTES,))
        self._days = state.claim(f"{name}/days", shape=(self.days, DAY_MINUTES))
        self._mean = state.claim(f"{name}/mean", shape=(DAY_MINUTES,))

    def peek(self, at: Selection) -> None:
        out, end = self.room(at), self._end.value
        known = np.flatnonzero(end > 0)
        rows = np.arange(end.size)[known] if isinstance(at, slice) else at[known]
        minute = minute_index(end[known])
        usual = self._mean.array[minute, rows]
        self._join_yesterday(usual, end[known], minute, rows)
        out.fill(np.nan)
        out[known] = np.where(usual > 0, self._volume.value[known] / usual, np.nan)
        self.value = out

    def _join_yesterday(self, usual: FloatArray, end: FloatArray, minute: IntArray, rows: IntArray) -> None:
        """Mend the mean of symbols whose last day ended without its last minute, which the next commit makes a day."""
        last_end = self._last_end.array[rows]
        if not (last_end < end.max(initial=0) - _DAY_MS / 2).any():  # as nearly always
            return
        late = np.flatnonzero(day_number(last_end) < day_number(end))
        minute, rows = minute[late], rows[late]
        yesterday = np.fmax.accumulate(self._today.array[:, rows], axis=0)[minute, np.arange(rows.size)]
        usual[late] = np.concatenate([self._days.array[1:, minute, rows], yesterday[None]]).mean(axis=0)

    def commit(self, at: IntArray) -> None:
        known = (self._end.value > 0) & ~np.isnan(self._volume.value)
        rows, end, volume = at[known], self._end.value[known], self._volume.value[known]
        self._roll(rows[day_number(self._last_end.array[rows]) < day_number(end)])
        minute = minute_index(end)
        self._today.array[minute, rows] = volume
        self._last_end.array[rows] = end
        self._roll(rows[minute == DAY_MINUTES - 1])

    def _roll(self, rows: IntArray) -> None:
        """Make what is today's the newest of the last days."""
        if not rows.size:
            return
        days = self._days.array
        days[:-1, :, rows] = days[1:, :, rows]
        days[-1][:, rows] = np.fmax.accumulate(self._today.array[:, rows], axis=0)
        self._mean.array[:, rows] = days[:, :, rows].mean(axis=0)
        self._today.array[:, rows] = np.nan
        self._last_end.array[rows] = np.nan


class Heard(NumberNode):
    """A price, unknown until the symbol has ticked since its slots last broke off: what it was before is no news."""

    __slots__ = ("_broken_ms", "_price", "_tick_ms")

    def __init__(self, key: str, price: NumberNode, tick_ms: Column, broken_ms: Column) -> None:
        super().__init__(key, period=price.period, args=(price,))
        self._price = price
        self._tick_ms = tick_ms
        self._broken_ms = broken_ms

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.copyto(out, self._price.value)
        out[self._tick_ms.array[at] < self._broken_ms.array[at]] = np.nan
        self.value = out


def minute_index(end_ms: FloatArray) -> IntArray:
    """Return the 0-based trading minute of the day that ends then (Unix ms)."""
    minute = ((end_ms + _SHANGHAI_MS) % _DAY_MS // _MINUTE_MS).astype(np.int64)
    index = np.where(minute <= _AFTERNOON, minute - _MORNING, minute - _AFTERNOON + DAY_MINUTES // 2) - 1
    return np.asarray(np.clip(index, 0, DAY_MINUTES - 1))


def day_number(end_ms: FloatArray) -> FloatArray:
    """Return a number per Shanghai date of these Unix ms; NaN stays NaN and is less than nothing."""
    return np.asarray((end_ms + _SHANGHAI_MS) // _DAY_MS)


def _slots(constants: Constants) -> int:
    return ceil(constants[0] / SLOT_S)


def _heard(builder: Builder, price: Value) -> NumberNode:
    number = builder.number(price)
    columns = builder.source_column("TICK_MS"), builder.broken_ms
    return builder.number(builder.share(Heard(f"HEARD({number.key})", number, *columns)))


def _build_rise(builder: Builder, args: Args, constants: Constants) -> Value:
    x = _heard(builder, args[0])
    ratio = builder.arithmetic("/", x, earlier(builder, x, _slots(constants)))
    share = builder.arithmetic("-", ratio, builder.constant(1.0, builder.period))
    return builder.arithmetic("*", share, builder.constant(100.0, builder.period))


def _extreme(name: str, of: str, meaning: str) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        x, n = _heard(builder, args[0]), _slots(constants)
        # A window that reaches over a gap is unknown, and so is the value of N slots ago: 0 times it says so.
        nothing = builder.arithmetic("*", earlier(builder, x, n), builder.constant(0.0, builder.period))
        return builder.arithmetic("+", extreme(builder, of, x, n), nothing)

    return Function(
        name=name, params=(_SECONDS, _PRICE), result=Kind.NUMBER, build=build, oracle="loop", clock=Clock.SLOTS,
        first=_first, on_tick=True, meaning=meaning,
    )  # fmt: skip


def _build_bigtick(builder: Builder, args: Args, constants: Constants) -> Value:
    day, last, ask, bid = (builder.number(builder.word(word)) for word in _BIGTICK_WORDS)
    amount = builder.number(builder.share(TickAmount("TICKAMOUNT", day)))
    usual = builder.number(earlier(builder, mean(builder, amount, _MEAN_OF), 1))
    prices = last, builder.number(earlier(builder, ask, 1)), builder.number(earlier(builder, bid, 1))
    return builder.share(BigTick(call_key("BIGTICK", (), constants), (amount, usual), prices, *constants))


def _build_vratio(builder: Builder, args: Args, constants: Constants) -> Value:
    volume = builder.number(builder.word("VOLDAY"))
    end = builder.share(BarEnd("END", builder.source_column("END"), period=builder.period))
    assert isinstance(end, BarEnd)
    return builder.share(VolumeRatio(call_key("VRATIO", (), constants), volume, end, int(constants[0])))


def _first(constants: Constants) -> int:
    return _slots(constants) + 1


_SECONDS: Final = Param("S", ParamKind.CONSTANT, 1, LONGEST_S)
_CNY: Final = Param("CNY", ParamKind.CONSTANT, 0)
_TIMES: Final = Param("TIMES", ParamKind.CONSTANT, 0, default=2.0)
_PRICE: Final = Param("X", words=("LAST", "AUCP"))
SECONDS: Final = (
    Function(
        name="RISE", params=(_SECONDS, _PRICE), result=Kind.NUMBER, build=_build_rise, oracle="loop",
        clock=Clock.SLOTS, first=_first, on_tick=True,
        meaning="change of X over S seconds of session time in %; unknown until S seconds after any gap",
    ),
    _extreme("HIGHS", "HHV", "highest X of the last S seconds of session time; unknown until S seconds after any gap"),
    _extreme("LOWS", "LLV", "lowest X of the last S seconds of session time; unknown until S seconds after any gap"),
    Function(
        name="BIGTICK", params=(_CNY, _TIMES), result=Kind.NUMBER, build=_build_bigtick,
        oracle="loop", clock=Clock.TICKS, first=lambda constants: 6, on_tick=True, reads=_BIGTICK_WORDS,
        meaning="1 or -1: a tick of CNY yuan and TIMES (2) the mean of the five before, bought or sold; else 0",
    ),
    Function(
        name="VRATIO", params=(window("D"),), result=Kind.NUMBER, build=_build_vratio, oracle="pandas",
        clock=Clock.MINUTES, first=lambda constants: int(constants[0]) * DAY_MINUTES + 1, on_tick=True,
        reads=("VOLDAY",), meaning="volume of the day so far over its mean of D days at the same trading minute",
    ),
)  # fmt: skip
