"""Which processors the daemon keeps to, and which it leaves to its own broker (`engine.cpus`).

An alert goes through five threads one after the other, and each that wakes on another core finds its caches cold, and
the broker or a client in its way. On one core of their own the worst bursts of a market come a quarter sooner.

What runs beside them goes where there is room (`roam`): a sync that was woken on the engine's core began when the
engine paused, for Linux lets a thread run on for 3 ms, and what writes a file would take that core for as long. One of
the five roams as well, the store's: the loop makes ready what is published while it commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from config.values import cpu_numbers
from monitord.errors import StartError

_before: set[int] = set()
"""What this process might use before `kept_to`, while that is in force."""


def others(cpus: str) -> str:
    """Return the processors that are left to others, as a list; "" where all may use all, or none is left."""
    if not cpus:
        return ""
    return ",".join(map(str, sorted(_available() - cpu_numbers(cpus))))


@contextmanager
def kept_to(cpus: str) -> Iterator[None]:
    """Let this thread, and what it and its threads start but for what roams, use these alone; "" = as before.

    Raises StartError where there is none of them, or no way to choose.
    """
    if not cpus:
        yield
        return
    before, chosen = _available(), cpu_numbers(cpus)
    if not chosen <= before:
        there = ",".join(map(str, sorted(before)))
        raise StartError(f"engine.cpus is {cpus!r}, and the processors this process may use are {there}")
    outermost = not _before
    os.sched_setaffinity(0, chosen)
    if outermost:
        _before.update(before)
    try:
        yield
    finally:
        if outermost:
            _before.clear()
        os.sched_setaffinity(0, before)


def roam() -> None:
    """Let this thread use all processors that the process might use before `kept_to`.

    Where the system refuses, it stays where it is: that is only slower, and an error here would end its pool for good.
    """
    if before := frozenset(_before):
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def aside() -> ThreadPoolExecutor:
    """Return a pool of threads that roam, for what a loop lets others do (`asyncio.to_thread`)."""
    return ThreadPoolExecutor(thread_name_prefix="aside", initializer=roam)


def _available() -> set[int]:
    if not hasattr(os, "sched_getaffinity"):
        raise StartError("engine.cpus needs Linux; leave it empty here")
    return os.sched_getaffinity(0)
