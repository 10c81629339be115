"""One WebSocket connection: reads what the client says, answers, and ends it in one place with one code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import ClientConnectionResetError, WSMsgType, web

from monitord.gateway.auth import Gate, Grant
from monitord.gateway.fanout import FanOut
from monitord.gateway.hub import Hub
from monitord.gateway.kept import Gap, Start, together
from monitord.gateway.options import GatewayOptions
from monitord.gateway.outlet import Ending, Outlet
from monitord.gateway.protocol import (
    Auth,
    CloseCode,
    ErrorCode,
    Id,
    NotProtocol,
    Ping,
    Request,
    RequestError,
    Subscribe,
    Unsubscribe,
    Want,
    error_reply,
    ok_reply,
    parse,
)
from monitord.gateway.quotes import Conflator
from notifiers.errors import DeliveryError

log = structlog.get_logger(__name__)

REASON_BYTES: Final = 120
"""A close frame holds 125 bytes: the code and this much text."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What every connection of one gateway shares."""

    options: GatewayOptions
    gate: Gate
    hub: Hub
    ticks: Conflator
    fan_out: FanOut
    health: Callable[[], bytes]
    """The health report as JSON."""
    task: Callable[[str], bytes | None] = lambda ch: None
    """The status of the task whose channel this is, as JSON; None if there is no such task."""


