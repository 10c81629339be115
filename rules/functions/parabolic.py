"""SAR: the parabolic stop, which follows the trend it is in ever faster until a bar crosses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.functions.function import Args, Builder, Constants, Function, Param, ParamKind, Value, call_key, window
from rules.functions.values import NumberNode
from rules.language.tree import Kind
from rules.node import Selection
from rules.state import StateTable

FIELDS: Final = ("H", "L", "C")
_STATE: Final = ("seen", "first", "high", "low", "up", "stop", "extreme", "speed")


@dataclass(slots=True)
class _Stop:
    """Columns of one selection, each (k,) float64.

    seen: bars so far; first: close of the first; high, low: extremes of the first N; up: 1 in a rise, else 0; stop: the
    SAR; extreme: furthest price of the trend; speed: the share of the way to it taken per bar.
    """

    seen: FloatArray
    first: FloatArray
    high: FloatArray
    low: FloatArray
    up: FloatArray
    stop: FloatArray
    extreme: FloatArray
    speed: FloatArray


class Parabolic(NumberNode):
    """SAR(N,S,M). A bar without its high, low or close leaves everything as it was.

    The first N bars only give extremes. Bar N+1 takes the direction (up where its close is at least that of N bars
    before) and starts at the N bars' extreme on the other side. From then on the stop moves by `speed` of its distance
    to the trend's extreme; speed grows by S % with each new extreme, up to M %. A bar that crosses the stop turns the
    trend: the stop is the old extreme, and speed starts anew.
    """

    __slots__ = ("_close", "_columns", "_high", "_low", "_most", "_n", "_step")

    def __init__(self, key: str, bars: tuple[NumberNode, NumberNode, NumberNode], constants: Constants) -> None:
        super().__init__(key, period=bars[0].period, args=bars, warmup=int(constants[0]))
        self._high, self._low, self._close = bars
        self._n = constants[0]
        self._step = constants[1] / 100
        self._most = constants[2] / 100

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._columns = [self.claim(name, 0.0 if name == "seen" else np.nan) for name in _STATE]

    def peek(self, at: Selection) -> None:
        self.value = self._next(at).stop

    def commit(self, at: IntArray) -> None:
        state = self._next(at)
        for name, column in zip(_STATE, self._columns, strict=True):
            column.array[at] = getattr(state, name)

    def _next(self, at: Selection) -> _Stop:
        """Return the state with this bar."""
        s = _Stop(*(column.array[at].copy() for column in self._columns))
        high, low, close = self._high.value, self._low.value, self._close.value
        known = ~(np.isnan(high) | np.isnan(low) | np.isnan(close))
        self._follow(s, known & (s.seen > self._n), high, low)
        self._start(s, known & (s.seen == self._n), close, (high, low))
        early = known & (s.seen < self._n)
        s.first = np.where(early & (s.seen == 0), close, s.first)
        s.high = np.where(early, np.fmax(s.high, high), s.high)
        s.low = np.where(early, np.fmin(s.low, low), s.low)
        s.seen += known
        return s

    def _start(self, s: _Stop, here: BoolArray, close: FloatArray, ends: tuple[FloatArray, FloatArray]) -> None:
        rises = here & (close >= s.first)
        falls = here & ~rises
        s.up = np.where(here, rises, s.up)
        s.stop = np.where(rises, s.low, np.where(falls, s.high, s.stop))
        furthest = np.where(rises, np.maximum(s.high, ends[0]), np.minimum(s.low, ends[1]))
        s.extreme = np.where(here, furthest, s.extreme)
        s.speed = np.where(here, self._step, s.speed)

    def _follow(self, s: _Stop, here: BoolArray, high: FloatArray, low: FloatArray) -> None:
        up = s.up == 1
        moved = s.stop + s.speed * (s.extreme - s.stop)
        turns = here & np.where(up, low < moved, high > moved)
        goes_on = here & ~turns & np.where(up, high > s.extreme, low < s.extreme)
        s.stop = np.where(turns, s.extreme, np.where(here, moved, s.stop))
        s.up = np.where(turns, ~up, s.up)
        s.extreme = np.where(turns, np.where(up, low, high), np.where(goes_on, np.where(up, high, low), s.extreme))
        faster = np.minimum(s.speed + self._step, self._most)
        s.speed = np.where(turns, self._step, np.where(goes_on, faster, s.speed))


def _build_sar(builder: Builder, args: Args, constants: Constants) -> Value:
    high, low, close = (builder.number(builder.word(name)) for name in FIELDS)
    return builder.share(Parabolic(call_key("SAR", (), constants), (high, low, close), constants))


def _percent(name: str) -> Param:
    return Param(name, ParamKind.CONSTANT, 0.01, 100)


PARABOLIC: Final = (
    Function(
        name="SAR", params=(window(), _percent("S"), _percent("M")), result=Kind.NUMBER, build=_build_sar,
        oracle="loop", reads=FIELDS, first=lambda constants: int(constants[0]) + 1,
        meaning="parabolic stop begun after N bars, its step S % and its fastest pace M %",
    ),
)  # fmt: skip
