"""`InputLog`: how the pipeline writes its journal, so that the disk is busy while the engine is.

Syncing a market's batch takes a sixth of the time of deciding on it. A batch that will likely bring events, being large
or behind one that brought some, is therefore synced by a thread of its own, which is waited for only where its events
are to be told, or where the journal is used next. Only the sync is that thread's. Where it wrote as well, it took the
interpreter from the engine a dozen times, which cost the step what the writing costs here, and the sync began later.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import structlog

from feeds.errors import FeedError
from feeds.history import Bars
from feeds.inputs import Control, Input
from feeds.journal import Journal
from feeds.tick import TickBatch
from monitord.cpus import roam

EARLY_SYNC_TICKS: Final = 1000
"""From so many ticks on a batch is synced beside the engine: a millisecond of the disk's time is no burden for a
market, as it would be for each of hundreds of single ticks a second."""

log = structlog.get_logger(__name__)


class InputLog:
    """Writes one journal. The engine's thread alone; every method waits for the sync under way, if there is one.

    An input that cannot be written is refused before the engine takes it. A sync that failed is told to every caller
    from then on, as FeedError, for the journal takes nothing more: the engine has taken an input that may not be on the
    disk, and what came behind it would be decided anew without it. `close` passes over what was told.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal", initializer=roam)
        self._syncing: Future[None] | None = None
        self._brought_events = False
        """Whether the newest input brought events: then the next one likely does, and its sync costs no other one."""

    def append(self, value: Input, *, rest_later: bool) -> int:
        """Journal an input and return its offset; a batch that will likely bring events is being synced then.

        rest_later: its lazy columns may wait for `finish`, as nothing is decided from them.
        """
        self._wait()
        behind_events, self._brought_events = self._brought_events, False
        offset = self._journal.append(value, rest_later=rest_later)
        if isinstance(value, TickBatch) and (len(value) >= EARLY_SYNC_TICKS or behind_events):
            self._syncing = self._thread.submit(self._journal.sync)
        return offset

    def secure(self) -> None:
        """Put the input just taken on the disk: there are events to tell."""
        self._brought_events = True
        if not self._wait():
            self._journal.sync()

    def append_control(self, control: Control | Bars, *, follows: int | None, packed: bytes | None = None) -> int:
        """Journal a control record or bars of the past, on the disk when this returns, and return its offset.

        follows: the feed's own offset it comes behind; None where the feed has none. packed: bars, encoded already.
        """
        self._wait()
        if follows is None:
            offset = self._journal.append(control, packed=packed)
        else:
            offset = self._journal.append_control(control, follows=follows, packed=packed)
        self._journal.sync()
        return offset

    def sync(self) -> None:
        """Put everything appended on the disk."""
        self._wait()
        self._journal.sync()

    def finish(self) -> None:
        """Journal what the newest batch left out and sync it, so that the next sync has only its own input to write."""
        try:
            self._wait()
            if self._journal.append_rest():
                self._journal.sync()
        except FeedError as error:  # the next input tries again, or is told of the failed sync
            log.warning("journal_rest_failed", why=str(error))
        except Exception:  # nobody waits for this turn of the thread
            log.exception("journal_rest_failed")

    def close(self) -> None:
        """Close the journal behind all that was appended."""
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._journal.close()

    def _wait(self) -> bool:
        """Wait for the sync under way, if there is one, and return whether there was; raises what it raised."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()
        return syncing is not None
