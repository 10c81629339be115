"""A daemon in the test's own process, and a recorded session that waits for its sign."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from config.loading import load
from feeds.feed import Feed
from feeds.inputs import FeedInput
from feeds.replay import ReplayFeed
from monitord import app
from monitord.console import LogConsole
from monitord.gateway.server import Gateway


class HeldFeed(ReplayFeed):
    """Plays when `go` is set, says `played` at the end, and only then waits to be closed: a live feed never ends."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.go, self.played, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        await self.go.wait()
        async for given in super().__aiter__():
            yield given
        self.played.set()
        await self._closed.wait()

    async def close(self) -> None:
        self.go.set()
        self._closed.set()
        await super().close()


def only(session: Path, symbol: str, *, into: Path) -> Path:
    """Write the rows of one symbol of a recorded session; return the file."""
    table = pq.read_table(session)
    path = into / f"{symbol}.parquet"
    pq.write_table(table.filter(pc.equal(table["symbol"], symbol)), path)
    return path


@asynccontextmanager
async def running(settings: Mapping[str, object], *, feed: Feed | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Run a daemon on a free port; yield a session whose base address is its gateway."""
    fixed = {"gateway.port": 0, "gateway.allow_loopback_without_token": True, **settings}
    loaded = load([f"{name}={value}" for name, value in fixed.items()]).settings
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    start = Gateway.start

    async def start_and_tell(self: Gateway) -> None:
        await start(self)
        listening.set_result(self.address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gateway, "start", start_and_tell)
        if feed is not None:
            patch.setattr(app, "build_feed", lambda settings, broker_url: feed)
        daemon = app.App(loaded, console=LogConsole())
        task = asyncio.create_task(daemon.run())
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        try:
            async with aiohttp.ClientSession(await listening) as session:
                yield session
        finally:
            daemon._stopping.set()
            await task
