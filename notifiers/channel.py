"""The alert channel: publish each alert exactly once into the stream and tell it live; subscribe without a gap.

`AlertChannel` publishes and reads; `Subscription` follows the stream. Offsets are contiguous within an epoch and grow
over epochs. A new epoch begins when the broker came back with less than it had acknowledged: everything kept is then
published again behind the old offsets, and who compares ids sees each alert once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias, cast

import hiredis
import orjson
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from feeds.connection import TIMEOUT_S, Client, connect, heeding_cancel
from notifiers.errors import DeliveryError

PREFIX: Final = "mon:"
STREAM_LENGTH: Final = 200_000
DEDUP_S: Final = 172_800
CHECK_S: Final = 1.0
PAGE: Final = 500
"""Stream entries read at once while catching up, and so the most a subscription holds in memory."""
GATHER_S: Final = 0.001
"""How long a live message waits for the others of its burst."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0

Connect: TypeAlias = Callable[[], Client]

log = structlog.get_logger(__name__)


class ChannelDown(DeliveryError):
    """The broker cannot be reached or does not take commands now; trying again later may succeed."""


class Behind(DeliveryError):
    """The broker is in another epoch or holds less than it had acknowledged; redrive in a new epoch."""


class Fenced(DeliveryError):
    """Another publisher holds this share with a newer token; this one must stop publishing."""


class Outgoing(NamedTuple):
    """An alert to publish. json: the bytes of `Alert.to_json`, unchanged; symbol None = no symbol channel."""

    id: str
    json: bytes
    symbol: str | None
    rule: str
    severity: str


