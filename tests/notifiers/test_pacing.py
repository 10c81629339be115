"""Rates as plain numbers: no window ever holds too many, and none is left unused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifiers.errors import DeliveryError
from notifiers.pacing import NO_LIMIT, Pacing, Rate, by_themselves, next_slot_ms, recent, slots

rates = st.lists(st.builds(Rate, st.integers(1, 5), st.sampled_from([0.05, 0.1, 0.3])), min_size=1, max_size=2)


@given(rates, st.integers(1, 40))
def test_sending_whenever_there_is_a_slot_breaks_no_rate_and_wastes_none(some: list[Rate], count: int) -> None:
    sent: list[int] = []
    for _ in range(count):
        sent.append(next_slot_ms(some, sent, sent[-1] if sent else 0))
    for rate in some:
        for start in sent:
            assert sum(start <= ms < start + rate.window_ms for ms in sent) <= rate.messages
    for place, ms in enumerate(sent):
        earlier = ms - 1
        if place and earlier >= sent[place - 1]:  # a ms earlier a rate would have been broken
            assert any(sum(one > earlier - rate.window_ms for one in sent[:place]) >= rate.messages for rate in some)


@given(rates, st.lists(st.integers(0, 300), max_size=10).map(sorted), st.integers(0, 500))
def test_slots_counts_what_can_be_sent(some: list[Rate], sent: list[int], within_ms: int) -> None:
    now_ms, planned, count = 300, list(sent), 0
    for ms in range(now_ms, now_ms + within_ms + 1):
        while next_slot_ms(some, planned, ms) <= ms:
            planned.append(ms)
            count += 1
    assert slots(some, sent, now_ms, within_ms=within_ms) == count


@given(st.integers(0, 300), st.integers(1, 30), st.integers(2, 50))
def test_digests_have_room_for_the_rest_or_take_every_slot(waiting: int, free: int, size: int) -> None:
    singles = by_themselves(waiting, free, bundle_alerts=size)
    assert 0 <= singles <= min(waiting, max(free, waiting))
    if waiting <= free:
        assert singles == waiting
    elif singles:
        assert singles + (free - singles) * size >= waiting
        assert singles + 1 + (free - singles - 1) * size < waiting  # one more by itself would not leave room
    else:
        assert (free - 1) * size + 1 < waiting or free == 1


def test_recent_keeps_what_is_within_the_window() -> None:
    assert recent([1, 5, 5, 9], 5) == [9]
    assert recent([], 5) == []


def test_what_is_no_limit_is_refused() -> None:
    for messages, window_s in ((0, 1.0), (1, 0.0), (1, 90_000.0)):
        with pytest.raises(DeliveryError, match="no rate"):
            Rate(messages, window_s)
    with pytest.raises(DeliveryError, match="no digest"):
        Pacing(bundle_alerts=1)
    assert NO_LIMIT.slowed(0) is NO_LIMIT
    assert NO_LIMIT.slowed(20).rates == (Rate(20, 60.0),)
    assert NO_LIMIT.longest_ms == 0
