"""CROSS and LONGCROSS: false where they are not true, also while an input is unknown."""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.tick import IntArray
from rules.functions import columns
from rules.functions.comparing import edges
from rules.functions.function import Args, Builder, Constants, Function, Value, call_key, numbers, window
from rules.functions.values import NumberNode, TruthNode
from rules.language.tree import Kind
from rules.node import Selection, Step, is_tick
from rules.state import Column, StateTable


class Cross(TruthNode):
    """A > B on this bar and A ≤ B on the one before. State: whether A ≤ B, known so, on the last closed bar.

    Reads the `edges` of A > B, one of which has been moved by the tolerance: a tie is no side, so flat prices never
    cross.
    """

    __slots__ = ("_a", "_b", "_below")

    def __init__(self, key: str, edges: tuple[NumberNode, NumberNode]) -> None:
        a, b = edges
        super().__init__(key, period=a.period, args=edges, warmup=max(a.warmup, b.warmup) + 1)
        self._a = a
        self._b = b

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._below: Column = state.claim(f"{self.period}/{self.key}/below", dtype=np.bool_, fill=False)

    def recipe(self) -> Step:
        return Step("cross", (self._a, self._b, self._below))

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        columns.cross(self._a.value, self._b.value, self._below.array[at], out.t, out.f)
        self.value = out

    def commit(self, at: IntArray) -> None:
        below = self._a.value <= self._b.value
        if is_tick(self.period):  # an unknown tick is as if none had come
            unknown = np.isnan(self._a.value) | np.isnan(self._b.value)
            below = np.where(unknown, self._below.array[at], below)
        self._below.array[at] = below


class LongCross(TruthNode):
    """A > B on this bar and A < B on each of the N before. State: for how many closed bars A < B has been true."""

    __slots__ = ("_above", "_below", "_n", "_run")

    def __init__(self, key: str, above: TruthNode, below: TruthNode, n: int) -> None:
        super().__init__(key, period=above.period, args=(above, below), warmup=above.warmup + n)
        self._above = above
        self._below = below
        self._n = n

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._run = self.claim("run", 0.0)

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.greater_equal(self._run.array[at], self._n, out.t)
        np.logical_and(out.t, self._above.value.t, out.t)
        np.logical_not(out.t, out.f)
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._run.array[at] = np.where(self._below.value.t, self._run.array[at] + 1.0, 0.0)


def _build_cross(builder: Builder, args: Args, constants: Constants) -> Value:
    a, b = map(builder.number, args)
    return builder.share(Cross(call_key("CROSS", (a, b)), edges(builder, a, b)))


def _build_longcross(builder: Builder, args: Args, constants: Constants) -> Value:
    a, b = map(builder.number, args)
    above, below = builder.compare(">", a, b), builder.compare("<", a, b)
    key = call_key("LONGCROSS", (a, b), constants)
    return builder.share(LongCross(key, above, below, int(constants[0])))


CROSSING: Final = (
    Function(
        name="CROSS", params=numbers("A", "B"), result=Kind.TRUTH, build=_build_cross, oracle="MyTT", on_tick=True,
        meaning="A rises above B on this bar, having been at or below it on the bar before",
    ),
    Function(
        name="LONGCROSS", params=(*numbers("A", "B"), window()), result=Kind.TRUTH, build=_build_longcross,
        oracle="MyTT", meaning="A is above B on this bar, having been below it on the N bars before",
        history=lambda constants: int(constants[0]) + 1,
    ),
)  # fmt: skip
