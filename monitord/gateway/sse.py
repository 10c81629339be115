"""Alerts as server-sent events: the same fan-out as the WebSocket's, for clients that only listen.

    retry: 2000
    event: subscribed           the reply of a subscription
    event: alert                one alert; its id is `epoch:off`, which comes back as Last-Event-ID
    id: k3f9:10441 / : hb       a heartbeat moves the id on without being an event

A filtered client resumes from the last heartbeat's position as well.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
import structlog
from aiohttp import web

from monitord.gateway.client import Floor, check_task
from monitord.gateway.hub import Follower
from monitord.gateway.kept import Gap, Start, together
from monitord.gateway.outlet import Ending, Outlet
from monitord.gateway.protocol import Dialect, ErrorCode, Position, Published, RequestError, Want
from notifiers.errors import DeliveryError

log = structlog.get_logger(__name__)

RETRY_MS: Final = 2000
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


def _alert(ch: str, alert: Published) -> bytes:
    place = (alert.epoch.encode(), alert.off, alert.record)
    return b"id: %b:%d\nevent: alert\ndata: %b\n\n" % place


def _plain(ch: str, record: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (ch.partition(":")[0].encode(), record)


def _heartbeat(top: Position) -> bytes:
    return b"id: %b:%d\n: hb\n\n" % (top.epoch.encode(), top.off)


def _chunk(text: bytes) -> bytes:
    """Frame a text as one chunk of HTTP's chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(text), text)


SSE: Final = Dialect(alert=_alert, plain=_plain, heartbeat=_heartbeat, join=b"", frame=_chunk)


async def serve(floor: Floor, request: web.Request, wants: tuple[Want, ...]) -> web.StreamResponse:
    """Stream these channels until the client goes away; raises RequestError before anything was sent."""
    for want in wants:
        check_task(floor, want)
    starts = {want.ch: await floor.hub.kept.locate(want.ch, want.since) for want in wants if want.is_alerts}
    response = web.StreamResponse(headers=HEADERS)
    response.enable_chunked_encoding()
    writer = await response.prepare(request)
    await response.write(b"retry: %d\n\n" % RETRY_MS)
    if writer is None or request.transport is None:
        return response
    options = floor.options
    outlet = Outlet(
        request.transport,
        writer.drain,
        SSE,
        fan_out=floor.fan_out,
        backlog_bytes=options.backlog_bytes,
        send_timeout_s=options.send_timeout_s,
    )
    follower = floor.hub.join(outlet)
    follower.following = True
    follower.replaying.update(starts)
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(_follow(floor, follower, wants, starts=starts), name="sse-follow")
            writing = tasks.create_task(outlet.run(), name="sse-write")
            ending = await asyncio.shield(outlet.ended)
            following.cancel()
            await outlet.finish(writing, within_s=0.0 if ending.cut else options.close_timeout_s)
    finally:
        for want in wants:
            if want.symbol is not None:
                floor.ticks.unfollow(outlet, want.symbol)
        floor.hub.leave(follower)
        outlet.discard()
    if ending.code is not None:
        log.info("gateway_stream_closed", code=int(ending.code), reason=ending.reason)
    if outlet.behind_bytes:
        outlet.abort()
    return response


async def _follow(floor: Floor, follower: Follower, wants: tuple[Want, ...], *, starts: dict[str, Start]) -> None:
    outlet = follower.outlet
    for want in wants:
        if want.symbol is not None:
            floor.ticks.follow(outlet, want.symbol, interval_ms=want.interval_ms)
        elif want.ch == "health":
            follower.health = True
            outlet.say(_plain("health", floor.health()))
        elif want.is_task:
            outlet.say(_plain(want.ch, floor.task(want.ch) or b"null"))
    try:
        for ch, start in starts.items():
            outlet.say(_subscribed(ch, start))
        # All channels share one Last-Event-ID, so they must be replayed as one.
        for start, channels in together(starts):
            await floor.hub.follow(follower, channels, start)
    except (Gap, DeliveryError):
        outlet.end(Ending(None, "the replay was cut off"))


def _subscribed(ch: str, start: Start) -> bytes:
    """Tell where the stream begins; its id is where a client that breaks off at once resumes."""
    place = f"{start.epoch}:{start.after}".encode() if start.epoch else b""
    line = b"id: %b\n" % place if place else b""
    return b"%bevent: subscribed\ndata: %b\n\n" % (line, orjson.dumps(start.result(ch)))


def last_position(request: web.Request) -> str | None:
    """Return the position the client has: Last-Event-ID, else `since` of the query."""
    return request.headers.get("Last-Event-ID") or request.query.get("since")


def check(wants: tuple[Want, ...], allowed: int) -> None:
    """Raise RequestError if these channels cannot be one stream."""
    if not wants:
        raise RequestError(ErrorCode.BAD_REQUEST, "name a channel: ?ch=alerts")
    if len({want.ch for want in wants}) != len(wants):
        raise RequestError(ErrorCode.ALREADY_SUBSCRIBED, "a channel is named twice")
    if len(wants) > allowed:
        raise RequestError(ErrorCode.LIMIT_EXCEEDED, f"a connection may follow {allowed} channels")
