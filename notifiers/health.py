"""`ReceiverHealth`: how one receiver is, kept in the store; what switches it off, holds it or makes an alarm of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from notifiers.alarm import with_alarm
from notifiers.notifier import Outcome, Verdict
from notifiers.recorded import DeliveryStore
from notifiers.retry import (
    BY_ITSELF,
    HEALTHY,
    MISCONFIGURED_REFUSALS,
    RETRY_AFTER_LIMIT_S,
    ReceiverState,
    after_failure,
    after_success,
)

log = structlog.get_logger()

TEXT_CHARACTERS: Final = 500
"""Of what a receiver says, so much is kept."""


class ReceiverHealth:
    """The state of one receiver: changed only by way of the store. Event loop only."""

    def __init__(self, receiver: str, store: DeliveryStore, *, now_ms: Callable[[], int]) -> None:
        self.state: ReceiverState = HEALTHY
        self._receiver = receiver
        self._store = store
        self._now_ms = now_ms
        self._keeping = asyncio.Lock()
        self._origin = ""

    async def restore(self) -> bool:
        """Take up what the store kept; return whether it has seen this receiver."""
        state = await self._store.receiver_state(self._receiver)
        self.state = state or HEALTHY
        self._origin = await self._store.origin()
        return state is not None

    @property
    def refuses_all(self) -> bool:
        """Whether it refuses whatever it is sent, so that no message is to blame."""
        return self.state.refusals >= MISCONFIGURED_REFUSALS

    def is_resting(self, now_ms: int) -> bool:
        """Tell whether nothing is sent now: it is switched off or held."""
        return self.state.disabled is not None or self.hold_ms(now_ms) > 0

    def hold_ms(self, now_ms: int) -> int:
        """Return how long an open breaker, or a pause it asked for, lasts yet."""
        return remaining_ms(self.state.hold_until_ms, now_ms, limit_ms=int(RETRY_AFTER_LIMIT_S * 1000))

    async def judge(self, outcome: Outcome, now_ms: int) -> None:
        """Update it by one outcome, unless that is our own and the receiver was not asked."""
        if outcome.own:
            return

        def judged(state: ReceiverState) -> ReceiverState:
            if outcome.verdict is Verdict.OK:
                return after_success(state)
            refused = outcome.verdict is Verdict.PERMANENT
            state = after_failure(state, now_ms=now_ms, pause_s=outcome.retry_after_s, refused=refused)
            if outcome.verdict is Verdict.DISABLE:
                return replace(state, disabled=f"{BY_ITSELF}the receiver answered {outcome.code}: gone for good")
            return state

        await self.keep(judged, why=outcome.text)

    async def keep(self, change: Callable[[ReceiverState], ReceiverState], *, why: str = "") -> None:
        """Change it; one change at a time, for an operator's may come while an attempt ends."""
        async with self._keeping:
            await self._set(change(self.state), why=why)

    async def _set(self, state: ReceiverState, *, why: str) -> None:
        """Store it if it changed, with the alert that it may be; log what an operator has to know.

        Stored before it is known: an alarm whose storing failed is raised once more, with the same id.
        """
        state, alarm = with_alarm(
            self._receiver, state, now_ms=self._now_ms(), why=why[:TEXT_CHARACTERS], origin=self._origin
        )
        old = self.state
        if state == old:
            return
        await self._store.set_receiver_state(self._receiver, state, alarm=alarm)
        self.state = state
        if state.disabled is not None and old.disabled is None:
            log.error("receiver_disabled", receiver=self._receiver, why=state.disabled)
        if state.tripped != old.tripped:
            log.warning("receiver_breaker", receiver=self._receiver, open=state.tripped, failures=state.failures)


def remaining_ms(until_ms: int, now_ms: int, *, limit_ms: int) -> int:
    """Return the ms left until a time that was set at most limit_ms ahead: more means the wall clock was set back."""
    left_ms = until_ms - now_ms
    return left_ms if 0 < left_ms <= limit_ms else 0
