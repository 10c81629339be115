"""Ticks of several symbols at once are those of each."""

from __future__ import annotations

import numpy as np
import pytest

from feeds.tick import CORE
from rules.latest import Latest, knowns
from rules.state import StateTable


@pytest.mark.parametrize("numbers", [[], [1.0, 2.5], [np.nan, 1.0], [np.nan], [np.inf, 1.0], [np.inf, -np.inf]])
def test_unknown_numbers_alone_become_none(numbers: list[float]) -> None:
    assert knowns(np.array(numbers)) == [None if np.isnan(number) else number for number in numbers]


def test_ticks_of_some_symbols_are_what_each_shows() -> None:
    latest = Latest(StateTable(4))
    for place, name in enumerate(CORE):
        latest.raw(name)[...] = [place, 10.0 + place, np.nan if place % 2 else 1.0, place / 3]
    rows = np.array([3, 1, 2, 2])
    assert latest.ticks(rows) == [latest.tick(row) for row in rows.tolist()]
    assert latest.ticks(rows)[2]["open"] is None
    assert latest.ticks(rows[:0]) == []