class Receipt(NamedTuple):
    """What publishing gave: the alert's offset, and whether it had been published before in this epoch."""

    off: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Head:
    """Where the channel stands. epoch "": nothing was ever published. base: the newest offset of older epochs."""

    epoch: str
    top: int
    base: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """One alert as published; alert_json is the record's bytes."""

    off: int
    epoch: str
    alert_json: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Where the envelopes go on: the next one has offset off + 1.

    recovered: nothing is missing between the position before (or `since`) and this one. False: the broker lost or
    trimmed something, or began a new epoch; page the history, and compare ids, because a new epoch repeats alerts.
    """

    epoch: str
    off: int
    recovered: bool


@dataclass(frozen=True, slots=True)
class Names:
    """The keys and channels under one prefix."""

    prefix: str = PREFIX

    @property
    def stream(self) -> str:
        return f"{self.prefix}{{alerts}}:stream"

    @property
    def meta(self) -> str:
        return f"{self.prefix}{{alerts}}:meta"

    @property
    def fence(self) -> str:
        return f"{self.prefix}{{alerts}}:fence"

    @property
    def live(self) -> str:
        return f"{self.prefix}alerts"

    def dedup(self, alert_id: str) -> str:
        return f"{self.prefix}{{alerts}}:dedup:{alert_id}"

    def channels(self, alert: Outgoing) -> tuple[str, ...]:
        """Return the pub/sub channels one alert is told on."""
        live = f"{self.prefix}alerts"
        named = f"{live}:rule:{alert.rule}", f"{live}:sev:{alert.severity}"
        return (live, *named) if alert.symbol is None else (live, f"{live}:sym:{alert.symbol}", *named)


class AlertChannel:
    """The publisher's and reader's end of the channel.

    One task publishes, on a connection of its own; other tasks may call the reading methods at the same time, every
    call has one while it runs. A cancelled call closes its connection, never leaves a half-read reply on it.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        share: str = "",
        timeout_s: float = TIMEOUT_S,
        stream_length: int = STREAM_LENGTH,
        connect: Connect | None = None,
    ) -> None:
        """Make ready without connecting.

        share: what this publisher alone publishes; with one, `claim` must come before `publish`. connect: makes a
        client instead of the url (tests).
        """
        self.names = Names(prefix)
        self._connect = connect or (lambda: connect_to(url, timeout_s=timeout_s))
        self._share, self._token = share, 0
        self._stream_length = stream_length
        self.publish_text, self._epoch_text = (
            files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("publish.lua", "epoch.lua")
        )
        self._publish_sha = ""
        self._timeout_s = timeout_s
        self._redis = self._connect()
        self._line: Any = None

    async def close(self) -> None:
        """Close the connections; idempotent."""
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def claim(self) -> int:
        """Take the next fencing token of this publisher's share, which refuses every older holder; return it."""
        with _down("claim the fence"):
            self._token = int(await self._redis.hincrby(self.names.fence, self._share, 1))
        return self._token

    async def publish(self, batch: Sequence[Outgoing], *, epoch: str, acked: int) -> list[Receipt]:
        """Publish in order, in one call of the script, and return a receipt for each.

        acked: the greatest offset this epoch ever acknowledged to us. Raises Behind, Fenced or ChannelDown; a part of
        the batch may then have been published, and publishing all of it again gives each its first offset.
        """
        with _down("publish"):
            try:
                replies = await self._run_script(batch, epoch, acked)
            except NoScriptError:  # the broker was started anew
                await self._load_script()
                replies = await self._run_script(batch, epoch, acked)
        return [Receipt(int(off), bool(known)) for off, known in replies]

    async def begin_epoch(self, *, acked: int, ours: str = "*") -> tuple[str, int]:
        """Begin a new epoch behind offset `acked` and all that is there; return its name and its base offset.

        ours: the epoch we are in, "" = none yet; a newer one that another publisher has begun since is joined instead
        ("*": never). Raises Fenced or ChannelDown.
        """
        keys = [self.names.meta, self.names.stream, self.names.fence]
        values = (secrets.token_hex(4), acked, self._share, self._token, ours)
        with _down("begin an epoch"):
            epoch, base = await self._redis.eval(self._epoch_text, len(keys), *keys, *values)
        return epoch.decode(), int(base)

    async def kept(self) -> tuple[Head, int]:
        """Return where the channel stands, and the greatest offset up to which it has all that was acknowledged to us.

        With a share of our own others publish as well, so the top says nothing of ours. Raises Fenced or ChannelDown.
        """
        with _down("read what it keeps"):
            head = await _head(self._redis, self.names)
            if not self._share:
                return head, head.top
            own = await self._redis.hget(self.names.meta, f"top:{self._share}")
            token = await self._redis.hget(self.names.fence, self._share)
        if int(token or 0) > self._token:
            raise Fenced(f"the share {self._share} is held with token {int(token)}, ours is {self._token}")
        return head, max(head.base, int(own or 0))

    async def head(self) -> Head:
        """Return epoch, top offset and base; raises ChannelDown."""
        with _down("read the top offset"):
            return await _head(self._redis, self.names)

    async def top(self) -> tuple[str, int]:
        """Return (epoch, top offset), ("", 0) where nothing was ever published; raises ChannelDown."""
        head = await self.head()
        return head.epoch, head.top

    async def read(self, *, after: int, count: int = PAGE) -> list[Envelope]:
        """Return up to `count` alerts behind offset `after` that the stream still holds, oldest first."""
        with _down("read the stream"):
            return await _read(self._redis, self.names, after=after, upto="+", count=count)

    def subscribe(self, since: tuple[str, int] | None = None) -> Subscription:
        """Follow the channel from behind `since` (epoch, offset), None = from now on."""
        return Subscription(
            self._connect, self.names, since=None if since is None else Position(*since, recovered=True)
        )

    def call(self, batch: Sequence[Outgoing], *, epoch: str, acked: int) -> list[Any]:
        """Return what a call of the script that publishes this batch is given: number of keys, keys, arguments."""
        names = self.names
        dedup = names.dedup("")
        keys = [names.meta, names.stream, names.fence, *[dedup + alert.id for alert in batch]]
        values: list[Any] = [epoch, acked, self._share, self._token, self._stream_length, DEDUP_S]
        for alert in batch:
            channels = names.channels(alert)
            values += (alert.json, len(channels), *channels)
        return [len(keys), *keys, *values]

    async def _load_script(self) -> None:
        sha = await self._redis.script_load(self.publish_text)
        self._publish_sha = sha if isinstance(sha, str) else sha.decode()

    async def _run_script(self, batch: Sequence[Outgoing], epoch: str, acked: int) -> list[tuple[int, int]]:
        if not self._publish_sha:
            await self._load_script()
        # Packed in C: redis-py's own way takes 1 ms for the 420 words of 60 alerts.
        command = hiredis.pack_command(("EVALSHA", self._publish_sha, *self.call(batch, epoch=epoch, acked=acked)))
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._open_line()
                await line.send_packed_command(command)
                return cast(list[tuple[int, int]], await line.read_response(timeout=inf))
        except ReadOnlyError:  # a master no more: by now the address may lead to the one that is
            await self._drop_line()
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise
        except ResponseError:  # read to its end: the next call may use the connection
            raise
        except BaseException:  # also where it could not be opened again: it would stay closed for ever
            await self._drop_line()
            raise

    async def _open_line(self) -> Any:
        """Return the connection that the script is called on, as new as if it had just been opened.

        It is kept: to take one from the pool and send under the pool's own timeout costs an alert 0.3 ms of its way.
        """
        if self._line is None:
            self._line = line = await self._redis.connection_pool.get_connection()
            line.socket_timeout = None  # ours holds for all of a call
        elif await _has_something(self._line):  # closed by the broker, or the rest of an answer nobody waits for
            await self._line.disconnect(nowait=True)
            await self._line.connect()
        return self._line

    async def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.socket_timeout = self._timeout_s
            await line.disconnect(nowait=True)
            await self._redis.connection_pool.release(line)


