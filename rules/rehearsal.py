"""`Rehearsal`: bars of the past are lived through before the inputs that bring them, a little at a time.

A market's past takes seconds of the engine's time, and ticks come meanwhile. A rehearsal changes nothing that anybody
could see: it is no input, and an engine that takes the bars without one ends in the same state, bit for bit. With one,
taking them is to check that what was lived through is what comes, to live on through bars that have closed since, and
to write what came of it in its place. Symbols whose past is another by then (an ex-rights day was heard of) live anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol, TypeVar

import numpy as np

from feeds.history import Bars
from feeds.tick import FloatArray, IntArray
from rules.graph import Layer
from rules.pastlife import Course, PastLife

TOGETHER: Final = 1000
"""Symbols that are best lived through together: a pass over 480 bars costs 0.25 s for 100 of them, 0.45 for 1,000."""
_NEAR: Final = 40
"""Inputs behind some bars among which others are looked for."""
T = TypeVar("T")


class Rehearsal:
    """Some inputs' bars, all of one period; the engine's thread alone, any inputs may come between two calls."""

    def __init__(self, bars: Sequence[Bars], layer: Layer | None, foresee: Callable[[Bars], Course | None]) -> None:
        """foresee: tells what bars would let their symbols live through."""
        self._bars = tuple(bars)
        self._layer = layer
        self._foresee = foresee
        self._courses: list[Course] = []
        self._life: PastLife | None = None
        self.lived = 0
        """Bars of every symbol that have been lived through."""
        self.done = layer is None
        """Whether all has been lived through; what has become of it since only the input itself finds out."""

    def go_on(self, rows: int) -> bool:
        """Do the next part, at most so many bars of every symbol; return whether there is more to do.

        Raises what a node raises, and is given up then: the inputs themselves will fail, or not, as without it.

        Some parts are no bars: what an input brings is laid out, one input at a time, and then room is made.
        """
        try:
            return self._go_on(rows)
        except Exception:  # half a bar may have been lived through
            self.done, self._life = True, None
            raise

    def _go_on(self, rows: int) -> bool:
        if self.done or self._layer is None:
            return False
        if self._life is not None and self._life.is_over:  # the rules are others by now
            self._life = None
        if len(self._courses) < len(self._bars):
            course = self._foresee(self._bars[len(self._courses)])
            if course is None:
                self.done = True
            else:
                self._courses.append(course)
        elif self._life is None:
            symbols = sum(len(course.places) for course in self._courses)
            self._life, self.lived = PastLife(self._layer, counts=np.zeros(symbols, np.int64)), 0
        else:
            self._live_on(self._life, rows)
        return not self.done

    def holds(self, bars: Bars) -> bool:
        """Tell whether these very bars are among those rehearsed."""
        return any(one is bars for one in self._bars)

    def ends_with(self, bars: Bars) -> bool:
        """Tell whether these very bars are the last ones rehearsed."""
        return self._bars[-1] is bars

    def of(self, bars: Bars, course: Course) -> tuple[PastLife, IntArray] | None:
        """Return the life of those symbols of a course that had it here, and which those are; None if none had.

        bars: the input that brings it. Bars at the end of the course that were not lived through here are now.
        """
        place = next((at for at, one in enumerate(self._bars[: len(self._courses)]) if one is bars), None)
        if place is None or self._life is None or self._life.is_over or not self.done:
            return None
        mine = self._courses[place]
        at = np.searchsorted(mine.places, course.places)
        known = np.flatnonzero(np.isin(course.places, mine.places))
        those = known[course.take(known).begins_with(mine, at[known])]
        if not those.size:
            return None
        begin = sum(len(one.places) for one in self._courses[:place])
        life = self._life.part(begin + at[those])
        counts = mine.counts[at[those]]
        life.live(course.take(those), since=counts, first=int(counts.min()))
        return life, those

    def _live_on(self, life: PastLife, rows: int) -> None:
        """Close the next bars; where a symbol has had its last one it stands still."""
        depth = max((len(course.columns["C"]) for course in self._courses), default=0)
        counts = np.concatenate([course.counts for course in self._courses])
        with life.shown():
            for number in range(self.lived, min(self.lived + rows, depth)):
                there = [np.flatnonzero(number < course.counts) for course in self._courses]
                life.close(self._row(number, there), np.flatnonzero(number < counts))
        self.lived += rows
        self.done = self.lived >= depth

    def _row(self, number: int, there: Sequence[IntArray]) -> dict[str, FloatArray]:
        """Return one bar of the symbols that have so many."""
        having = [(course, at) for course, at in zip(self._courses, there, strict=True) if at.size]
        words = having[0][0].columns
        return {word: np.concatenate([course.columns[word][number, at] for course, at in having]) for word in words}


class Foreseeing(Protocol):
    """What `foreseen` needs of an engine."""

    def foresee(self, bars: Bars, following: Iterable[object]) -> None:
        """Prepare for bars and for those of their period among what follows."""


def foreseen(inputs: Iterable[T], engine: Foreseeing, *, value_of: Callable[[T], object]) -> Iterator[T]:
    """Yield the inputs that an engine is given; bars among them that come near each other, it lives through together.

    value_of: what of an input the engine takes.
    """
    inputs, waiting = iter(inputs), deque[T]()
    while True:
        waiting.extend(islice(inputs, int(not waiting)))
        if not waiting:
            return
        given = waiting.popleft()
        if isinstance(value := value_of(given), Bars):
            waiting.extend(islice(inputs, max(_NEAR - len(waiting), 0)))
            engine.foresee(value, map(value_of, waiting))
        yield given


def together(bars: Bars, following: Iterable[object]) -> list[Bars]:
    """Return bars and those of their period that are near behind them, as many as are best lived through together."""
    found, symbols = [bars], len(bars.symbols)
    for value in islice(following, _NEAR):
        if isinstance(value, Bars) and value.period == bars.period and symbols + len(value.symbols) <= TOGETHER:
            found.append(value)
            symbols += len(value.symbols)
    return found
