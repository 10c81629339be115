"""Silences: for a time, by somebody and for a reason, alerts of a kind are told to nobody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from notifiers.errors import DeliveryError
from notifiers.matching import Known, Matcher, nothing_known
from rules.alert import Alert

MOST: Final = 1000
"""Silences that have not expired, at one time: each alert is held against all of them."""
LONGEST_MS: Final = 366 * 86_400_000


class SilenceError(DeliveryError):
    """A silence that cannot be; field names what is wrong with it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field, self.text = field, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts that match are withheld while start_ms ≤ now < end_ms (Unix ms of our own clock).

    id: 0 until it is stored. Raises SilenceError.
    """

    id: int = 0
    matcher: Matcher
    start_ms: int
    end_ms: int
    author: str
    comment: str
    created_ms: int = 0

    def __post_init__(self) -> None:
        if self.matcher.is_empty:
            raise SilenceError("match", "is empty, and would silence everything; say rules = ['*'] if that is meant")
        if self.end_ms < self.start_ms:
            raise SilenceError("end", "is before its start")
        if self.end_ms - self.start_ms > LONGEST_MS:
            raise SilenceError("end", "is more than 366 days after its start")
        if not self.author.strip():
            raise SilenceError("author", "is empty: say who silences")
        if not self.comment.strip():
            raise SilenceError("comment", "is empty: say why")

    def is_active(self, now_ms: int) -> bool:
        """Tell whether it withholds now."""
        return self.start_ms <= now_ms < self.end_ms

    def state(self, now_ms: int) -> str:
        """Return pending, active or expired."""
        return "pending" if now_ms < self.start_ms else "active" if now_ms < self.end_ms else "expired"


class Silences:
    """The silences that are active or will be, shared by all receivers; the store holds them and those before."""

    def __init__(self, silences: Iterable[Silence] = ()) -> None:
        self._silences: tuple[Silence, ...] = tuple(silences)

    def put(self, silences: Iterable[Silence]) -> None:
        """Let these take the place of all."""
        self._silences = tuple(silences)

    def why(self, alert: Alert, now_ms: int, known: Known = nothing_known) -> str | None:
        """Return what withholds this alert now, in words; None if nothing does."""
        for one in self._silences:
            if one.is_active(now_ms) and one.matcher.matches(alert, known):
                return f"silence {one.id} by {one.author}: {one.comment}"
        return None
