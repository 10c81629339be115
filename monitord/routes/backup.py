"""A copy of the store as it is now: /v1/backup."""

from __future__ import annotations

import structlog
from aiohttp import web

from monitord.errors import StoreError
from monitord.routes.route import ApiError, Ask, Route

log = structlog.get_logger(__name__)


async def backup(ask: Ask) -> web.StreamResponse:
    try:
        async with ask.sources.history.copied() as path:
            size = path.stat().st_size
            response = web.FileResponse(
                path, headers={"Content-Type": "application/vnd.sqlite3", "Cache-Control": "no-store"}
            )
            await response.prepare(ask.request)  # here, where the file still is
    except StoreError as error:
        log.error("backup_failed", why=str(error))
        raise ApiError(503, "unavailable", "the store cannot be copied; the log says why") from None
    log.info("backup_sent", bytes=size, token=ask.grant.name)
    return response


ROUTES = (
    Route(
        method="GET", path="/v1/backup", handler=backup, summary="The whole store as one SQLite file",
        needs="backup", media="application/vnd.sqlite3",
    ),
)  # fmt: skip
