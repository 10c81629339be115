"""`Plan`: one pass over some nodes of the graph, arguments first.

A pass over the whole market touches a column per node, 44 kB each at 5,500 symbols: W1's 74 nodes would sweep a core's
second-level cache three times over. So columns are lent: a node's goes back after its last reader has run, and the
next node writes where the cache is warm. Nodes that are one compiled step each go on a tape, where they need no column
at all unless somebody else reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby
from typing import TypeAlias

import numpy as np

from feeds.tick import FloatArray
from rules.functions import columns
from rules.functions.values import Constant, NumberNode, TruthNode
from rules.node import ALL, Bits, Node, Selection
from rules.state import Column, StateTable
from rules.tape import Tape, share_out

_Part: TypeAlias = Node | tuple[Node, ...]
"""Of a pass over all symbols: a node that is called, or those of a tape."""


class Plan:
    """The nodes that some nodes need, arguments first, all of one period.

    results: the nodes whose values are read after a pass. The others' values are not to be read then: after a pass over
    all symbols their columns may hold something else.
    """

    __slots__ = ("_calls", "_lent", "_n", "_parts", "_peeks", "_state", "nodes", "results")

    def __init__(self, nodes: Sequence[Node], state: StateTable, *, results: Collection[Node]) -> None:
        self.nodes = tuple(nodes)
        self.results = frozenset(results)
        self._peeks = tuple(node.peek for node in nodes)
        """A pass over some symbols."""
        self._parts = _parts(self.nodes, self.results)
        self._calls: tuple[Callable[[], None], ...] = ()
        """A pass over all symbols right after another: constants are what they were."""
        self._state = state
        self._n = -1
        """For how many symbols columns were made."""
        self._lent: dict[NumberNode, FloatArray] = {}

    def peek(self, at: Selection) -> None:
        """Evaluate every node once for the selected symbols; state stays as it is."""
        with np.errstate(all="ignore"):
            if not isinstance(at, slice):
                self._state.lender = None  # constants are as long as this selection now
                for peek in self._peeks:
                    peek(at)
                return
            if self._state.lender is not self:
                self._lend()
            for call in self._calls:
                call()

    def _lend(self) -> None:
        """Give the nodes what they write to in this pass and those right after it; nodes stand in several plans."""
        n, makes_columns = self._state.n, self._n != self._state.n
        if makes_columns:
            places = share_out(self.nodes, _wanting(self._parts, self.results), results=self.results)
            made = [np.empty(n) for _ in range(1 + max(places.values(), default=-1))]
            self._lent = {node: made[place] for node, place in places.items()}
        for node, column in self._lent.items():
            node.column_lent = column
        for part in self._parts:
            if isinstance(part, Constant):
                part.peek(ALL)
            elif isinstance(part, tuple):
                _settle(part, n)
        if makes_columns:
            self._calls = tuple(self._call(part) for part in self._parts if not isinstance(part, Constant))
            self._n = n
        self._state.lender = self

    def _call(self, part: _Part) -> Callable[[], None]:
        if isinstance(part, Node):
            return partial(part.peek, ALL)
        return Tape(part, kept=self._lent, n=self._state.n).play


def _settle(taped: Sequence[Node], n: int) -> None:
    """Let the values of a tape's nodes be what it will write to."""
    for node in taped:
        if isinstance(node, TruthNode):
            node.lend(node.lent if node.lent.n == n else Bits.of(n))
        elif isinstance(node, NumberNode):
            node.value = node.column_lent


def _stands(node: Node) -> bool:
    """Tell whether the value is there already: a column of the market or of the node's state, or a number."""
    return isinstance(node.recipe(), (Column, float))


def _parts(nodes: Sequence[Node], results: frozenset[Node]) -> tuple[_Part, ...]:
    """Return a pass over all symbols in order, first what stands there and is read by others than tapes."""
    if columns.COMPILED is None:
        return tuple(nodes)
    called = {node for node in nodes if node.recipe() is None}
    read = results.union(*(node.args for node in called))
    parts: list[_Part] = [node for node in nodes if _stands(node) and node in read]
    for is_called, some in groupby((node for node in nodes if not _stands(node)), called.__contains__):
        parts += some if is_called else [tuple(some)]
    return tuple(parts)


def _wanting(parts: Sequence[_Part], results: frozenset[Node]) -> set[NumberNode]:
    """Return who needs a column: nodes that are called, and of a tape's those that others read."""
    wanting: set[Node] = set(results)
    for part in parts:
        inside = {part} if isinstance(part, Node) else set(part)
        wanting.update(*(set(node.args) - inside for node in inside))
        if isinstance(part, Node):
            wanting.add(part)
    return {node for node in wanting if isinstance(node, NumberNode) and not _stands(node)}
