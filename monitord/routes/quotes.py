"""The latest tick of a symbol, and what the rules that cover it see."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import BaseModel

from monitord.routes.route import ApiError, Ask, Route, json_response


class QuoteView(BaseModel):
    """tick: the columns of the latest tick; indicators: rule id → named output → value now, null = unknown."""

    symbol: str
    tick: dict[str, Any]
    indicators: dict[str, dict[str, float | None]]


async def quote(ask: Ask) -> web.StreamResponse:
    symbol = ask.request.match_info["symbol"]
    ask.require(f"tick:{symbol}")
    sources = ask.sources
    tick = sources.quotes.quote(symbol, book=True)
    if tick is None:
        raise ApiError(404, "not_found", f"no tick of {symbol[:100]!r} has come yet", field="symbol")
    return json_response({"symbol": symbol, "tick": tick, "indicators": await sources.rules.indicators(symbol)})


ROUTES = (
    Route(
        method="GET", path="/v1/quotes/{symbol}", handler=quote, reply=QuoteView, errors=(404,),
        summary="The latest tick of a symbol, and the indicator values of the rules that cover it",
    ),
)  # fmt: skip
