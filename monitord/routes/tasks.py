"""Monitoring tasks as the system before this one had them: /api/v1/monitor."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from monitord.errors import NoneSuchError
from monitord.paging import PAGE_LIMIT
from monitord.routes.alerts import Moment
from monitord.routes.envelope import Envelope, checked_body, guarded, number_in
from monitord.routes.route import ApiError, Ask, Route
from monitord.store import HistoryFilter
from monitord.taskdesk import TaskDesk, moment
from monitord.taskids import task_of
from monitord.tasks import StockCode, TaskTerms
from rules.alert import Event, shanghai_iso
from rules.errors import RuleError

if TYPE_CHECKING:
    from monitord.store import StoredAlert
    from monitord.tasks import MonitorTask

Said: TypeAlias = tuple[str, str]
READ_ONLY: Final = ("id", "status", "created_at", "updated_at", "started_at", "stopped_at", "channel")
"""What an answer has and a client may send back."""
EXPORTED: Final = 200_000
"""Events of one CSV file at most."""
COLUMNS: Final = (
    "time", "task_id", "stock_code", "stock_name", "type", "event", "severity", "price", "message", "late", "why",
    "about", "order", "reported_at", "id",
)  # fmt: skip
_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""A Chinese Excel takes the full-width ones for formulas too."""


class TaskView(TaskTerms):
    """A task. channel: of the WebSocket, with its status, progress and events."""

    id: int
    status: Literal["running", "stopped"]
    created_at: str | None
    updated_at: str | None
    started_at: str | None
    stopped_at: str | None
    channel: str

    @classmethod
    def of(cls, task: MonitorTask, *, stock_name: str) -> TaskView:
        return cls(
            **{**task.terms.model_dump(), "stock_name": stock_name},
            id=task.id, status=task.status, channel=task.channel,
            created_at=moment(task.created_ms), updated_at=moment(task.updated_ms),
            started_at=moment(task.started_ms), stopped_at=moment(task.stopped_ms),
        )  # fmt: skip


class TaskList(BaseModel):
    total: int
    tasks: list[TaskView]


class TaskChange(BaseModel):
    """Fields to change; those left out stay as they are, null empties one."""

    model_config = ConfigDict(extra="allow")


class Switched(BaseModel):
    """What became of a start or stop."""

    status: Literal["started", "already_running", "stopped", "already_stopped", "deleted"]
    message: str
    task_id: int
    stock_code: str


class RuleStatus(BaseModel):
    """One rule of a task. phase: where its life is; holds_back: why a fire now would not be told; null: it is not
    evaluated, or has not begun."""

    rule: str
    type: str
    when: str | None
    phase: str | None
    holds_back: str | None
    not_watched: str | None


class TaskStatus(BaseModel):
    """How a task is. events: of all time; last_event: the newest; problem: why a running task is not evaluated."""

    model_config = ConfigDict(extra="allow")

    task_id: int
    stock_code: str
    status: Literal["running", "stopped"]
    problem: str | None
    progress: dict[str, Any] | None
    rules: list[RuleStatus]
    events: int
    last_event: TaskEvent | None


class TaskEvent(BaseModel):
    """One event of a task's rules. type: entry, take_profit, stop_loss, condition, advice, order; event: fire …

    about: of advice and orders, the event's id that it is about; order: what became of the order, placed, filled …;
    reported_at: when, by the trading side's clock.
    """

    id: str
    task_id: int
    stock_code: str | None
    stock_name: str | None
    type: str
    event: Event
    severity: str
    time: str
    ts_event_ms: int
    trade_date: str
    price: float | None
    message: str
    late: bool
    why: str | None
    values: dict[str, float | None]
    about: str | None
    order: str | None
    reported_at: str | None

    @classmethod
    def of(cls, stored: StoredAlert) -> TaskEvent:
        record = orjson.loads(stored.record)
        tick, labels = record["tick"] or {}, record["labels"]
        reported_ms = (record.get("stamps") or {}).get("reported_ms")
        task_id, kind = task_of(record["rule"]) or (0, "")
        same = ("id", "event", "severity", "ts_event_ms", "trade_date", "message", "late", "why", "values")
        return cls(
            **{name: record[name] for name in same}, task_id=task_id, type=kind, stock_code=record["symbol"],
            stock_name=record["name"], time=shanghai_iso(record["ts_event_ms"]), price=tick.get("last"),
            about=labels.get("about"), order=labels.get("order_state"), reported_at=moment(reported_ms),
        )  # fmt: skip


