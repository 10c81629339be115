"""Positions: what rules over positions watch, from files and by API."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from monitord.routes.route import ApiError, Ask, Route
from rules.errors import RuleError
from rules.positions import Position

MOST: Final = 20_000
"""Positions of one request."""


class PositionBody(BaseModel):
    """One position. entry: yuan per share; quantity: shares."""

    model_config = ConfigDict(extra="forbid", strict=True)

    book: str
    symbol: str
    entry: float
    quantity: float


class PositionView(PositionBody):
    origin: Literal["file", "api"]


class PositionList(BaseModel):
    total: int
    positions: list[PositionView]


class PositionsBody(BaseModel):
    """All positions made by API: they take the place of those there were."""

    model_config = ConfigDict(extra="forbid")

    positions: list[PositionBody]


async def positions(ask: Ask) -> PositionList:
    try:
        listed = await ask.sources.rules.positions()
    except (RuleError, OSError, UnicodeDecodeError) as error:
        raise ApiError(422, "bad_positions", f"{error}; the old positions stay in force") from None
    views = [
        PositionView(
            book=one.position.book, symbol=one.position.symbol, entry=one.position.entry,
            quantity=one.position.quantity, origin="file" if one.origin == "file" else "api",
        )
        for one in listed
    ]  # fmt: skip
    return PositionList(total=len(views), positions=views)


async def hold(ask: Ask) -> PositionList:
    body = await _body(ask)
    held = [Position(one.book, one.symbol, one.entry, one.quantity) for one in body.positions]
    try:
        await ask.sources.rules.hold(held)
    except (RuleError, OSError, UnicodeDecodeError) as error:
        raise ApiError(422, "bad_positions", f"{error}; nothing was changed") from None
    return await positions(ask)


async def _body(ask: Ask) -> PositionsBody:
    try:
        body = PositionsBody.model_validate_json(await ask.request.read())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or None
        raise ApiError(400, "bad_request", f"{field or 'the body'}: {first['msg']}", field=field) from None
    if len(body.positions) > MOST:
        raise ApiError(400, "bad_request", f"more than {MOST} positions in one request", field="positions")
    return body


ROUTES = (
    Route(
        method="GET", path="/v1/positions", handler=positions, needs="positions", reply=PositionList, errors=(422,),
        summary="The positions of files and API",
    ),
    Route(
        method="PUT", path="/v1/positions", handler=hold, needs="positions:write", body=PositionsBody,
        reply=PositionList, errors=(400, 422),
        summary="Let these positions take the place of all made by API; those of files stay",
    ),
)  # fmt: skip
