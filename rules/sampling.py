"""`Sampling`: when conditions are looked at: those of symbols at each tick, those of groups once a second.

Rules with `eval: bar_close` are sampled where their bars close (closing.py).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from feeds.sessions import Session
from feeds.tick import BoolArray
from rules.breadth import Breadth
from rules.fires import Fires
from rules.graph import Graph
from rules.loaded import Loaded
from rules.market import Market
from rules.node import is_tick
from rules.program import Sample, layer_name, ticks_in_session
from rules.reported import Reported
from rules.reporter import AT_TICK, BEFORE_TICK, Reporter
from rules.rule import Evaluation
from rules.segment import Segment


class Sampling:
    """Looks at rules and hands on what fires. The engine owns it and calls it in the order of causes."""

    def __init__(
        self,
        market: Market,
        graph: Graph,
        *,
        loaded: Loaded,
        fires: Fires,
        reporter: Reporter,
        reported: Reported,
        breadth: Breadth,
    ) -> None:
        self._market = market
        self._graph = graph
        self._loaded = loaded
        self._fires = fires
        self._reporter = reporter
        self._reported = reported
        self._breadth = breadth

    def by_ticks(self, ticks: Segment) -> None:
        """Sample the tick-evaluated rules of every period; on period tick each sample is a bar of its own.

        A halted symbol is not sampled: its ticks repeat what was.
        """
        if self._reporter.is_silent:
            return
        at, rows, arrival, times_ms, span_ms = (
            ticks.at,
            ticks.rows,
            ticks.arrival,
            ticks.batch.ts_event_ms,
            ticks.batch.span_ms,
        )
        if ticks.halted is not None:
            trading = np.flatnonzero(~ticks.halted)
            at = rows = rows[trading]
            times_ms, arrival = times_ms[trading], arrival[trading]
            if not len(rows):
                return
            span_ms = int(times_ms.min()), int(times_ms.max())
        overlap = partial(ticks_in_session, span_ms=span_ms)
        sample = Sample(at, self._market.state.n, times_ms, overlap)
        layers: dict[str, BoolArray | bool] = {}
        for (layer, evaluation, _), group in self._loaded.groups.items():
            if evaluation is not Evaluation.TICK:
                continue
            inside = sample.inside(group.sessions)
            if inside is False or (inside is not True and not inside.any()):
                continue
            self._fires.take(group, sample, rows, bars=self._market.bars.get(layer), arrival=arrival, phase=AT_TICK)
            if is_tick(layer):
                layers[layer] = inside
        for layer, inside in layers.items():
            sampled, sampled_ms = (rows, times_ms) if isinstance(inside, bool) else (rows[inside], times_ms[inside])
            self._graph.commit(layer, sampled, values=False)
            if ticks.live is not None and layer != layer_name((Session.OPEN_AUCTION,)):  # in it there is only AUCP
                priced = ~np.isnan(self._market.latest.column("LAST").array[sampled])
                sampled, sampled_ms = sampled[priced], sampled_ms[priced]
            self._market.gaps.trail(layer).follow(sampled, sampled_ms)

    def of_groups(self, second_ms: int) -> bool:
        """Sample the rules over groups as of the end of the second before this one, if anything changed since.

        Return whether they were: something may be noted then.
        """
        breadth = self._breadth
        if not breadth.changed:
            return False
        if self._reporter.is_silent:
            breadth.changed = False
            return False
        breadth.measure()
        for slot, row in breadth.run_short(second_ms):
            moment = self._reporter.moment(slot, row, second_ms, None)
            self._reporter.note_short(slot, row, moment, values=self._reported.look(slot, row))
        rows = np.arange(len(breadth.names))
        arrival = np.zeros(len(rows), np.int64)
        for group, sample in breadth.samples(second_ms):
            self._fires.take(group, sample, rows, bars=None, arrival=arrival, phase=BEFORE_TICK)
        breadth.commit(second_ms)
        return True
