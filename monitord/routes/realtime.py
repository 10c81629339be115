"""Rules by API, the whole service's start and stop, and who was told what: /api/v1/realtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from monitord.deliveries import DeliveryFilter
from monitord.routes.alerts import Moment, Word
from monitord.routes.deliveries import AttemptView
from monitord.routes.envelope import Envelope, checked_body, guarded, number_in
from monitord.routes.route import Ask, Route
from monitord.ruledesk import RuleDesk
from monitord.taskdesk import moment
from notifiers.recorded import DeliveryState

if TYPE_CHECKING:
    from monitord.desk import Told
    from monitord.storedrules import Monitor

READ_ONLY: Final = ("id", "rule_id", "state", "problem", "created_at", "updated_at")


def _storable(rule: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refuse what no JSON of ours can hold, such as numbers above 64 bits."""
    if rule is None:
        return None
    if not isinstance(rule.get("id", ""), str):
        raise ValueError("a rule's id is a text")
    try:
        orjson.dumps(rule)
    except TypeError as error:
        raise ValueError(f"cannot be kept: {error}") from None
    return rule


class MonitorBody(BaseModel):
    """A rule by API. rule: its fields as in a rule file (docs/rules.md), checked as a file is; without an id it is
    monitor-N. enabled: whether it is evaluated."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=100)] = ""
    enabled: bool = True
    rule: Annotated[
        dict[str, Any],
        Field(
            min_length=1,
            examples=[{"select": ["600519.SH"], "when": "CROSS(LAST, 1800)", "rearm": "LAST < 1782"}],
        ),
    ]

    _check = field_validator("rule")(_storable)


class MonitorChange(BaseModel):
    """What to change; a rule takes the place of the whole old one."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=100)] | None = None
    enabled: bool | None = None
    rule: Annotated[dict[str, Any], Field(min_length=1)] | None = None

    _check = field_validator("rule")(_storable)


class MonitorView(BaseModel):
    """problem: why an enabled one is not evaluated, null where it is."""

    id: int
    name: str
    enabled: bool
    rule_id: str
    rule: dict[str, Any]
    problem: str | None
    created_at: str | None
    updated_at: str | None


class MonitorList(BaseModel):
    """service: whether any rule is evaluated, those of files too; since: null = nobody has ever stopped it."""

    service: Literal["running", "stopped"]
    since: str | None
    total: int
    monitors: list[MonitorView]


class ServiceState(BaseModel):
    """rules: how many are in force now, those of files and tasks too."""

    status: Literal["started", "already_running", "stopped", "already_stopped"]
    message: str
    since: str | None
    rules: int


class NotificationQuery(BaseModel):
    """since ≤ recorded < until, each Unix ms or ISO 8601 (Shanghai where it says no offset)."""

    model_config = ConfigDict(extra="forbid")

    receiver: Word | None = None
    state: DeliveryState | None = None
    since: Moment | None = None
    until: Moment | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=200)] = 20


class NotificationView(BaseModel):
    """One message to one receiver, and what became of it. kind: alert, or group or digest of several.

    rule … time: of its alert, null for a bundle; reason: why it is dead or withheld.
    """

    id: int
    receiver: str
    kind: Literal["alert", "group", "digest"]
    alert_id: str
    rule: str | None
    stock_code: str | None
    severity: str | None
    message: str | None
    time: str | None
    state: DeliveryState
    reason: str | None
    recorded_at: str | None
    attempts: list[AttemptView]

    @classmethod
    def of(cls, told: Told) -> NotificationView:
        delivery = told.delivery
        record = {} if told.event is None else orjson.loads(told.event.record)
        kind: Any = "alert" if delivery.kind is None else delivery.kind.value
        attempts = [
            AttemptView(at_ms=one.at_ms, latency_ms=one.latency_ms, result=one.verdict, code=one.code, text=one.text)
            for one in told.attempts
        ]
        return cls(
            id=delivery.id, receiver=delivery.receiver, kind=kind, alert_id=delivery.alert_id,
            rule=record.get("rule"), stock_code=record.get("symbol"), severity=record.get("severity"),
            message=record.get("message"), time=record.get("event_ts"), state=delivery.state, reason=delivery.reason,
            recorded_at=moment(delivery.created_ms), attempts=attempts,
        )  # fmt: skip


class NotificationPage(BaseModel):
    total: int
    page: int
    page_size: int
    order: Literal["newest first"] = "newest first"
    notifications: list[NotificationView]


