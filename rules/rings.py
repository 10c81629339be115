"""Rings: the last committed values of a node, one column per symbol, for every node of a period that needs them.

All rings of a period turn together: the value of a symbol's bar number k (from 0) lies in row k % depth. Symbols that
skipped bars stand at other rows than the rest, so the rows of a selection are views (or one gather) while all its
symbols have the same number of bars, and are picked symbol by symbol where they have not. Either way they are read
oldest first, one row after the other, so no result depends on which symbols were committed together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.tick import IntArray
from rules.language.tree import Kind
from rules.node import Node, Selection, Truth
from rules.state import Column, StateTable

LEAST_DEPTH: Final = 8
"""What windows share: a shallower ring is somebody's own, who may give it up."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the newest committed bar of a selection stands.

    newest  its number: one for all selected symbols, or (k,) where they differ; -1 = no bar yet
    whole   the selection is all symbols in order, so rows may be handed out as views
    """

    at: Selection
    newest: int | IntArray
    whole: bool


class Ring:
    """The last `depth` committed values of one node: float64 (depth, n), or bool "known true" for a truth."""

    __slots__ = ("_column", "_rings", "depth", "name", "node")

    def __init__(self, rings: Rings, node: Node, depth: int, name: str, column: Column) -> None:
        self._rings = rings
        self._column = column
        self.node = node
        self.depth = depth
        self.name = name

    def rows(self, at: Selection, length: int) -> Iterator[NDArray[Any]]:
        """Give the last `length` committed values of the selected symbols, oldest first; not to be written to.

        Each is (k,), NaN (False for a truth) where the symbol has not had so many bars. At most `depth` of them.
        """
        cursor = self._rings.cursor(at)
        for bars in range(length - 1, -1, -1):
            yield self._row(cursor, bars)

    def back(self, at: Selection, bars: int | IntArray) -> NDArray[Any]:
        """Return the value committed `bars` bars before the newest committed one; not to be written to.

        bars: one number, or one of each selected symbol; below `depth`.
        """
        return self._row(self._rings.cursor(at), bars)

    def take(self, cursor: Cursor) -> None:
        """Write the node's value of the bar that closes, `cursor.newest` being that bar."""
        value = self.node.value
        mine = value.t if isinstance(value, Truth) else value
        array = self._column.array
        row = cursor.newest % self.depth
        if cursor.whole and isinstance(row, int):
            array[row] = mine
        else:
            array[row, cursor.at] = mine

    def _row(self, cursor: Cursor, bars: int | IntArray) -> NDArray[Any]:
        array: NDArray[Any] = self._column.array
        row = (cursor.newest - bars) % self.depth
        found: NDArray[Any]
        if isinstance(row, int):
            found = array[row] if cursor.whole else array[row][cursor.at]
        else:
            found = array[row, np.arange(row.size) if isinstance(cursor.at, slice) else cursor.at]
        return found


class Rings:
    """Every ring of one period, and the number of bars each symbol has committed."""

    def __init__(self, state: StateTable, period: str) -> None:
        self._state = state
        self._period = period
        self._rings: list[Ring] = []
        self._closing: Cursor | None = None
        self.counts = state.claim(f"{period}/bars/count", dtype=np.int64, fill=0)

    def of(self, node: Node, depth: int) -> Ring:
        """Return a ring of this node at least `depth` deep, an existing one if there is one.

        A new ring is as deep as the next power of two from 8 on, so that windows of about one length share it. While a
        checkpoint is put back it may be a deeper one that is awaited: after reloads a window may read what was made for
        another.
        """
        for ring in self._rings:
            if ring.node is node and ring.depth >= max(depth, LEAST_DEPTH):
                return ring
        least = max(LEAST_DEPTH, 1 << (depth - 1).bit_length())
        return self.make(node, self._awaited_depth(node, least))

    def _awaited_depth(self, node: Node, least: int) -> int:
        """Return the depth of the shallowest ring of this node that is awaited and deep enough; else `least`."""
        stem, awaited = f"{self._period}/{node.key}/ring", self._state.awaited
        if not awaited or f"{stem}{least}" in awaited:
            return least
        depths = (int(name.removeprefix(stem)) for name in awaited if name.startswith(stem))
        return min((depth for depth in depths if depth >= least), default=least)

    def make(self, node: Node, depth: int) -> Ring:
        """Claim a ring of exactly this depth."""
        name = f"{self._period}/{node.key}/ring{depth}"
        is_truth = node.kind is Kind.TRUTH
        fill = False if is_truth else np.nan
        column = self._state.claim(name, shape=(depth,), dtype=np.bool_ if is_truth else np.float64, fill=fill)
        ring = Ring(self, node, depth, name, column)
        self._rings.append(ring)
        return ring

    def __iter__(self) -> Iterator[Ring]:
        return iter(self._rings)

    def names(self) -> set[str]:
        """Return the names of the rings' state arrays."""
        return {ring.name for ring in self._rings}

    def keep(self, rings: set[Ring]) -> None:
        """Release every ring that is not among these."""
        for ring in self._rings:
            if ring not in rings:
                self._state.release(ring.name)
        self._rings = [ring for ring in self._rings if ring in rings]

    def cursor(self, at: Selection) -> Cursor:
        """Return where the newest committed bar of this selection stands."""
        if self._closing is not None and self._closing.at is at:
            return self._closing
        return Cursor(at, _level(self.counts.array[at] - 1), isinstance(at, slice))

    def close(self, at: IntArray, rings: Iterable[Ring], *, whole: bool) -> None:
        """Let these rings take their nodes' values as those of the closing bar of symbols `at`, and count the bar.

        From here until `done`, the closing bar is the newest committed one. whole: `at` is all symbols in order.
        """
        cursor = Cursor(at, _level(self.counts.array[at]), whole)
        for ring in rings:
            ring.take(cursor)
        self.counts.array[at] += 1
        self._closing = cursor

    def done(self) -> None:
        """Forget the closing bar's place; the caller may use its `at` array for something else."""
        self._closing = None


def _level(numbers: IntArray) -> int | IntArray:
    """Return the one number all symbols have, else the numbers."""
    if numbers.size == 0:
        return 0
    first = int(numbers[0])
    return first if (numbers == first).all() else numbers
