"""REST: one resource a file, one line here. Each file has its routes in `ROUTES`; everything else follows from them."""

from __future__ import annotations

from monitord.routes import (
    alerts,
    backup,
    channels,
    deliveries,
    explain,
    health,
    positions,
    quotes,
    realtime,
    receivers,
    reference,
    rules,
    silences,
    study,
    tasks,
    ticket,
)
from monitord.routes.route import Route

ROUTES: tuple[Route, ...] = (
    *health.ROUTES,
    *rules.ROUTES,
    *positions.ROUTES,
    *explain.ROUTES,
    *alerts.ROUTES,
    *receivers.ROUTES,
    *deliveries.ROUTES,
    *silences.ROUTES,
    *quotes.ROUTES,
    *study.ROUTES,
    *ticket.ROUTES,
    *tasks.ROUTES,
    *realtime.ROUTES,
    *channels.ROUTES,
    *reference.ROUTES,
    *backup.ROUTES,
)
