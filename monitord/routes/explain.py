"""Why a rule says what it says of a symbol, and why not."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel

from feeds.universe import is_symbol
from monitord.routes.route import ApiError, Ask, Route, json_response
from monitord.store import HistoryFilter
from rules.errors import RuleError

LAST: Final = 5
"""Events of the rule for the symbol that are told with it."""


class PartView(BaseModel):
    """A sub-expression; value: a number, a truth, null = unknown. known: false = only evaluated within a larger one."""

    text: str
    value: float | bool | None
    depth: int
    known: bool


class WarmupView(BaseModel):
    """Bars of a period that the condition needs, and those the symbol has."""

    period: str
    needed: int
    there: int


class LegView(BaseModel):
    leg: str | None
    condition: list[PartView]
    rearm: list[PartView]
    warmup: list[WarmupView]
    phase: str
    timer: str | None
    holds_back: str | None
    sent_today: int
    held_back: int


class ExplanationView(BaseModel):
    """not_watched, not_sampled: why not, null where it is; last: latest events, newest first (with `alerts` only)."""

    rule: str
    symbol: str
    name: str | None
    clock: str | None
    not_watched: str | None
    not_sampled: str | None
    tick: dict[str, Any] | None
    legs: list[LegView]
    last: list[dict[str, Any]]


async def explain(ask: Ask) -> web.StreamResponse:
    rule, symbol = ask.request.match_info["id"], ask.request.match_info["symbol"]
    if not is_symbol(symbol):
        raise ApiError(404, "not_found", f"{symbol[:100]!r} is no symbol such as 600519.SH", field="symbol")
    last: list[Any] = []
    if ask.grant.allows("alerts"):
        page = await ask.sources.history.history(HistoryFilter(rule=rule, symbol=symbol), page_size=LAST)
        last = [orjson.loads(stored.record) for stored in page.rows]
    try:
        explanation = await ask.sources.rules.explain(rule, symbol)
    except RuleError as error:
        raise ApiError(404, "not_found", str(error)[:200], field="id") from None
    return json_response({**explanation.record(), "last": last})


ROUTES = (
    Route(
        method="GET", path="/v1/rules/{id}/explain/{symbol}", handler=explain, needs="rules", reply=ExplanationView,
        errors=(404,), summary="Why a rule fires for a symbol or not: every part of its condition, arming, timers",
    ),
)  # fmt: skip
