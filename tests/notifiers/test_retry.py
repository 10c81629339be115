"""The schedule and the breaker, as tables."""

from __future__ import annotations

import pytest

from notifiers.retry import (
    CHAT_SCHEDULE,
    HEALTHY,
    OFF_AFTER_MS,
    WEBHOOK_SCHEDULE,
    ReceiverState,
    RetrySchedule,
    after_failure,
    after_success,
)

H = 3_600_000


def test_middle_of_the_jitter_gives_the_documented_delays() -> None:
    delays = [WEBHOOK_SCHEDULE.delay_s(failures, random=0.5) for failures in range(10)]
    assert delays == [0, 5, 30, 120, 600, 1800, 7200, 21_600, 43_200, None]


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.8), (0.25, 0.9), (0.75, 1.1), (0.999999, 1.2)])
def test_jitter_is_at_most_a_fifth_each_way(random: float, share: float) -> None:
    for failures, planned in enumerate(WEBHOOK_SCHEDULE.delays_s):
        assert WEBHOOK_SCHEDULE.delay_s(failures, random=random) == pytest.approx(planned * share, rel=1e-5)


@pytest.mark.parametrize(("asked", "delay"), [(None, 5), (0, 5), (4, 5), (77, 77), (3600, 3600), (86_400, 3600)])
def test_asked_pause_is_kept_up_to_an_hour_and_never_shortens(asked: float | None, delay: float) -> None:
    assert WEBHOOK_SCHEDULE.delay_s(1, random=0.5, retry_after_s=asked) == delay


def test_asked_pause_does_not_add_attempts() -> None:
    assert WEBHOOK_SCHEDULE.delay_s(9, random=0.5, retry_after_s=10) is None


def test_tenth_consecutive_failure_opens_the_breaker_for_a_minute() -> None:
    state = HEALTHY
    for n in range(9):
        state = after_failure(state, now_ms=n)
        assert not state.tripped
        assert state.hold_until_ms == 0
    state = after_failure(state, now_ms=1000)
    assert state.tripped
    assert state.hold_until_ms == 61_000


def test_failed_probe_holds_again_and_a_good_one_forgives_all() -> None:
    tripped = ReceiverState(failures=10, failing_since_ms=0, hold_until_ms=60_000)
    again = after_failure(tripped, now_ms=60_000)
    assert (again.hold_until_ms, again.failures) == (120_000, 11)
    assert after_success(again) == HEALTHY


def test_nine_failures_and_a_success_start_the_count_anew() -> None:
    nine = ReceiverState(failures=9, failing_since_ms=5)
    assert not after_failure(after_success(nine), now_ms=100).tripped


def test_asked_pause_holds_the_whole_receiver_at_most_an_hour() -> None:
    assert after_failure(HEALTHY, now_ms=0, pause_s=30).hold_until_ms == 30_000
    assert after_failure(HEALTHY, now_ms=0, pause_s=1e9).hold_until_ms == H
    longer = ReceiverState(failures=9, failing_since_ms=0)
    assert after_failure(longer, now_ms=0, pause_s=30).hold_until_ms == 60_000


def test_five_days_of_failing_switch_it_off_and_a_success_alone_does_not_switch_it_on() -> None:
    failing = ReceiverState(failures=50, failing_since_ms=1000)
    assert after_failure(failing, now_ms=1000 + OFF_AFTER_MS - 1).disabled is None
    off = after_failure(failing, now_ms=1000 + OFF_AFTER_MS)
    assert off.disabled is not None
    assert "120 h" in off.disabled
    assert after_success(off) == off


def test_a_few_failures_days_apart_are_no_outage() -> None:
    state = after_failure(ReceiverState(failures=1, failing_since_ms=0), now_ms=9 * 24 * H)
    assert state.disabled is None
    assert not state.is_troubled(9 * 24 * H)


@pytest.mark.parametrize("schedule", [WEBHOOK_SCHEDULE, CHAT_SCHEDULE])
def test_a_receiver_that_is_away_is_troubled_after_five_minutes(schedule: RetrySchedule) -> None:
    state, at_ms = HEALTHY, 0
    while at_ms < 15 * 60_000:
        state = after_failure(state, now_ms=at_ms)
        at_ms += round((schedule.delay_s(state.failures, random=0.5) or 0) * 1000)
    assert state.is_troubled(15 * 60_000)
