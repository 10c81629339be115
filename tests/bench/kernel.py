"""The kernel: columns of the market in, masks of events out, through the product's graph, gates and arming."""

from __future__ import annotations

import numpy as np

from rules.graph import Graph
from rules.lifecycle import EdgeBits
from rules.logic import BitRows, Circuit, byte_width
from rules.node import ALL
from rules.state import StateTable
from tests.bench.peers import History
from tests.rules.w1 import CONDITIONS, INDICATORS, Columns

PERIOD = "1d"


class Kernel:
    """W1 as nodes of one graph over bare columns, warmed by a history."""

    def __init__(self, history: History) -> None:
        n = history.symbols
        self.state = StateTable(n)
        self.n_symbols = n
        self._source = Columns(self.state)
        self.graph = Graph(self.state, self._source)
        self.indicators = {name: self.graph.add(expr, period=PERIOD) for name, expr in INDICATORS.items()}
        conditions = [self.graph.add(expr, period=PERIOD) for expr in CONDITIONS]
        self._circuit = Circuit(conditions)
        # W1 has an indicator that no condition reads; the pass evaluates it, too.
        self._plan = self.graph.plan([*self._circuit.leaves, self.indicators["MACD"]])
        assert set(self.indicators.values()) <= set(self._plan.nodes)
        self._bits = EdgeBits([(f"w1_{i}", "", "") for i in range(len(conditions))])
        self._bits.grow(n)
        self._enabled = np.full((len(conditions), byte_width(n)), 255, np.uint8)
        self._fire_on_start = np.full((len(conditions), 1), 255, np.uint8)
        for close, high, low in zip(history.close, history.high, history.low, strict=True):
            self.put(close, high, low)
            self.graph.commit(PERIOD, np.arange(n))

    def put(self, close: np.ndarray, high: np.ndarray, low: np.ndarray) -> None:
        """Make these the forming bars."""
        self._source.set(PERIOD, ALL, C=close, H=high, L=low)

    def sample(self) -> BitRows:
        """Return the events of the forming bars: (conditions, bytes) bits."""
        self._plan.peek(ALL)
        circuit = self._circuit
        circuit.run(ALL, n_symbols=self.n_symbols)
        true, false = circuit.t.take(circuit.rows, axis=0), circuit.f.take(circuit.rows, axis=0)
        fires, _ = self._bits.sample(true, false, rearm=false, enabled=self._enabled, fire_on_start=self._fire_on_start)
        return fires
