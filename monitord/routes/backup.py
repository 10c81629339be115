"""A copy of the store as it is now: /v1/backup."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from monitord.errors import StoreError
from monitord.routes.route import ApiError, Ask, Route

BLOCK_BYTES: Final = 1 << 18
"""Read by a worker thread: the disk may be slow, and the loop has others to serve."""
MEDIA: Final = "application/vnd.sqlite3"
STALLED_S: Final = 60.0
"""A client that takes nothing for so long is cut off: the copy is in the way of the next one, and takes its room."""

log = structlog.get_logger(__name__)


async def backup(ask: Ask) -> web.StreamResponse:
    try:
        async with ask.sources.history.copied() as path:
            response = await _send(ask.request, path)
    except StoreError as error:
        log.error("backup_failed", why=str(error))
        raise ApiError(503, "unavailable", "the store cannot be copied; the log says why") from None
    log.info("backup_sent", bytes=response.content_length, grant=ask.grant.name)
    return response


async def _send(request: web.Request, path: Path) -> web.StreamResponse:
    """Send a file; the client sees by the length whether it has it whole."""
    response = web.StreamResponse(headers={"Content-Type": MEDIA, "Cache-Control": "no-store"})
    with await asyncio.to_thread(path.open, "rb") as file:
        response.content_length = os.fstat(file.fileno()).st_size
        await response.prepare(request)
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            try:
                async with asyncio.timeout(STALLED_S):
                    await response.write(block)
            except TimeoutError:
                raise ConnectionResetError("the client takes nothing") from None
    await response.write_eof()
    return response


ROUTES = (
    Route(
        method="GET", path="/v1/backup", handler=backup, summary="The whole store as one SQLite file",
        needs="backup", media=MEDIA,
    ),
)  # fmt: skip
