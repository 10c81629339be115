"""Connections to Redis as this program wants them: no silent second tries, and no cancel that goes astray."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TIMEOUT_S: Final = 2.0

Client: TypeAlias = Any  # a redis.asyncio.Redis, or its fake; what its methods return is not typed


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Make a client that never tries again by itself: a silent second try is how a thing comes twice.

    Nothing is connected yet. Raises ValueError for a url that is none; never show its text, it may hold a password.
    """
    client = Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
        protocol=2,
    )
    _check_options(client)
    return client


def _check_options(client: Client) -> None:
    """Raise ValueError for what behind the ? of a url is no option: redis-py would at the first command, as TypeError."""
    pool = client.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, RedisError) as error:
        raise ValueError(str(error)) from None


@contextmanager
def heeding_cancel() -> Iterator[None]:
    """Raise CancelledError at the end if the task was cancelled in between and the cancel went astray.

    redis-py sends each command under asyncio.wait_for, and up to Python 3.11 that forgets a cancel in the very turn of
    the loop in which the command has gone out (python/cpython#86296). A follower would follow on, and a stop would wait
    for it for ever: seen under load in one of some fifty stops.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
