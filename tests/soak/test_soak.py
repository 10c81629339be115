"""Five market minutes of the soak: everything is told once to everybody. `make soak` is the day, with its bounds.

How late the loop is and how much memory grows are judged there: here other tests have the machine, and five minutes
are too short to warm up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.load import first_frame
from tests.faults.checker import check
from tests.faults.histories import Began, Committed, Heard, Histories, Published
from tests.soak.crowd import Follower
from tests.soak.soak import Load, Look, Result, soak

pytestmark = pytest.mark.acceptance


async def test_five_market_minutes_under_load_lose_nothing(tmp_path: Path) -> None:
    result = await soak(Load(market_s=300, symbols=500), tmp_path)
    assert result.faults == []
    assert result.told > 100
    assert result.late_share() < 0.5
    assert result.looks[-1].market_s >= 300


async def test_a_client_keeps_its_history_for_the_checker() -> None:
    """The judge has to see a hole and an alert that is another."""
    known: dict[bytes, Heard] = {}
    whole, holed = Follower(known), Follower(known)
    for follower in (whole, holed):
        follower._read(b'{"id":null,"ok":true,"result":[{"ch":"alerts","epoch":"e","off":4,"recovered":true}]}')
        for off in (5, 6, 7):
            if follower is whole or off != 6:
                told = b'{"ch":"alerts","epoch":"e","off":%d,"data":{"v":1,"id":"al_%d","event":"fire"}}'
                follower._read(told % (off, off))
    assert whole.steps == [Began("e", 4, recovered=None), *(Heard("e", off, f"al_{off}") for off in (5, 6, 7))]
    assert whole.steps[-1] is holed.steps[-1]
    committed = [Committed(f"al_{off}", "600519.SH", "r", "fire", "e", off) for off in range(1, 8)]
    report = check(
        Histories(
            committed=committed,
            published=[Published("e", off, f"al_{off}") for off in range(1, 8)],
            received={"whole": whole.steps, "holed": holed.steps},
        )
    )
    assert {kind: count for kind, count in report.counts.items() if count} == {"lost": 1, "untold": 1}
    assert all("holed" in example for example in report.examples)


def test_frames_are_taken_one_by_one_as_they_become_whole() -> None:
    long = b"x" * 300
    came = memoryview(b"\x81\x02hi\x89\x00\x81\x7e" + len(long).to_bytes(2, "big") + long)
    assert first_frame(came) == (b"hi", 4)
    assert first_frame(came[4:]) == (b"", 2)
    assert first_frame(came[6:-1]) is None
    assert first_frame(came[6:]) == (long, 304)


def test_lateness_and_growth_are_counted_from_the_first_look_on() -> None:
    result = Result(Load(market_s=1))
    for market_s, rss, late in ((0.0, 100, 5.0), (3700.0, 150, 95.0), (9000.0, 160, 105.0)):
        result.looks.append(Look(market_s, rss, {0.05: late, float("inf"): late + (5 if market_s > 5000 else 0)}))
    assert result.late_share() == pytest.approx(5 / 105)
    assert result.growth_bytes(after_s=3600) == 10
    result.looks += [Look(9010.0, 161, {}), Look(9020.0, 300, {})]  # in the midst of a checkpoint
    assert result.growth_bytes(after_s=3600) == 11
