"""`Restarts`: components that are begun again after a failure, until they fail too often and the process has to end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from notifiers.alertstream import Fenced

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 30.0
RESTARTS, RESTARTS_WITHIN_S = 5, 60.0

log = structlog.get_logger(__name__)


class Restarts:
    """Counts the failures of all components together. Event loop only."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed_s: deque[float] = deque()

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a component, again after a failure; too many failures end the process, so that systemd takes over.

        Raises what the component raised last where it is not begun again: Fenced at once.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                return await run()
            except Fenced as error:
                log.error("daemon_fenced", why=str(error), hint="another daemon runs this share; stop one of the two")
                raise
            except Exception:
                log.exception("task_failed", task=name, retry_s=backoff_s)
                if self._fails_too_often():
                    raise
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    def _fails_too_often(self) -> bool:
        now_s = self._monotonic()
        self._failed_s.append(now_s)
        while now_s - self._failed_s[0] > RESTARTS_WITHIN_S:
            self._failed_s.popleft()
        return len(self._failed_s) > RESTARTS


async def once(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a component that must not fail; its failure ends the process."""
    try:
        await run()
    except Exception:
        log.exception("task_failed", task=name)
        raise
