"""Looks over a batch: compiled code finds what numpy does, in any layout."""

from __future__ import annotations

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


def test_both_ways_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    times, frame = np.arange(7, 5_507), bytes(range(256)) * 33
    compiled = scan.span(times), scan.word_sum(frame)
    monkeypatch.setattr(scan, "COMPILED", None)
    assert compiled == (scan.span(times), scan.word_sum(frame))
