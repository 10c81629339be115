"""`Adjuster`: lets what rules remember of a symbol follow its ex-rights day, as if its past had been adjusted prices.

State that grows with prices or volumes is multiplied (degrees.py): that is exact however old the bars are that made
it. What compares prices with numbers of its own has to be made anew from the bars that are kept, on period tick from
the last tick; there a count of ticks stays as it was, because what rules saw then they saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.degrees import ANY, MIXED, PRICES, VOLUMES, Degree, carried, degrees
from rules.exrights import Adjustment
from rules.functions.across import Foreign
from rules.functions.crossing import Cross
from rules.functions.references import Earlier
from rules.functions.values import Field
from rules.graph import Graph, Layer, reach
from rules.lifecycle import Ledger
from rules.market import Market
from rules.node import ALL, Node, Selection, is_tick
from rules.program import Slot
from rules.slots import SLOT_LAYER

_BAR_PRICES = ("C", "O", "H", "L")


class Adjuster:
    """Knows the degrees of a graph's nodes; one thread owns it, as the graph.

    absolute: places (`Slot.order`) of the slots whose condition or re-arming compares a price with a number that is
    none of the market's, a position's entry among them.
    """

    def __init__(self, graph: Graph, market: Market) -> None:
        self._graph = graph
        self._market = market
        self._prices: Mapping[Node, Degree] = {}
        self._volumes: Mapping[Node, Degree] = {}
        self.absolute: frozenset[int] = frozenset()

    def follow(self, slots: Sequence[Slot]) -> None:
        """Take up the nodes there are now, after rules were compiled and before what is unused is dropped."""
        nodes = self._nodes()
        self._prices, self._volumes = degrees(nodes, PRICES), degrees(nodes, VOLUMES)
        self.absolute = frozenset(
            slot.order
            for slot in slots
            if any(self._prices[one] == MIXED for one in (slot.condition, slot.rearm) if one is not None)
        )
        for period, layer in self._graph.layers.items():
            if is_tick(period):
                _remember(layer, {field for node in self._resampled(layer) for field in _fields(node)})

    def apply(self, adjustment: Adjustment, ledger: Ledger) -> None:
        """Adjust all that is known of these symbols' past: state, forming bars of weeks and months, peaks, fires."""
        rows, price, shares = adjustment.rows, adjustment.price, adjustment.shares
        for period, layer in self._graph.layers.items():
            if period != SLOT_LAYER:  # which forgets the night anyway
                self._adjust(layer, adjustment)
        for bars in self._market.bars.values():
            for word in _BAR_PRICES:
                bars.fields[word].mine()[rows] *= price
            bars.fields["V"].array[rows] *= shares
            bars.volume_at_start.array[rows] *= shares
        self._market.books.adjust(rows, price)
        for row, factor, more in zip(rows.tolist(), price.tolist(), shares.tolist(), strict=True):
            symbol = self._market.universe.symbols[row]
            ledger.adjust(symbol, factor)
            self._adjust_others(symbol, price=factor, shares=more)

    def _nodes(self) -> tuple[Node, ...]:
        return tuple(reach(node for layer in self._graph.layers.values() for node in layer.nodes.values()))

    # ── one layer ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _adjust(self, layer: Layer, adjustment: Adjustment) -> None:
        """Multiply what grows, and make anew what does not."""
        rows, shares_moved = adjustment.rows, bool((adjustment.shares != 1).any())
        made: set[str] = set()
        for key, columns in layer.state().items():
            node = layer.nodes[key]
            if self._prices[node] == MIXED or (shares_moved and self._volumes[node] == MIXED):
                made |= {f"{layer.period}/{key}/{name}" for name in columns}
                continue
            for name, column in columns.items():
                p, v = carried(node, name, self._prices), carried(node, name, self._volumes)
                if column.array.dtype == np.float64:
                    _multiply(column.array, rows, _power(adjustment.price, p) * _power(adjustment.shares, v))
        if made and is_tick(layer.period):
            self._resample(layer, rows)
        elif made:
            layer.live_again(self._graph.history(layer.period), made=made, at=rows)

    def _resampled(self, layer: Layer) -> list[Node]:
        """Return the nodes of a layer of ticks whose last sample is to be taken again, arguments first."""
        return [
            node
            for node in layer.nodes.values()
            if isinstance(node, Cross | Earlier) and self._prices[node] == MIXED and not _looks_away(node)
        ]

    def _resample(self, layer: Layer, rows: IntArray) -> None:
        """Take the last sample of these symbols again, at adjusted prices."""
        nodes = self._resampled(layer)
        rows = rows[layer.rings.counts.array[rows] > 0]
        if not nodes or not rows.size:
            return
        fields = {word: layer.nodes[word] for word in layer.history}
        columns = {word: field.column for word, field in fields.items() if isinstance(field, Field)}
        shown = {word: column.array[rows] for word, column in columns.items()}
        for word, column in columns.items():
            column.mine()[rows] = layer.history[word].back(rows, 0)
        with np.errstate(all="ignore"):
            read = dict.fromkeys(arg for node in nodes for arg in node.args)
            self._graph.plan([*nodes, *read]).peek(rows)
            cursor = layer.rings.cursor(rows)
            wanted = {arg for arg in read if self._prices[arg] == MIXED}
            for ring in layer.rings:
                if ring.node in wanted:
                    ring.take(cursor)
            for node in nodes:
                node.commit(rows)
        for word, column in columns.items():
            column.mine()[rows] = shown[word]

    # ── what other symbols remember of this one ───────────────────────────────────────────────────────────────────

    def _adjust_others(self, symbol: str, *, price: float, shares: float) -> None:
        """Multiply what all symbols remember of the words of one that they look at ("600519.SH$CLOSE")."""
        named = f'"{symbol}$'
        keys = {key for layer in self._graph.layers.values() for key in layer.nodes if key.startswith(named)}
        if not keys:
            return
        nodes = self._nodes()
        for factor, words in ((price, PRICES), (shares, VOLUMES)):
            found = degrees(nodes, {key: words.get(key[len(named) : -1], 0.0) for key in keys})
            for layer in self._graph.layers.values():
                _multiply_known(layer, found, factor)


def _remember(layer: Layer, fields: set[Field]) -> None:
    """Keep the last sample of these words of a layer of ticks, and of no others."""
    layer.history = {
        field.key: layer.history.get(field.key) or layer.rings.make(field, 1)
        for field in sorted(fields, key=lambda field: field.key)
    }


def _multiply_known(layer: Layer, found: Mapping[Node, Degree], factor: float) -> None:
    for key, columns in layer.state().items():
        node = layer.nodes[key]
        for name, column in columns.items():
            degree = carried(node, name, found)
            if degree not in (0.0, MIXED) and column.array.dtype == np.float64:
                _multiply(column.array, ALL, _power(np.array(factor), degree))


def _multiply(array: FloatArray, at: Selection, factor: FloatArray) -> None:
    if (factor != 1).any():
        array[..., at] *= factor


def _power(factor: FloatArray, degree: Degree) -> FloatArray:
    return np.ones_like(factor) if degree in (0.0, ANY, MIXED) else np.asarray(factor**degree)


def _looks_away(node: Node) -> bool:
    """Tell whether a node reads what the layer's own ticks do not make."""
    return any(isinstance(one, Foreign) or one.key.startswith('"') for one in reach([node]))


def _fields(node: Node) -> Iterator[Field]:
    return (one for one in reach([node]) if isinstance(one, Field))
