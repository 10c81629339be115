"""Looks over a batch: compiled code finds what numpy does, in any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds import scan

TIMES = st.lists(st.integers(-(1 << 62), 1 << 62), min_size=1, max_size=40).map(lambda some: np.array(some, np.int64))


@given(TIMES, st.sampled_from(["as it is", "backwards", "every other", "one for all", "big-endian", "read-only"]))
@settings(max_examples=60)
def test_a_span_is_the_least_and_the_most(times: np.ndarray, layout: str) -> None:
    given_ = {
        "as it is": times, "backwards": times[::-1], "every other": np.repeat(times, 2)[::2],
        "one for all": np.broadcast_to(times[0], (9,)), "big-endian": times.astype(">i8"), "read-only": times.copy(),
    }[layout]  # fmt: skip
    if layout == "read-only":
        given_.flags.writeable = False
    assert scan.span(given_) == (int(given_.min()), int(given_.max()))


def test_of_no_times_there_is_no_span() -> None:
    with pytest.raises(ValueError, match="zero-size"):
        scan.span(np.empty(0, np.int64))


@given(st.binary(max_size=150))
@settings(max_examples=60)
def test_a_word_sum_is_that_of_the_whole_words(frame: bytes) -> None:
    whole = frame[: len(frame) // 8 * 8]
    words = [int.from_bytes(whole[at : at + 8], "little") for at in range(0, len(whole), 8)]
    assert scan.word_sum(frame) == sum(words) % (1 << 64)


def test_a_word_sum_is_of_arrays_and_of_bytes_that_begin_anywhere() -> None:
    words = np.arange(100, dtype="<u8") << 40
    assert scan.word_sum(words.data) == scan.word_sum(words.view("<f8").data) == sum(words.tolist())
    assert scan.word_sum(memoryview(b"xyz" + words.tobytes())[3:]) == sum(words.tolist())
    assert scan.word_sum(words[:0].data) == 0


NUMBERS = st.sampled_from([0.0, 1.0, 9.999999999999998, 10.0, 10.000000000000002, 100.0, 0.1, float("nan"), 1e17, 0.3])
TRADED = st.lists(st.tuples(*[NUMBERS] * 5), max_size=20)


def off(volume: float, unit: float, amount: float, low: float, high: float) -> bool:
    """Tell by hand whether a tick's average price is over ten times off."""
    traded = volume * unit
    if not (traded > 0 and amount > 0 and high > 0):
        return False
    return amount > 10.0 * traded * high or amount * 10.0 < traded * low


@given(TRADED, st.sampled_from(["columns", "rows", "every other"]))
@settings(max_examples=100)
def test_misfits_are_those_found_by_hand_and_where_there_are_none_all_fit(rows: list[Any], layout: str) -> None:
    table = np.array(rows, np.float64).reshape(-1, 5)
    lain = {"columns": table.T.copy(), "rows": table.T, "every other": np.repeat(table, 2, 0).T.copy()[:, ::2]}
    columns = tuple(lain[layout])
    expected = [off(*row) for row in rows]
    assert scan.misfits(columns, 10.0).tolist() == expected
    assert scan.all_fit(columns, 10.0) == (not any(expected))


def test_columns_of_different_lengths_are_refused() -> None:
    columns = (*[np.ones(3)] * 4, np.ones(2))
    with pytest.raises(ValueError, match="broadcast"):
        scan.all_fit(columns, 10.0)


def test_both_ways_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    times, frame = np.arange(7, 5_507), bytes(range(256)) * 33
    good = tuple(np.linspace(1, 2, 5_500) for _ in range(5))
    bad = (*good[:2], good[2] + np.eye(1, 5_500, 5_499)[0] * 1e6, *good[3:])

    def found() -> tuple[object, ...]:
        return scan.span(times), scan.word_sum(frame), scan.all_fit(good, 10.0), scan.all_fit(bad, 10.0)

    compiled = found()
    assert compiled[2:] == (True, False)
    monkeypatch.setattr(scan, "COMPILED", None)
    assert compiled == found()
