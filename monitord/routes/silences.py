"""Silences: for a time, by somebody and for a reason, alerts of a kind are told to no receiver."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from feeds.instruments import Board
from monitord.routes.alerts import BodyMoment
from monitord.routes.route import ApiError, Ask, Route, body_of
from monitord.silences import record_of
from notifiers.matching import Matcher
from notifiers.silences import Silence, SilenceError
from rules.alert import Event

Text = Annotated[str, Field(min_length=1, max_length=200)]
Texts = Annotated[list[Text], Field(max_length=200)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class MatchBody(BaseModel):
    """Each condition that is given has to hold, any of its entries will do; rules, symbols, severities are globs."""

    model_config = ConfigDict(extra="forbid")

    rules: Texts = []
    symbols: Texts = []
    boards: list[Board] = []
    sectors: Texts = []
    severities: Texts = []
    events: list[Event] = []
    labels: dict[Text, Annotated[str, Field(max_length=200)]] = {}
    include: Texts = []
    exclude: Texts = []

    def matcher(self) -> Matcher:
        fields: dict[str, Any] = {name: tuple(getattr(self, name)) for name in type(self).model_fields}
        return Matcher(**{**fields, "labels": tuple(self.labels.items())})


class SilenceBody(BaseModel):
    """start ≤ now < end, each Unix ms or ISO 8601 (Shanghai where it says no offset); without a start it is now."""

    model_config = ConfigDict(extra="forbid")

    match: MatchBody
    start: BodyMoment | None = None
    end: BodyMoment
    author: Text
    comment: Annotated[str, Field(min_length=1, max_length=1000)]


class SilenceView(BaseModel):
    id: int
    state: Literal["pending", "active", "expired"]
    match: dict[str, Any]
    start_ms: int
    end_ms: int
    author: str
    comment: str
    created_ms: int

    @classmethod
    def of(cls, silence: Silence) -> SilenceView:
        state: Any = silence.state(now_ms())
        return cls(
            id=silence.id, state=state, match=record_of(silence.matcher), start_ms=silence.start_ms,
            end_ms=silence.end_ms, author=silence.author, comment=silence.comment, created_ms=silence.created_ms,
        )  # fmt: skip


class SilenceQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: Literal["pending", "active", "expired"] | None = None


class SilenceList(BaseModel):
    total: int
    silences: list[SilenceView]


async def silences(ask: Ask) -> SilenceList:
    query: SilenceQuery = ask.query
    views = [SilenceView.of(one) for one in await ask.sources.desk.silences()]
    asked = [view for view in views if query.state in (None, view.state)]
    return SilenceList(total=len(asked), silences=asked)


async def add_silence(ask: Ask) -> SilenceView:
    body = await body_of(ask, SilenceBody)
    now = now_ms()
    try:
        if body.end <= now:
            raise SilenceError("end", "is over already")
        silence = Silence(
            matcher=body.match.matcher(), start_ms=now if body.start is None else body.start, end_ms=body.end,
            author=body.author, comment=body.comment,
        )  # fmt: skip
        return SilenceView.of(await ask.sources.desk.silence(silence))
    except SilenceError as error:
        raise ApiError(400, "bad_request", str(error), field=error.field) from None


async def expire_silence(ask: Ask) -> SilenceView:
    text = ask.request.match_info["id"]
    ended = await ask.sources.desk.expire(int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else None
    if ended is None:
        raise ApiError(404, "not_found", f"there is no silence {text[:100]!r}", field="id")
    return SilenceView.of(ended)


ROUTES = (
    Route(
        method="GET", path="/v1/silences", handler=silences, needs="silences", query=SilenceQuery,
        reply=SilenceList, summary="The newest silences, newest first",
    ),
    Route(
        method="POST", path="/v1/silences", handler=add_silence, needs="silences:write", body=SilenceBody,
        reply=SilenceView, errors=(400,), summary="Tell receivers nothing of these alerts for a time",
    ),
    Route(
        method="POST", path="/v1/silences/{id}/expire", handler=expire_silence, needs="silences:write",
        reply=SilenceView, errors=(404,), summary="End a silence now",
    ),
)  # fmt: skip
