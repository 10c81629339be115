"""Functions that count bars of a condition.

Most need no window of bars: whether a condition was true within N bars is whether its last true bar is less than N
bars old. An age is NaN until there is one, and NaN is never less than N. Unknown counts as not true.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.tick import BoolArray, FloatArray, IntArray
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
from rules.functions.references import earlier
from rules.functions.truths import invert
from rules.functions.values import NumberNode, TruthNode, true_at
from rules.functions.varying import EveryWithin, ExistsWithin
from rules.functions.windows import folded
from rules.language.tree import Kind
from rules.node import Selection
from rules.rings import Ring
from rules.state import Column, StateTable


class Age(NumberNode):
    """BARSLAST: bars since the condition was last true, NaN until it was. State: the age at the last closed bar."""

    __slots__ = ("_age", "_condition")

    def __init__(self, key: str, condition: TruthNode) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._age = self.claim("age")

    def peek(self, at: Selection) -> None:
        self.value = aged(self._age.array[at], self._condition.value.t, self.room(at))

    def commit(self, at: IntArray) -> None:
        self._age.array[at] = self.value


class FirstAge(NumberNode):
    """BARSSINCE: bars since the condition was first true. BARSCOUNT is this of "X is known", plus 1."""

    __slots__ = ("_age", "_condition")

    def __init__(self, key: str, condition: TruthNode) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._age = self.claim("age")

    def peek(self, at: Selection) -> None:
        out, age = self.room(at), self._age.array[at]
        np.add(age, 1.0, out=out)
        out[self._condition.value.t & np.isnan(age)] = 0.0
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._age.array[at] = self.value


class OldestAge(NumberNode):
    """BARSSINCEN: bars since the oldest of the last N bars on which the condition was true; NaN if it was on none.

    State: that age among the closed N−1, as of the newest of them, read again from bits.
    """

    __slots__ = ("_age", "_condition", "_n")

    def __init__(self, key: str, condition: TruthNode, n: int, ring: Ring) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition
        self._n = n
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._age = self.claim("age")

    def peek(self, at: Selection) -> None:
        out, age = self.room(at), self._age.array[at]
        np.add(age, 1.0, out=out)
        out[self._condition.value.t & np.isnan(age)] = 0.0
        self.value = out

    def commit(self, at: IntArray) -> None:
        if self._n == 1:
            return
        assert self.ring is not None
        age = np.full(at.size, np.nan)
        for bars, row in enumerate(self.ring.rows(at, self._n - 1), 2 - self._n):
            age[row & np.isnan(age)] = -bars
        self._age.array[at] = age


class Run(NumberNode):
    """BARSLASTCOUNT: bars in a row, this one included, on which the condition is true; NaN until the first of all."""

    __slots__ = ("_condition", "_run")

    def __init__(self, key: str, condition: TruthNode) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._run = self.claim("run")

    def peek(self, at: Selection) -> None:
        run, out, true = self._run.array[at], self.room(at), self._condition.value.t
        np.copyto(out, np.where(true, np.where(np.isnan(run), 1.0, run + 1.0), run * 0.0))
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._run.array[at] = self.value


class Count(NumberNode):
    """COUNT over N bars, or as many as there are. State: the count of the closed N−1, read again from bits."""

    __slots__ = ("_base", "_condition", "_n")

    def __init__(self, key: str, condition: TruthNode, n: int, ring: Ring | None) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition
        self._n = n
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._base = self.claim("base", 0.0)

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.add(self._base.array[at], self._condition.value.t, out=out)
        self.value = out

    def commit(self, at: IntArray) -> None:
        if self._n == 0:
            self._base.array[at] = self.value
        elif self._n > 1:
            assert self.ring is not None
            count = np.zeros(at.size)
            for row in self.ring.rows(at, self._n - 1):
                np.add(count, row, out=count)
            self._base.array[at] = count


class Exists(TruthNode):
    """EXIST: true on one of the last N bars, 0: on any so far; never unknown."""

    __slots__ = ("_age", "_n")

    def __init__(self, key: str, age: Age, n: int) -> None:
        super().__init__(key, period=age.period, args=(age,), warmup=age.warmup)
        self._age = age
        self._n = float(n) if n > 0 else np.inf

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.less(self._age.value, self._n, out=out.t)
        np.logical_not(out.t, out=out.f)
        self.value = out


class Every(TruthNode):
    """EVERY: true on each of the last N bars. Unknown until there are N bars, and where one is unknown and none false.

    State: age of the last bar that was not true, and of the last that was false.
    """

    __slots__ = ("_condition", "_counts", "_false", "_n", "_untrue")

    def __init__(self, key: str, condition: TruthNode, n: int, counts: Column) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup + n - 1)
        self._condition = condition
        self._n = n
        self._counts = counts

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._untrue = self.claim("untrue")
        self._false = self.claim("false")

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        untrue, false = self._ages(at)
        full = self._counts.array[at] + 1 >= self._n
        np.logical_and(false < self._n, full, out=out.f)
        np.logical_and(~(untrue < self._n), full, out=out.t)
        self.value = out

    def commit(self, at: IntArray) -> None:
        untrue, false = self._ages(at)
        self._untrue.array[at] = untrue
        self._false.array[at] = false

    def _ages(self, at: Selection) -> tuple[FloatArray, FloatArray]:
        truth = self._condition.value
        untrue = aged(self._untrue.array[at], ~truth.t, np.empty(truth.t.size))
        return untrue, aged(self._false.array[at], truth.f, np.empty(truth.t.size))


class Filtered(TruthNode):
    """FILTER: the condition, false for N bars after each time it was true. State: bars since that time."""

    __slots__ = ("_age", "_condition", "_n")

    def __init__(self, key: str, condition: TruthNode, n: int) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition
        self._n = n

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._age = self.claim("age")

    def peek(self, at: Selection) -> None:
        out, truth = self.room(at), self._condition.value
        muted = self._age.array[at] < self._n
        np.greater(truth.t, muted, out=out.t)
        np.logical_or(truth.f, muted, out=out.f)
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._age.array[at] = aged(self._age.array[at], self.value.t, np.empty(at.size))


class Known(TruthNode):
    """Whether a number is known; never unknown itself."""

    __slots__ = ("_x",)

    def __init__(self, key: str, x: NumberNode) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup)
        self._x = x

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.isnan(self._x.value, out=out.f)
        np.logical_not(out.f, out=out.t)
        self.value = out


class Untrue(TruthNode):
    """Whether a condition is not known true: false or unknown; never unknown itself."""

    __slots__ = ("_condition",)

    def __init__(self, key: str, condition: TruthNode) -> None:
        super().__init__(key, period=condition.period, args=(condition,), warmup=condition.warmup)
        self._condition = condition

    def peek(self, at: Selection) -> None:
        out, true = self.room(at), self._condition.value.t
        np.copyto(out.f, true)
        np.logical_not(true, out=out.t)
        self.value = out


def aged(age: FloatArray, now: BoolArray, out: FloatArray) -> FloatArray:
    """Return the ages one bar later in `out`: 0 where it happens now; NaN stays NaN."""
    np.add(age, 1.0, out=out)
    zero = true_at(now)
    if zero is not None:
        out[zero] = 0.0
    return out


def _age(builder: Builder, condition: Value) -> Age:
    truth = builder.truth(condition)
    node = builder.share(Age(call_key("BARSLAST", (truth,)), truth))
    assert isinstance(node, Age)
    return node


def _build_barslast(builder: Builder, args: Args, constants: Constants) -> Value:
    return _age(builder, args[0])


def _build_barssince(builder: Builder, args: Args, constants: Constants) -> Value:
    truth = builder.truth(args[0])
    return builder.share(FirstAge(call_key("BARSSINCE", (truth,)), truth))


def _build_barssincen(builder: Builder, args: Args, constants: Constants) -> Value:
    truth, n = builder.truth(args[0]), int(constants[0])
    if n == 0:
        return _build_barssince(builder, args, ())
    return builder.share(OldestAge(call_key("BARSSINCEN", (truth,), constants), truth, n, builder.ring(truth, n - 1)))


def _build_barscount(builder: Builder, args: Args, constants: Constants) -> Value:
    number = builder.number(args[0])
    known = builder.share(Known(f"KNOWN({number.key})", number))
    return builder.arithmetic("+", _build_barssince(builder, (known,), ()), builder.constant(1.0, number.period))


def _build_run(builder: Builder, args: Args, constants: Constants) -> Value:
    truth = builder.truth(args[0])
    return builder.share(Run(call_key("BARSLASTCOUNT", (truth,)), truth))


def _build_count(builder: Builder, args: Args, constants: Constants) -> Value:
    truth, n = builder.truth(args[0]), int(constants[0])
    ring = builder.ring(truth, n - 1) if n > 1 else None
    return builder.share(Count(call_key("COUNT", (truth,), constants), truth, n, ring))


def _vary_count(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    truth = builder.truth(args[0])
    key = varying_key("COUNT", (truth,), n, cap)
    return folded(builder, key, truth, n, cap=cap, join=np.add, whole=_build_count(builder, (truth,), (0.0,)))


def _vary_exist(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    age = _age(builder, args[0])
    return builder.share(ExistsWithin(varying_key("EXIST", (age,), n, cap), age, n, cap))


def _build_exist(builder: Builder, args: Args, constants: Constants) -> Value:
    age = _age(builder, args[0])
    return builder.share(Exists(call_key("EXIST", (builder.truth(args[0]),), constants), age, int(constants[0])))


def every(builder: Builder, condition: Value, n: int) -> TruthNode:
    """Return the node of EVERY(condition, n)."""
    truth = builder.truth(condition)
    key = call_key("EVERY", (truth,), (float(n),))
    return builder.truth(builder.share(Every(key, truth, n, builder.counts(truth.period))))


def _build_every(builder: Builder, args: Args, constants: Constants) -> Value:
    return every(builder, args[0], int(constants[0]))


def _vary_every(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    truth = builder.truth(args[0])
    untrue = builder.share(Untrue(f"UNTRUE({truth.key})", truth))
    ages = _age(builder, untrue), _age(builder, invert(builder, truth))
    key = varying_key("EVERY", (truth,), n, cap)
    return builder.share(EveryWithin(key, ages, n, counts=builder.counts(truth.period), cap=cap))


def _build_last(builder: Builder, args: Args, constants: Constants) -> Value:
    far, near = int(constants[0]), int(constants[1])
    return earlier(builder, every(builder, args[0], far - near + 1), near)


def _last_fault(constants: Constants) -> str | None:
    far, near = constants
    return None if far >= near else f"A is the bar further back, and must be at least B = {near:g}, not {far:g}"


def _build_filter(builder: Builder, args: Args, constants: Constants) -> Value:
    truth = builder.truth(args[0])
    return builder.share(Filtered(call_key("FILTER", (truth,), constants), truth, int(constants[0])))


def _n_bars(constants: Constants) -> int:
    return max(1, int(constants[0]))


COND: Final = Param("COND", ParamKind.TRUTH)
COUNTING: Final = (
    Function(
        name="COUNT", params=(COND, window(least=0)), result=Kind.NUMBER, build=_build_count, vary=_vary_count,
        oracle="MyTT", history=_n_bars, meaning="on how many of the last N bars COND is true, 0: of all",
    ),
    Function(
        name="EXIST", params=(COND, window(least=0)), result=Kind.TRUTH, build=_build_exist, vary=_vary_exist,
        oracle="MyTT", history=_n_bars, meaning="COND is true on one of the last N bars",
    ),
    Function(
        name="EVERY", params=(COND, window()), result=Kind.TRUTH, build=_build_every, vary=_vary_every,
        oracle="MyTT", first=_n_bars, meaning="COND is true on each of the last N bars",
    ),
    Function(
        name="LAST", params=(COND, window("A", 0), window("B", 0)), result=Kind.TRUTH, build=_build_last,
        fault=_last_fault, oracle="MyTT", first=lambda constants: int(constants[0]) + 1,
        meaning="COND was true on each bar from A to B bars ago",
    ),
    Function(
        name="BARSLAST", params=(COND,), result=Kind.NUMBER, build=_build_barslast, oracle="MyTT", on_tick=True,
        meaning="bars since COND was last true; unknown until it was",
    ),
    Function(
        name="BARSSINCE", params=(COND,), result=Kind.NUMBER, build=_build_barssince, oracle="loop",
        meaning="bars since COND was first true; unknown until it was",
    ),
    Function(
        name="BARSSINCEN", params=(COND, window(least=0)), result=Kind.NUMBER, build=_build_barssincen, oracle="MyTT",
        history=_n_bars, meaning="bars since the oldest of the last N bars on which COND was true, 0: of all",
    ),
    Function(
        name="BARSLASTCOUNT", params=(COND,), result=Kind.NUMBER, build=_build_run, oracle="MyTT",
        meaning="bars in a row on which COND is true, 0 where it is not; unknown until it first was",
    ),
    Function(
        name="BARSCOUNT", params=(Param("X"),), result=Kind.NUMBER, build=_build_barscount, oracle="loop",
        meaning="bars from the first on which X is known, which is 1",
    ),
    Function(
        name="FILTER", params=(COND, window()), result=Kind.TRUTH, build=_build_filter, oracle="MyTT", on_tick=True,
        meaning="COND, but false on the N bars after each time it was true",
    ),
)  # fmt: skip
