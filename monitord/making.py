"""Puts together what is made by API: the rule set it is part of, and the desks that are asked about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monitord.gateway.quotes import QuoteSource
from monitord.routes.route import Made
from monitord.rulebook import Change, Parse, Rulebook
from monitord.ruledesk import RuleDesk
from monitord.store import Store
from monitord.taskdesk import Channels, TaskDesk
from notifiers.matching import Known, nothing_known


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
