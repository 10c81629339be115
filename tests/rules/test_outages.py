"""What clocks leave out: silences of all, halts of one."""

from __future__ import annotations

from itertools import islice

import pytest

from rules.outages import Outages, Span

TIMES = (500, 1_000, 1_500, 2_500, 4_000, 9_000)
ROWS = (0, 1, 2, 0, 1, 2)


@pytest.mark.parametrize("silences", [[], [(1_000, 2_000)], [(1_000, 2_000), (3_000, None)]])
@pytest.mark.parametrize("halts", [{}, {1: [(900, 1_800)]}, {0: [(100, 600), (2_400, None)], 2: [(3_500, 9_500)]}])
def test_samples_looked_up_together_are_those_looked_up_one_by_one(
    silences: list[Span], halts: dict[int, list[Span]]
) -> None:
    outages = Outages()
    outages.put_back(silences, list(halts.items()))
    together = list(islice(outages.before_each(TIMES, ROWS), len(TIMES)))
    assert together == [outages.before(ts_ms, row) for ts_ms, row in zip(TIMES, ROWS, strict=True)]


def test_a_halt_within_a_silence_is_left_out_once() -> None:
    outages = Outages()
    outages.silences, outages.halts = [(1_000, 2_000)], {0: [(1_500, 3_000)]}
    assert outages.before(5_000, 0) == ((1_000, 3_000),)
    assert outages.before(5_000, 1) == ((1_000, 2_000),)
    assert outages.before(1_200, 0) == ((1_000, 1_200),)
