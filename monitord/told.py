"""Who is told besides the gateway's clients: receivers, programs that are delivered to like them, and who asks them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from config.receivers import Receiver
from config.settings import Settings
from monitord.desk import Desk
from monitord.log import Redaction
from monitord.routing import build_routing
from monitord.store import Store
from notifiers.adviser import Adviser, AdviserOptions
from notifiers.alertstream import connect_to
from notifiers.delivery import Delivery
from notifiers.errors import DeliveryError
from notifiers.group import AlertConsumer, consumer_client
from notifiers.matching import Known
from notifiers.notifier import Notifier, build_notifier
from notifiers.orders import OrderNotifier, OrderOptions
from notifiers.reports import TIMEOUT_S, ReportDesk
from notifiers.routing import Router
from notifiers.silences import Silences
from rules.alert import Alert, Event

ADVISER, ORDERS = "adviser", "orders"
"""What they are called among receivers."""


@dataclass(frozen=True, slots=True)
class Told:
    """A delivery for each receiver and program, what is asked about them, and who reads what became of order intents.

    reports: None where there are no order intents.
    """

    deliveries: tuple[Delivery, ...]
    desk: Desk
    reports: ReportDesk | None


async def build_told(
    settings: Settings, store: Store, *, broker_url: str, known: Known, cleanup: AsyncExitStack
) -> Told:
    """Make all who are told; raises DeliveryError for unusable settings."""
    silences = Silences()
    routers = await _routers(settings, store, silences, known)
    deliveries = [
        _delivery(settings, _notifier(receiver), store, router=routers[receiver.name], broker_url=broker_url)
        for receiver in settings.notify.receivers()
    ]
    for program in _programs(settings, store, broker_url=broker_url):
        router = Router(program.options.name, of_people=False)
        deliveries.append(_delivery(settings, program, store, router=router, broker_url=broker_url))
    reports = await _reports(settings, store, broker_url=broker_url)
    if reports is not None:
        cleanup.push_async_callback(reports.close)
    desk = Desk(
        deliveries, stored=store.deliveries, silences=silences, kept=store.silences, events=store,
        receivers=settings.notify.receivers(), redact=Redaction(settings.secrets()).text,
    )  # fmt: skip
    await desk.load_silences()
    return Told(tuple(deliveries), desk, reports)


async def _routers(settings: Settings, store: Store, silences: Silences, known: Known) -> dict[str, Router]:
    """Make each receiver's router; what inhibits now, those of before the start know from the store."""
    routing = await asyncio.to_thread(build_routing, settings.notify)
    routers = {name: Router(name, routing, silences=silences, known=known) for name in settings.notify.receiver_names}
    longest_ms = max((router.inhibitor.longest_ms for router in routers.values()), default=0)
    if longest_ms:
        records = await store.recent(within_ms=longest_ms)
        alerts = [Alert.from_json(record) for record in records]
        for router in routers.values():
            router.inhibitor.note_all(alerts)
    return routers


def _notifier(receiver: Receiver) -> Notifier:
    return build_notifier(receiver.kind, **receiver.options())


def _delivery(settings: Settings, notifier: Notifier, store: Store, *, router: Router, broker_url: str) -> Delivery:
    share = settings.engine.share
    name = f"monitord:{share}" if share else "monitord"
    consumer = AlertConsumer(consumer_client(broker_url), notifier.options.name, consumer=name)
    return Delivery(notifier, consumer, store.deliveries, router=router)


def _programs(settings: Settings, store: Store, *, broker_url: str) -> list[Notifier]:
    """Make what is delivered to like a receiver and tells nobody: the adviser, and the publisher of order intents.

    Raises DeliveryError for unusable settings.
    """
    programs: list[Notifier] = []
    if settings.adviser.url:
        options = AdviserOptions(name=ADVISER, events=(Event.FIRE,), **settings.adviser.options())
        programs.append(Adviser(options, tell=store.tell))
    if settings.orders.enabled:
        order_options = OrderOptions(name=ORDERS, events=(Event.FIRE,), **settings.orders.options())
        programs.append(OrderNotifier(order_options, connect_to(broker_url)))
    for program in programs:
        if program.options.name in settings.notify.receiver_names:
            raise DeliveryError(f"a receiver is named {program.options.name!r}, which is taken; give it another name")
    return programs


async def _reports(settings: Settings, store: Store, *, broker_url: str) -> ReportDesk | None:
    """Make what reads what became of order intents, None where there are none."""
    if not settings.orders.enabled:
        return None

    async def record_of(alert_id: str) -> bytes | None:
        stored = await store.alert(alert_id)
        return None if stored is None else stored.record

    client = connect_to(broker_url, timeout_s=TIMEOUT_S)
    name = f"orders:{await store.deliveries.origin()}"
    return ReportDesk(client, name=name, find=record_of, tell=store.tell, language=settings.rules.language)
