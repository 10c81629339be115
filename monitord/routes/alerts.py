"""The history of alerts: everything that was ever decided, newest first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from monitord.paging import PAGE_LIMIT
from monitord.routes.route import ApiError, Ask, Route, json_response
from monitord.store import HistoryFilter, StoredAlert
from rules.alert import SHANGHAI, Event

FARTHEST_MS = 253_402_300_800_000
"""The end of year 9999."""
Word = Annotated[str, Field(min_length=1, max_length=200)]


def _time_ms(text: Any) -> int:
    """Read Unix milliseconds, or ISO 8601; a time without an offset is Shanghai's."""
    if not isinstance(text, str):
        raise ValueError("expected Unix milliseconds or ISO 8601")
    if text.isascii() and text.isdigit():
        ms = int(text[:20])
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("expected Unix milliseconds or ISO 8601 such as 2023-02-01T10:02:03") from None
        # a "+" that was not written as %2B arrives as a space; fromisoformat refuses that, which is the better answer
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=SHANGHAI)
        try:
            ms = round(aware.timestamp() * 1000)
        except (OverflowError, ValueError):
            raise ValueError("that time is out of range") from None
    if not 0 <= ms < FARTHEST_MS:
        raise ValueError("that time is out of range")
    return ms


Moment = Annotated[int, BeforeValidator(_time_ms, json_schema_input_type=str)]


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


BodyMoment = Annotated[Moment, BeforeValidator(_number_as_text, json_schema_input_type=int | str)]
"""The same in JSON, where it may be a number."""


class AlertQuery(BaseModel):
    """since ≤ event time < until, each Unix ms or ISO 8601 (Shanghai where it says no offset)."""

    model_config = ConfigDict(extra="forbid")

    rule: Word | None = None
    symbol: Word | None = None
    severity: Word | None = None
    event: Event | None = None
    trade_date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 100


class AlertView(BaseModel):
    """One event. data: its record as on the WebSocket; epoch, off: its place in the stream, null until published."""

    epoch: str | None
    off: int | None
    data: dict[str, Any]


class AlertPage(BaseModel):
    total: int
    page: int
    page_size: int
    order: Literal["newest first"] = "newest first"
    alerts: list[AlertView]


async def alerts(ask: Ask) -> web.StreamResponse:
    """List; a token that may not read all alerts must name a symbol, rule or severity that it may read."""
    query: AlertQuery = ask.query
    _require(ask, symbol=query.symbol, rule=query.rule, severity=query.severity)
    wanted = HistoryFilter(
        rule=query.rule,
        symbol=query.symbol,
        severity=query.severity,
        event=None if query.event is None else str(query.event),
        trade_date=query.trade_date,
        since_ms=query.since,
        until_ms=query.until,
    )
    page = await ask.sources.history.history(wanted, page=query.page, page_size=query.page_size)
    listed = [_view(stored) for stored in page.rows]
    counts = {"total": page.total, "page": page.page, "page_size": page.page_size, "order": "newest first"}
    return json_response({**counts, "alerts": listed})


async def alert(ask: Ask) -> web.StreamResponse:
    alert_id = ask.request.match_info["id"]
    stored = await ask.sources.history.alert(alert_id)
    if stored is None:
        raise ApiError(404, "not_found", f"there is no alert {alert_id[:100]!r}", field="id")
    record = orjson.loads(stored.record)
    _require(ask, symbol=record.get("symbol"), rule=record.get("rule"), severity=record.get("severity"))
    return json_response(_view(stored))


def _require(ask: Ask, *, symbol: str | None, rule: str | None, severity: str | None) -> None:
    named = (("sym", symbol), ("rule", rule), ("sev", severity))
    ask.require("alerts", *(f"alerts:{kind}:{name}" for kind, name in named if name is not None))


def _view(stored: StoredAlert) -> dict[str, Any]:
    """Put the stored bytes into the reply as they are: decoding and encoding them again would only cost."""
    return {"epoch": stored.epoch, "off": stored.off, "data": orjson.Fragment(stored.record)}


ROUTES = (
    Route(
        method="GET", path="/v1/alerts", handler=alerts, summary="Events, newest first",
        query=AlertQuery, reply=AlertPage,
    ),
    Route(
        method="GET", path="/v1/alerts/{id}", handler=alert, summary="One event", reply=AlertView, errors=(404,),
    ),
)  # fmt: skip