class TaskHistory(BaseModel):
    total: int
    page: int
    page_size: int
    order: Literal["newest first"] = "newest first"
    events: list[TaskEvent]


class HistoryQuery(BaseModel):
    """since ≤ event time < until, each Unix ms or ISO 8601 (Shanghai where it says no offset).

    format: csv gives every event that passes, whatever the page, up to 200,000.
    """

    model_config = ConfigDict(extra="forbid")

    stock_code: StockCode | None = None
    task_id: Annotated[int, Field(ge=1, lt=10**18)] | None = None
    type: Literal["entry", "take_profit", "stop_loss", "condition", "advice", "order"] | None = None
    event: Event | None = None
    since: Moment | None = None
    until: Moment | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 20
    format: Literal["json", "csv"] = "json"

    def filter(self, before_seq: int | None = None) -> HistoryFilter:
        ending = "*" if self.type is None else f"{self.type}-*" if self.type == "condition" else self.type
        return HistoryFilter(
            symbol=self.stock_code, event=None if self.event is None else str(self.event), since_ms=self.since,
            until_ms=self.until, before_seq=before_seq,
            task_rules=f"task-{'*' if self.task_id is None else self.task_id}.{ending}",
        )  # fmt: skip


class HeldPosition(BaseModel):
    """What is held. cost, last: yuan a share; quantity: shares; profit: yuan; null: no price of the stock yet."""

    book: str
    origin: Literal["file", "api"]
    stock_code: str
    cost: float
    quantity: float
    last: float | None
    market_value: float | None
    profit: float | None
    profit_pct: float | None
    task_id: int | None


class HeldPositions(BaseModel):
    total: int
    positions: list[HeldPosition]


# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def tasks(ask: Ask) -> Envelope[TaskList]:
    views = [_view(ask, task) for task in _desk(ask).all()]
    return Envelope(data=TaskList(total=len(views), tasks=views))


async def task(ask: Ask) -> Envelope[TaskView]:
    return Envelope(data=_view(ask, _task(ask)))


async def create_task(ask: Ask) -> Envelope[TaskView]:
    terms = await checked_body(ask, TaskTerms, besides=READ_ONLY)
    made = await guarded(lambda: _desk(ask).create(terms))
    return Envelope(message="created", data=_view(ask, made))


async def update_task(ask: Ask) -> Envelope[TaskView]:
    number = _task(ask).id
    change = (await checked_body(ask, TaskChange, besides=READ_ONLY)).model_extra or {}
    updated = await guarded(lambda: _desk(ask).update(number, change))
    return Envelope(message="updated", data=_view(ask, updated))


async def delete_task(ask: Ask) -> Envelope[Switched]:
    task = _task(ask)
    await guarded(lambda: _desk(ask).delete(task.id))
    message = f"task {task.id} of {task.symbol} is deleted; its history stays"
    return Envelope(message=message, data=_switched(task, "deleted", message))


async def start_task(ask: Ask) -> Envelope[Switched]:
    return await _switch(ask, _desk(ask).start, ("started", "watches {}"), ("already_running", "was running already"))


async def stop_task(ask: Ask) -> Envelope[Switched]:
    return await _switch(ask, _desk(ask).stop, ("stopped", "is stopped"), ("already_stopped", "was stopped already"))


