"""Deliveries: what each receiver was told, every attempt, and delivering dead letters again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from monitord.deliveries import DeliveryFilter
from monitord.paging import PAGE_LIMIT
from monitord.routes.alerts import BodyMoment, Moment, Word
from monitord.routes.route import ApiError, Ask, Route, body_of
from notifiers.recorded import DeliveryState

if TYPE_CHECKING:
    from monitord.deliveries import StoredDelivery

MOST_IDS = 10_000
MOST_ALERTS = 200
"""Alerts whose deliveries are asked for at once; their ids have to fit into an address."""


def _ids(text: object) -> object:
    return tuple(text.split(",")) if isinstance(text, str) else text


AlertIds = Annotated[tuple[Word, ...], BeforeValidator(_ids, json_schema_input_type=str), Field(max_length=MOST_ALERTS)]
"""Ids of alerts with commas between."""


class DeliveryQuery(BaseModel):
    """since ≤ recorded < until, each Unix ms or ISO 8601 (Shanghai where it says no offset)."""

    model_config = ConfigDict(extra="forbid")

    receiver: Word | None = None
    alert_id: Word | None = None
    alert_ids: AlertIds | None = None
    state: DeliveryState | None = None
    since: Moment | None = None
    until: Moment | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 100


class DeliveryView(BaseModel):
    """One delivery. kind: alert, or the group or digest that carries several; bundle: the delivery that carries it.

    reason: why it is dead or withheld; due_ms: when the next attempt is; attempts: how many were made.
    """

    id: int
    receiver: str
    alert_id: str
    kind: Literal["alert", "group", "digest"]
    state: str
    route: str
    bundle: int | None
    attempts: int
    failures: int
    due_ms: int | None
    reason: str | None
    created_ms: int

    @classmethod
    def of(cls, stored: StoredDelivery) -> DeliveryView:
        kind: Literal["alert", "group", "digest"] = "alert" if stored.kind is None else stored.kind.value
        return cls(
            id=stored.id, receiver=stored.receiver, alert_id=stored.alert_id, kind=kind, state=str(stored.state),
            route=stored.route, bundle=stored.bundle, attempts=stored.attempts, failures=stored.failures,
            due_ms=stored.due_ms, reason=stored.reason, created_ms=stored.created_ms,
        )  # fmt: skip


class DeliveryPage(BaseModel):
    total: int
    page: int
    page_size: int
    order: Literal["newest first"] = "newest first"
    deliveries: list[DeliveryView]


class AttemptView(BaseModel):
    """One try. result: ok, retry, permanent or disable; code, text: what the receiver said."""

    at_ms: int
    latency_ms: int
    result: str
    code: int | None
    text: str


class DeliveryDetail(BaseModel):
    """A delivery with its attempts, oldest first. alert_ids: what a group or digest carries, in order."""

    delivery: DeliveryView
    attempts: list[AttemptView]
    alert_ids: list[str]


class ReplayBody(BaseModel):
    """Which dead letters: those that pass all that is given, and something has to be."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[int], Field(max_length=MOST_IDS)] | None = None
    receiver: Word | None = None
    alert_id: Word | None = None
    since: BodyMoment | None = None
    until: BodyMoment | None = None

    @model_validator(mode="after")
    def _says_which(self) -> ReplayBody:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("name ids, receiver, alert_id, since or until")
        return self


class Replayed(BaseModel):
    """replayed: alerts that are delivered again."""

    replayed: int


async def deliveries(ask: Ask) -> DeliveryPage:
    query: DeliveryQuery = ask.query
    wanted = DeliveryFilter(
        receiver=query.receiver, alert_id=query.alert_id, alert_ids=query.alert_ids, state=query.state,
        since_ms=query.since, until_ms=query.until,
    )  # fmt: skip
    page = await ask.sources.desk.deliveries(wanted, page=query.page, page_size=query.page_size)
    views = [DeliveryView.of(stored) for stored in page.rows]
    return DeliveryPage(total=page.total, page=page.page, page_size=page.page_size, deliveries=views)


async def delivery(ask: Ask) -> DeliveryDetail:
    text = ask.request.match_info["id"]
    found = await ask.sources.desk.delivery(int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else None
    if found is None:
        raise ApiError(404, "not_found", f"there is no delivery {text[:100]!r}", field="id")
    stored, attempts, alert_ids = found
    views = [
        AttemptView(at_ms=one.at_ms, latency_ms=one.latency_ms, result=str(one.verdict), code=one.code, text=one.text)
        for one in attempts
    ]
    return DeliveryDetail(delivery=DeliveryView.of(stored), attempts=views, alert_ids=alert_ids)


async def replay_deliveries(ask: Ask) -> Replayed:
    body = await body_of(ask, ReplayBody)
    wanted = DeliveryFilter(
        ids=None if body.ids is None else tuple(body.ids), receiver=body.receiver, alert_id=body.alert_id,
        since_ms=body.since, until_ms=body.until,
    )  # fmt: skip
    return Replayed(replayed=await ask.sources.desk.replay(wanted))


ROUTES = (
    Route(
        method="GET", path="/v1/deliveries", handler=deliveries, needs="deliveries", query=DeliveryQuery,
        reply=DeliveryPage, summary="Deliveries, newest first; state=dead lists the dead letters",
    ),
    Route(
        method="GET", path="/v1/deliveries/{id}", handler=delivery, needs="deliveries", reply=DeliveryDetail,
        errors=(404,), summary="One delivery with its attempts",
    ),
    Route(
        method="POST", path="/v1/deliveries/replay", handler=replay_deliveries, needs="deliveries:write",
        body=ReplayBody, reply=Replayed, errors=(400,), summary="Deliver dead letters again",
    ),
)  # fmt: skip
