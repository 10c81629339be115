"""Puts together what is made by API: the rule set it is part of, and the desks that are asked about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from config.settings import Settings
from monitord.gateway.quotes import QuoteSource
from monitord.routes.route import Made
from monitord.rulebook import Change, Parse, Rulebook
from monitord.ruledesk import RuleDesk
from monitord.store import Store
from monitord.taskdesk import Channels, TaskDesk
from notifiers.adviser import Adviser, AdviserOptions
from notifiers.alertstream import connect_to
from notifiers.errors import DeliveryError
from notifiers.matching import Known, nothing_known
from notifiers.notifier import Notifier
from notifiers.orders import OrderNotifier, OrderOptions
from notifiers.reports import TIMEOUT_S, ReportDesk
from rules.alert import Event

ADVISER, ORDERS = "adviser", "orders"
"""What they are called among receivers."""


async def open_rulebook(
    store: Store, read_files: Callable[[], Mapping[str, str]], *, parse: Parse, change: Change, shared: bool
) -> Rulebook:
    """Make the rule set of files and of what is kept in the store; raises as `Rulebook.open` does."""
    book = Rulebook(read_files, parse=parse, change=change, shared=shared)
    texts = [one.text() for one in await store.monitors.all() if one.enabled]
    texts += [task.text() for task in await store.tasks.all() if task.running]
    running, _ = await store.service.state()
    await book.open(texts, running=running)
    return book


async def open_desks(
    book: Rulebook,
    store: Store,
    *,
    quotes: QuoteSource,
    channels: Callable[[], Channels],
    known: Known = nothing_known,
) -> Made:
    """Make what is asked about tasks and rules by API."""
    tasks = TaskDesk(book, stored=store.tasks, quotes=quotes, channels=channels, known=known)
    rules = RuleDesk(book, stored=store.monitors, service=store.service)
    await tasks.open()
    await rules.open()
    return Made(tasks, rules)


def build_programs(settings: Settings, store: Store, *, broker_url: str) -> list[Notifier]:
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


async def build_reports(settings: Settings, store: Store, *, broker_url: str) -> ReportDesk | None:
    """Make what reads what became of order intents, None where there are none."""
    if not settings.orders.enabled:
        return None

    async def record_of(alert_id: str) -> bytes | None:
        stored = await store.alert(alert_id)
        return None if stored is None else stored.record

    client = connect_to(broker_url, timeout_s=TIMEOUT_S)
    name = f"orders:{await store.deliveries.origin()}"
    return ReportDesk(client, name=name, find=record_of, tell=store.tell, language=settings.rules.language)
