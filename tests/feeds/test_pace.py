"""Pacing by absolute deadlines, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from feeds.errors import FeedError
from feeds.pace import Pace
from tests.virtual_time import run


@pytest.mark.parametrize("speed", [None, 0, 0.0])
def test_flat_out_waits_for_nothing(speed: float | None) -> None:
    async def scenario() -> float:
        pace = Pace(speed)
        for moment_ms in (0, 3_600_000, 7_200_000):
            assert await pace.reach(moment_ms)
        return asyncio.get_running_loop().time()

    assert run(scenario()) == 0
    assert not Pace(speed).is_real


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_a_speed_that_makes_no_sense_is_refused(speed: float) -> None:
    with pytest.raises(FeedError, match="speed"):
        Pace(speed)


@pytest.mark.parametrize("speed", [0.5, 1.0, 60.0])
def test_moments_come_as_far_apart_as_the_speed_says(speed: float) -> None:
    async def scenario() -> list[float]:
        pace, came = Pace(speed), []
        for moment_ms in (500_000, 503_000, 503_000, 1_103_000):
            await pace.reach(moment_ms)
            came.append(asyncio.get_running_loop().time())
        return came

    assert run(scenario()) == pytest.approx([0, 3 / speed, 3 / speed, 603 / speed])


def test_a_slow_taker_does_not_make_the_feed_drift() -> None:
    async def scenario() -> list[float]:
        pace, came, loop = Pace(1.0), [], asyncio.get_running_loop()
        for place in range(20):
            await pace.reach(place * 3000)
            came.append(loop.time())
            await asyncio.sleep(10 if place == 5 else 0.7)  # virtual
        return came

    came = run(scenario())
    assert came[6] == pytest.approx(came[5] + 10), "late: due at once"
    assert came[12:] == pytest.approx([place * 3.0 for place in range(12, 20)]), "and back in step"


def test_a_new_stretch_is_due_at_once() -> None:
    async def scenario() -> list[float]:
        pace, came = Pace(1.0), []
        for moment_ms, stretch in ((0, 1), (2000, 1), (86_400_000, 2), (86_403_000, 2)):
            await pace.reach(moment_ms, stretch)
            came.append(asyncio.get_running_loop().time())
        return came

    assert run(scenario()) == pytest.approx([0, 2, 2, 5])


def test_stop_wakes_the_waiter_and_holds_until_start() -> None:
    async def scenario() -> tuple[bool, float, bool, bool]:
        pace = Pace(1.0)
        await pace.reach(0)
        asyncio.get_running_loop().call_later(5, pace.stop)
        woken = await pace.reach(3_600_000)
        at = asyncio.get_running_loop().time()
        still = await pace.reach(0)
        pace.start()
        return woken, at, still, await pace.reach(99_000)

    assert run(scenario()) == (False, 5, False, True)


def test_stop_ends_a_flat_out_pace_too() -> None:
    async def scenario() -> bool:
        pace = Pace(None)
        pace.stop()
        return await pace.reach(0)

    assert run(scenario()) is False