async def monitors(ask: Ask) -> Envelope[MonitorList]:
    desk = _desk(ask)
    views = [_view(desk, one) for one in desk.all()]
    service: Any = "running" if desk.running else "stopped"
    return Envelope(data=MonitorList(service=service, since=moment(desk.since_ms), total=len(views), monitors=views))


async def add_monitor(ask: Ask) -> Envelope[MonitorView]:
    body = await checked_body(ask, MonitorBody, besides=READ_ONLY)
    added = await guarded(lambda: _desk(ask).add(name=body.name, rule=body.rule, enabled=body.enabled))
    return Envelope(message="created", data=_view(_desk(ask), added))


async def change_monitor(ask: Ask) -> Envelope[MonitorView]:
    number = number_in(ask, "monitor")
    body = await checked_body(ask, MonitorChange, besides=READ_ONLY)
    changed = await guarded(lambda: _desk(ask).change(number, name=body.name, rule=body.rule, enabled=body.enabled))
    return Envelope(message="updated", data=_view(_desk(ask), changed))


async def delete_monitor(ask: Ask) -> Envelope[MonitorView]:
    number = number_in(ask, "monitor")
    gone = await guarded(lambda: _desk(ask).delete(number))
    return Envelope(message="deleted; its history stays", data=_view(_desk(ask), gone))


async def start_service(ask: Ask) -> Envelope[ServiceState]:
    is_new = await _desk(ask).run(True)
    return _service(ask, "started" if is_new else "already_running", "rules are evaluated")


async def stop_service(ask: Ask) -> Envelope[ServiceState]:
    is_new = await _desk(ask).run(False)
    return _service(
        ask, "stopped" if is_new else "already_stopped", "no rule is evaluated until the service is started"
    )


async def notifications(ask: Ask) -> Envelope[NotificationPage]:
    query: NotificationQuery = ask.query
    wanted = DeliveryFilter(receiver=query.receiver, state=query.state, since_ms=query.since, until_ms=query.until)
    page = await ask.sources.desk.notifications(wanted, page=query.page, page_size=query.page_size)
    views = [NotificationView.of(one) for one in page.rows]
    return Envelope(
        data=NotificationPage(total=page.total, page=page.page, page_size=page.page_size, notifications=views)
    )


def _desk(ask: Ask) -> RuleDesk:
    return ask.made.rules


def _service(ask: Ask, status: Any, message: str) -> Envelope[ServiceState]:
    ask.made.tasks.tell_all()
    desk, rules = _desk(ask), len(ask.sources.rules.rules().rules)
    state = ServiceState(status=status, message=message, since=moment(desk.since_ms), rules=rules)
    return Envelope(message=message, data=state)


def _view(desk: RuleDesk, monitor: Monitor) -> MonitorView:
    return MonitorView(
        id=monitor.id, name=monitor.name, enabled=monitor.enabled, rule_id=monitor.rule_id, rule=dict(monitor.rule),
        problem=desk.problem(monitor), created_at=moment(monitor.created_ms), updated_at=moment(monitor.updated_ms),
    )  # fmt: skip


PATH: Final = "/api/v1/realtime"
ROUTES = (
    Route(
        method="GET", path=f"{PATH}/monitors", handler=monitors, needs="monitors", reply=Envelope[MonitorList],
        summary="Rules made by API; /v1/rules lists all that are in force",
    ),
    Route(
        method="POST", path=f"{PATH}/monitors", handler=add_monitor, needs="monitors:write", body=MonitorBody,
        reply=Envelope[MonitorView], errors=(409, 422), summary="Make a rule, in force at once and after a restart",
    ),
    Route(
        method="PUT", path=f"{PATH}/monitors/{{id}}", handler=change_monitor, needs="monitors:write",
        body=MonitorChange, reply=Envelope[MonitorView], errors=(404, 409, 422),
        summary="Change a rule, or switch it on and off",
    ),
    Route(
        method="DELETE", path=f"{PATH}/monitors/{{id}}", handler=delete_monitor, needs="monitors:write",
        reply=Envelope[MonitorView], errors=(404,), summary="Forget a rule; its history stays",
    ),
    Route(
        method="POST", path=f"{PATH}/start", handler=start_service, needs="service:write",
        reply=Envelope[ServiceState], summary="Evaluate rules again",
    ),
    Route(
        method="POST", path=f"{PATH}/stop", handler=stop_service, needs="service:write",
        reply=Envelope[ServiceState], summary="Evaluate no rule, also none of files and tasks, until started again",
    ),
    Route(
        method="GET", path=f"{PATH}/notifications", handler=notifications, needs="deliveries",
        query=NotificationQuery, reply=Envelope[NotificationPage],
        summary="Who was told what, newest first, with every attempt",
    ),
)  # fmt: skip
