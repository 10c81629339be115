"""Receivers: how each is, and switching it on and off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from monitord.routes.route import ApiError, Ask, Route, body_of

if TYPE_CHECKING:
    from monitord.desk import ReceiverReport


class ReceiverView(BaseModel):
    """One receiver. status: ok, paused, misconfigured, disabled; why: in words, null when ok; by_hand: a person has
    switched it off.

    pending, dead, withheld: deliveries in the store; counters: since the daemon's start.
    """

    name: str
    status: str
    why: str | None
    by_hand: bool
    failures: int
    failing_since_ms: int | None
    hold_until_ms: int | None
    pending: int
    dead: int
    withheld: int
    counters: dict[str, int]

    @classmethod
    def of(cls, report: ReceiverReport) -> ReceiverView:
        state = report.state
        return cls(
            name=report.name, status=str(report.status), why=report.why, by_hand=state.by_hand,
            failures=state.failures,
            failing_since_ms=state.failing_since_ms, hold_until_ms=state.hold_until_ms or None,
            pending=report.pending, dead=report.dead, withheld=report.withheld, counters=dict(report.counters),
        )  # fmt: skip


class ReceiverList(BaseModel):
    total: int
    receivers: list[ReceiverView]


class EnableBody(BaseModel):
    """replay: deliver its dead letters again, too."""

    model_config = ConfigDict(extra="forbid", strict=True)

    replay: bool = False


class Enabled(BaseModel):
    receiver: ReceiverView
    replayed: int


class DisableBody(BaseModel):
    """reason: told in its dead letters and to whoever looks."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, Field(min_length=1, max_length=200)]


async def receivers(ask: Ask) -> ReceiverList:
    views = [ReceiverView.of(report) for report in await ask.sources.desk.receivers()]
    return ReceiverList(total=len(views), receivers=views)


async def enable(ask: Ask) -> Enabled:
    body = await body_of(ask, EnableBody)
    name = (await _report(ask)).name
    replayed = await ask.sources.desk.enable(name, replay=body.replay)
    return Enabled(receiver=ReceiverView.of(await _report(ask)), replayed=replayed)


async def disable(ask: Ask) -> ReceiverView:
    body = await body_of(ask, DisableBody)
    await ask.sources.desk.disable((await _report(ask)).name, reason=body.reason)
    return ReceiverView.of(await _report(ask))


async def _report(ask: Ask) -> ReceiverReport:
    name = ask.request.match_info["name"]
    report = await ask.sources.desk.receiver(name)
    if report is None:
        raise ApiError(404, "not_found", f"there is no receiver {name[:100]!r}", field="name")
    return report


ROUTES = (
    Route(
        method="GET", path="/v1/receivers", handler=receivers, needs="receivers", reply=ReceiverList,
        summary="How each receiver is",
    ),
    Route(
        method="POST", path="/v1/receivers/{name}/enable", handler=enable, needs="receivers:write", body=EnableBody,
        reply=Enabled, errors=(400, 404), summary="Switch a receiver on, its failures forgotten",
    ),
    Route(
        method="POST", path="/v1/receivers/{name}/disable", handler=disable, needs="receivers:write",
        body=DisableBody, reply=ReceiverView, errors=(400, 404), summary="Switch a receiver off",
    ),
)  # fmt: skip
