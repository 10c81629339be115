"""What fails is begun again, later each time; what fails too often, or is fenced, ends the process."""

from __future__ import annotations

import asyncio

import pytest

from monitord.restarts import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, RESTARTS, RESTARTS_WITHIN_S, Restarts
from notifiers.alertstream import Fenced
from tests import virtual_time


class Part:
    """A component that fails as often as it is told to, each time after a while; `begun_s`: when it was begun."""

    def __init__(self, failures: int, *, after_s: float = 0.0, error: Exception | None = None) -> None:
        self.left, self.after_s = failures, after_s
        self.error = error or OSError("away")
        self.begun_s: list[float] = []

    async def run(self) -> None:
        self.begun_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.after_s)
        if self.left:
            self.left -= 1
            raise self.error


def keep(*parts: Part) -> None:
    """Keep components on one count of failures, in virtual time, until each has ended or one is given up."""

    async def keep_all() -> None:
        restarts = Restarts(monotonic=asyncio.get_running_loop().time)
        await asyncio.gather(*(restarts.keep("part", part.run) for part in parts))

    virtual_time.run(keep_all())


def test_a_component_is_begun_again_until_it_ends_by_itself() -> None:
    part = Part(RESTARTS)
    keep(part)
    waits_s = [later - earlier for earlier, later in zip(part.begun_s, part.begun_s[1:], strict=False)]
    assert waits_s == pytest.approx([FIRST_BACKOFF_S * 2**n for n in range(RESTARTS)])


def test_one_failure_more_is_one_too_many() -> None:
    part = Part(RESTARTS + 1)
    with pytest.raises(OSError, match="away"):
        keep(part)
    assert len(part.begun_s) == RESTARTS + 1


def test_failures_of_all_components_count_together() -> None:
    with pytest.raises(OSError, match="away"):
        keep(Part(RESTARTS), Part(1))


def test_failures_of_long_ago_are_forgotten_and_no_pause_is_longer_than_the_longest() -> None:
    part = Part(20, after_s=RESTARTS_WITHIN_S / RESTARTS)
    keep(part)
    assert len(part.begun_s) == 21
    assert part.begun_s[-1] - part.begun_s[-2] == pytest.approx(part.after_s + LONGEST_BACKOFF_S)


def test_who_is_fenced_is_not_begun_again() -> None:
    part = Part(1, error=Fenced("a newer token"))
    with pytest.raises(Fenced):
        keep(part)
    assert len(part.begun_s) == 1
