"""`Plan`: one pass over some nodes of the graph, arguments first.

A pass over the whole market touches a column per node, 44 kB each at 5,500 symbols: W1's 74 nodes would sweep a core's
second-level cache three times over. So columns are lent: a node's goes back after its last reader has run, and the
next node writes where the cache is warm. Nodes that are one compiled step each go on a tape, where they need no column
at all unless somebody else reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import groupby
from typing import Final, TypeAlias

import numpy as np

from feeds.tick import FloatArray
from rules import tape
from rules.functions.values import Constant, NumberNode
from rules.node import Node, Selection
from rules.state import Column, StateTable
from rules.tape import Tape, share_out

_Part: TypeAlias = Node | tuple[Node, ...]
"""A node that is called, or those of a tape."""

MOST_STEPS: Final = 4096
"""Of one tape: a step names its columns by int16, and brings six of them at most."""


class Plan:
    """The nodes that some nodes need, arguments first, all of one period.

    results: the nodes whose values are read after a pass. The others' values are not to be read then: after a pass over
    all symbols their columns may hold something else, or they have none.
    """

    __slots__ = ("_again", "_calls", "_is_taped", "_lent", "_places", "_state", "nodes", "results")

    def __init__(self, nodes: Sequence[Node], state: StateTable, *, results: Collection[Node]) -> None:
        self.nodes = tuple(nodes)
        self.results = frozenset(results)
        parts = _parts(self.nodes, self.results)
        kept = _kept(parts, self.results)
        made = [Tape(part, kept=kept) if isinstance(part, tuple) else part for part in parts]
        self._calls = tuple(part.play if isinstance(part, Tape) else partial(_peek, part) for part in made)
        self._again = tuple(
            call for call, part in zip(self._calls, made, strict=True) if not isinstance(part, Constant)
        )
        """For a pass over all symbols right after one: constants are what they were."""
        self._is_taped = all(isinstance(part, Tape) or _stands(part) for part in made)
        self._state = state
        self._places = share_out(self.nodes, kept, results=self.results)
        self._lent: list[tuple[NumberNode, FloatArray]] = []

    def peek(self, at: Selection) -> None:
        """Evaluate every node once for the selected symbols; state stays as it is."""
        calls, n = self._calls, self._state.n if isinstance(at, slice) else at.size
        if not isinstance(at, slice):
            self._state.lender = None  # constants are as long as this selection now
        elif self._state.lender is self:
            calls = self._again
        else:
            self._lend()
        if self._is_taped:  # numpy is not called
            for call in calls:
                call(at, n)
            return
        with np.errstate(all="ignore"):
            for call in calls:
                call(at, n)

    def _lend(self) -> None:
        """Give nodes their columns for this pass; nodes stand in several plans."""
        if self._places and (not self._lent or self._lent[0][1].size != self._state.n):
            made = [np.empty(self._state.n) for _ in range(1 + max(self._places.values(), default=-1))]
            self._lent = [(node, made[place]) for node, place in self._places.items()]
        for node, column in self._lent:
            node.column_lent = column
        self._state.lender = self


def _peek(node: Node, at: Selection, n: int) -> None:
    node.peek(at)


def _stands(node: Node) -> bool:
    """Tell whether the value is there already: a column of the market or of the node's state, or a number."""
    return isinstance(node.recipe(), (Column, float))


def _parts(nodes: Sequence[Node], results: frozenset[Node]) -> list[_Part]:
    """Return what is called and what goes on tapes, in order; first what stands there and is read by who is called."""
    if tape.COMPILED is None:
        return list(nodes)
    called = {node for node in nodes if node.recipe() is None}
    read = results.union(*(node.args for node in called))
    parts: list[_Part] = [node for node in nodes if _stands(node) and node in read]
    for is_called, some in groupby((node for node in nodes if not _stands(node)), called.__contains__):
        together = tuple(some)
        parts += (
            together if is_called else (together[at : at + MOST_STEPS] for at in range(0, len(together), MOST_STEPS))
        )
    return parts


def _kept(parts: Sequence[_Part], results: frozenset[Node]) -> set[NumberNode]:
    """Return who needs a column: nodes that are called, and of a tape's those that others read."""
    kept: set[Node] = set(results)
    for part in parts:
        inside = {part} if isinstance(part, Node) else set(part)
        kept.update(*(set(node.args) - inside for node in inside))
        if isinstance(part, Node):
            kept.add(part)
    return {node for node in kept if isinstance(node, NumberNode) and not _stands(node)}
