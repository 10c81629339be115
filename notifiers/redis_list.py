"""A Redis list: each alert's record at its end, for programs that take from the other end with BLPOP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from yarl import URL

from feeds.connection import heeding_cancel
from notifiers.egress import EgressRefused, Network, Redactor, describe, guarded_socket, parse_networks
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.retry import RetrySchedule

SCHEDULE: Final = RetrySchedule((0, 1, 5, 30, 120, 300, 600, 1800, 3600))
PASSING: Final = (
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "OOM",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
)
"""Errors of a server that may have come to itself the next time."""
PASSING_ERRORS: Final = (ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
"""The same where redis-py takes the word off the text and makes a class of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisListOptions(NotifierOptions):
    """A Redis list's section. url is left out of repr.

    url         redis://, rediss:// or unix://, with user and password where they are needed.
    key         of the list.
    max_length  the oldest beyond so many are dropped, 0 = never.
    """

    url: str = field(repr=False)
    key: str = "monitord:alerts"
    max_length: int = 100_000


class RedisListNotifier:
    """Appends in one transaction; a connection stays open between alerts.

    An attempt whose answer is lost is made again, so an alert may come twice: dedupe on its id.
    """

    options_class: ClassVar = RedisListOptions

    def __init__(self, options: RedisListOptions) -> None:
        """Check the options; raises DeliveryError."""
        if not options.key or options.max_length < 0:
            raise DeliveryError(f"receiver {options.name}: key is a name, and max_length a number, 0 = no limit")
        self.options: NotifierOptions = options
        self.schedule = SCHEDULE
        self.pacing = Pacing(bundle_alerts=1000)
        self._key, self._max_length, self._address = options.key, options.max_length, options.url
        self._allow = parse_networks(options.allow_networks)
        url = URL(options.url) if options.url.startswith(("redis://", "rediss://", "unix://")) else None
        if url is None:
            raise DeliveryError(f"receiver {options.name}: url is redis://, rediss:// or unix://")
        self._redact = Redactor(URL(), [text for text in (url.user, url.password, *url.query.values()) if text])
        self._redis: Redis | None = None
        self.host = url.host or "the socket"
        self._pool()  # so that what is wrong with the url is said now

    def _pool(self) -> ConnectionPool:
        """Make a pool of guarded connections; raises DeliveryError, without the url in it."""
        try:
            pool: ConnectionPool = ConnectionPool.from_url(
                self._address,
                socket_timeout=self.options.total_timeout_s,
                socket_connect_timeout=self.options.connect_timeout_s,
                retry=Retry(NoBackoff(), 0),
                retry_on_timeout=False,
                protocol=2,
                max_connections=1,
            )
        except ValueError:
            raise DeliveryError(f"receiver {self.options.name}: url is redis://, rediss:// or unix://") from None
        guarded = {Connection: GuardedConnection, SSLConnection: GuardedSSLConnection}
        if pool.connection_class in guarded:
            pool.connection_class = guarded[pool.connection_class]
            pool.connection_kwargs["allow"] = self._allow
        return pool

    async def open(self) -> None:
        await self.close()
        self._redis = Redis(connection_pool=self._pool())

    async def close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.connection_pool.disconnect()
            await redis.aclose()

    async def send(self, notification: Notification) -> Outcome:
        return await self._append([notification.record])

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Append each alert's record, all or none."""
        return await self._append(bundle.records)

    async def _append(self, records: Sequence[bytes]) -> Outcome:
        if self._redis is None:
            raise DeliveryError(f"receiver {self.options.name} is not open")
        try:
            with heeding_cancel():
                async with asyncio.timeout(self.options.total_timeout_s), self._redis.pipeline() as pipeline:
                    pipeline.rpush(self._key, *records)
                    if self._max_length:
                        pipeline.ltrim(self._key, -self._max_length, -1)
                    length = (await pipeline.execute())[0]
        except TimeoutError:
            return Outcome(verdict=Verdict.RETRY, text=f"no answer from {self.host} in time")
        except (RedisError, OSError, ValueError) as error:
            return self._outcome(error)
        if not isinstance(length, int) or length < len(records):
            return Outcome(verdict=Verdict.RETRY, text=f"{self.host} does not answer like a Redis")
        return Outcome(verdict=Verdict.OK, text=f"{length} in the list")

    def _outcome(self, error: Exception) -> Outcome:
        """Return the outcome of an exception: what the server says of us is for good, all else may pass."""
        if any(isinstance(one, EgressRefused) for one in _causes(error)):
            text = f"{self.host} is not a public address; add its network to allow_networks to permit it"
            return Outcome(verdict=Verdict.PERMANENT, text=text)
        if isinstance(error, AuthenticationError | AuthorizationError):
            return Outcome(verdict=Verdict.PERMANENT, text=f"{self.host}: user or password refused, or a right missing")
        said = self._redact(_said(error)) if isinstance(error, ResponseError) else ""
        if said and not isinstance(error, PASSING_ERRORS) and not said.startswith(PASSING):
            return Outcome(verdict=Verdict.PERMANENT, text=f"{self.host}: {said}")
        return Outcome(verdict=Verdict.RETRY, text=f"{self.host}: {said or describe(error)}")


class _Guarded(Connection):
    """A connection to allowed addresses only; see egress.py."""

    def __init__(self, *, allow: Sequence[Network], **options: Any) -> None:
        super().__init__(**options)
        self._allow = allow

    def _connection_arguments(self) -> Any:
        arguments = dict(super()._connection_arguments())
        host = arguments.pop("host")
        arguments.pop("port")
        return {**arguments, "sock": self._connected} | ({"server_hostname": host} if "ssl" in arguments else {})

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._connected = await guarded_socket(self.host, int(self.port), allow=self._allow)
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self._connected.close()
            raise


class GuardedConnection(_Guarded):
    """Over TCP."""


class GuardedSSLConnection(_Guarded, SSLConnection):
    """Over TLS."""


def _said(error: Exception) -> str:
    """Return the server's own words: a pipeline puts the command, alert and all, before them."""
    return str(error).rpartition(" of pipeline caused error: ")[2].strip("(),\"'")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those it came from: redis-py raises its own in place of the socket's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
