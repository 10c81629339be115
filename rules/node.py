"""`Node`: one column of the shared graph, evaluated for many symbols at once.

A node belongs to one period. `peek` gives its value with the forming bar and changes nothing; `commit` makes the bar's
close part of its state. Arguments are always evaluated before the nodes that read them, in the same pass and for the
same selection of symbols, so a node reads `arg.value` and never calls its arguments.

Selections: `at` is `slice(None)` (all symbols, contiguous: the fast path) or an int64 index array. `value` arrays have
the selection's length. A node may reuse its output buffer from pass to pass when `at` is `slice(None)`; nobody keeps
a value beyond its pass without copying.

Truth is three-valued as a pair of masks: `t` known true, `f` known false, neither = unknown. A tape makes them as bits.

A node that is one compiled step says so in its `recipe`: a pass then takes it with others as a tape (tape.py), and its
`peek` is for where there was no compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.language.tree import Kind
from rules.state import Column, StateTable

Selection: TypeAlias = slice | IntArray
ALL = slice(None)
_UNSET: FloatArray = np.empty(0)


def is_tick(period: str) -> bool:
    """Tell whether each tick is a bar of this period; "tick@…" holds only the ticks of the sessions named."""
    return period.partition("@")[0] == "tick"


@dataclass(slots=True)
class Truth:
    """Three-valued column: `t` (n,) bool known true, `f` (n,) bool known false; never both."""

    t: BoolArray
    f: BoolArray


class Bits(Truth):
    """A Truth of n symbols as bits, most significant first; who reads a mask gets one made from them.

    true, false: (ceil(n / 8),) uint8 each, which may be rows of something larger.
    """

    __slots__ = ("false", "n", "true")

    def __init__(self, true: NDArray[np.uint8], false: NDArray[np.uint8], n: int) -> None:
        self.true = true
        self.false = false
        self.n = n

    @classmethod
    def of(cls, n: int) -> Bits:
        """Return room for n symbols."""
        return cls.several(1, n)[0]

    @classmethod
    def several(cls, count: int, n: int) -> list[Bits]:
        """Return room for n symbols so many times, in one piece."""
        return [cls(true, false, n) for true, false in np.zeros((count, 2, -(-n // 8)), np.uint8)]

    @classmethod
    def packed(cls, truth: Truth) -> Bits:
        """Return these masks as bits."""
        return cls(np.packbits(truth.t), np.packbits(truth.f), len(truth.t))

    @property
    def t(self) -> BoolArray:  # type: ignore[override]  # nobody writes to a mask that is made for them
        return np.unpackbits(self.true, count=self.n).view(np.bool_)

    @property
    def f(self) -> BoolArray:  # type: ignore[override]
        return np.unpackbits(self.false, count=self.n).view(np.bool_)


@dataclass(frozen=True, slots=True)
class Step:
    """A compiled step that makes a node's value: its name, what it takes in its order, and a number of its own.

    inputs: arguments of the node, and columns of its state.
    """

    name: str
    inputs: tuple[Node | Column, ...]
    number: float = 0.0


class Node:
    """Base of every graph node.

    key     normalised text of the expression, unique within its period: equal sub-expressions are one node
    period  "tick@continuous", "1m" … : the bars at whose close `commit` is called
    kind    Kind.NUMBER (value: FloatArray) or Kind.TRUTH (value: Truth)
    args    nodes read by this one
    warmup  committed bars needed before the first valid value with the forming bar is there (0 = at once)
    """

    __slots__ = ("args", "key", "kind", "period", "value", "warmup")

    def __init__(self, key: str, *, period: str, kind: Kind, args: tuple[Node, ...] = (), warmup: int = 0) -> None:
        self.key = key
        self.period = period
        self.kind = kind
        self.args = args
        self.warmup = warmup
        self.value: FloatArray | Truth = _UNSET

    @property
    def gate(self) -> str | None:
        """Return "AND", "OR" or "NOT" if the value is just that of the args: rules/logic.py does those over bits."""
        return None

    def recipe(self) -> Step | Column | float | None:
        """Return how the value comes about: by a compiled step, as a column that stands there, as a number.

        None: by `peek` alone. Asked after `open`.
        """
        return None

    def open(self, state: StateTable) -> None:
        """Claim state columns, named f"{period}/{key}/…"; called once, before the first pass."""

    def peek(self, at: Selection) -> None:
        """Set `self.value` for the selected symbols from the args' values and own state; change no state."""
        raise NotImplementedError

    def commit(self, at: IntArray) -> None:
        """Make the bar that closes part of the state of symbols `at`.

        Called right after a pass over exactly `at`, so `value` and the args' values are those of the final bar, and
        after the rings of this period have taken them.
        """