class Allowance:
    """`per_s` messages a second, and as many at once. Not shared between connections."""

    def __init__(self, per_s: float, *, now_s: float) -> None:
        self._per_s = self._left = float(per_s)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Use up one message; False if there is none left."""
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Client:
    """One connection from its handshake to its close. `converse` runs in the request's own task."""

    def __init__(self, floor: Floor, ws: web.WebSocketResponse, outlet: Outlet) -> None:
        self._floor = floor
        self._ws = ws
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._follower = floor.hub.join(outlet)
        self._channels: dict[str, Want] = {}
        self._wants: tuple[Want, ...] = ()
        self._grant: Grant | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._allowance = Allowance(floor.options.messages_per_s, now_s=self._loop.time())

    async def converse(self, grant: Grant | None, *, wants: tuple[Want, ...] = ()) -> None:
        """Serve the client until either side ends it.

        grant: what the handshake earned; None: the client must authenticate within `auth_timeout_s`. wants: what the
        query asked for, subscribed as soon as the client may.
        """
        self._wants = wants
        deadline = self._loop.call_later(self._floor.options.auth_timeout_s, self._check_admitted)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(grant), name="ws-read")
                writing = tasks.create_task(self._outlet.run(), name="ws-write")
                # A copy of the future is awaited: cancelling this task must not cancel what others still look at.
                ending = await asyncio.shield(self._outlet.ended)
                reading.cancel()
                within_s = 0.0 if ending.cut else self._floor.options.close_timeout_s
                await self._outlet.finish(writing, within_s=within_s)
            await self._close(ending)
        finally:
            deadline.cancel()
            self._leave()

    def _leave(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        for want in self._channels.values():
            if want.symbol is not None:
                self._floor.ticks.unfollow(self._outlet, want.symbol)
        self._floor.hub.leave(self._follower)
        self._outlet.discard()

    def _check_admitted(self) -> None:
        if self._grant is None:
            self._outlet.end(Ending(CloseCode.AUTH_EXPIRED, "no authentication in time"))

    async def _read(self, grant: Grant | None) -> None:
        try:
            if grant is not None:
                await self._admit(grant)
            async for frame in self._ws:
                if frame.type is WSMsgType.ERROR:
                    break
                if frame.type is not WSMsgType.TEXT:
                    return self._outlet.end(Ending(CloseCode.PROTOCOL, "text frames only"))
                for line in frame.data.split("\n"):
                    if line and not line.isspace() and not await self._hear(line):
                        return None
            self._outlet.end(Ending(None))
        except ClientConnectionResetError:  # aiohttp answers a ping of a client that is gone
            self._outlet.end(Ending(None))
        except (Gap, DeliveryError):
            self._outlet.end(Ending(CloseCode.GAP, "the replay was cut off; resume"))
        except Exception:  # the top of this connection's task: nobody else must suffer
            self._floor.hub.counters["client_errors"] += 1
            log.exception("gateway_client_failed")
            self._outlet.end(Ending(CloseCode.INTERNAL, "internal error"))
        return None

    async def _hear(self, line: str) -> bool:
        """Answer one message; False if it ended the connection."""
        if not self._allowance.take(self._loop.time()):
            per_s = self._floor.options.messages_per_s
            self._outlet.end(Ending(CloseCode.RATE, f"more than {per_s} messages a second"))
            return False
        try:
            request = parse(line)
            if self._grant is None and not isinstance(request, Auth):
                raise RequestError(ErrorCode.UNAUTHORIZED, "authenticate first", reply_to=request.id)
            await self._serve(request)
        except NotProtocol as error:
            self._outlet.say(error_reply(RequestError(ErrorCode.BAD_REQUEST, str(error))))
            self._outlet.end(Ending(CloseCode.PROTOCOL, str(error)))
        except RequestError as error:
            self._outlet.say(error_reply(error))
        return not self._outlet.ended.done()

    async def _serve(self, request: Request) -> None:
        try:
            match request:
                case Auth():
                    await self._auth(request)
                case Subscribe():
                    await self._subscribe(request.id, request.wants)
                case Unsubscribe():
                    self._unsubscribe(request)
                case Ping():
                    self._outlet.say(ok_reply(request.id, "pong"))
        except RequestError as error:
            error.reply_to = request.id
            raise

    async def _auth(self, request: Auth) -> None:
        grant = self._floor.gate.by_token(request.token) or self._floor.gate.by_ticket(request.token)
        if grant is None:
            self._floor.hub.counters["bad_tokens"] += 1
            self._outlet.end(Ending(CloseCode.BAD_TOKEN, "bad token"))
            raise RequestError(ErrorCode.UNAUTHORIZED, "bad token")
        lost = [ch for ch in self._channels if not grant.allows(ch)]
        if lost:
            raise RequestError(ErrorCode.PERMISSION_DENIED, f"this token may not read {lost[0]}; unsubscribe first")
        self._outlet.say(ok_reply(request.id, {"name": grant.name, "channels": grant.channels}))
        await self._admit(grant)

    async def _admit(self, grant: Grant) -> None:
        """Let the client in (again), until its token expires."""
        self._grant = grant
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if grant.expires_ms is not None:
            left_s = (grant.expires_ms - self._floor.gate.now_ms()) / 1000
            ending = Ending(CloseCode.AUTH_EXPIRED, "the token has expired")
            self._expiry = self._loop.call_later(left_s, self._outlet.end, ending)
        wants, self._wants = self._wants, ()
        if wants:
            try:
                await self._subscribe(None, wants)
            except RequestError as error:
                self._outlet.say(error_reply(error))

    async def _subscribe(self, reply_to: Id, wants: tuple[Want, ...]) -> None:
        """Subscribe to all or, if one of them cannot be, to none."""
        self._check(wants)
        hub = self._floor.hub
        starts: dict[str, Start] = {}
        for want in wants:
            if want.is_alerts:
                starts[want.ch] = await hub.kept.locate(want.ch, want.since)
        for want in wants:
            self._channels[want.ch] = want
        self._outlet.say(ok_reply(reply_to, [_result(want, starts) for want in wants]))
        # mark all before the first is replayed: a heartbeat's top must hold for every channel
        self._follower.replaying.update(starts)
        self._follower.following = True
        for want in wants:
            if want.symbol is not None:
                self._floor.ticks.follow(self._outlet, want.symbol, interval_ms=want.interval_ms)
            elif want.ch == "health":
                self._follower.health = True
                self._outlet.say(self._outlet.dialect.plain("health", self._floor.health()))
            elif want.is_task:
                self._outlet.say(self._outlet.dialect.plain(want.ch, self._floor.task(want.ch) or b"null"))
        for start, channels in together(starts):
            await hub.follow(self._follower, channels, start)

    def _unsubscribe(self, request: Unsubscribe) -> None:
        strange = [ch for ch in request.channels if ch not in self._channels]
        if strange:
            raise RequestError(ErrorCode.BAD_REQUEST, f"not subscribed to {strange[0]}")
        for ch in dict.fromkeys(request.channels):
            want = self._channels.pop(ch)
            if want.symbol is not None:
                self._floor.ticks.unfollow(self._outlet, want.symbol)
            elif want.is_alerts:
                self._floor.hub.unfollow(self._follower, ch)
                self._outlet.retract(ch)
            else:
                self._follower.health = False
                self._outlet.retract("health")
        self._follower.following = bool(self._channels)
        self._outlet.say(ok_reply(request.id, [{"ch": ch} for ch in request.channels]))

    def _check(self, wants: tuple[Want, ...]) -> None:
        """Raise RequestError for the first of these that cannot be subscribed to."""
        assert self._grant is not None
        seen = set(self._channels)
        for want in wants:
            if want.ch in seen:
                raise RequestError(ErrorCode.ALREADY_SUBSCRIBED, f"already subscribed to {want.ch}")
            if not self._grant.allows(want.ch):
                raise RequestError(ErrorCode.PERMISSION_DENIED, f"permission denied: {want.ch}")
            check_task(self._floor, want)
            seen.add(want.ch)
        if len(seen) > self._floor.options.max_channels:
            most = self._floor.options.max_channels
            raise RequestError(ErrorCode.LIMIT_EXCEEDED, f"a connection may follow {most} channels")

    async def _close(self, ending: Ending) -> None:
        """Say goodbye within `close_timeout_s`, else cut the connection: a blocked close would outlive everything."""
        self._outlet.discard()
        if ending.code is None:
            return
        self._floor.hub.counters[f"closed_{int(ending.code)}"] += 1
        log.info("gateway_client_closed", code=int(ending.code), reason=ending.reason)
        if self._outlet.behind_bytes:
            self._outlet.abort()
        else:
            with suppress(TimeoutError, ConnectionError, ClientConnectionResetError):
                async with asyncio.timeout(self._floor.options.close_timeout_s):
                    await self._ws.close(code=ending.code, message=close_reason(ending))


def check_task(floor: Floor, want: Want) -> None:
    """Raise RequestError for the channel of a task that there is not."""
    if want.is_task and floor.task(want.ch) is None:
        raise RequestError(ErrorCode.UNKNOWN_CHANNEL, f"there is no task {want.ch.partition(':')[2][:40]!r}")


def close_reason(ending: Ending) -> bytes:
    """Return the reason cut to what a close frame holds, never in the middle of a character."""
    return ending.reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore").encode()


def _result(want: Want, starts: Mapping[str, Start]) -> dict[str, object]:
    """Return this channel's part of the reply."""
    if want.ch in starts:
        return starts[want.ch].result(want.ch)
    return {"ch": want.ch} if want.symbol is None else {"ch": want.ch, "interval_ms": want.interval_ms}
