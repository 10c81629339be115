"""`InputLog`: how the pipeline writes its journal, so that the disk is busy while the engine is.

Writing and syncing a market's batch takes as long as deciding on it. A batch that will likely bring events, being large
or behind one that brought some, is therefore written by a thread of its own, and waited for only where its events are
to be told, or where the journal is used next.
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

EARLY_SYNC_TICKS: Final = 1000
"""From so many ticks on a batch is written and synced beside the engine: 2 ms of the disk's time are no burden for a
market, as they would be for each of hundreds of single ticks a second."""

log = structlog.get_logger(__name__)


class InputLog:
    """Writes one journal. The engine's thread alone; every method waits for the write under way, if there is one.

    A write that failed is told to every caller from then on, as FeedError: the engine has taken an input that is not in
    the journal, and what came behind it would be decided anew without it. `close` passes over what was told.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._writing: Future[None] | None = None
        self._failure: BaseException | None = None
        self._brought_events = False
        """Whether the newest input brought events: then the next one likely does, and its sync costs no other one."""

    def append(self, value: Input, *, rest_later: bool) -> int:
        """Journal an input and return its offset; a batch that will likely bring events may not be there yet.

        rest_later: its lazy columns may wait for `finish`, as nothing is decided from them.
        """
        self._wait()
        behind_events, self._brought_events = self._brought_events, False
        if not isinstance(value, TickBatch) or (len(value) < EARLY_SYNC_TICKS and not behind_events):
            return self._journal.append(value, rest_later=rest_later)
        offset = self._journal.end + 1
        self._writing = self._thread.submit(self._write, value, rest_later=rest_later)
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
        except FeedError as error:  # the next input tries again, or is told of the failed write
            log.warning("journal_rest_failed", why=str(error))
        except Exception:  # nobody waits for this turn of the thread
            log.exception("journal_rest_failed")

    def close(self) -> None:
        """Close the journal behind all that was appended."""
        try:
            if self._failure is None:
                self._wait()
        finally:
            self._thread.shutdown()
            self._journal.close()

    def _write(self, batch: TickBatch, *, rest_later: bool) -> None:
        self._journal.append(batch, rest_later=rest_later)
        self._journal.sync()

    def _wait(self) -> bool:
        """Wait for the write under way, if there is one, and return whether there was."""
        if self._failure is not None:
            raise self._failure
        writing, self._writing = self._writing, None
        if writing is None:
            return False
        self._failure = writing.exception()
        if self._failure is not None:
            raise self._failure
        return True
