"""`Circuit`: the AND / OR / NOT part of many conditions, evaluated for all of them at once over packed bits.

A thousand rules mostly combine a few dozen comparisons. Those leaves are evaluated once each by the graph; what is left
of a rule is a few gates. Here all gates of one kind and depth, of the whole rule set, are one numpy operation over rows
of bits (one bit per symbol), so a rule costs some hundred bytes of AND instead of a Python call.

Symbols outside the selection of a pass have neither bit set: unknown, which to every reader is "as if no tick came".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import is_
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled
from feeds.tick import IntArray
from rules.functions.values import TruthNode
from rules.node import Bits, Node, Selection, Truth

COMPILED: Final = compiled("rules._bits", layout=2)
_KINDS: Final = {"AND": 0, "OR": 1, "NOT": 2}
"""What compiled code calls them."""
BitRows: TypeAlias = NDArray[np.uint8]
"""(rows, ceil(n_symbols / 8)) uint8, one bit per symbol, most significant first (numpy's packbits)."""


def byte_width(n_symbols: int) -> int:
    """Return how many bytes hold one bit per symbol."""
    return -(-n_symbols // 8)


@dataclass(frozen=True, slots=True)
class _Signal:
    """One leaf (no kind) or two-input gate, by its place in the list of signals; `depth` gates below it."""

    kind: str = ""
    a: int = -1
    b: int = -1
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Bank:
    """All gates of one kind and depth: bit rows first..last-1 are made from rows `a` and `b`."""

    kind: str
    first: int
    last: int
    a: NDArray[np.int64]
    b: NDArray[np.int64]


class Circuit:
    """Gates over the leaves of some conditions.

    leaves  the graph nodes that must have been peeked, for the same selection, before `run`
    rows    (n_conditions,) the bit row of each given condition in `t` (known true) and `f` (known false)
    both    `t` and below it `f`
    """

    def __init__(self, conditions: Sequence[Node]) -> None:
        self.leaves: list[Node] = []
        self._signals: list[_Signal] = []
        self._signal_of: dict[int, int] = {}
        roots = [self._wire(node) for node in conditions]
        order = sorted(range(len(self._signals)), key=lambda i: (self._signals[i].depth, self._signals[i].kind))
        place = {signal: row for row, signal in enumerate(order)}
        self.rows = np.array([place[root] for root in roots], np.int64)
        self._banks = self._bank(order, place)
        gates = [(self._signals[i], row) for row, i in enumerate(order) if self._signals[i].kind]
        listed = [(_KINDS[gate.kind], place[gate.a], place[gate.b], row) for gate, row in gates]
        self._gates = np.array(listed, np.int32).reshape(-1, 4)
        self._n_rows = len(order)
        self._make_room(0)

    def run(self, at: Selection, *, n_symbols: int) -> None:
        """Set `t` and `f` from the leaves' values at the selected symbols; all others become unknown."""
        if self._n_symbols != n_symbols:
            self._make_room(n_symbols)
        self._take_leaves(at)
        if COMPILED is not None:
            COMPILED.gates(self._gates, self.both)
        else:
            self._run_banks()

    def _run_banks(self) -> None:
        """Run the gates, all of a kind and depth together."""
        t, f = self.t, self.f
        for bank in self._banks:
            a, b, own = bank.a, bank.b, slice(bank.first, bank.last)
            if bank.kind == "AND":
                np.bitwise_and(t.take(a, axis=0), t.take(b, axis=0), out=t[own])
                np.bitwise_or(f.take(a, axis=0), f.take(b, axis=0), out=f[own])
            elif bank.kind == "OR":
                np.bitwise_or(t.take(a, axis=0), t.take(b, axis=0), out=t[own])
                np.bitwise_and(f.take(a, axis=0), f.take(b, axis=0), out=f[own])
            else:
                t[own], f[own] = f.take(a, axis=0), t.take(a, axis=0)

    def _take_leaves(self, at: Selection) -> None:
        """Bring the leaves' values into the first rows of `t` and `f`."""
        truths = cast(list[Truth], [leaf.value for leaf in self.leaves])
        if not isinstance(at, slice):
            if COMPILED is None:
                self._pack(truths, at)
            else:
                made = [truth if isinstance(truth, Bits) else Bits.packed(truth) for truth in truths]
                COMPILED.scatter([bits.true for bits in made], [bits.false for bits in made], at[None], self.both)
            return
        if all(map(is_, truths, self._lent)):
            return
        for leaf, truth, lent in zip(self.leaves, truths, self._lent, strict=True):
            if truth is lent:
                continue
            if isinstance(truth, Bits):
                lent.true[:], lent.false[:] = truth.true, truth.false
            else:
                lent.true[:], lent.false[:] = np.packbits(truth.t), np.packbits(truth.f)
            if isinstance(truth, Bits) and isinstance(leaf, TruthNode):
                leaf.lend(lent)  # from the next pass on it writes here by itself

    def _pack(self, truths: Sequence[Truth], at: IntArray) -> None:
        """Pack masks of some symbols; the others are unknown."""
        count = len(truths)
        masks = np.zeros((2 * count, self._n_symbols), np.bool_)
        masks[:count, at] = [truth.t for truth in truths]
        masks[count:, at] = [truth.f for truth in truths]
        bits = np.packbits(masks, axis=1)
        self.t[:count], self.f[:count] = bits[:count], bits[count:]

    def _make_room(self, n_symbols: int) -> None:
        """Make the rows; leaf i is row i, as signals without gates come first."""
        self._n_symbols = n_symbols
        self.both: BitRows = np.zeros((2 * self._n_rows, byte_width(n_symbols)), np.uint8)
        self.t, self.f = self.both[: self._n_rows], self.both[self._n_rows :]
        self._lent = [Bits(self.t[i], self.f[i], n_symbols) for i in range(len(self.leaves))]

    def _wire(self, node: Node) -> int:
        known = self._signal_of.get(id(node))
        if known is not None:
            return known
        gate = node.gate
        if gate is None:
            self.leaves.append(node)
            signal = self._add(_Signal())
        else:
            inputs = [self._wire(arg) for arg in node.args]
            signal = self._gate(gate, inputs[0], inputs[0]) if gate == "NOT" else inputs[0]
            for other in inputs[1:]:
                signal = self._gate(gate, signal, other)
        self._signal_of[id(node)] = signal
        return signal

    def _gate(self, kind: str, a: int, b: int) -> int:
        return self._add(_Signal(kind, a, b, 1 + max(self._signals[a].depth, self._signals[b].depth)))

    def _add(self, signal: _Signal) -> int:
        self._signals.append(signal)
        return len(self._signals) - 1

    def _bank(self, order: list[int], place: dict[int, int]) -> list[_Bank]:
        banks: list[_Bank] = []
        for (depth, kind), group in groupby(order, key=lambda i: (self._signals[i].depth, self._signals[i].kind)):
            if depth == 0:
                continue
            signals = list(group)
            rows = [np.array([place[i] for i in ends], np.int64) for ends in _ends(self._signals, signals)]
            first = place[signals[0]]
            banks.append(_Bank(kind, first, first + len(signals), rows[0], rows[1]))
        return banks


def _ends(signals: list[_Signal], chosen: list[int]) -> tuple[list[int], list[int]]:
    return [signals[i].a for i in chosen], [signals[i].b for i in chosen]
