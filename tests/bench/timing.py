"""Time contenders side by side: repeats alternate, so that whatever disturbs the machine disturbs them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feeds.tick import FloatArray

_EVICT_BYTES = 96 << 20
"""More than the caches of one core complex hold."""
_WARM_PASSES = 8
"""Before each warm repeat: the other contenders have swept the caches."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to time.

    run      the timed part; it is given what `fresh` made
    fresh    makes a new input before every repeat, untimed
    every    takes part in every so many repeats (slow peers)
    scale    whole-market symbols per symbol it is run on; its times are multiplied by it
    """

    name: str
    run: Callable[[Any], object]
    fresh: Callable[[], Any] = _nothing
    every: int = 1
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Median and spread (10th and 90th percentile) of n repeats, in ms of a whole pass."""

    name: str
    n: int
    median_ms: float
    low_ms: float
    high_ms: float
    scaled: bool


def race(contenders: Sequence[Contender], *, repeats: int, warmup: int = 2, cold: bool = False) -> dict[str, Timing]:
    """Time every contender `repeats` times, in turns; `cold`: drop the CPU's caches before each repeat."""
    for contender in contenders:
        for _ in range(warmup if contender.every == 1 else 1):
            contender.run(contender.fresh())
    ballast = np.zeros(_EVICT_BYTES // 8 if cold else 0)
    took: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    gc.collect()
    gc.freeze()  # as the daemon does once it is warm: a full collection of a warm engine takes 36 ms
    try:
        for repeat in range(repeats):
            for contender in _rotated(contenders, repeat):
                if repeat % contender.every == 0:
                    took[contender.name].append(_time(contender, ballast) * contender.scale)
    finally:
        gc.unfreeze()
    return {c.name: summary(c.name, took[c.name], scaled=c.scale != 1.0) for c in contenders}


def _rotated(contenders: Sequence[Contender], by: int) -> Sequence[Contender]:
    start = by % len(contenders)
    return [*contenders[start:], *contenders[:start]]


def _time(contender: Contender, ballast: FloatArray) -> float:
    """Return the seconds of one repeat; warm ones follow another right away, cold ones a sweep through `ballast`."""
    gc.collect()
    if not ballast.size and contender.every == 1:
        for _ in range(_WARM_PASSES):
            contender.run(contender.fresh())
    value = contender.fresh()
    ballast += 1.0
    started = time.perf_counter()
    result = contender.run(value)
    elapsed = time.perf_counter() - started
    del result
    return elapsed


def summary(name: str, took_s: list[float], *, scaled: bool = False) -> Timing:
    """Return median and spread of some repeats, given in seconds."""
    low, high = np.percentile(took_s, [10, 90])
    return Timing(name, len(took_s), statistics.median(took_s) * 1e3, float(low) * 1e3, float(high) * 1e3, scaled)
