"""`Collector`: when Python looks for objects that only refer to each other: between bursts, never within one.

A callback of the whole market brings 30,000 objects, of which each 700 set off a collection, and now and then one over
all of them, in the middle of the way of an alert. What is left over can as well be looked for when everyone is told.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

YOUNG: Final = 1
"""The generations of what came since the last collection."""
FULL_EVERY_S: Final = 600.0
LATEST_S: Final = 5.0
"""A market of single ticks has no quiet moments: then it is done after so long, between two of them at best."""


class Collector:
    """Python's collector, started by hand. Any thread; what is called at the same time waits for the other."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._young_at_s = self._full_at_s = now_s()

    def start(self) -> None:
        """Let what stands now stay, which would cost 40 ms at each full collection, and collect by hand from now on."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def rest(self) -> None:
        """Collect: nothing is on its way."""
        self._young_at_s = self._now_s()
        if self._young_at_s - self._full_at_s < FULL_EVERY_S:
            gc.collect(YOUNG)
            return
        self._full_at_s = self._young_at_s
        gc.collect()

    def wait_no_longer(self) -> None:
        """Collect if there was no quiet moment for long."""
        if self._now_s() - self._young_at_s >= LATEST_S:
            self.rest()

    def stop(self) -> None:
        """Leave it to Python again, which looks through everything then."""
        gc.unfreeze()
        gc.enable()
