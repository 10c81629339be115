"""A receiver's health by itself: what holds it and for how long, and whose failures count against it."""

from __future__ import annotations

from typing import Any

from notifiers.health import ReceiverHealth, remaining_ms
from notifiers.notifier import Outcome, Verdict
from notifiers.retry import BREAKER_FAILURES, BREAKER_PROBE_MS, HEALTHY, MISCONFIGURED_REFUSALS, ReceiverState, cured

H = 3_600_000


class Store:
    """What of a store a receiver's health asks: `kept` is the newest state."""

    kept: ReceiverState | None = None

    async def set_receiver_state(self, receiver: str, state: ReceiverState, *, alarm: object = None) -> None:
        self.kept = state


def health_in(store: Any) -> ReceiverHealth:
    return ReceiverHealth("ours", store, now_ms=lambda: H)


def test_a_wall_clock_set_back_does_not_stretch_a_hold() -> None:
    assert remaining_ms(10_000, 4_000, limit_ms=H) == 6_000
    assert remaining_ms(10_000, 10_000, limit_ms=H) == 0
    assert remaining_ms(10 * H, 0, limit_ms=H) == 0


async def test_failures_hold_it_until_the_probe_and_one_success_lets_it_go() -> None:
    store = Store()
    health = health_in(store)
    for _ in range(BREAKER_FAILURES):
        assert not health.is_resting(H)
        await health.judge(Outcome(verdict=Verdict.RETRY, text="away"), H)
    assert health.is_resting(H)
    assert health.hold_ms(H) == BREAKER_PROBE_MS
    assert not health.is_resting(H + BREAKER_PROBE_MS)
    await health.judge(Outcome(verdict=Verdict.OK), H)
    assert not health.is_resting(H)
    assert store.kept == health.state == cured(health.state)


async def test_what_is_our_own_fault_is_not_held_against_it() -> None:
    store = Store()
    health = health_in(store)
    await health.judge(Outcome(verdict=Verdict.RETRY, text="our disk", own=True), H)
    assert health.state == HEALTHY
    assert store.kept is None


async def test_who_refuses_one_alert_after_the_other_refuses_all() -> None:
    health = health_in(Store())
    for count in range(MISCONFIGURED_REFUSALS):
        assert not health.refuses_all, count
        await health.judge(Outcome(verdict=Verdict.PERMANENT, text="keyword"), H)
    assert health.refuses_all


async def test_who_is_gone_for_good_is_switched_off_by_itself() -> None:
    health = health_in(Store())
    await health.judge(Outcome(verdict=Verdict.DISABLE, code=410), H)
    assert health.state.disabled is not None
    assert "410" in health.state.disabled
    assert not health.state.by_hand
    assert health.is_resting(100 * H)
