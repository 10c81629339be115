"""`LinkWatch`: decides when the link to the terminal is looked at, renewed, or made anew.

Connected is not the same as served: pushes can stop without a word after the terminal has switched its quote server.
So silence is a reason of its own, measured in trading time. All times are told, so a test needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from feeds.errors import FeedError

JITTER: Final = 0.2
"""Each delay is stretched or shrunk by up to this share, so that several programs don't come at the same moment."""
FIRST_TIMEOUT_S: Final = 8.0
"""How long the first attempt may hang; each that does gives the next one twice as long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what.

    check_s: between two looks at the connection. silent_s, renew_s: trading time without a sign of life after which the
    feed calls itself silent, and subscribes anew. first_s, longest_s: delays between attempts, doubling.
    timeout_s: the longest an attempt may take.
    """

    check_s: float = 1.0
    silent_s: float = 10.0
    renew_s: float = 60.0
    first_s: float = 0.5
    longest_s: float = 5.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.longest_s:
            raise FeedError(
                f"xt: backoff from {self.first_s:g} s to {self.longest_s:g} s: the first is the shorter one"
            )
        if not 0 < self.silent_s <= self.renew_s:
            raise FeedError(f"xt: silent_s {self.silent_s:g} must not be more than renew_s {self.renew_s:g}")


class Step(Enum):
    """What to do now."""

    NONE = auto()
    CHECK = auto()
    """Ask whether the client is connected and still ours."""
    RENEW = auto()
    """Subscribe anew on the client there is."""
    RECONNECT = auto()
    """Take a new client and subscribe there."""


class LinkWatch:
    """State of the link as it is known, in seconds of a monotonic clock. One thread at a time."""

    def __init__(self, patience: Patience, *, random: Callable[[], float]) -> None:
        """`random` gives numbers in [0, 1)."""
        self.patience = patience
        self._random = random
        self._down = False
        self._dropped = False
        """The vendor said "disconnected" since the subscriptions were made."""
        self._replaced = False
        self._tries = 0
        """Attempts since the last sign of life."""
        self._renewed = False
        """Whether this silence was met with a renewal already."""
        self._timeouts = 0
        self._next_try_s = self._next_check_s = self._settled_s = float("-inf")

    @property
    def attempt_timeout_s(self) -> float:
        """How long the next attempt may take."""
        return min(self.patience.timeout_s, FIRST_TIMEOUT_S * 2.0**self._timeouts)

    def step(self, now_s: float, *, silent_s: float) -> Step:
        """Say what to do at this time, given how long no sign of life has come while the market traded."""
        if now_s >= self._next_try_s:
            if self._down:
                return Step.RECONNECT
            if self._replaced:
                return Step.RENEW
            if silent_s >= self.patience.renew_s and now_s >= self._settled_s:
                step = Step.RECONNECT if self._renewed else Step.RENEW
                self._renewed = True
                return step
        if now_s >= self._next_check_s and not self._down:
            self._next_check_s = now_s + self.patience.check_s
            return Step.CHECK
        return Step.NONE

    def suspect(self) -> None:
        """Note that the vendor called the connection lost: look at once, its word may be about an older one."""
        self._dropped = True
        self._next_check_s = float("-inf")

    def checked(self, *, connected: bool, same: bool) -> None:
        """Take the answer of a check; a connection that was lost and is back has lost its subscriptions."""
        self._down = not connected
        self._replaced = connected and (not same or self._dropped)

    def check_failed(self) -> None:
        """Note that a look at the connection failed or hung: that is as good as lost."""
        self._down = True

    def established(self, now_s: float) -> None:
        """Note that all is subscribed; whether ticks come is still to be seen."""
        self._down = self._dropped = self._replaced = False
        self._timeouts = 0
        self._settled_s = now_s + self.patience.longest_s  # ticks need some time to come
        self._plan_next(now_s)

    def failed(self, now_s: float, *, hung: bool) -> None:
        """Note that an attempt failed; a renewal that failed is followed by a new client."""
        self._down = True
        self._timeouts = self._timeouts + 1 if hung else 0
        self._plan_next(now_s)

    def alive(self) -> None:
        """Note a sign of life: the next fault is met at once again."""
        self._tries = 0
        self._renewed = False
        if not self._down:
            self._next_try_s = self._settled_s = float("-inf")

    def _plan_next(self, now_s: float) -> None:
        delay_s = min(self.patience.first_s * 2.0 ** min(self._tries, 30), self.patience.longest_s)
        self._tries += 1
        self._next_try_s = now_s + delay_s * (1 + JITTER * (2 * self._random() - 1))
