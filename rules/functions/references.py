"""Values of other bars: REF and VALUEWHEN."""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.tick import IntArray
from rules.functions.function import (
    Args,
    Builder,
    Constants,
    Function,
    Param,
    ParamKind,
    Value,
    call_key,
    varying_key,
    window,
)
from rules.functions.values import NumberNode, TruthNode, true_at
from rules.functions.varying import EarlierBy
from rules.node import Selection, is_tick
from rules.rings import Ring
from rules.state import Column, StateTable


class Earlier(NumberNode):
    """X of N ≥ 1 bars ago. State: that value, fetched at the close, so that a pass reads one contiguous row."""

    __slots__ = ("_bars", "_was")

    def __init__(self, key: str, x: NumberNode, bars: int, ring: Ring) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + bars)
        self._bars = bars
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._was = self.claim("was")

    def recipe(self) -> Column:
        return self._was

    def peek(self, at: Selection) -> None:
        self.value = self._was.array[at]  # a view for all symbols

    def commit(self, at: IntArray) -> None:
        assert self.ring is not None
        self.value = self.value.copy()  # it stays that of the closed bar until the next pass
        was = self.ring.back(at, self._bars - 1)
        if is_tick(self.period):  # an unknown tick is as if none had come
            was = np.where(np.isnan(was), self._was.array[at], was)
        self._was.array[at] = was


class Remembered(NumberNode):
    """VALUEWHEN: X of the last bar on which the condition was true. State: that value as of the last closed bar."""

    __slots__ = ("_condition", "_then", "_x")

    def __init__(self, key: str, condition: TruthNode, x: NumberNode) -> None:
        super().__init__(key, period=x.period, args=(condition, x), warmup=max(condition.warmup, x.warmup))
        self._condition = condition
        self._x = x

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._then = self.claim("then")

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.copyto(out, self._then.array[at])
        now = true_at(self._condition.value.t)
        if now is not None:
            out[now] = self._x.value[now]
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._then.array[at] = self.value


def earlier(builder: Builder, x: Value, bars: int) -> Value:
    """Return the node of REF(x, bars), of the kind of x."""
    if bars == 0:
        return x
    number = builder.number(x)
    key = call_key("REF", (number,), (float(bars),))
    node = builder.share(Earlier(key, number, bars, builder.ring(number, bars)))
    return builder.truth(node) if isinstance(x, TruthNode) else node


def _build_ref(builder: Builder, args: Args, constants: Constants) -> Value:
    return earlier(builder, args[0], int(constants[0]))


def _vary_ref(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    number = builder.number(args[0])
    key, ring = varying_key("REF", (number,), n, cap), builder.ring(number, cap)
    node = builder.share(EarlierBy(key, number, n, ring=ring, cap=cap))
    return builder.truth(node) if isinstance(args[0], TruthNode) else node


def _build_valuewhen(builder: Builder, args: Args, constants: Constants) -> Value:
    condition, x = builder.truth(args[0]), args[1]
    number = builder.number(x)
    node = builder.share(Remembered(call_key("VALUEWHEN", (condition, number)), condition, number))
    return builder.truth(node) if isinstance(x, TruthNode) else node


REFERENCES: Final = (
    Function(
        name="REF", params=(Param("X", ParamKind.ANY), window(least=0)), result=None, build=_build_ref, vary=_vary_ref,
        oracle="MyTT", first=lambda constants: int(constants[0]) + 1, meaning="X of N bars ago", on_tick=True,
    ),
    Function(
        name="VALUEWHEN", params=(Param("COND", ParamKind.TRUTH), Param("X", ParamKind.ANY)), result=None,
        build=_build_valuewhen, oracle="MyTT", meaning="X on the last bar on which COND was true",
    ),
)  # fmt: skip
