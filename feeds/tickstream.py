"""The tick stream: how a bridge puts a feed's inputs into Redis, each exactly once, and what an entry of it is.

An entry is one input, and for a batch the value is its binary column frame (feeds/frame.py). Its id is microseconds of
the Unix epoch (`<id>-0`), which is the offset a reader knows the input by; append.lua says the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from feeds import frame
from feeds.connection import Client, connect, heeding_cancel
from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.known import Known, pack, unpack
from feeds.tick import TickBatch

PREFIX: Final = "mon:"
STREAM: Final = "main"
"""What the stream is called where nobody says otherwise."""
KEEP_S: Final = 600
KEEP_ENTRIES: Final = 20_000
"""What is kept at most while ids grow by two µs, because the clock went ahead and back: KEEP_S would be years of it."""
BEAT_TTL_S: Final = 30
APPEND_TIMEOUT_S: Final = 10.0
"""A whole market with its book is 1.3 MB: more than 2 s on a slow line is no sign of a dead server."""
LATEST_MS: Final = 4_102_444_800_000
"""The year 2100: what a heartbeat or mark claims to be later than that is no time."""
FUTURE_MS: Final = 10_000
"""A tick further ahead of its arrival than this says nothing about the time."""


ACL_COMMANDS: Final = (
    "-@all +ping +eval +xadd +xrevrange +xinfo|stream +hget +hmget +hset +expire +time +set"
)  # fmt: skip
"""All that a bridge's user of Redis must be allowed to do."""


class StreamDown(FeedError):
    """Redis cannot be reached or does not take commands now; the same call later may succeed."""


class StreamRefused(FeedError):
    """Redis refuses the login or the command; only a person can change that."""


class Kind(StrEnum):
    """What an entry holds."""

    TICKS = "ticks"
    HEARTBEAT = "heartbeat"
    MARK = "mark"
    REFERENCE = "reference"
    """Instruments and trading days, as they are known from here on."""


class Spooled(NamedTuple):
    """An input on its way into the stream.

    number: in the bridge's spool, growing by one. stamp: µs of the Unix epoch at which it came. ts_ms: exchange time of
    the newest batch up to here. value: what `encode` made of it.
    """

    number: int
    stamp: int
    ts_ms: int
    kind: Kind
    value: bytes


class Head(NamedTuple):
    """The newest entry of a stream: its id, and the bridge, spool and number it came from. id 0: there is none."""

    id: int
    bridge: str
    spool: str
    number: int
    ts_ms: int


UNKNOWN: Final = Head(-1, "", "", 0, 0)
"""What the newest entry is before Redis has said so: no entry's id, so an append only learns it."""


