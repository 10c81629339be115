"""`PastLife`: symbols live through bars of the past, from nothing on, beside what their layer holds meanwhile.

The nodes of the layer do the work, over arrays that are lent to them for the time. So a life may be put down behind any
bar, the layer go on with what comes, and the life be taken up again: it ends as if nothing had come between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feeds.tick import FloatArray, IntArray
from rules.functions.across import BarEnd, Foreign
from rules.functions.function import Value
from rules.functions.values import Field, TruthField
from rules.node import Node, Selection
from rules.state import Column

if TYPE_CHECKING:
    from rules.graph import Layer, Passes
    from rules.rings import Ring

_END = "END"


@dataclass(frozen=True, slots=True)
class Course:
    """The bars that n symbols live through, each one's from row 0 on, oldest first.

    places   (n,) int64 where each symbol stands among those of the input that brings the bars, ascending
    counts   (n,) int64 how many bars each has
    columns  by the graph's word (k, n) float64, NaN behind a symbol's last bar and where a value is unknown
    """

    places: IntArray
    counts: IntArray
    columns: Mapping[str, FloatArray]

    @classmethod
    def of(cls, codes: IntArray, columns: Mapping[str, FloatArray]) -> Course:
        """Put bars, one behind the other, where their symbols' stand; codes: the place of each bar's symbol."""
        order = None if (codes[1:] >= codes[:-1]).all() else np.argsort(codes, kind="stable")
        codes = codes if order is None else codes[order]
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        places, counts = codes[begins], np.diff(begins, append=len(codes))
        shape = int(counts.max(initial=0)), len(places)
        code = np.repeat(np.arange(len(places)), counts)
        number = np.arange(len(codes)) - begins[code]
        even = shape[0] * shape[1] == len(codes)  # as nearly always, and four times as fast
        table = {}
        for word, column in columns.items():
            ordered = column if order is None else column[order]
            if even:
                table[word] = np.ascontiguousarray(ordered.reshape(shape[::-1]).T)
            else:
                table[word] = np.full(shape, np.nan)
                table[word][number, code] = ordered
        return cls(places, counts, table)

    def take(self, those: IntArray) -> Course:
        """Return the course of some of its symbols."""
        if len(those) == len(self.places):
            return self
        columns = {word: column[:, those] for word, column in self.columns.items()}
        return Course(self.places[those], self.counts[those], columns)

    def begins_with(self, other: Course, at: IntArray) -> NDArray[np.bool_]:
        """Tell of each symbol whether its bars begin with those of symbols `at` of another course, bit for bit."""
        depth = min(len(column) for column in (self.columns["C"], other.columns["C"]))
        shown, counts = rows_of(at), other.counts[at]
        same = self.counts >= counts
        behind = np.arange(depth)[:, None] >= counts if (counts < depth).any() else None
        for word, column in self.columns.items():
            equal = column[:depth].view(np.int64) == other.columns[word][:depth, shown].view(np.int64)
            if not equal.all():
                same &= (equal if behind is None else behind | equal).all(axis=0)
        return np.asarray(same)


class PastLife:
    """What the nodes of a layer hold of k symbols; the layer's thread alone.

    counts: (k,) bars each symbol had before. sees_ends: whether the bars tell their ends. nodes: who lives, arguments
    first; None = all of the layer. made: state arrays that are wanted of them; their rings live too, whoever reads
    them, for not all of their readers have a state of their own.
    """

    def __init__(
        self, layer: Layer, *, counts: IntArray, sees_ends: bool = True,
        nodes: Sequence[Value] | None = None, made: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._layer = layer
        self._edition = layer.edition
        self._symbols = len(counts)
        self._nodes, self._made = nodes, made
        self._passes: Passes | None = None
        self._names = layer.columns()
        if nodes is None:
            nodes = tuple(layer.nodes.values())
        else:
            read = {ring for node in nodes for ring in node.rings()}
            rings = [ring for ring in layer.rings if ring in read or ring.name in made]
            self._passes = layer.passes(nodes, rings, alone=True)
            self._names = _of_some(layer, nodes, rings)
        end = next((node for node in nodes if node.key == _END), None)
        self._seeing = [end] if sees_ends and isinstance(end, BarEnd) else []
        self._blind = [node for node in nodes if isinstance(node, Foreign) and node not in self._seeing]
        self._words = [*_words(nodes), *((_END, one.column) for one in self._seeing)]
        fields = [node.column for node in nodes if isinstance(node, (Field, TruthField))]
        own = (*self._names.values(), *fields, *(one.column for one in self._seeing))
        self._columns = list(dict.fromkeys(own))
        self._arrays = [np.full((*c.array.shape[:-1], len(counts)), c.fill, c.array.dtype) for c in self._columns]
        self._arrays[self._columns.index(layer.rings.counts)][:] = counts

    @property
    def words(self) -> frozenset[str]:
        """The words of bars that are read here."""
        return frozenset(word for word, _ in self._words)

    @property
    def is_over(self) -> bool:
        """Whether the layer's nodes are others by now, so that this one can neither go on nor be taken over."""
        return self._layer.edition != self._edition

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the layer's nodes see this life, and nothing of other periods, while `close` is called.

        Columns are as long as there are symbols here, in their order: a pass over all costs a third of one that
        gathers.
        """
        layer, state = self._layer, self._layer.state_table
        n, aside = state.n, [column.array for column in self._columns]
        state.n, state.lender = self._symbols, None
        self._lend(self._arrays)
        layer.alone = True
        for node in self._blind:
            node.blind = True
        try:
            yield
        finally:
            for node in self._blind:
                node.blind = False
            layer.alone = False
            self._arrays = [column.array for column in self._columns]
            self._lend(aside)
            state.n, state.lender = n, None

    def _lend(self, arrays: Sequence[NDArray[Any]]) -> None:
        for column, array in zip(self._columns, arrays, strict=True):
            column.array = array

    def close(self, bar: Mapping[str, FloatArray], at: IntArray) -> None:
        """Let one bar of symbols `at` begin and end; it is shown."""
        for word, column in self._words:
            if word in bar:
                column.array[at] = bar[word]
        self._layer.commit(at, values=False, passes=self._passes)

    def live(self, course: Course, *, since: IntArray, first: int = 0, last: int | None = None) -> None:
        """Close the rows `first` to `last` of a course, of each symbol those from `since` on.

        The course is that of all symbols here, in their order.
        """
        rows = range(first, len(course.columns["C"]) if last is None else last)
        with self.shown():
            for number in rows:
                at = np.flatnonzero((since <= number) & (number < course.counts))
                if at.size:
                    self.close({word: column[number, at] for word, column in course.columns.items()}, at)

    def part(self, those: IntArray) -> PastLife:
        """Return the life of some of the symbols, which goes on by itself."""
        part = PastLife(
            self._layer, counts=np.zeros(len(those), np.int64), sees_ends=bool(self._seeing),
            nodes=self._nodes, made=self._made,
        )  # fmt: skip
        part._edition = self._edition
        shown = rows_of(those)
        part._arrays = [array[..., shown].copy() for array in self._arrays]
        return part

    def lived(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the state arrays of the layer by name as they are here, (…, k)."""
        arrays = dict(zip(self._columns, self._arrays, strict=True))
        return ((name, arrays[column]) for name, column in self._names.items())


def _words(nodes: Collection[Node]) -> list[tuple[str, Column]]:
    """Return what bars tell the nodes by word; of the now words that is LAST alone."""
    return [("C" if node.key == "LAST" else node.key, node.column) for node in nodes if isinstance(node, Field)]


def _of_some(layer: Layer, nodes: Collection[Node], rings: Collection[Ring]) -> dict[str, Column]:
    """Return the state arrays of some nodes by name, of rings only these; and how many bars there are."""
    keys = {"bars", *(node.key for node in nodes)}
    others = layer.rings.names() - {ring.name for ring in rings}
    return {
        name: column for name, column in layer.columns().items() if layer.key_of(name) in keys and name not in others
    }


def rows_of(rows: IntArray) -> Selection:
    """Return the rows as a slice where they follow each other: writing there takes a tenth of the time."""
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows.size and (np.diff(rows) == 1).all() else rows
