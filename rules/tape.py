"""`Tape`: nodes that follow each other in a pass, as one call of compiled code.

A node that is one compiled step (its `recipe`) need not be called: its step is written down with the columns it takes,
and the whole tape is played block by block, some hundred symbols through all steps before the next. What only other
steps of the tape read never leaves the nearest cache. W1 is one tape: 0.18 ms for 5,500 symbols, 0.4 node by node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled
from rules.functions.values import NumberNode, TruthNode
from rules.node import Bits, Node, Selection, Step
from rules.state import Column

COMPILED: Final = compiled("rules._tape", layout=2)
_STEP_WORDS: Final = 8
"""int16 of one step: its number among the compiled ones, then the places of its columns in the list."""
_UNSET: Final = np.empty(0)


class Tape:
    """Nodes with a compiled step each, in order.

    kept: those whose values are read by others than the tape's own steps. Over all symbols they write to what they were
    lent, over some to new arrays.
    """

    __slots__ = ("_columns", "_compiled", "_list", "_others", "_outs", "_truths")

    def __init__(self, nodes: Sequence[Node], *, kept: Collection[Node]) -> None:
        assert COMPILED is not None
        self._list: list[NDArray[Any]] = []
        """What the steps take but for columns that stand there; these are other arrays at each pass, by their place:"""
        self._others: dict[NumberNode, int] = {}
        self._outs: dict[NumberNode, int] = {}
        self._truths: dict[TruthNode, int] = {}
        self._columns: dict[Column, int] = {}
        """What stands there, each by a place of its own, from -1 down; compiled code takes some symbols' out of it."""
        own = self._make_room(nodes, kept)
        steps = [(node, step) for node in nodes if isinstance(step := node.recipe(), Step)]
        names = list(COMPILED.STEPS)
        code = np.zeros((len(steps), _STEP_WORDS), np.int16)
        for words, (node, step) in zip(code, steps, strict=True):
            taken = [self._place(source, own) for source in step.inputs]
            taken += [own[node], own[node] + 1] if isinstance(node, TruthNode) else [own[node]]
            words[: 1 + len(taken)] = (names.index(step.name), *taken)
        numbers = np.array([step.number for _, step in steps], np.float64)
        self._compiled = COMPILED.Tape(code.tobytes(), numbers.tobytes())

    def play(self, at: Selection, n: int) -> None:
        """Make the values of all nodes for these n symbols."""
        taken, whole = self._list, isinstance(at, slice)
        for other, place in self._others.items():
            taken[place] = other.value
        if whole:
            for node, place in self._outs.items():
                node.value = taken[place] = node.column_lent
        elif self._outs:
            for (node, place), column in zip(self._outs.items(), np.empty((len(self._outs), n)), strict=True):
                node.value = taken[place] = column
        if self._truths:  # what events report are numbers: no room for no bits still costs 10 µs
            for (truth, place), bits in zip(self._truths.items(), self._bits(n, whole=whole), strict=True):
                truth.value = bits
                taken[place], taken[place + 1] = bits.true, bits.false
        self._compiled.play([column.array for column in self._columns], taken, n, None if whole else at)

    def _bits(self, n: int, *, whole: bool) -> list[Bits]:
        """Return where each truth is written: over all symbols what it was lent, if that has room for them."""
        if whole:
            return [truth.lent if truth.lent.n == n else Bits.of(n) for truth in self._truths]
        return Bits.several(len(self._truths), n)

    def _make_room(self, nodes: Sequence[Node], kept: Collection[Node]) -> dict[Node | float, int]:
        """Return where in the list each node writes; those that nobody else reads share some blocks."""
        shared = share_out(nodes, [node for node in nodes if isinstance(node, NumberNode) and node not in kept])
        own: dict[Node | float, int] = {node: place for node, place in shared.items()}  # noqa: C416  # wider keys
        for _ in range(1 + max(shared.values(), default=-1)):
            self._append(np.empty(_block()))
        for node in nodes:
            if isinstance(node, TruthNode):
                own[node] = self._truths[node] = self._append(_UNSET, _UNSET)
            elif isinstance(node, NumberNode) and node in kept:
                own[node] = self._outs[node] = self._append(_UNSET)
        return own

    def _place(self, source: Node | Column, own: dict[Node | float, int]) -> int:
        """Return where in the list a source stands, put there if it is not yet."""
        if isinstance(source, Node) and source in own:
            return own[source]
        standing = source.recipe() if isinstance(source, Node) else source
        if isinstance(standing, float):
            if standing not in own:
                own[standing] = self._append(np.full(_block(), standing))
            return own[standing]
        if isinstance(standing, Column):
            return self._columns.setdefault(standing, -1 - len(self._columns))
        assert isinstance(source, NumberNode)
        if source not in self._others:
            self._others[source] = self._append(_UNSET)
        return self._others[source]

    def _append(self, *arrays: NDArray[Any]) -> int:
        self._list += arrays
        return len(self._list) - len(arrays)


def _block() -> int:
    assert COMPILED is not None
    return int(COMPILED.BLOCK)


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
