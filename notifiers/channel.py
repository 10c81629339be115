"""`AlertChannel`: publish each alert exactly once into the stream and tell it live; read what was published.

Offsets are contiguous within an epoch and grow over epochs. A new epoch begins when the broker came back with less than
it had acknowledged: everything kept is then published again behind the old offsets, and who compares ids sees each
alert once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from math import inf
from typing import Any, Final

import hiredis
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from feeds.connection import TIMEOUT_S
from notifiers.alertstream import (
    PREFIX,
    Connect,
    Envelope,
    Fenced,
    Head,
    Names,
    Outgoing,
    Position,
    Receipt,
    connect_to,
    has_something,
    head_of,
    read_entries,
    refusals,
)
from notifiers.subscription import PAGE, Subscription

STREAM_LENGTH: Final = 200_000
DEDUP_S: Final = 172_800


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch ready to be published; command: the packed call of the script."""

    alerts: Sequence[Outgoing]
    command: bytes


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
        self._publish_sha = sha1(self.publish_text.encode(), usedforsecurity=False).hexdigest()
        self._timeout_s = timeout_s
        self._redis = self._connect()
        self._line: Any = None

    async def close(self) -> None:
        """Close the connections; idempotent."""
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def claim(self) -> int:
        """Take the next fencing token of this publisher's share, which refuses every older holder; return it."""
        with refusals("claim the fence"):
            self._token = int(await self._redis.hincrby(self.names.fence, self._share, 1))
        return self._token

    async def publish(self, batch: Sequence[Outgoing], *, epoch: str, acked: int) -> list[Receipt]:
        """Publish in order, in one call of the script, and return a receipt for each.

        acked: the greatest offset this epoch ever acknowledged to us. Raises Behind, Fenced or ChannelDown; a part of
        the batch may then have been published, and publishing all of it again gives each its first offset.
        """
        return await self.send(self.prepare(batch, epoch=epoch, acked=acked))

    def prepare(self, batch: Sequence[Outgoing], *, epoch: str, acked: int) -> Prepared:
        """Make a batch ready for `send`; nothing leaves yet."""
        # Packed in C: redis-py's own way takes 1 ms for the 420 words of 60 alerts.
        words = ("EVALSHA", self._publish_sha, *self.call(batch, epoch=epoch, acked=acked))
        return Prepared(batch, hiredis.pack_command(words))

    async def send(self, prepared: Prepared) -> list[Receipt]:
        """Publish what was prepared; as `publish`."""
        with refusals("publish"):
            try:
                replies = await self._call(prepared.command)
            except NoScriptError:  # the broker was started anew
                await self.make_ready()
                replies = await self._call(prepared.command)
        return [Receipt(int(off), bool(known)) for off, known in replies]

    async def make_ready(self) -> None:
        """Open the connection that alerts are published on, and see that the broker has the script; raises ChannelDown.

        Else the first burst waits for both, 5 ms.
        """
        words: Any = ("SCRIPT", "LOAD", self.publish_text)
        with refusals("take the script"):
            await self._call(hiredis.pack_command(words))

    async def begin_epoch(self, *, acked: int, ours: str = "*") -> tuple[str, int]:
        """Begin a new epoch behind offset `acked` and all that is there; return its name and its base offset.

        ours: the epoch we are in, "" = none yet; a newer one that another publisher has begun since is joined instead
        ("*": never). Raises Fenced or ChannelDown.
        """
        keys = [self.names.meta, self.names.stream, self.names.fence]
        values = (secrets.token_hex(4), acked, self._share, self._token, ours)
        with refusals("begin an epoch"):
            epoch, base = await self._redis.eval(self._epoch_text, len(keys), *keys, *values)
        return epoch.decode(), int(base)

    async def kept(self) -> tuple[Head, int]:
        """Return where the channel stands, and the greatest offset up to which it has all that was acknowledged to us.

        With a share of our own others publish as well, so the top says nothing of ours. Raises Fenced or ChannelDown.
        """
        with refusals("read what it keeps"):
            head = await head_of(self._redis, self.names)
            if not self._share:
                return head, head.top
            own = await self._redis.hget(self.names.meta, f"top:{self._share}")
            token = await self._redis.hget(self.names.fence, self._share)
        if int(token or 0) > self._token:
            raise Fenced(f"the share {self._share} is held with token {int(token)}, ours is {self._token}")
        return head, max(head.base, int(own or 0))

    async def head(self) -> Head:
        """Return epoch, top offset and base; raises ChannelDown."""
        with refusals("read the top offset"):
            return await head_of(self._redis, self.names)

    async def top(self) -> tuple[str, int]:
        """Return (epoch, top offset), ("", 0) where nothing was ever published; raises ChannelDown."""
        head = await self.head()
        return head.epoch, head.top

    async def read(self, *, after: int, count: int = PAGE) -> list[Envelope]:
        """Return up to `count` alerts behind offset `after` that the stream still holds, oldest first."""
        with refusals("read the stream"):
            return await read_entries(self._redis, self.names, after=after, upto="+", count=count)

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

    async def _call(self, command: bytes) -> Any:
        """Return the answer to a packed command, on the connection that is kept for it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._open_line()
                await line.send_packed_command(command)
                return await line.read_response(timeout=inf)
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
        elif await has_something(self._line):  # closed by the broker, or the rest of an answer nobody waits for
            await self._line.disconnect(nowait=True)
            await self._line.connect()
        return self._line

    async def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.socket_timeout = self._timeout_s
            await line.disconnect(nowait=True)
            await self._redis.connection_pool.release(line)
