"""When to try again, and when to leave a receiver alone: pure functions of outcomes, times and one random number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

RETRY_AFTER_LIMIT_S: Final = 3600.0
"""The longest pause a receiver can ask for."""
BREAKER_FAILURES: Final = 10
"""Consecutive failures that open the breaker."""
BREAKER_PROBE_MS: Final = 60_000
"""An open breaker lets one attempt through after this time."""
OFF_AFTER_MS: Final = 120 * 3_600_000
"""A receiver that has failed for this long, with the breaker open, without one success is switched off."""


MISCONFIGURED_REFUSALS: Final = 3
"""So many alerts refused for good, one after the other, are no matter of what they say."""
FAILING_MS: Final = 300_000
"""A receiver that has failed for this long, FAILING_FAILURES times at least, is news."""
FAILING_FAILURES: Final = 4
"""Every schedule has made so many attempts by then; fewer are days apart, with nothing to tell in between."""


class ReceiverStatus(StrEnum):
    """How a receiver is, in a word."""

    OK = "ok"
    PAUSED = "paused"
    """Nothing is sent for a while: it asked for a pause, or the breaker is open."""
    MISCONFIGURED = "misconfigured"
    """It refuses whatever it is sent: look at its address, token, signature, keyword."""
    DISABLED = "disabled"
    """It is switched off until somebody switches it on."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Seconds to wait before attempt 1, 2, …; after the last one comes the dead letter.

    endless: the last delay comes again and again instead, until the receiver answers or is switched off.
    """

    delays_s: tuple[float, ...]
    jitter: float = 0.2
    """Each delay is stretched or shrunk by up to this share, so that receivers' retries don't march in step."""
    endless: bool = False

    def delay_s(self, failures: int, *, random: float, retry_after_s: float | None = None) -> float | None:
        """Return the seconds until the next attempt after this many failed ones, None if there is none.

        random is uniform in [0, 1). A pause the receiver asked for is kept to, up to RETRY_AFTER_LIMIT_S, where it is
        longer than the schedule's own.
        """
        if failures >= len(self.delays_s) and not self.endless:
            return None
        delay_s = self.delays_s[min(failures, len(self.delays_s) - 1)] * (1 + self.jitter * (2 * random - 1))
        if retry_after_s is None:
            return delay_s
        return max(delay_s, min(retry_after_s, RETRY_AFTER_LIMIT_S))


WEBHOOK_SCHEDULE: Final = RetrySchedule((0, 5, 30, 120, 600, 1800, 7200, 21_600, 43_200))
"""0, 5 s, 30 s, 2 min, 10 min, 30 min, 2 h, 6 h, 12 h: nine attempts over 21 hours."""
CHAT_SCHEDULE: Final = RetrySchedule((0, 2, 10, 30, 60, 120, 300), endless=True)
"""For chat bots, whose readers are people: 0, 2, 10, 30 s, 1, 2, 5 min, and every 5 min from then on."""
CHAT_STALE_AFTER_S: Final = 900.0
"""So late a chat's reader wants to know what there was, not each by itself: `Pacing.stale_after_s` of chat bots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverState:
    """The health of one receiver, kept in the store so that a restart neither forgets nor forgives.

    failures          consecutive failed attempts.
    failing_since_ms  Unix ms of the first of them, None while it works.
    hold_until_ms     Unix ms before which nothing is sent: an open breaker or a pause it asked for.
    disabled          why it is switched off, None while it is on.
    refusals          consecutive alerts refused for good.
    alarms            how often its failing was an alert; alarmed: whether the newest of these lasts.
    """

    failures: int = 0
    failing_since_ms: int | None = None
    hold_until_ms: int = 0
    disabled: str | None = None
    refusals: int = 0
    alarms: int = 0
    alarmed: bool = False

    def status(self, now_ms: int) -> ReceiverStatus:
        """Return how the receiver is."""
        if self.disabled is not None:
            return ReceiverStatus.DISABLED
        if self.refusals >= MISCONFIGURED_REFUSALS:
            return ReceiverStatus.MISCONFIGURED
        return ReceiverStatus.PAUSED if self.tripped or self.hold_until_ms > now_ms else ReceiverStatus.OK

    def is_troubled(self, now_ms: int) -> bool:
        """Tell whether somebody has to know of it: more than a pause it asked for."""
        lasting = self.failures >= FAILING_FAILURES and self.failing_since_ms is not None
        return (
            self.disabled is not None
            or self.tripped
            or self.refusals >= MISCONFIGURED_REFUSALS
            or (lasting and now_ms - (self.failing_since_ms or 0) >= FAILING_MS)
        )

    @property
    def by_hand(self) -> bool:
        """Whether a person has switched it off."""
        return self.disabled is not None and not self.disabled.startswith(BY_ITSELF)

    @property
    def tripped(self) -> bool:
        """Return whether the breaker is open (until `hold_until_ms`) or half open: the next attempt is a probe."""
        return self.failures >= BREAKER_FAILURES


BY_ITSELF: Final = "off by itself: "
"""What the reason begins with where nobody switched the receiver off."""
HEALTHY: Final = ReceiverState()


def after_success(state: ReceiverState) -> ReceiverState:
    """Return the state after an accepted delivery: all is forgiven, but a switched-off receiver stays off."""
    return cured(state) if state.disabled is None else state


def cured(state: ReceiverState) -> ReceiverState:
    """Return the state with all failures forgotten, and switched on; alarms are still counted."""
    return replace(HEALTHY, alarms=state.alarms, alarmed=state.alarmed)


def after_failure(
    state: ReceiverState, *, now_ms: int, pause_s: float | None = None, refused: bool = False
) -> ReceiverState:
    """Return the state after a failed attempt.

    pause_s is what the receiver asked for, None if nothing; refused: it will never take this alert.
    """
    failures = state.failures + 1
    since_ms = now_ms if state.failing_since_ms is None else state.failing_since_ms
    hold_ms = BREAKER_PROBE_MS if failures >= BREAKER_FAILURES else 0
    if pause_s is not None:
        hold_ms = max(hold_ms, int(min(pause_s, RETRY_AFTER_LIMIT_S) * 1000))
    hours = (now_ms - since_ms) // 3_600_000
    # Few failures in that time are no outage: there was next to nothing to tell.
    lost = failures >= BREAKER_FAILURES and now_ms - since_ms >= OFF_AFTER_MS
    off = f"{BY_ITSELF}failing for {hours} h without one success" if lost else None
    return replace(
        state,
        failures=failures,
        failing_since_ms=since_ms,
        hold_until_ms=max(state.hold_until_ms, now_ms + hold_ms) if hold_ms else state.hold_until_ms,
        disabled=state.disabled or off,
        refusals=state.refusals + 1 if refused else 0,
    )
