"""`Recording`: hands what a daemon or `monitord record` sees to a recorder, which works in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from feeds.inputs import Input
from feeds.recorder import Recorder

DRAIN_S: Final = 1.0
"""How long inputs gather before they are written and synced together: what a kill can cost the recording. By then the
pipeline has decoded a batch's book for its own journal, and everyone has been told of its events."""
ROOM: Final = 4096
"""Inputs that may wait; a whole market at three seconds brings one or two a second."""

log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


class Recording:
    """A bounded queue to the thread of one recorder. Event loop only.

    Overflow policy: with ROOM inputs waiting, a patient recording makes `take` wait (a feed that is not paced can), any
    other drops the input and counts it; the recording then has a `gap` mark in its place.
    """

    def __init__(self, folder: Path, *, source_id: str, patient: bool, counted: bool = True, room: int = ROOM) -> None:
        """Say where to record what. patient: whether who brings inputs can wait; counted: see `Recorder`."""
        self._folder, self._source_id, self._counted = folder, source_id, counted
        self._patient, self._room_for = patient, room
        self._waiting: list[tuple[Input | None, int, int]] = []
        """Inputs with their offsets, and what they are behind; (None, n, -1): n were dropped here."""
        self._lost = 0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._recorder: Recorder | None = None
        self._dropped = 0

    @property
    def recorder(self) -> Recorder | None:
        """The recorder while it is open; only its plain numbers may be read from here."""
        return self._recorder

    async def open(self) -> None:
        """Open the folder and complete what an earlier run left; raises FeedError."""
        self._recorder = await self._in_thread(
            partial(Recorder, self._folder, source_id=self._source_id, counted=self._counted)
        )

    def go_on_behind(self, end: int) -> None:
        """Say at which offset the source stands: where it is behind what is recorded, it counts from 0 again."""
        if self._recorder is not None and end < self._recorder.last_offset:
            self._recorder.forget_offsets()

    def resume(self, offset: int) -> None:
        """Say behind which offset the source goes on: what is recorded up to there or further has no hole."""
        if self._recorder is not None:
            self._recorder.resume(offset)

    async def take(self, value: Input, offset: int = -1, *, behind: int = -1) -> None:
        """Queue an input behind the others, without waiting unless the recording is patient and full.

        behind: of a record without an offset of its own, the one it follows.
        """
        while len(self._waiting) >= self._room_for and self._recorder is not None:
            if not self._patient:
                self._dropped += 1
                self._lost += 1
                return
            self._room.clear()
            await self._room.wait()
        if self._recorder is not None:
            if self._lost:
                self._waiting.append((None, self._lost, -1))
                self._lost = 0
            self._waiting.append((value, offset, behind))
            self._some.set()

    async def run(self) -> None:
        """Write what comes, once in DRAIN_S, until `stop`; raises FeedError when the disk refuses."""
        while not self._stopping.is_set():
            await self._some.wait()
            if len(self._waiting) < self._room_for:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        await self._stopping.wait()
            await self._drain()

    async def stop(self) -> Path | None:
        """Write what waits, make the current date's file whole, and close; return that file. Idempotent."""
        self.end()
        try:
            await self._drain()
            return None if self._recorder is None else await self._in_thread(self._recorder.finish)
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Close without finishing: the next run completes the file from the journal. What waits is lost. Idempotent."""
        self.end()
        recorder, self._recorder = self._recorder, None
        self._waiting.clear()
        self._room.set()
        try:
            if recorder is not None:
                await self._in_thread(recorder.close)
        finally:
            self._thread.shutdown()

    def counters(self) -> Mapping[str, int]:
        """Return what was recorded, and `recording_dropped` inputs."""
        counters = {} if self._recorder is None else self._recorder.counters()
        return {**counters, "recording_dropped": self._dropped}

    def end(self) -> None:
        """Let `run` return once it has written what waits."""
        self._stopping.set()
        self._some.set()

    async def _drain(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._room.set()
        if not self._stopping.is_set():
            self._some.clear()
        recorder = self._recorder
        if waiting and recorder is not None:
            await self._in_thread(lambda: _write(recorder, waiting))

    async def _in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _write(recorder: Recorder, inputs: list[tuple[Input | None, int, int]]) -> None:
    for value, offset, behind in inputs:
        if value is None:
            recorder.lose(offset)
        else:
            recorder.add(value, offset=offset, behind=behind)
    recorder.sync()
