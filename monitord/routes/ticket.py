"""Single-use tickets: how a browser gets from its token to a WebSocket or an EventSource, which take no headers."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from monitord.routes.route import SOURCES, Route, grant_of


class Ticket(BaseModel):
    ticket: str
    expires_in_s: float


async def ticket(request: web.Request, query: None) -> Ticket:
    sources = request.app[SOURCES]
    return Ticket(ticket=sources.ticket(grant_of(request)), expires_in_s=sources.ticket_s)


ROUTES = (
    Route(
        method="POST", path="/v1/ticket", handler=ticket, reply=Ticket,
        summary="A ticket for ?ticket=… of /v1/ws or /v1/sse, good once",
    ),
)  # fmt: skip
