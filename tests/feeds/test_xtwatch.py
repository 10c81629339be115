"""When the link is looked at, renewed, or made anew."""

from __future__ import annotations

from itertools import pairwise

import pytest

from feeds.errors import FeedError
from feeds.xtwatch import LinkWatch, Patience, Step


def watch(*, random: float = 0.5, **patience: float) -> LinkWatch:
    return LinkWatch(Patience(**patience), random=lambda: random)


def steps(one: LinkWatch, times: list[float], *, silent_s: float = 0.0) -> list[Step]:
    return [one.step(now_s, silent_s=silent_s) for now_s in times]


def test_a_sound_link_is_looked_at_once_a_second() -> None:
    one = watch()
    one.established(0.0)
    assert steps(one, [0.0, 0.5, 1.0, 1.2, 2.0]) == [Step.CHECK, Step.NONE, Step.CHECK, Step.NONE, Step.CHECK]


def test_a_lost_client_is_replaced_at_once_and_then_with_doubling_delays_up_to_a_bound() -> None:
    one = watch(first_s=0.5, longest_s=5.0)
    one.alive()
    one.checked(connected=False, same=False)
    now_s, tries = 100.0, []
    for _ in range(7):
        while one.step(now_s, silent_s=0.0) is not Step.RECONNECT:
            now_s += 0.125
        tries.append(now_s)
        one.failed(now_s, hung=False)
    assert [later - before for before, later in pairwise(tries)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(("random", "delay_s"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_delays_differ_between_programs(random: float, delay_s: float) -> None:
    one = watch(random=random, first_s=1.0)
    one.failed(0.0, hung=False)
    assert one.step(delay_s - 0.001, silent_s=0.0) is Step.NONE
    assert one.step(delay_s + 0.001, silent_s=0.0) is Step.RECONNECT


def test_another_client_or_one_that_was_away_is_subscribed_on_anew() -> None:
    one = watch()
    one.checked(connected=True, same=False)
    assert one.step(0.0, silent_s=0.0) is Step.RENEW
    one = watch()
    one.suspect()
    assert one.step(0.0, silent_s=0.0) is Step.CHECK
    one.checked(connected=True, same=True)
    assert one.step(0.0, silent_s=0.0) is Step.RENEW
    one.established(0.0)
    one.checked(connected=True, same=True)
    assert one.step(99.0, silent_s=0.0) is Step.CHECK


def test_silence_is_met_with_a_renewal_and_then_with_new_clients_until_life_is_seen() -> None:
    one = watch(longest_s=5.0)
    one.established(-60.0)
    assert one.step(0.0, silent_s=59.9) is Step.CHECK
    assert one.step(0.1, silent_s=60.0) is Step.RENEW
    one.established(0.1)
    assert one.step(5.0, silent_s=65.0) is not Step.RECONNECT
    for now_s in (5.2, 10.3, 15.4):
        assert one.step(now_s, silent_s=60.0 + now_s) is Step.RECONNECT
        one.established(now_s)
    one.alive()
    assert one.step(16.0, silent_s=0.0) is Step.CHECK
    assert one.step(100.0, silent_s=60.0) is Step.RENEW


def test_attempts_that_hang_get_more_time_up_to_a_bound() -> None:
    one = watch(timeout_s=30.0)
    given = []
    for _ in range(4):
        given.append(one.attempt_timeout_s)
        one.failed(0.0, hung=True)
    assert given == [8.0, 16.0, 30.0, 30.0]
    one.failed(0.0, hung=False)
    assert one.attempt_timeout_s == 8.0


def test_a_check_that_fails_is_a_lost_connection() -> None:
    one = watch()
    one.check_failed()
    assert one.step(0.0, silent_s=0.0) is Step.RECONNECT


@pytest.mark.parametrize("patience", [{"first_s": 6.0}, {"first_s": 0.0}, {"silent_s": 61.0}, {"silent_s": 0.0}])
def test_patience_that_makes_no_sense_is_refused(patience: dict[str, float]) -> None:
    with pytest.raises(FeedError, match=r"^xt: "):
        Patience(**patience)
