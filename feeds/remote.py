"""`RemoteFeed`: what a bridge on another machine puts into the tick stream (feeds/tickstream.py), read by offset.

All that is yielded stands in the stream, or follows from it: a gap wherever an entry does not go on from the one before
(trimmed while we were away, or lost by the server), and where one cannot be read. So every engine that reads the same
stream decides the same, also when it reads it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from feeds.connection import TIMEOUT_S, Client
from feeds.errors import FeedError
from feeds.frame import WrongVersion
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.instruments import Instrument
from feeds.known import Known, unpack
from feeds.tick import TickBatch
from feeds.tickstream import LATEST_MS, STREAM, Names, StreamDown, StreamRefused, decode, open_client, saying

BLOCK_MS: Final = 1_000
"""Well below the socket's timeout: an answer is due after this at the latest, so a frozen server is noticed."""
FIRST_COUNT: Final = 16
"""Entries read at once. A large one is 1.3 MB; where a read times out, they are read one by one."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
UNREADABLE: Final = "an entry of the tick stream cannot be read"
QUIET_S: Final = 10.0
"""A stream that says nothing for so long is worth a word in the log: a bridge's feed beats every second."""

log = structlog.get_logger(__name__)


class RemoteFeed:
    """Reads one tick stream; see `Feed` for the protocol. Offsets are entry ids, µs of the Unix epoch.

    One connection for the reading task and none shared. A server that goes away, freezes, or comes back with less is
    tried again for ever (0.05 to 2 s between tries); nothing that the stream still holds is missed.
    """

    has_offsets = True
    offsets_are_ids = True
    paced = True

    def __init__(
        self,
        *,
        url: str,
        stream: str = STREAM,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Name the server and the stream; raises FeedError for a url that is none."""
        self._names = Names(stream)
        self._url, self._timeout_s, self._sleep = url, timeout_s, sleep
        self.source_id = f"redis:{stream}"
        self._client: Client = open_client(url, timeout_s=timeout_s)
        self._last = -1
        self._count = FIRST_COUNT
        self._pause_s = FIRST_PAUSE_S
        self._flowed_s, self._told_quiet = 0.0, False
        self._opened, self._closed = False, False
        self._waiting: asyncio.Timeout | None = None
        self._counts = dict.fromkeys(("ticks", "inputs", "gaps", "unreadable", "reconnects"), 0)

    async def open(self, *, after: int = -1) -> None:
        """Look whether the server can be read; the first input will be the oldest kept behind `after`.

        Raises FeedError: no server there, or it refuses us. A stream that nobody has written yet is waited for.
        """
        with saying("read the tick stream"):
            exists = await self._client.exists(self._names.stream)
        if not exists:
            log.warning("tick_stream_empty", stream=self._names.stream, hint="no bridge has written it yet")
        self._last = after
        self._opened, self._closed = True, False
        self._flowed_s = asyncio.get_running_loop().time()
        self._counts = dict.fromkeys(self._counts, 0)

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield inputs until `close`; raises FeedError for frames of another version. Cancelling loses nothing."""
        if not self._opened:
            raise FeedError("the remote feed was not opened; call open() before iterating")
        while not self._closed:
            for entry in await self._next_entries():
                for given in self._taken(*entry):
                    yield given
                    if self._closed:
                        return

    async def instruments(self) -> Sequence[Instrument]:
        """Return what the bridge's feed knows, empty where it has not told; after `open`."""
        return (await self.reference()).instruments

    async def reference(self) -> Known:
        """Return what a bridge has told last; what it tells later comes as an input.

        Empty where none has, where it cannot be read now, and where it is of another release.
        """
        client = open_client(self._url, timeout_s=self._timeout_s)
        try:
            with saying("read the instruments"):
                packed = await client.get(self._names.reference)
            return Known() if packed is None else unpack(packed)
        except StreamRefused:
            raise
        except FeedError as error:
            log.warning("remote_reference_unknown", error=str(error))
            return Known()
        finally:
            await _closed(client)

    async def close(self) -> None:
        """End the iterator, also one that waits for the server. Idempotent."""
        closing, self._closed = self._closed, True
        if self._waiting is None:
            await _closed(self._client)
        elif not closing:  # a timeout that is expiring cannot be told so again
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def counters(self) -> Mapping[str, int]:
        """Return ticks and inputs since open, gaps found, entries that could not be read, and reconnects."""
        return dict(self._counts)

    def complaint(self) -> str | None:
        """Return that nothing comes, and since when, once that has lasted for QUIET_S; a bridge beats every second."""
        if not self._told_quiet or self._closed:
            return None
        quiet_s = asyncio.get_running_loop().time() - self._flowed_s
        return f"the tick stream {self._names.stream} has said nothing for {quiet_s:.0f} s: is the bridge running?"

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _next_entries(self) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        """Return the next entries, none where there were none for a second, or `close` came."""
        try:
            async with asyncio.timeout(None) as self._waiting:
                entries = await self._read()
        except TimeoutError:  # `close`: the reply may be under way, so the connection goes with it
            await _closed(self._client)
            return ()
        except BaseException:  # cancelled, the same
            await _closed(self._client)
            raise
        finally:
            self._waiting = None
        if self._note_quiet(quiet=not entries):
            await self._explain_quiet()
        return entries

    async def _read(self) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        try:
            with saying("read the tick stream"):
                after = f"{max(self._last, 0)}-0"
                reply: Any = await self._client.xread({self._names.stream: after}, count=self._count, block=BLOCK_MS)
        except StreamDown as error:
            self._counts["reconnects"] += 1
            self._count = 1
            log.warning("tick_stream_lost", error=str(error), retry_s=self._pause_s)
            with suppress(RedisError, OSError):
                await self._client.aclose()
            await self._sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            return ()
        self._pause_s = FIRST_PAUSE_S
        return reply[0][1] if reply else ()

    def _note_quiet(self, *, quiet: bool) -> bool:
        """Say that the bridge is back; return whether it has just been silent for so long that it is worth a word."""
        now_s = asyncio.get_running_loop().time()
        if not quiet:
            if self._told_quiet:
                log.info("tick_stream_flows", after_s=round(now_s - self._flowed_s, 1))
            self._flowed_s, self._told_quiet = now_s, False
        elif now_s - self._flowed_s > QUIET_S and not self._told_quiet:
            self._told_quiet = True
            return True
        return False

    async def _explain_quiet(self) -> None:
        """Say why nothing comes: nobody writes, or on a server that was emptied a bridge whose clock is behind.

        Offsets only ever grow, so what such a bridge writes cannot be read until its clock has come so far.
        """
        newest: Any = ()
        with suppress(RedisError, OSError):
            newest = await self._client.xrevrange(self._names.stream, count=1)
        behind_us = self._last - int(newest[0][0].partition(b"-")[0]) if newest else 0
        if behind_us > 0:
            log.error(
                "tick_stream_behind", stream=self._names.stream, behind_s=round(behind_us / 1e6, 1),
                hint="the clock of the bridge is behind that of the one before it; set it by NTP",
            )  # fmt: skip
            return
        log.warning("tick_stream_silent", stream=self._names.stream, hint="is the bridge running, and its feed?")

    def _taken(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Iterator[FeedInput]:
        """Yield what an entry is, behind a gap mark where it does not go on from the last one."""
        offset = int(entry_id.partition(b"-")[0])
        try:
            before, value = _read(fields)
        except KeyError:
            raise FeedError(f"{self._names.stream} holds entries that no bridge wrote; name another stream") from None
        except WrongVersion:  # every frame would be one, so a gap would only hide it
            raise
        except FeedError as error:
            self._counts["unreadable"] += 1
            log.error("tick_stream_unreadable", offset=offset, error=str(error))
            before = _number(fields.get(b"p", b""), -1)
            value = Mark(MarkKind.GAP, _time_of(fields), UNREADABLE)
        # One less is this entry's own gap mark, which was taken already.
        if self._last >= 0 and self._last not in (before, offset - 1):
            self._counts["gaps"] += 1
            log.warning("tick_stream_gap", after=self._last, before=offset)
            self._last = offset - 1
            yield FeedInput(self._last, Mark(MarkKind.GAP, _begins_ms(value), "entries of the tick stream are missing"))
        self._last = offset
        self._counts["inputs"] += 1
        self._counts["ticks"] += len(value) if isinstance(value, TickBatch) else 0
        if isinstance(value, Known):
            yield FeedInput(offset, Heartbeat(_time_of(fields)), value)
        else:
            yield FeedInput(offset, value)


def _read(fields: Mapping[bytes, bytes]) -> tuple[int, TickBatch | Heartbeat | Mark | Known]:
    """Return the id of the entry before and the input; raises FeedError, or KeyError for what no bridge wrote."""
    try:
        return int(fields.get(b"p", b"-1")), decode(fields[b"k"].decode(), fields[b"v"])
    except ValueError as error:
        raise FeedError(f"an entry of the tick stream cannot be read: {error}") from None


def _number(text: bytes, otherwise: int) -> int:
    try:
        return int(text)
    except ValueError:
        return otherwise


def _time_of(fields: Mapping[bytes, bytes]) -> int:
    """Return the exchange time that the stream had come to at an entry; 0 where it says none that can be."""
    ts_ms = _number(fields.get(b"ts", b""), 0)
    return ts_ms if 0 <= ts_ms < LATEST_MS else 0


def _begins_ms(value: TickBatch | Heartbeat | Mark | Known) -> int:
    """Return the exchange's time at which an input begins; 0 for a batch of nothing, and where it has none."""
    if isinstance(value, Known):
        return 0
    if isinstance(value, TickBatch):
        return value.span_ms[0] if len(value) else 0
    return value.ts_ms


async def _closed(client: Client) -> None:
    with suppress(RedisError, OSError):
        await client.aclose()
