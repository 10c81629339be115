"""The checks of `monitord doctor`, one file each: is this set-up good, and if not, what is to be done?

A check is a module with `async check(examined) -> Finding` and `DEADLINE_S`; it may look at what earlier ones found
(`Examined`). It changes nothing that outlives it, and no text of it holds a secret.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from config.settings import Settings
    from feeds.tick import TickBatch

_Answer = TypeVar("_Answer")

CHECKS: Final = {
    "state": "monitord.checks.state",
    "rules": "monitord.checks.rules",
    "receivers": "monitord.checks.receivers",
    "gateway": "monitord.checks.gateway",
    "calendar": "monitord.checks.calendar",
    "broker": "monitord.checks.broker",
    "feed": "monitord.checks.feed",
    "units": "monitord.checks.units",
    "clock": "monitord.checks.clock",
}
"""Name in the report → module, in the order they run. The configuration is read before all of them."""


class Verdict(StrEnum):
    """What a check says. `skip`: it could not be asked, because of what another one found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what is to be done about it; both are for people."""

    verdict: Verdict
    found: str
    todo: str = ""


@dataclass(slots=True)
class Examined:
    """What the checks share: the settings, what the feed brought, and clocks compared on the way.

    batches: the feed's first ticks; None = not asked or no connection. broker_ahead_s: the broker's clock minus ours,
    None = unknown or on this machine.
    """

    settings: Settings
    batches: list[TickBatch] | None = None
    live: bool = False
    broker_ahead_s: float | None = None
    now_ms: Callable[[], int] = field(default=lambda: 0)


async def in_thread(work: Callable[[], _Answer]) -> _Answer:
    """Run blocking work in a thread that nobody waits for at exit: a disk that hangs must not hang the report.

    Cancelled, the work goes on by itself and its answer is dropped.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[_Answer] = loop.create_future()

    def tell(answer: _Answer | None, error: BaseException | None) -> None:
        if answered.done():
            return
        if error is not None:
            answered.set_exception(error)
        else:
            answered.set_result(answer)  # type: ignore[arg-type]  # no error, so there is an answer

    def run() -> None:
        answer, error = None, None
        try:
            answer = work()
        except BaseException as raised:  # the top of a thread: handed to who waits
            import structlog  # here, because it is slow and `monitord --help` comes by

            log = structlog.get_logger(__name__)
            log.debug("check_failed", why=repr(raised))
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the deadline has passed long ago
            loop.call_soon_threadsafe(tell, answer, error)

    threading.Thread(target=run, daemon=True, name="doctor").start()
    return await answered
