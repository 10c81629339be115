"""Single-use tickets: how a browser gets from its token to a WebSocket or an EventSource, which take no headers."""

from __future__ import annotations

from pydantic import BaseModel

from monitord.routes.route import Ask, Route


class Ticket(BaseModel):
    ticket: str
    expires_in_s: float


async def ticket(ask: Ask) -> Ticket:
    sources = ask.sources
    return Ticket(ticket=sources.ticket(ask.grant), expires_in_s=sources.ticket_s)


ROUTES = (
    Route(
        method="POST", path="/v1/ticket", handler=ticket, reply=Ticket,
        summary="A ticket for ?ticket=… of /v1/ws or /v1/sse, good once",
    ),
)  # fmt: skip
