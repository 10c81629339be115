"""Looks over all of a batch: the span of its times, the sum of a frame's words. Compiled where there is a compiler."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled

COMPILED: Final = compiled("feeds._scan", layout=1)


def span(times: NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the largest of (n,) int64; ValueError where n is 0."""
    found: tuple[int, int] | None = None if COMPILED is None else COMPILED.span(times)
    return (int(times.min()), int(times.max())) if found is None else found


def word_sum(frame: bytes) -> int:
    """Return the sum of the 8-byte little-endian words of a frame, modulo 2**64."""
    if COMPILED is not None:
        return int(COMPILED.word_sum(frame))
    return int(np.frombuffer(frame, "<u8", len(frame) // 8).sum(dtype=np.uint64))
