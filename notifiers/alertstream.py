"""What the alert channel keeps and tells in Redis: its keys, envelopes, positions, and how a broker refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from redis.exceptions import RedisError, ResponseError

from feeds.connection import TIMEOUT_S, Client, connect, heeding_cancel
from notifiers.errors import DeliveryError

PREFIX: Final = "mon:"

Connect: TypeAlias = Callable[[], Client]


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


async def head_of(redis: Client, names: Names) -> Head:
    """Return where the channel stands; raises what redis-py raises."""
    epoch, top, base = await redis.hmget(names.meta, "epoch", "top", "base")
    return Head("" if epoch is None else epoch.decode(), int(top or 0), int(base or 0))


async def read_entries(redis: Client, names: Names, *, after: int, upto: str, count: int) -> list[Envelope]:
    """Return entries of the stream behind an offset, up to an entry's id; raises what redis-py raises."""
    entries = await redis.xrange(names.stream, min=f"{after + 1}-0", max=upto, count=count)
    return [
        Envelope(int(entry.partition(b"-")[0]), fields[b"epoch"].decode(), fields[b"alert"])
        for entry, fields in entries
    ]


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turn what redis-py raises into this package's errors."""
    try:
        with heeding_cancel():
            yield
    except (RedisError, OSError) as error:
        raise refusal(error, doing) from error


def refusal(error: Exception, doing: str) -> DeliveryError:
    """Return what an error of redis-py means here."""
    text = str(error)
    if isinstance(error, ResponseError) and text.startswith("BEHIND"):
        return Behind(f"the broker has {text}")
    if isinstance(error, ResponseError) and text.startswith("FENCED"):
        return Fenced(f"the broker refuses to {doing}: {text}")
    return ChannelDown(f"the broker cannot {doing} now: {text or type(error).__name__}")


async def has_something(connection: Any) -> bool:
    """Tell whether there is something to read on a connection of redis-py, be it its end."""
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    return bool(await can_read())