async def _switch(
    ask: Ask, switch: Callable[[int], Awaitable[tuple[MonitorTask, bool]]], done: Said, idle: Said
) -> Envelope[Switched]:
    """Start or stop the task; done and idle: status and words where that was news, and where it was not."""
    number = _task(ask).id
    task, is_new = await guarded(lambda: switch(number))
    status, words = done if is_new else idle
    message = f"task {task.id} {words.format(task.symbol)}"
    return Envelope(message=message, data=_switched(task, status, message))


async def task_status(ask: Ask) -> Envelope[TaskStatus]:
    task, desk = _task(ask), _desk(ask)
    wanted = HistoryFilter(task_rules=f"task-{task.id}.*")
    page = await ask.sources.history.history(wanted, page_size=1)
    last = TaskEvent.of(page.rows[0]) if page.rows else None
    rules = [await _rule_status(ask, task, rule) for rule in task.rule_ids]
    return Envelope(data=TaskStatus(**desk.status(task), rules=rules, events=page.total, last_event=last))


async def _rule_status(ask: Ask, task: MonitorTask, rule: str) -> RuleStatus:
    kind = (task_of(rule) or (0, ""))[1]
    try:
        told = await ask.sources.rules.explain(rule, task.symbol)
    except RuleError:
        return RuleStatus(rule=rule, type=kind, when=None, phase=None, holds_back=None, not_watched=None)
    leg = told.legs[0] if told.legs else None
    when = next((one.legs[0].when.text for one in ask.sources.rules.rules().rules if one.id == rule), None)
    return RuleStatus(
        rule=rule, type=kind, when=when, phase=None if leg is None else leg.phase,
        holds_back=None if leg is None else leg.holds_back, not_watched=told.not_watched,
    )  # fmt: skip


def _desk(ask: Ask) -> TaskDesk:
    return ask.made.tasks


def _task(ask: Ask) -> MonitorTask:
    """Return the task of the path; raises ApiError 404."""
    try:
        return _desk(ask).task(number_in(ask, "task"))
    except NoneSuchError as error:
        raise ApiError(404, "not_found", str(error), field="id") from None


def _view(ask: Ask, task: MonitorTask) -> TaskView:
    return TaskView.of(task, stock_name=_desk(ask).stock_name(task))


def _switched(task: MonitorTask, status: Any, message: str) -> Switched:
    return Switched(status=status, message=message, task_id=task.id, stock_code=task.symbol)


# ── history and positions ─────────────────────────────────────────────────────────────────────────────────────────


async def task_history(ask: Ask) -> Envelope[TaskHistory] | web.StreamResponse:
    query: HistoryQuery = ask.query
    if query.format == "csv":
        return await _export(ask, query)
    page = await ask.sources.history.history(query.filter(), page=query.page, page_size=query.page_size)
    events = [TaskEvent.of(stored) for stored in page.rows]
    return Envelope(data=TaskHistory(total=page.total, page=page.page, page_size=page.page_size, events=events))


