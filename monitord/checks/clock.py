"""Is this machine's clock that of the exchange (by its ticks) and of the broker?"""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.sessions import Session, in_session
from feeds.tick import TickBatch
from monitord.checks import Examined, Finding, Verdict

DEADLINE_S: Final = 5.0
SLOW_MS: Final = 1_000
"""A tick cannot come before it is made: more than this ahead of our clock, and ours is slow."""
LATE_MS: Final = 30_000
"""Ticks trail by up to ten seconds; beyond this the clock is fast, or the feed delayed."""
BROKER_S: Final = 2.0
TODO: Final = "let the system keep the time: timedatectl set-ntp true (Windows: w32tm /resync)"


async def check(examined: Examined) -> Finding:
    """Compare with what the feed and the broker checks have brought."""
    parts = []
    if examined.broker_ahead_s is not None:
        if abs(examined.broker_ahead_s) > BROKER_S:
            return Finding(Verdict.WARN, f"the broker's clock is {examined.broker_ahead_s:+.1f} s from ours", TODO)
        parts.append(f"{examined.broker_ahead_s:+.1f} s from the broker's")
    behind_ms = ticks_behind_ms(examined.batches or []) if examined.live else None
    if behind_ms is not None:
        if behind_ms < -SLOW_MS:
            found = f"ticks come {-behind_ms / 1000:.1f} s before their time: our clock is slow"
            return Finding(Verdict.FAIL, found, TODO)
        if behind_ms > LATE_MS:
            found = f"the newest tick is {behind_ms / 1000:.0f} s old: our clock is fast, or the feed delayed"
            return Finding(Verdict.WARN, found, TODO)
        parts.append(f"the newest tick was {behind_ms / 1000:.1f} s old")
    if not parts:
        return Finding(Verdict.SKIP, "nothing to compare with: no live ticks of a session, no broker elsewhere")
    return Finding(Verdict.OK, "; ".join(parts))


def ticks_behind_ms(batches: list[TickBatch]) -> int | None:
    """Return how old the youngest tick of continuous trading was when it came; None without one on its own day."""
    ages = []
    for batch in batches:
        age = batch.recv_ms - batch.ts_event_ms
        live = in_session(batch.recv_ms, Session.CONTINUOUS) & (np.abs(age) < 6 * 3_600_000)
        ages += [int(age[live].min())] if live.any() else []
    return min(ages) if ages else None
