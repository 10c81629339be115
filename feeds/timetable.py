"""The simulated market's timetable: what happens at which moment, the same on every day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from math import exp, sqrt
from typing import Final

USUAL_MS: Final = 3000
"""The exchanges publish a stock's snapshot this often."""


class Phase(Enum):
    """What happens at a moment of the day."""

    CALL = auto()
    """Opening call auction."""
    OPEN = auto()
    """Its result."""
    TRADE = auto()
    """Continuous trading."""
    TRAIL = auto()
    """The last reports after the morning's end."""
    CLOSE_CALL = auto()
    """Closing call auction."""
    CLOSE = auto()
    """Its result."""
    QUIET = auto()
    """Nothing changes, only time passes."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment at which the feed hears of the interval before it.

    clock_ms  ms since Shanghai midnight
    run_ms    ms of running time since the day's first moment: gaps such as lunch take one interval
    volume    trading, the day's average being 1; 0 outside of continuous trading
    weight    part of the way to the walk's target that is taken here: this moment's variance over all that is left
    spread    standard deviation added here, that of the whole walk being 1
    progress  part of the walk that is over, in (0, 1]
    """

    phase: Phase
    clock_ms: int
    run_ms: int = 0
    volume: float = 0.0
    weight: float = 0.0
    spread: float = 0.0
    progress: float = 0.0


def make_timetable(interval_ms: int) -> tuple[Moment, ...]:
    """Return a day's moments in order, one every `interval_ms` where anything happens.

    At clock_ms the ticks of [clock_ms - interval_ms, clock_ms) arrive, so that they are stamped in the session they
    belong to. Two walks share the day: the opening auction's, and that of continuous trading and the closing auction.
    """
    moments = list(_moments(interval_ms))
    opening = [place for place, (phase, _) in enumerate(moments) if phase is Phase.CALL]
    walking = (Phase.TRADE, Phase.TRAIL, Phase.CLOSE_CALL)
    trading = [place for place, (phase, _) in enumerate(moments) if phase in walking]
    lively = [_liveliness(moments[place][1]) for place in trading]
    average = sum(lively) / len(trading)
    variances = [one / average for one in lively]
    steps = dict(zip(opening, _steps([1.0] * len(opening)), strict=True))
    steps |= zip(trading, _steps(variances), strict=True)
    volumes = {
        place: one for place, one in zip(trading, variances, strict=True) if moments[place][0] is not Phase.CLOSE_CALL
    }
    run_ms, last_ms, timetable = 0, moments[0][1], []
    for place, (phase, clock_ms) in enumerate(moments):
        run_ms += min(clock_ms - last_ms, interval_ms)
        last_ms = clock_ms
        timetable.append(Moment(phase, clock_ms, run_ms, volumes.get(place, 0.0), *steps.get(place, ())))
    return tuple(timetable)


def _moments(interval_ms: int) -> Iterator[tuple[Phase, int]]:
    """Yield what happens, and when (ms since Shanghai midnight), in order."""
    yield from _stretch(Phase.CALL, _clock(9, 15), _clock(9, 25), interval_ms)
    yield Phase.OPEN, _clock(9, 25) + interval_ms
    yield from _stretch(Phase.QUIET, _clock(9, 25) + interval_ms, _clock(9, 30), interval_ms)
    yield from _stretch(Phase.TRADE, _clock(9, 30), _clock(11, 30), interval_ms)
    yield Phase.TRAIL, _clock(11, 30) + interval_ms
    yield Phase.QUIET, _clock(11, 30) + interval_ms + max(15_000, interval_ms)  # the morning's bars close
    yield from _stretch(Phase.TRADE, _clock(13, 0), _clock(14, 57), interval_ms)
    yield from _stretch(Phase.CLOSE_CALL, _clock(14, 57), _clock(15, 0), interval_ms)
    yield Phase.CLOSE, _clock(15, 0) + interval_ms
    yield Phase.QUIET, _clock(15, 1) + 5_000 + interval_ms  # and the day's


def _clock(hour: int, minute: int) -> int:
    return (hour * 60 + minute) * 60_000


def _stretch(phase: Phase, start_ms: int, end_ms: int, interval_ms: int) -> Iterator[tuple[Phase, int]]:
    """Yield moments in (start, end]; a last interval that does not fit is left out."""
    return ((phase, clock_ms) for clock_ms in range(start_ms + interval_ms, end_ms + 1, interval_ms))


def _liveliness(clock_ms: int) -> float:
    """Return how lively trading is: much after the open, little before lunch, more again towards the close."""
    minute = clock_ms / 60_000 - _clock(9, 30) / 60_000
    traded = minute if minute <= 121 else minute - 90
    return 0.65 + 2.2 * exp(-traded / 12) + 0.7 * exp((traded - 240) / 10)


def _steps(variances: list[float]) -> Iterator[tuple[float, float, float]]:
    """Yield (weight, spread, progress) of a walk's moments, each of which adds its share of the variance."""
    total, left = sum(variances), sum(variances)
    for variance in variances:
        weight = min(1.0, variance / left)
        yield weight, sqrt(variance / total * (1 - weight)), 1 - (left - variance) / total
        left -= variance
