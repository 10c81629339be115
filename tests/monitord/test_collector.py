"""Python's collector runs when nothing is on its way, and at the latest after a while."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from monitord.collector import FULL_EVERY_S, LATEST_S, Collector


class Knot:
    """Something that only a collection takes away: it refers to itself."""

    def __init__(self) -> None:
        self.self = self


def tied() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


class Clock:
    s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def collector(clock: Clock) -> Iterator[Collector]:
    made = Collector(now_s=clock)
    made.start()
    yield made
    made.stop()


def test_nothing_is_collected_before_the_quiet_and_what_is_young_in_it(collector: Collector) -> None:
    knot = tied()
    assert not gc.isenabled()
    for _ in range(2_000):  # so many new objects set Python's own collector off
        [[] for _ in range(10)]
    assert knot() is not None
    collector.rest()
    assert knot() is None


def test_what_is_old_is_collected_once_in_a_while(collector: Collector, clock: Clock) -> None:
    kept = Knot()
    knot = weakref.ref(kept)
    collector.rest()
    collector.rest()
    del kept
    collector.rest()
    assert knot() is not None, "it is old by now"
    clock.s += FULL_EVERY_S
    collector.rest()
    assert knot() is None


def test_without_a_quiet_moment_it_waits_no_longer_than_a_while(collector: Collector, clock: Clock) -> None:
    knot = tied()
    clock.s += LATEST_S - 0.1
    collector.wait_no_longer()
    assert knot() is not None
    clock.s += 0.1
    collector.wait_no_longer()
    assert knot() is None


def test_stopped_python_does_it_again(collector: Collector) -> None:
    collector.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
