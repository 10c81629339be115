"""Five market minutes of the soak: everything is told once to everybody. `make soak` is the day, with its bounds.

How late the loop is and how much memory grows are judged there: here other tests have the machine, and five minutes
are too short to warm up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.crowd import Follower, first_frame
from tests.soak.soak import Load, Look, Result, soak

pytestmark = pytest.mark.acceptance


async def test_five_market_minutes_under_load_lose_nothing(tmp_path: Path) -> None:
    result = await soak(Load(market_s=300, symbols=500), tmp_path)
    assert result.faults == []
    assert result.told > 100
    assert result.late_share() < 0.5
    assert result.looks[-1].market_s >= 300


async def test_a_client_notices_a_hole_and_an_alert_that_is_another() -> None:
    """The judge has to see what it is there for."""
    follower, told = Follower(), b'{"ch":"alerts","epoch":"e","off":%d,"data":{"v":1,"id":"al_%d","event":"fire"}}'
    follower._read(b'{"id":null,"ok":true,"result":[{"ch":"alerts","epoch":"e","off":4,"recovered":true}]}')
    for off in (5, 6, 8):
        follower._read(told % (off, off))
    assert (follower.first, follower.last, follower.alerts) == (4, 8, 3)
    assert follower.faults == ["offset 8 behind 6"]
    other = Follower()
    other._read(b'{"id":null,"ok":true,"result":[{"ch":"alerts","epoch":"e","off":4,"recovered":true}]}')
    for off, number in ((5, 5), (6, 7), (7, 6)):
        other._read(told % (off, number))
    assert other.faults == []
    assert other.checksum != follower.checksum


def test_frames_are_taken_one_by_one_as_they_become_whole() -> None:
    long = b"x" * 300
    came = bytearray(b"\x81\x02hi\x89\x00\x81\x7e" + len(long).to_bytes(2, "big") + long[:100])
    assert [first_frame(came) for _ in range(3)] == [(0x81, b"hi"), (0x89, b""), None]
    came += long[100:]
    assert first_frame(came) == (0x81, long)
    assert not came


def test_lateness_and_growth_are_counted_from_the_first_look_on() -> None:
    result = Result(Load(market_s=1))
    for market_s, rss, late in ((0.0, 100, 5.0), (3700.0, 150, 95.0), (9000.0, 160, 105.0)):
        result.looks.append(Look(market_s, rss, {0.05: late, float("inf"): late + (5 if market_s > 5000 else 0)}))
    assert result.late_share() == pytest.approx(5 / 105)
    assert result.growth_bytes(after_s=3600) == 10
