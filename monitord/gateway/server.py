"""The gateway: one aiohttp server with the WebSocket, server-sent events, REST and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final

import orjson
import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from monitord.errors import Stopping
from monitord.gateway import sse
from monitord.gateway.auth import Gate, Grant, has_credentials
from monitord.gateway.client import Client, Floor, close_reason
from monitord.gateway.fanout import FanOut
from monitord.gateway.hub import Hub
from monitord.gateway.kept import AlertSource
from monitord.gateway.leaving import ClientLeft, Leaving
from monitord.gateway.options import GatewayError, GatewayOptions
from monitord.gateway.outlet import Ending, Outlet
from monitord.gateway.pagefiles import PageFiles
from monitord.gateway.protocol import (
    WEBSOCKET,
    CloseCode,
    ErrorCode,
    RequestError,
    Want,
    error_reply,
    notice,
    query_wants,
)
from monitord.gateway.quotes import Conflator, QuoteSource
from monitord.routes import ROUTES
from monitord.routes.envelope import refusal
from monitord.routes.openapi import document
from monitord.routes.route import (
    ApiError,
    Ask,
    DeskSource,
    HealthSource,
    History,
    Made,
    Route,
    RulesControl,
    Sources,
    StudySource,
    json_response,
)

log = structlog.get_logger(__name__)

SHUTDOWN_S: Final = 3.0
"""How long connections may take to end at a stop before they are cut."""
NOBODY: Final = Grant("nobody", ())
REFUSALS: Final = {
    ErrorCode.UNAUTHORIZED: (401, "unauthorized"),
    ErrorCode.PERMISSION_DENIED: (403, "permission_denied"),
    ErrorCode.UNRECOVERABLE_POSITION: (409, "unrecoverable_position"),
    ErrorCode.INTERNAL: (503, "unavailable"),
}
"""How an error of the protocol is told over HTTP; any other is a 400."""


class Gateway:
    """Serves clients from `start` to `stop`; `run` takes alerts meanwhile and may be started again after it failed."""

    def __init__(
        self,
        options: GatewayOptions,
        *,
        alerts: AlertSource,
        history: History,
        rules: RulesControl,
        quotes: QuoteSource,
        health: HealthSource,
        desk: DeskSource,
        made: Made | None = None,
        metrics: Callable[[], bytes] = lambda: b"",
        study: StudySource | None = None,
    ) -> None:
        """Make ready without listening.

        made: what is made by API; metrics: renders the text of /metrics; study: what answers about bars, names and
        formulas. None: nobody does.
        """
        gate = Gate(
            options.tokens,
            allow_loopback=options.allow_loopback_without_token,
            origins=options.allowed_origins,
            ticket_s=options.ticket_s,
        )
        self._options = options
        self._health = health
        self.hub = Hub(alerts, ring_size=options.ring_size)
        status_of = made.tasks.channel_status if made is not None else lambda ch: None
        self._floor = Floor(options, gate, self.hub, Conflator(quotes), FanOut(), self._health_json, status_of)
        self._sources = Sources(
            history, rules, quotes, health, metrics, gate.issue_ticket, options.ticket_s, desk, study, made
        )
        self._runner: web.AppRunner | None = None
        self._leaving = Leaving()
        self._beat: asyncio.TimerHandle | None = None
        self._stopping = False
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, such as http://127.0.0.1:8710; empty before `start`."""
        return self._address

    @property
    def clients(self) -> int:
        """How many connections there are now, WebSocket and SSE."""
        return len(self.hub.followers)

    def counters(self) -> Mapping[str, int]:
        """Return counts since the start: alerts, gaps, unreadable, bad_tokens, client_errors, closed_<code>."""
        return {**self.hub.counters, "clients": self.clients}

    async def start(self) -> None:
        """Listen; raises GatewayError if the address cannot be had."""
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        if self._runner.server is not None:
            self._leaving.watch(self._runner.server)
        site = web.TCPSite(self._runner, self._options.host, self._options.port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self._options.host}:{self._options.port}"
            reason = error.strerror or str(error)
            raise GatewayError(f"cannot listen on {where}: {reason}; change gateway.host or gateway.port") from None
        host, port = self._runner.addresses[0][:2]
        self._address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._schedule_beat()

    async def run(self) -> None:
        """Take alerts and fan them out until cancelled; raises what the alert source raises."""
        await self.hub.run()

    async def stop(self, reconnect_in_ms: int = 1500) -> None:
        """Tell every client when to come back, close with 1001, and stop listening. Idempotent."""
        self._stopping = True
        if self._beat is not None:
            self._beat.cancel()
        self.hub.flush()
        for follower in self.hub.followers:
            if follower.outlet.dialect is WEBSOCKET:
                follower.outlet.say(notice("shutdown", reconnect_in_ms=reconnect_in_ms))
            follower.outlet.end(Ending(CloseCode.SHUTDOWN, "shutting down"))
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    def tell_health(self) -> None:
        """Send the health report to those who follow it now; heartbeats do it anyway."""
        self.hub.tell_health(self._health_json())

    # ── building ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        router = application.router
        router.add_get("/v1/ws", self._websocket)
        router.add_get("/v1/sse", self._events)
        router.add_get("/v1/openapi.json", _openapi)
        PageFiles().add_to(router)
        for route in ROUTES:
            router.add_route(route.method, route.path, self._resource(route))
        return application

    def _resource(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Make the aiohttp handler of a route: authorise, parse the query, answer in JSON."""

        async def handle(request: web.Request) -> web.StreamResponse:
            grant = NOBODY if route.anyone else self._authorised(request, route.needs)
            ask = Ask(request, grant, _query(route.query, request), self._sources)
            work = route.handler(ask)
            reply = await (self._leaving.unless_left(request, work) if route.ends_with_client else work)
            return json_response(reply.model_dump(mode="json")) if isinstance(reply, BaseModel) else reply

        return handle

    def _authorised(self, request: web.Request, needs: str | None) -> Grant:
        grant = self._floor.gate.of_request(request)
        if grant is None:
            raise ApiError(401, "unauthorized", "send a token: Authorization: Bearer …")
        if needs is not None and not grant.allows(needs):
            raise ApiError(403, "permission_denied", f"this token may not use {needs}")
        return grant

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn every refusal into JSON; what is our own fault is logged and told as such."""
        try:
            if not self._floor.gate.admits_origin(request) and request.path != "/v1/ws":
                raise ApiError(403, "forbidden_origin", "pages of this origin may not use the gateway")
            return await handler(request)
        except ApiError as error:
            return _refusing(request, error.status, error.error)
        except Stopping as error:
            return _refusing(request, 503, {"code": "unavailable", "msg": str(error), "field": None})
        except ClientLeft:
            return web.Response(status=499)  # as nginx calls it; nobody reads it
        except RequestError as error:
            status, code = REFUSALS.get(error.code, (400, "bad_request"))
            return _refusing(request, status, {"code": code, "msg": error.msg, "field": None})
        except web.HTTPException as error:
            code = error.reason.lower().replace(" ", "_")
            response = _refusing(request, error.status, {"code": code, "msg": error.reason, "field": None})
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except ConnectionError:  # the client is gone, there is nobody to tell; aiohttp ends the request quietly
            raise
        except Exception:  # the top of a request's task
            log.exception("gateway_request_failed", method=request.method, path=request.path)
            told = {"code": "internal", "msg": "internal error; it has been logged", "field": None}
            return _refusing(request, 500, told)

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        options = self._options
        ws = web.WebSocketResponse(
            compress=False,
            max_msg_size=options.max_message_bytes,
            heartbeat=options.ping_s,
            timeout=options.close_timeout_s,
        )
        writer = await ws.prepare(request)
        # Refusals come after the handshake: a page never sees the status of one that failed, but does see a close code.
        refusal = self._refusal(request)
        grant, wants = None, tuple[Want, ...]()
        if refusal is None:
            grant = self._floor.gate.of_request(request)
            if grant is None and has_credentials(request):
                self.hub.counters["bad_tokens"] += 1
                refusal = Ending(CloseCode.BAD_TOKEN, "bad token")
        if refusal is None:
            try:
                wants = _checked_query(request, since=request.query.get("since"))
            except RequestError as error:
                await ws.send_str(error_reply(error).decode())
                refusal = Ending(CloseCode.PROTOCOL, error.msg)
        if refusal is not None and refusal.code is not None:
            log.info("gateway_client_refused", code=int(refusal.code), reason=refusal.reason)
            await ws.close(code=refusal.code, message=close_reason(refusal))
        elif request.transport is not None:
            outlet = Outlet(
                request.transport,
                writer.drain,
                WEBSOCKET,
                fan_out=self._floor.fan_out,
                backlog_bytes=options.backlog_bytes,
                send_timeout_s=options.send_timeout_s,
            )
            await Client(self._floor, ws, outlet).converse(grant, wants=wants)
        return ws

    def _refusal(self, request: web.Request) -> Ending | None:
        """Return why this connection cannot be, whoever it is."""
        if self._stopping:
            return Ending(CloseCode.SHUTDOWN, "shutting down")
        if not self._floor.gate.admits_origin(request):
            return Ending(CloseCode.FORBIDDEN_ORIGIN, "forbidden origin")
        if len(self.hub.followers) >= self._options.max_clients:
            return Ending(CloseCode.RATE, "too many connections")
        return None

    async def _events(self, request: web.Request) -> web.StreamResponse:
        wants = _checked_query(request, since=sse.last_position(request))
        sse.check(wants, self._options.max_channels)
        grant = self._authorised(request, None)
        for want in wants:
            if not grant.allows(want.ch):
                raise RequestError(ErrorCode.PERMISSION_DENIED, f"permission denied: {want.ch}")
        if self._stopping or len(self.hub.followers) >= self._options.max_clients:
            raise ApiError(503, "unavailable", "too many connections; try again later")
        return await sse.serve(self._floor, request, wants)

    # ── health ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _health_json(self) -> bytes:
        reasons = self._health.reasons()
        report = {**self._health.report(), "ready": not reasons, "reasons": reasons}
        return orjson.dumps(report, default=str, option=orjson.OPT_NON_STR_KEYS)

    def _schedule_beat(self) -> None:
        self._beat = asyncio.get_running_loop().call_later(self._options.heartbeat_s, self._on_beat)

    def _on_beat(self) -> None:
        self._schedule_beat()
        try:
            self.hub.heartbeat()
            self.tell_health()
        except Exception:  # the top of a timer: the next beat must come
            log.exception("gateway_heartbeat_failed")


def _channels(request: web.Request) -> list[str]:
    """Return the channels of the query: `ch` repeated, or several in one with commas."""
    return [ch for value in request.query.getall("ch", []) for ch in value.split(",") if ch]


def _checked_query(request: web.Request, *, since: str | None) -> tuple[Want, ...]:
    """Return the channels the query names; raises RequestError, also for a token in the address."""
    if "token" in request.query:
        msg = "no token in an address: it ends up in logs; send it as a header, as the first message, or fetch a ticket"
        raise RequestError(ErrorCode.BAD_REQUEST, msg)
    return query_wants(_channels(request), since)


def _query(model: type[BaseModel] | None, request: web.Request) -> BaseModel | None:
    """Parse the query; raises ApiError that names the parameter."""
    if model is None:
        return None
    twice = [name for name in request.query if len(request.query.getall(name)) > 1]
    if twice:
        raise ApiError(400, "bad_request", "given more than once", field=twice[0])
    try:
        return model.model_validate({name: value for name, value in request.query.items() if name != "ticket"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, "bad_request", first["msg"], field=field) from None


def _refusing(request: web.Request, status: int, error: Mapping[str, Any]) -> web.Response:
    return json_response(refusal(request.path, status, error), status=status)


@cache
def _document() -> Mapping[str, Any]:
    return document(ROUTES)


async def _openapi(request: web.Request) -> web.StreamResponse:
    """Answer with the OpenAPI document; it takes 0.2 s to make, so a thread makes it when somebody first asks."""
    return json_response(await asyncio.to_thread(_document))
