"""Slots: three seconds of session time, the bars of RISE, HIGHS and LOWS.

A slot's value is the last one in it. Slots run through each stretch of a day on its own; between stretches, days, and
whatever the feed did not tell, nothing is carried over.
"""

from __future__ import annotations

from typing import Final

from feeds.sessions import midnight_ms

SLOT_LAYER: Final = "3s"
"""The graph's layer whose bars are slots."""
SLOT_MS: Final = 3_000
_MINUTE_MS: Final = 60_000
_STRETCHES: Final = tuple(
    (start * _MINUTE_MS, end * _MINUTE_MS)
    for start, end in ((9 * 60 + 15, 9 * 60 + 25), (9 * 60 + 30, 11 * 60 + 30), (13 * 60, 15 * 60))
)
"""Opening auction, morning, afternoon with the closing auction: ms since Shanghai midnight, both ends included."""


def slots_passed(before_ms: int, now_ms: int) -> int | None:
    """Return how many slots end when the clock goes from one second to another.

    None: another stretch has begun, in which nothing of the one before is known. Outside of stretches none end.
    """
    start = _stretch_start(now_ms)
    if start is None:
        return 0
    if _stretch_start(before_ms) != start:
        return None
    return (now_ms - start) // SLOT_MS - (before_ms - start) // SLOT_MS


def stretch_begins_ms(before_ms: int, now_ms: int) -> int:
    """Return from when on the slots of a stretch are known that begins as the clock goes from one second to another.

    The clock comes through every second on its way, so from the stretch's start; a first input in its midst (before_ms
    0) tells nothing of what was before, so from the next slot.
    """
    start = _stretch_start(now_ms)
    return start if start is not None and before_ms else next_slot_ms(now_ms)


def next_slot_ms(clock_ms: int) -> int:
    """Return when the first slot begins that lies wholly after this time (Unix ms)."""
    return -(-clock_ms // SLOT_MS) * SLOT_MS  # stretches begin on whole minutes, and so does Unix time


def _stretch_start(clock_ms: int) -> int | None:
    midnight = midnight_ms(clock_ms)
    for start, end in _STRETCHES:
        if start <= clock_ms - midnight <= end:
            return midnight + start
    return None
