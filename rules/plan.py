"""`Plan`: one pass over some nodes of the graph, arguments first.

A pass over the whole market touches a column per node, 44 kB each at 5,500 symbols: W1's 74 nodes would sweep a core's
second-level cache three times over. So columns are lent: a node's goes back after its last reader has run, and the
next node writes where the cache is warm.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count

import numpy as np

from feeds.tick import FloatArray
from rules.functions.values import Constant, NumberNode
from rules.node import Node, Selection
from rules.state import StateTable


class Plan:
    """The nodes that some nodes need, arguments first, all of one period.

    results: the nodes whose values are read after a pass. The others' values are not to be read then: after a pass over
    all symbols their columns may hold something else.
    """

    __slots__ = ("_again", "_columns", "_lent", "_peeks", "_places", "_state", "nodes", "results")

    def __init__(self, nodes: Sequence[Node], state: StateTable, *, results: Collection[Node]) -> None:
        self.nodes = tuple(nodes)
        self._peeks = tuple(node.peek for node in nodes)
        self._again = tuple(node.peek for node in nodes if not isinstance(node, Constant))
        """For a pass over all symbols right after one: constants are what they were."""
        self._state = state
        self.results = frozenset(results)
        self._places = _places(self.nodes, self.results)
        self._columns = 1 + max(self._places.values(), default=-1)
        self._lent: list[tuple[NumberNode, FloatArray]] = []

    def peek(self, at: Selection) -> None:
        """Evaluate every node once for the selected symbols; state stays as it is."""
        peeks = self._peeks
        if not isinstance(at, slice):
            self._state.lender = None  # constants are as long as this selection now
        elif self._state.lender is self:
            peeks = self._again
        else:
            self._lend()
        with np.errstate(all="ignore"):
            for peek in peeks:
                peek(at)

    def _lend(self) -> None:
        """Give every number node its column for this pass; nodes stand in several plans."""
        if not self._lent or self._lent[0][1].size != self._state.n:
            columns = [np.empty(self._state.n) for _ in range(self._columns)]
            self._lent = [(node, columns[place]) for node, place in self._places.items()]
        for node, column in self._lent:
            node.column_lent = column
        self._state.lender = self


def _places(nodes: Sequence[Node], results: frozenset[Node]) -> dict[NumberNode, int]:
    """Return which column each number node writes to: one that nobody reads any more, else a new one."""
    last_reader = {arg: node for node in nodes for arg in node.args}
    places: dict[NumberNode, int] = {}
    free: list[int] = []
    fresh = count()
    for node in nodes:
        if isinstance(node, NumberNode):
            places[node] = free.pop() if free else next(fresh)
        # Only now: a node of several steps may not write over what it still reads.
        read = [arg for arg in dict.fromkeys(node.args) if last_reader[arg] is node and arg not in results]
        free += [places[arg] for arg in read if isinstance(arg, NumberNode) and arg in places]
    return places
