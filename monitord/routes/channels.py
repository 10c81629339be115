"""Receivers as the system before this one called them, notification channels: /api/v1/notification."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from monitord.routes.envelope import Envelope, checked_body
from monitord.routes.receivers import ReceiverView
from monitord.routes.route import ApiError, Ask, Route

if TYPE_CHECKING:
    from monitord.desk import ReceiverKind


class ChannelView(BaseModel):
    """A receiver of the settings, without its secrets, and how it is. events … severities: what it is told of."""

    name: str
    kind: str
    enabled: bool
    events: list[str]
    rules: list[str]
    symbols: list[str]
    severities: list[str]
    per_minute: int
    health: ReceiverView


class ChannelList(BaseModel):
    total: int
    channels: list[ChannelView]


class ChannelChange(BaseModel):
    """enabled: whether it is told anything; reason: why not, for whoever looks. Addresses and keys are settings."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool
    reason: Annotated[str, Field(min_length=1, max_length=200)] = "switched off by API"


class TestResult(BaseModel):
    """What came of one attempt. result: ok, retry, permanent or disable; code, text: what the receiver said."""

    name: str
    ok: bool
    result: str
    code: int | None
    text: str
    latency_ms: int


async def channels(ask: Ask) -> Envelope[ChannelList]:
    health = {report.name: ReceiverView.of(report) for report in await ask.sources.desk.receivers()}
    views = [_view(kind, health[kind.name]) for kind in ask.sources.desk.channels()]
    return Envelope(data=ChannelList(total=len(views), channels=views))


async def channel(ask: Ask) -> Envelope[ChannelView]:
    return Envelope(data=await _one(ask))


async def change_channel(ask: Ask) -> Envelope[ChannelView]:
    name = (await _one(ask)).name
    body = await checked_body(ask, ChannelChange)
    if body.enabled:
        await ask.sources.desk.enable(name)
    else:
        await ask.sources.desk.disable(name, reason=body.reason)
    return Envelope(message="updated", data=await _one(ask))


async def test_channel(ask: Ask) -> Envelope[TestResult]:
    name = (await _one(ask)).name
    started = time.monotonic()
    outcome = await ask.sources.desk.test(name)
    result = TestResult(
        name=name, ok=outcome.verdict == "ok", result=str(outcome.verdict), code=outcome.code, text=outcome.text,
        latency_ms=round((time.monotonic() - started) * 1000),
    )  # fmt: skip
    return Envelope(message="taken" if result.ok else "not taken", data=result)


async def _one(ask: Ask) -> ChannelView:
    name = ask.request.match_info["name"]
    report = await ask.sources.desk.receiver(name)
    kind = next((one for one in ask.sources.desk.channels() if one.name == name), None)
    if report is None or kind is None:
        raise ApiError(404, "not_found", f"there is no channel {name[:100]!r}", field="name")
    return _view(kind, ReceiverView.of(report))


def _view(kind: ReceiverKind, health: ReceiverView) -> ChannelView:
    return ChannelView(
        name=kind.name, kind=kind.kind, enabled=health.status != "disabled", events=list(kind.events),
        rules=list(kind.rules), symbols=list(kind.symbols), severities=list(kind.severities),
        per_minute=kind.per_minute, health=health,
    )  # fmt: skip


PATH: Final = "/api/v1/notification/channels"
ROUTES = (
    Route(
        method="GET", path=PATH, handler=channels, needs="receivers", reply=Envelope[ChannelList],
        summary="The receivers of the settings and how each is",
    ),
    Route(
        method="GET", path=f"{PATH}/{{name}}", handler=channel, needs="receivers", reply=Envelope[ChannelView],
        errors=(404,), summary="One receiver",
    ),
    Route(
        method="PUT", path=f"{PATH}/{{name}}", handler=change_channel, needs="receivers:write", body=ChannelChange,
        reply=Envelope[ChannelView], errors=(404, 422), summary="Switch a receiver on or off",
    ),
    Route(
        method="POST", path=f"{PATH}/{{name}}/test", handler=test_channel, needs="receivers:write",
        reply=Envelope[TestResult], errors=(404,), summary="Send a test message and tell what came back",
    ),
)  # fmt: skip