async def _export(ask: Ask, query: HistoryQuery) -> web.StreamResponse:
    """Stream the events as CSV, UTF-8 with a mark by which Excel knows it."""
    response = web.StreamResponse(headers={
        "Content-Type": "text/csv; charset=utf-8", "Cache-Control": "no-store",
        "Content-Disposition": 'attachment; filename="history.csv"',
    })  # fmt: skip
    await response.prepare(ask.request)
    await response.write("\ufeff".encode() + _csv([COLUMNS]))
    before: int | None = None
    for _ in range(EXPORTED // PAGE_LIMIT):
        page = await ask.sources.history.history(query.filter(before), page_size=PAGE_LIMIT)
        if page.rows:
            await response.write(_csv([_row(TaskEvent.of(stored)) for stored in page.rows]))
            before = page.rows[-1].seq
        if len(page.rows) < PAGE_LIMIT:
            break
    await response.write_eof()
    return response


def _row(event: TaskEvent) -> list[Any]:
    return [_cell(getattr(event, column)) for column in COLUMNS]


def _cell(value: Any) -> Any:
    """Return a value as a spreadsheet may have it: a text that it would take for a formula is quoted."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_SIGNS) else value


def _csv(rows: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


async def held_positions(ask: Ask) -> Envelope[HeldPositions]:
    try:
        listed = await ask.sources.rules.positions()
    except (RuleError, OSError, UnicodeDecodeError) as error:
        raise ApiError(422, "bad_positions", f"{error}; the old positions stay in force") from None
    by_symbol = {task.symbol: task.id for task in _desk(ask).all()}
    views = [_held(one, ask.sources.quotes.quote(one.position.symbol), by_symbol) for one in listed]
    return Envelope(data=HeldPositions(total=len(views), positions=views))


def _held(listed: Any, quote: Mapping[str, Any] | None, tasks: Mapping[str, int]) -> HeldPosition:
    position = listed.position
    last = None if quote is None or not math.isfinite(quote["last"]) or quote["last"] <= 0 else quote["last"]
    return HeldPosition(
        book=position.book, origin="file" if listed.origin == "file" else "api", stock_code=position.symbol,
        cost=position.entry, quantity=position.quantity, last=last,
        market_value=None if last is None else last * position.quantity,
        profit=None if last is None else (last - position.entry) * position.quantity,
        profit_pct=None if last is None else (last / position.entry - 1) * 100, task_id=tasks.get(position.symbol),
    )  # fmt: skip


PATH: Final = "/api/v1/monitor"
ROUTES = (
    Route(
        method="GET", path=f"{PATH}/tasks", handler=tasks, needs="tasks", reply=Envelope[TaskList],
        summary="Every monitoring task",
    ),
    Route(
        method="POST", path=f"{PATH}/tasks", handler=create_task, needs="tasks:write", body=TaskTerms,
        reply=Envelope[TaskView], errors=(409, 422), summary="Make a task, one a stock; it is stopped until started",
    ),
    Route(
        method="GET", path=f"{PATH}/tasks/{{id}}", handler=task, needs="tasks", reply=Envelope[TaskView],
        errors=(404,), summary="One task",
    ),
    Route(
        method="PUT", path=f"{PATH}/tasks/{{id}}", handler=update_task, needs="tasks:write", body=TaskChange,
        reply=Envelope[TaskView], errors=(404, 409, 422), summary="Change fields of a task, of a running one at once",
    ),
    Route(
        method="DELETE", path=f"{PATH}/tasks/{{id}}", handler=delete_task, needs="tasks:write",
        reply=Envelope[Switched], errors=(404,), summary="Stop a task and forget it; its history stays",
    ),
    Route(
        method="POST", path=f"{PATH}/tasks/{{id}}/start", handler=start_task, needs="tasks:write",
        reply=Envelope[Switched], errors=(404, 409, 422), summary="Evaluate a task from now on, after a restart too",
    ),
    Route(
        method="POST", path=f"{PATH}/tasks/{{id}}/stop", handler=stop_task, needs="tasks:write",
        reply=Envelope[Switched], errors=(404,), summary="Evaluate a task no more",
    ),
    Route(
        method="GET", path=f"{PATH}/tasks/{{id}}/status", handler=task_status, needs="tasks",
        reply=Envelope[TaskStatus], errors=(404,), summary="How a task is: its rules, its price, its newest event",
    ),
    Route(
        method="GET", path=f"{PATH}/positions", handler=held_positions, needs="positions",
        reply=Envelope[HeldPositions], errors=(422,), summary="What is held, at the latest prices",
    ),
    Route(
        method="GET", path=f"{PATH}/history", handler=task_history, needs="tasks", query=HistoryQuery,
        reply=Envelope[TaskHistory], summary="Events of tasks, newest first; format=csv exports them",
    ),
)  # fmt: skip
