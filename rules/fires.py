"""`Fires`: what comes of a sample of rules: fires, and moves of episodes.

A fire is told at once; one told before its bar has closed is confirmed or withdrawn when it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from feeds.tick import IntArray
from rules.alert import Event
from rules.bars import OPEN, PeriodBars
from rules.episodes import Episodes
from rules.lifecycle import Moment, SlotKey
from rules.loaded import Loaded
from rules.market import Market
from rules.program import EdgeGroup, Fire, Sample, Slot, StateGroup
from rules.reported import Reported
from rules.reporter import AFTER_TICK, Cause, Reporter


@dataclass(frozen=True, slots=True)
class Provisional:
    """A fire sent before its bar closed: slot, symbol's row, and its episode's number and trade date."""

    key: SlotKey
    row: int
    episode: int
    date: str


class Fires:
    """Takes samples of groups and notes their fires; owns the provisional ones, which wait for their bar's close."""

    def __init__(
        self, market: Market, *, loaded: Loaded, reporter: Reporter, reported: Reported, episodes: Episodes
    ) -> None:
        self._market = market
        self._loaded = loaded
        self._reporter = reporter
        self._reported = reported
        self._episodes = episodes
        self._provisional: dict[str, list[Provisional]] = {}
        """Fires that wait for their bar's close, by period."""

    def take(
        self,
        group: EdgeGroup | StateGroup,
        sample: Sample,
        rows: IntArray,
        *,
        bars: PeriodBars | None,
        arrival: IntArray,
        phase: int,
    ) -> None:
        """Sample a group and note what comes of it.

        rows: the symbols sampled; arrival: theirs; bars: those that the sample is about.
        """

        if isinstance(group, StateGroup):
            self._move(group, sample, bars=bars, arrival=arrival, phase=phase)
            return
        fires = group.sample(sample)
        if not fires:
            return
        rows = np.array([fire.row for fire in fires])
        places = sample.places(rows)
        ticks = self._reporter.ticks(group, rows)
        moments = self._reporter.moments(group, rows, sample.times_ms.take(places), ticks=ticks, bars=bars)
        values_of = self._reported.of_fires(group, fires, rows)
        arrivals = arrival.take(places).tolist()
        verdicts = self._reporter.note_fires(fires, moments, values_of, arrivals=arrivals, phase=phase, ticks=ticks)
        for fire, verdict, moment, arrived in zip(fires, verdicts, moments, arrivals, strict=True):
            if fire.slot.rule.confirm and verdict.event is Event.FIRE:
                self._promise(fire, verdict.episode, moment.date, arrival=arrived)

    def _move(
        self, group: StateGroup, sample: Sample, *, bars: PeriodBars | None, arrival: IntArray, phase: int
    ) -> None:
        """Sample a group whose episodes move."""

        def moment_of(slot: Slot, row: int) -> tuple[Moment, Cause]:
            at = sample.place(row)
            end_ms: int | None = None if bars is None else bars.end_ms.array.item(row)
            moment = self._reporter.moment(slot, row, sample.times_ms.item(at), end_ms)
            return moment, Cause(arrival.item(at), phase)

        self._episodes.move(group, group.sample(sample), moment_of)

    def _promise(self, fire: Fire, episode: int, date: str, *, arrival: int) -> None:
        """Let a provisional fire wait for its bar's close."""
        bars = self._market.bars[fire.slot.rule.period]
        provisional = Provisional(fire.slot.key, fire.row, episode, date)
        if bars.closed.array[fire.row] == OPEN:
            self._provisional.setdefault(bars.period, []).append(provisional)
        else:  # the clock has closed the bar, and this late tick only amends it
            self._settle(provisional, bars, Cause(arrival, AFTER_TICK))

    def confirm(self, bars: PeriodBars, rows: IntArray, *, arrival: IntArray, phase: int) -> None:
        """Confirm or withdraw provisional fires of the bars that close, whatever the session."""
        waiting = self._provisional.get(bars.period, [])
        if not waiting:
            return
        place = {int(row): position for position, row in enumerate(rows)}
        self._provisional[bars.period] = [fire for fire in waiting if fire.row not in place]
        for fire in waiting:
            if fire.row in place:
                self._settle(fire, bars, Cause(int(arrival[place[fire.row]]), phase))

    def _settle(self, fire: Provisional, bars: PeriodBars, cause: Cause) -> None:
        """Confirm a provisional fire if its condition holds at its bar's close, else withdraw it."""
        slot = self._loaded.slot(fire.key)
        if slot is None:
            return
        group = self._loaded.group(slot)
        holds = group.holds(slot, np.array([fire.row]), n_symbols=self._market.state.n)[0]
        end_ms = int(bars.end_ms.array[fire.row])
        self._reporter.note(
            slot, fire.row, Event.CONFIRMED if holds else Event.WITHDRAWN,
            self._reporter.moment(slot, fire.row, end_ms, end_ms), cause=cause,
            values=self._reported.look(slot, fire.row), episode=(fire.episode, fire.date),
        )  # fmt: skip

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the provisional fires as JSON values."""
        return {period: [astuple(fire) for fire in some] for period, some in self._provisional.items()}

    def load(self, dumped: Mapping[str, Sequence[Any]]) -> None:
        """Take up what `dump` returned."""
        self._provisional = {
            period: [Provisional((key[0], key[1], key[2]), *rest) for key, *rest in some]
            for period, some in dumped.items()
        }
