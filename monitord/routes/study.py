"""Looking things up: symbols by code or name, recent bars, and a formula tried out on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from feeds.history import COLUMNS, PERIODS
from feeds.universe import is_symbol
from monitord.routes.route import ApiError, Ask, Route, StudySource, body_of, json_response
from monitord.tryout import LONGEST_FORMULA, MOST_BARS, MOST_SYMBOLS, TryOutError, Wish

Period = Literal["1m", "5m", "15m", "30m", "60m", "1d", "1w", "1mon"]
Code = Annotated[str, Field(pattern=r"^[0-9]{6}\.(SH|SZ|BJ)$")]


class InstrumentQuery(BaseModel):
    """q: the beginning or a part of a code or name."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, Field(max_length=40)] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class InstrumentView(BaseModel):
    symbol: str
    name: str | None
    board: str


class InstrumentList(BaseModel):
    """Those that are watched, codes that begin with the words first."""

    instruments: list[InstrumentView]


class BarQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    period: Period = "1m"
    count: Annotated[int, Field(ge=1, le=MOST_BARS)] = 240


class BarColumns(BaseModel):
    """Bars, oldest first, one list a column; ts_end: Unix ms of each bar's end; null = unknown."""

    ts_end: list[int]
    open: list[float | None]
    high: list[float | None]
    low: list[float | None]
    close: list[float | None]
    volume_lots: list[float | None]
    amount_cny: list[float | None]


class BarsView(BaseModel):
    """What the engine holds; the newest bar may be forming. None where no rule in force makes bars of it."""

    symbol: str
    period: str
    bars: BarColumns


class TryOutBody(BaseModel):
    """on: bars = at the close of each of the newest `count` bars; ticks = a rule over the newest recorded session."""

    model_config = ConfigDict(extra="forbid")

    formula: Annotated[str, Field(min_length=1, max_length=LONGEST_FORMULA)]
    symbols: Annotated[list[Code], Field(min_length=1, max_length=MOST_SYMBOLS)]
    period: Period | Literal["tick"] = "1m"
    on: Literal["bars", "ticks"] = "bars"
    count: Annotated[int, Field(ge=1, le=MOST_BARS)] = 250


class FireView(BaseModel):
    """Where the rule would have fired. values: the named outputs then."""

    ts_ms: int
    price: float | None
    values: dict[str, float | None]


class TriedSymbol(BaseModel):
    """condition: 1 true, 0 false, null unknown, one for each bar; on ticks it is empty, and so are outputs."""

    symbol: str
    bars: BarColumns
    outputs: dict[str, list[float | None]]
    condition: list[float | None]
    fires: list[FireView]


class TryOutResult(BaseModel):
    """notes: what to know of the data; warnings: findings of the formula, each with its place and a hint."""

    ok: bool
    on: str
    period: str
    warnings: list[dict[str, Any]]
    notes: list[str]
    symbols: list[TriedSymbol]


def _study(ask: Ask) -> StudySource:
    if ask.sources.study is None:
        raise ApiError(503, "unavailable", "this gateway answers no such questions")
    return ask.sources.study


async def instruments(ask: Ask) -> InstrumentList:
    query: InstrumentQuery = ask.query
    found = await _study(ask).instruments(query.q, limit=query.limit)
    return InstrumentList(
        instruments=[InstrumentView(symbol=one.symbol, name=one.name, board=str(one.board)) for one in found]
    )


async def bars(ask: Ask) -> web.StreamResponse:
    symbol, query = ask.request.match_info["symbol"], ask.query
    ask.require(f"tick:{symbol}")
    if not is_symbol(symbol):
        raise ApiError(404, "not_found", f"{symbol[:100]!r} is no symbol such as 600519.SH", field="symbol")
    table = await _study(ask).bars(symbol, query.period, count=query.count)
    columns = {"ts_end": table.ends_ms.tolist(), **{name: getattr(table, name).tolist() for name in COLUMNS}}
    return json_response({"symbol": symbol, "period": query.period, "bars": columns})


async def try_out(ask: Ask) -> web.StreamResponse:
    body = await body_of(ask, TryOutBody)
    if body.on == "bars" and body.period not in PERIODS:
        raise ApiError(422, "bad_period", "bars have a period such as 1m; tick is tried on ticks", field="period")
    wish = Wish(body.formula, tuple(dict.fromkeys(body.symbols)), body.period, on=body.on, count=body.count)
    try:
        result = await _study(ask).try_out(wish)
    except TryOutError as error:
        status = 503 if error.code == "busy" else 422
        raise ApiError(status, error.code, str(error), findings=error.findings) from None
    return web.Response(body=result, content_type="application/json", headers={"Cache-Control": "no-store"})


ROUTES = (
    Route(
        method="GET", path="/v1/instruments", handler=instruments, needs="instruments", query=InstrumentQuery,
        reply=InstrumentList, errors=(503,), summary="Symbols that are watched, by code or name",
    ),
    Route(
        method="GET", path="/v1/bars/{symbol}", handler=bars, query=BarQuery, reply=BarsView, errors=(404, 503),
        summary="The newest bars that the engine holds of a symbol",
    ),
    Route(
        method="POST", path="/v1/tryout", handler=try_out, needs="tryout", body=TryOutBody, reply=TryOutResult,
        errors=(400, 422, 503), ends_with_client=True,
        summary="What a formula gives on recent bars, or as a rule on recorded ticks",
    ),
)  # fmt: skip
