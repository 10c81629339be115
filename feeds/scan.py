"""Looks over all of a batch: the span of its times, the sum of a frame's words. Compiled where there is a compiler."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled

COMPILED: Final = compiled("feeds._scan", layout=2)


def span(times: NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the largest of (n,) int64; ValueError where n is 0."""
    found: tuple[int, int] | None = None if COMPILED is None else COMPILED.span(times)
    return (int(times.min()), int(times.max())) if found is None else found


def word_sum(words: bytes | NDArray[Any]) -> int:
    """Return the sum of the 8-byte little-endian words of bytes, or of a C-contiguous array's, modulo 2**64.

    Bytes behind the last whole word are left out.
    """
    if COMPILED is not None:
        return int(COMPILED.word_sum(words))
    return int(np.frombuffer(words, "<u8", memoryview(words).nbytes // 8).sum(dtype=np.uint64))