class Outcome(StrEnum):
    """What became of an append; append.lua explains them."""

    OK = "OK"
    MOVED = "MOVED"
    HELD = "HELD"


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of one stream."""

    stream_name: str = STREAM

    @property
    def stream(self) -> str:
        return f"{PREFIX}ticks:{self.stream_name}"

    @property
    def reference(self) -> str:
        """The newest entry of that kind, for who begins to read where the stream has none any more."""
        return f"{self.stream}:reference"

    @staticmethod
    def bridge(bridge: str) -> str:
        """Return the heartbeat of a bridge."""
        return f"{PREFIX}bridge:{bridge}"


def encode(value: TickBatch | Heartbeat | Mark | Known) -> tuple[Kind, bytes]:
    """Return an input as the stream holds it; decodes the lazy columns of a batch."""
    match value:
        case TickBatch():
            return Kind.TICKS, frame.encode(value)
        case Heartbeat():
            return Kind.HEARTBEAT, b"%d" % value.ts_ms
        case Mark():
            return Kind.MARK, orjson.dumps([value.kind, value.ts_ms, value.reason])
        case Known():
            return Kind.REFERENCE, pack(value)


def decode(kind: str, value: bytes) -> TickBatch | Heartbeat | Mark | Known:
    """Return the input of an entry; raises FeedError for what is none."""
    try:
        match kind:
            case Kind.TICKS:
                return frame.decode(value)
            case Kind.HEARTBEAT:
                return Heartbeat(_time_ms(int(value)))
            case Kind.MARK:
                name, ts_ms, reason = orjson.loads(value)
                return Mark(MarkKind(name), _time_ms(int(ts_ms)), str(reason))
            case Kind.REFERENCE:
                return unpack(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise FeedError(f"an entry of the tick stream that should be a {kind} cannot be read: {error}") from None
    raise FeedError(f"an entry of the tick stream is a {kind!r}; run the same release on both ends")


def _time_ms(ts_ms: int) -> int:
    """Return a time that an engine can work with; raises ValueError. 0 is that of a mark before the first tick."""
    if not 0 <= ts_ms < LATEST_MS:
        raise ValueError(f"{ts_ms} is no time")
    return ts_ms


def newest_ts_ms(batch: TickBatch) -> int | None:
    """Return the exchange time of the newest tick, None where none has a time that can be."""
    sane = batch.ts_event_ms[batch.ts_event_ms <= batch.recv_ms + FUTURE_MS]
    return int(np.max(sane)) if len(sane) else None


class TickStreamWriter:
    """A bridge's end of the stream. One task uses it at a time; a cancelled call closes its connection."""

    def __init__(
        self,
        url: str,
        *,
        bridge: str,
        stream: str = STREAM,
        keep_s: float = KEEP_S,
        timeout_s: float = APPEND_TIMEOUT_S,
    ) -> None:
        """Make ready without connecting; raises FeedError for a url that is none."""
        self.names = Names(stream)
        self._bridge = bridge
        self._keep_us = round(keep_s * 1_000_000)
        self._append_text, self._beat_text = (
            files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("append.lua", "beat.lua")
        )
        self._redis = open_client(url, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection; idempotent."""
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def append(
        self, inputs: Sequence[Spooled], *, spool: str, head: Head, now_us: int, after: int
    ) -> tuple[Outcome, Head]:
        """Append inputs of a spool behind `head`, the newest entry as we know it; return what came of it and what is.

        Whatever becomes of the call, doing it again with the same inputs appends none of them twice. after: the number
        before the first input that follows should we take over from another bridge; now_us: when we do. Raises
        StreamDown or StreamRefused.
        """
        values: list[Any] = [
            self._bridge, spool, head.id, self._keep_us, now_us, after, take_over(head, self._bridge),
            self.names.bridge(head.bridge), KEEP_ENTRIES,
        ]  # fmt: skip
        for one in inputs:
            values += one
        with saying("append to the tick stream"):
            reply: Any = await self._redis.eval(self._append_text, 1, self.names.stream, *values)
        outcome, at, holder, of_spool, number, ts_ms = (word.decode() for word in reply)
        return Outcome(outcome), Head(int(at), holder, of_spool, int(number), int(ts_ms))

    async def beat(self, fields: Mapping[str, str | int], *, spool: str, ttl_s: int = BEAT_TTL_S) -> float | None:
        """Tell that this bridge lives for another `ttl_s`, 0 = no more; return the server's time (Unix s).

        None: another bridge lives under this name. Raises StreamDown or StreamRefused.
        """
        words = [word for pair in fields.items() for word in pair]
        with saying("tell the heartbeat"):
            key = self.names.bridge(self._bridge)
            good, *rest = await self._redis.eval(self._beat_text, 1, key, spool, ttl_s, *words)
        return int(rest[0]) + int(rest[1]) / 1e6 if good else None

    async def put_reference(self, packed: bytes) -> None:
        """Keep the value of an entry `reference` for readers who come later; raises StreamDown or StreamRefused."""
        with saying("write the instruments"):
            await self._redis.set(self.names.reference, packed)


def take_over(head: Head, bridge: str) -> bytes:
    """Return the mark that stands where a bridge takes over from another, or from its own lost spool."""
    return encode(Mark(MarkKind.GAP, head.ts_ms, f"bridge {bridge} took over from {head.bridge}"))[1]


def open_client(url: str, *, timeout_s: float) -> Client:
    """Make a client; raises FeedError, without the url: it may hold a password."""
    try:
        return connect(url, timeout_s=timeout_s)
    except ValueError:
        raise FeedError(
            "the address of Redis is not usable: write redis://, rediss:// or unix://, and behind a ? only options of "
            "redis-py such as ssl_ca_certs"
        ) from None


@contextmanager
def saying(doing: str) -> Iterator[None]:
    """Turn what redis-py raises into errors that say what could not be done."""
    try:
        with heeding_cancel():
            yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise StreamRefused(f"Redis refuses to {doing}: {error}; check user, password and ACL") from error
    except (RedisError, OSError, asyncio.IncompleteReadError) as error:
        if isinstance(error.__cause__, AuthenticationError):
            raise StreamRefused(f"Redis refuses the login: {error.__cause__}; check user and password") from error
        if "ACL failure" in str(error):
            raise StreamRefused(f"Redis refuses to {doing}: {error}; check the user's ACL") from error
        raise StreamDown(f"Redis cannot {doing} now: {str(error) or type(error).__name__}") from error