class Subscription:
    """Follows the channel without loss, duplicate or disorder; an async iterator of Position and Envelope.

    The first thing out is a Position, then envelopes with contiguous offsets; another Position comes wherever they do
    not go on. Live messages come by pub/sub; every second the top offset is compared over a second connection, because
    a frozen server neither sends nor closes, and pub/sub drops messages without a word. Whatever happens to the broker,
    the iterator goes on: it reconnects for ever (0.05 to 2 s between tries) and fills from the stream.

    One task at a time. Cancelling `__anext__` loses nothing: the next call goes on behind the last one returned.
    """

    def __init__(
        self,
        connect: Connect,
        names: Names,
        *,
        since: Position | None = None,
        check_s: float = CHECK_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect, self._names = connect, names
        self._check_s, self._sleep = check_s, sleep
        self._cursor = since
        self._begun = False
        self._ready: deque[Position | Envelope] = deque()
        self._live: PubSub | None = None
        self._clients: tuple[Client, ...] = ()
        self._behind = False
        self._next_check = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._counters = dict.fromkeys(("envelopes", "filled", "dropped_old", "foreign", "reconnects", "holes"), 0)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Position | Envelope:
        while not self._ready:
            try:
                with heeding_cancel():
                    await self._advance()
            except (RedisError, OSError) as error:  # redis-py's TimeoutError and asyncio's are both among these
                await self._reconnect_later(error)
            except BaseException:  # cancelled in the middle of a reply: what follows on that connection is not ours
                await self.aclose()
                raise
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close both connections; idempotent. The next `__anext__` would connect again and go on."""
        live, clients = self._live, self._clients
        self._live, self._clients = None, ()
        for closing in (live, *clients):
            if closing is not None:
                with suppress(RedisError, OSError):
                    await closing.aclose()

    def counters(self) -> Mapping[str, int]:
        """Return counts: envelopes, filled from the stream, dropped_old (seen before), foreign, reconnects, holes."""
        return dict(self._counters)

    async def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        if self._live is None:
            await self._attach()
        messages: list[bytes] = []
        if not self._behind:
            messages = await self._next_messages(max(self._next_check - loop.time(), 0.0))
        if self._behind or loop.time() >= self._next_check:
            await self._catch_up()
            self._next_check = loop.time() + self._check_s
            self._pause_s = FIRST_PAUSE_S
        for message in messages:
            await self._take(message)

    async def _attach(self) -> None:
        """Attach the live connection first and wait until it is: what is published from then on cannot be missed."""
        self._clients = (self._connect(), self._connect())
        self._live = live = self._clients[0].pubsub()
        await live.subscribe(self._names.live)
        if await live.get_message(timeout=TIMEOUT_S) is None:
            raise TimeoutError("no answer to SUBSCRIBE")
        self._behind = True

    async def _next_messages(self, wait_s: float) -> list[bytes]:
        """Wait for a message and return it with those that came beside it, [] if none came.

        The first is waited for as redis-py does it; at 0.07 ms each, the other 60 of a burst would take longer than
        everything else behind the script. They are looked at GATHER_S later, when whoever has published them in this
        process has got his answer and told of it: to read them before would hold him up for 2 ms. Raises TimeoutError
        if one of them does not come to its end.
        """
        live: Any = self._live  # redis-py types one method of three here
        message = await live.get_message(ignore_subscribe_messages=True, timeout=wait_s)
        messages = []
        if message is not None:
            await asyncio.sleep(GATHER_S)
        async with asyncio.timeout(TIMEOUT_S):
            while message is not None:
                messages.append(cast(bytes, message["data"]))
                connection = live.connection
                if len(messages) == PAGE or not await _has_something(connection):
                    break
                reply = await connection.read_response(timeout=inf, disconnect_on_error=False)
                message = await live.handle_message(reply, ignore_subscribe_messages=True)
        return messages

    async def _reconnect_later(self, error: Exception) -> None:
        self._counters["reconnects"] += 1
        log.warning("channel_lost", error=str(error), retry_s=self._pause_s)
        await self.aclose()
        await self._sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    async def _take(self, message: bytes) -> None:
        """Take a live message if it is the next one; anything else is settled by what the stream says."""
        try:
            envelope = open_envelope(message)
        except DeliveryError as error:  # somebody else publishes here; the stream is what counts
            self._counters["foreign"] += 1
            log.warning("foreign_message", error=str(error))
            return
        cursor = self._cursor
        if cursor is None or envelope.epoch != cursor.epoch or envelope.off > cursor.off + 1:
            await self._catch_up()
        elif envelope.off == cursor.off + 1:
            self._hand_out(envelope)
        else:
            self._counters["dropped_old"] += 1

    async def _catch_up(self) -> None:
        """Compare with the broker's top offset and read at most one page of what is missing from the stream."""
        reader = self._clients[1]
        head = await _head(reader, self._names)
        self._orient(head)
        cursor = self._cursor
        self._behind = cursor is not None and head.epoch != "" and cursor.off < head.top
        if not self._behind or cursor is None:
            return
        page = await _read(reader, self._names, after=cursor.off, upto=str(head.top), count=PAGE)
        if not page:  # trimmed to nothing, or deleted by hand
            self._announce(Position(head.epoch, head.top, recovered=False))
        for envelope in page:
            if envelope.epoch != head.epoch:  # a new epoch began between the two reads: the next look sees it
                return
            self._fill(envelope)
        self._behind = self._cursor is not None and self._cursor.off < head.top

    def _orient(self, head: Head) -> None:
        """Announce where the envelopes begin, or go on after a new epoch."""
        cursor = self._cursor
        if cursor is None:
            self._announce(Position(head.epoch, head.top, recovered=True))
        elif head.epoch == "":
            if not self._begun:
                self._announce(replace(cursor, recovered=cursor.epoch == ""))
        elif cursor.epoch != head.epoch:
            self._announce(Position(head.epoch, head.base, recovered=cursor.epoch == ""))
        elif not self._begun and cursor.off >= head.top:
            self._announce(Position(head.epoch, head.top, recovered=cursor.off == head.top))

    def _fill(self, envelope: Envelope) -> None:
        assert self._cursor is not None
        if envelope.off != self._cursor.off + 1:
            self._announce(Position(envelope.epoch, envelope.off - 1, recovered=False))
        elif not self._begun:
            self._announce(self._cursor)
        self._counters["filled"] += 1
        self._hand_out(envelope)

    def _announce(self, position: Position) -> None:
        self._counters["holes"] += not position.recovered
        self._cursor, self._begun = position, True
        self._ready.append(position)

    def _hand_out(self, envelope: Envelope) -> None:
        self._counters["envelopes"] += 1
        self._cursor = Position(envelope.epoch, envelope.off, recovered=True)
        self._ready.append(envelope)


def open_envelope(message: bytes) -> Envelope:
    """Take a published message apart without decoding the alert in it; raises DeliveryError for anything else."""
    head, _, alert = message.partition(b',"alert":')
    try:
        fields = orjson.loads(head + b"}")
        return Envelope(int(fields["off"]), str(fields["epoch"]), alert[: -len(b"}")])
    except (ValueError, KeyError, TypeError) as error:
        raise DeliveryError(f"a message on the alert channel is no envelope: {message[:80]!r} ({error})") from None


def connect_to(url: str, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Make a client that never tries again by itself: a silent second try is how alerts come twice.

    Raises DeliveryError for a url that is none (without repeating it: it may hold a password).
    """
    try:
        return connect(url, timeout_s=timeout_s)
    except ValueError:
        raise DeliveryError(
            "the broker's url is not usable: write redis://, rediss:// or unix://, and behind a ? only options of "
            "redis-py such as ssl_ca_certs"
        ) from None


async def _has_something(connection: Any) -> bool:
    """Tell whether there is something to read on a connection of redis-py, be it its end."""
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    return bool(await can_read())


async def _head(redis: Client, names: Names) -> Head:
    epoch, top, base = await redis.hmget(names.meta, "epoch", "top", "base")
    return Head("" if epoch is None else epoch.decode(), int(top or 0), int(base or 0))


async def _read(redis: Client, names: Names, *, after: int, upto: str, count: int) -> list[Envelope]:
    entries = await redis.xrange(names.stream, min=f"{after + 1}-0", max=upto, count=count)
    return [
        Envelope(int(entry.partition(b"-")[0]), fields[b"epoch"].decode(), fields[b"alert"])
        for entry, fields in entries
    ]


@contextmanager
def _down(doing: str) -> Iterator[None]:
    """Turn what redis-py raises into this package's errors."""
    try:
        with heeding_cancel():
            yield
    except (RedisError, OSError) as error:
        raise _refusal(error, doing) from error


def _refusal(error: Exception, doing: str) -> DeliveryError:
    text = str(error)
    if isinstance(error, ResponseError) and text.startswith("BEHIND"):
        return Behind(f"the broker has {text}")
    if isinstance(error, ResponseError) and text.startswith("FENCED"):
        return Fenced(f"the broker refuses to {doing}: {text}")
    return ChannelDown(f"the broker cannot {doing} now: {text or type(error).__name__}")
