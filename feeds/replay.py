"""`ReplayFeed`: recorded sessions played again, flat out or in scaled real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from feeds.errors import FeedError
from feeds.inputs import ControlKind, FeedInput
from feeds.instruments import Instrument, decode_table
from feeds.pace import Pace
from feeds.recordedfile import Recording, fingerprint
from feeds.recording import Cutter, first_control, open_recordings, passages
from feeds.sessions import day_number
from feeds.tick import TickBatch


class ReplayFeed:
    """Plays recordings (feeds/recording.py says how rows become inputs); the same inputs at every speed.

    Files are read and decoded in a worker thread, a stretch of rows at a time, so the loop stays free. Only one
    iterator may be in use. With a speed, inputs come as far apart as their event times; the night between two recorded
    days is not waited for.
    """

    has_offsets = True

    def __init__(
        self, *, inputs: Sequence[str | Path], speed: float | None = None, symbols: Collection[str] | None = None
    ) -> None:
        """Take the files in the order that breaks ties, and the symbols to keep (None or none: all).

        `speed` 1 is real time, None or 0 as fast as inputs are taken.

        Raises FeedError for a negative speed, or for a file that cannot be read.
        """
        self._paths = tuple(Path(path) for path in inputs)
        self._symbols = frozenset(symbols) if symbols else None
        self._pace = Pace(speed)
        self.paced = self._pace.is_real
        self.source_id = f"replay:{fingerprint(self._paths, self._symbols)}"
        self._after = -1
        self._instruments: Sequence[Instrument] = ()
        self._cutter: Cutter | None = None
        self._passages: Iterator[Any] = iter(())
        self._counts = {"ticks": 0, "inputs": 0, "passed_over": 0}

    async def open(self, *, after: int = -1) -> None:
        """Look at every file and be ready to yield the input behind `after`; raises FeedError for a bad file.

        The inputs up to `after` are read and cut again, so that those behind are the same as without a pause.
        """
        recordings = await asyncio.to_thread(open_recordings, self._paths)
        self._cutter = Cutter(recordings, symbols=self._symbols)
        self._passages = passages(recordings)
        self._instruments = await asyncio.to_thread(_instruments, recordings)
        self._after = after
        self._counts = dict.fromkeys(self._counts, 0)
        self._pace.start()

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield inputs to the end of the last recording, or until `close`; raises FeedError from a row that cannot be.

        Cancelling ends it for good: `open` again, behind the last offset taken, to go on. A stretch that is being read
        then is read to its end by the worker and forgotten.
        """
        if self._cutter is None:
            raise FeedError("the replay feed was not opened; call open() before iterating")
        while (passage := await asyncio.to_thread(next, self._passages, None)) is not None:
            for given in self._cutter.cut(passage):
                if given.offset <= self._after:
                    self._counts["passed_over"] += 1
                    continue
                if not await self._pace.reach(*_moment(given)):
                    return
                self._counts["inputs"] += 1
                self._counts["ticks"] += len(given.value) if isinstance(given.value, TickBatch) else 0
                yield given

    async def instruments(self) -> Sequence[Instrument]:
        """Return those that `record` wrote down at the beginning; nothing where a recording holds prices alone."""
        return self._instruments

    async def close(self) -> None:
        """End the iterator, also one that waits for its next moment."""
        self._pace.stop()

    def counters(self) -> Mapping[str, int]:
        """Return ticks and inputs yielded since open, and inputs passed over to get behind the offset asked for."""
        return dict(self._counts)


def _instruments(recordings: Sequence[Recording]) -> Sequence[Instrument]:
    control = first_control(recordings, ControlKind.INSTRUMENTS)
    return () if control is None else decode_table(control.text)


def _moment(given: FeedInput) -> tuple[int, int]:
    """Return when an input is due (ms) and the stretch of time, one day, in which such moments can be compared."""
    value = given.value
    ts_ms = int(value.ts_event_ms[-1]) if isinstance(value, TickBatch) else value.ts_ms
    return ts_ms, day_number(ts_ms)
