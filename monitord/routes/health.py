"""Is it alive, is it ready, how is it: /livez, /readyz, /metrics, /v1/health."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from monitord.routes.route import Ask, Route, json_response

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Live(BaseModel):
    status: str = "alive"


class Ready(BaseModel):
    """reasons: why the daemon is not ready; empty when it is."""

    ready: bool
    reasons: list[str]


class Health(BaseModel):
    """The daemon's report on itself; its sections are added to the two fields that are always there."""

    model_config = ConfigDict(extra="allow")

    ready: bool
    reasons: list[str]


async def livez(ask: Ask) -> Live:
    return Live()


async def readyz(ask: Ask) -> web.StreamResponse:
    reasons = ask.sources.health.reasons()
    body = Ready(ready=not reasons, reasons=reasons)
    return json_response(body.model_dump(), status=503 if reasons else 200)


async def metrics(ask: Ask) -> web.StreamResponse:
    if ask.sources.desk is not None:
        await ask.sources.desk.take_stock()
    return web.Response(body=ask.sources.metrics(), headers={"Content-Type": METRICS_TYPE})


async def health(ask: Ask) -> Health:
    source = ask.sources.health
    reasons = source.reasons()
    report: dict[str, Any] = {**source.report(), "ready": not reasons, "reasons": reasons}
    return Health(**report)


ROUTES = (
    Route(method="GET", path="/livez", handler=livez, summary="The event loop answers", reply=Live, anyone=True),
    Route(
        method="GET", path="/readyz", handler=readyz, summary="Ready, or 503 with the reasons",
        reply=Ready, errors=(503,), anyone=True,
    ),
    Route(
        method="GET", path="/metrics", handler=metrics, summary="Prometheus metrics", media="text/plain", anyone=True
    ),
    Route(
        method="GET", path="/v1/health", handler=health, summary="The daemon's report on itself",
        needs="health", reply=Health,
    ),
)  # fmt: skip
