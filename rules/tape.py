"""`Tape`: nodes that follow each other in a pass over all symbols, as one call of compiled code.

A node that is one compiled step (its `recipe`) need not be called: its step is written down with the columns it takes, and
the whole tape is played block by block, some hundred symbols through all steps before the next. What only other steps of
the tape read never leaves the nearest cache; W1's 74 nodes are one tape.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.functions import columns
from rules.functions.values import NumberNode, TruthNode
from rules.node import Node, Step
from rules.state import Column

_STEP_WORDS: Final = 8
"""int16 of one step: its number among the compiled ones, then the places of its columns in the list it is played with."""


class Tape:
    """Nodes with a compiled step each, in order, for n symbols.

    kept: those whose columns are read by others than the tape's own steps. They write to what they were lent.
    """

    __slots__ = ("_block", "_code", "_columns", "_list", "_n", "_numbers", "_others", "_truths")

    def __init__(self, nodes: Sequence[Node], *, kept: Collection[Node], n: int) -> None:
        assert columns.COMPILED is not None
        steps = [(node, step) for node in nodes if isinstance(step := node.recipe(), Step)]
        names = list(columns.COMPILED.STEPS)
        self._n = n
        self._list: list[NDArray[Any]] = []
        # Whose array may be another one at each pass, by its place in the list:
        self._columns: dict[Column, int] = {}
        self._others: dict[NumberNode, int] = {}
        self._truths: dict[TruthNode, int] = {}
        self._block = min(n, columns.COMPILED.BLOCK)
        own = self._make_room(nodes, kept)
        code = np.zeros((len(steps), _STEP_WORDS), np.int16)
        for words, (node, step) in zip(code, steps, strict=True):
            taken = [self._place(source, own) for source in step.inputs]
            told = (0, 1) if isinstance(node, TruthNode) else (0,)
            taken += [self._place(node, own) + more for more in told]
            words[: 1 + len(taken)] = (names.index(step.name), *taken)
        self._code = code.tobytes()
        self._numbers = np.array([step.number for _, step in steps], np.float64).tobytes()

    def play(self) -> None:
        """Make the values of all nodes for all symbols."""
        taken = self._list
        for column, place in self._columns.items():
            taken[place] = column.array
        for node, place in self._others.items():
            taken[place] = node.value
        for truth, place in self._truths.items():
            taken[place], taken[place + 1] = truth.lent.true, truth.lent.false
        assert columns.COMPILED is not None
        columns.COMPILED.play(self._code, self._numbers, taken, self._n)

    def _make_room(self, nodes: Sequence[Node], kept: Collection[Node]) -> dict[Node | float, int]:
        """Return where in the list each node writes: what is kept as it was lent, the others to blocks they share."""
        shared = share_out(nodes, [node for node in nodes if isinstance(node, NumberNode) and node not in kept])
        self._list += [np.empty(self._block) for _ in range(1 + max(shared.values(), default=-1))]
        own: dict[Node | float, int] = dict(shared)
        for node in nodes:
            if isinstance(node, TruthNode):
                own[node] = self._truths[node] = self._append(node.lent.true, node.lent.false)
            elif isinstance(node, NumberNode) and node in kept:
                own[node] = self._append(node.column_lent)
        return own

    def _place(self, source: Node | Column, own: dict[Node | float, int]) -> int:
        """Return where in the list a source stands, put there if it is not yet."""
        if isinstance(source, Node):
            if source in own:
                return own[source]
            recipe = source.recipe()
            if isinstance(recipe, float):
                if recipe not in own:
                    own[recipe] = self._append(np.full(self._block, recipe))
                return own[recipe]
            if not isinstance(recipe, Column):
                assert isinstance(source, NumberNode)
                if source not in self._others:
                    self._others[source] = self._append(source.value)
                return self._others[source]
            source = recipe
        if source not in self._columns:
            self._columns[source] = self._append(source.array)
        return self._columns[source]

    def _append(self, *arrays: NDArray[Any]) -> int:
        self._list += arrays
        return len(self._list) - len(arrays)


def share_out(
    nodes: Iterable[Node], wanting: Collection[NumberNode], *, results: Collection[Node] = ()
) -> dict[NumberNode, int]:
    """Return which column each node of `wanting` writes to: one that nobody reads any more, else a new one.

    results: whose columns are read after the pass.
    """
    nodes = tuple(nodes)
    last_reader = {arg: node for node in nodes for arg in node.args}
    places: dict[NumberNode, int] = {}
    free: list[int] = []
    fresh = count()
    wanted = set(wanting)
    for node in nodes:
        if node in wanted:
            assert isinstance(node, NumberNode)
            places[node] = free.pop() if free else next(fresh)
        # Only now: a node of several steps may not write over what it still reads.
        read = [arg for arg in dict.fromkeys(node.args) if last_reader[arg] is node and arg not in results]
        free += [places[arg] for arg in read if isinstance(arg, NumberNode) and arg in places]
    return places
