"""`TaskDesk`: what people may see and do about monitoring tasks; it tells their channels status and progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

import orjson
import structlog

from monitord.errors import NoneSuchError
from monitord.gateway.quotes import Quote, QuoteSource
from monitord.rulebook import Rulebook
from monitord.storedrules import StoredTasks, TakenError
from monitord.tasks import MonitorTask, TaskTerms
from notifiers.matching import Known, nothing_known
from rules.alert import shanghai_iso

log = structlog.get_logger(__name__)
LEVELS: Final = ("entry_min", "entry_max", "take_profit", "stop_loss")


class Channels(Protocol):
    """Where status and progress are told (`Hub`)."""

    def is_followed(self, ch: str) -> bool:
        """Tell whether anybody is live on this channel."""

    def tell(self, ch: str, record: bytes, *, latest: bool = False) -> None:
        """Send JSON to all who follow the channel; latest: the newest is enough."""


class TaskDesk:
    """The tasks of one daemon. Event loop only; changes come one after the other, reading waits for none."""

    def __init__(
        self,
        book: Rulebook,
        *,
        stored: StoredTasks,
        quotes: QuoteSource,
        channels: Callable[[], Channels],
        known: Known = nothing_known,
    ) -> None:
        """channels: asked when something is to be told, as the gateway comes later; known: tells stocks' names."""
        self._book, self._stored, self._quotes, self._channels = book, stored, quotes, channels
        self._known = known
        self._tasks: dict[int, MonitorTask] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Take the tasks that are kept, and tell progress from now on."""
        self._tasks = {task.id: task for task in await self._stored.all()}
        self._quotes.watch(self._on_ticks)

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def all(self) -> list[MonitorTask]:
        """Return every task by id."""
        return list(self._tasks.values())

    def task(self, task_id: int) -> MonitorTask:
        """Return a task; raises NoneSuchError."""
        if task_id not in self._tasks:
            raise NoneSuchError(f"there is no task {task_id}")
        return self._tasks[task_id]

    def stock_name(self, task: MonitorTask) -> str:
        """Return what the task calls its stock, else what the exchange does; empty where nobody knows."""
        instrument = None if task.terms.stock_name else self._known(task.symbol)
        return task.terms.stock_name or (instrument.name if instrument is not None else None) or ""

    def status(self, task: MonitorTask) -> dict[str, Any]:
        """Return a task's status, JSON-able. problem: why a running task is not evaluated, None where it is."""
        return {
            "type": "status", "task_id": task.id, "task_name": task.terms.task_name, "stock_code": task.symbol,
            "stock_name": self.stock_name(task), "status": task.status, "problem": self._problem(task),
            "started_at": moment(task.started_ms), "stopped_at": moment(task.stopped_ms),
            "progress": self.progress(task),
        }  # fmt: skip

    def channel_status(self, ch: str) -> bytes | None:
        """Return the status of the task whose channel this is, as JSON; None if there is none."""
        number = ch.partition(":")[2]
        found = number.isascii() and number.isdigit() and str(int(number[:19])) == number
        task = self._tasks.get(int(number)) if found else None
        return None if task is None else orjson.dumps(self.status(task))

    def progress(self, task: MonitorTask) -> dict[str, Any] | None:
        """Return where the price is between the task's prices; None before the stock's first tick.

        to_…_pct: how far the price has to go, of itself.
        """
        quote = self._quotes.quote(task.symbol)
        return None if quote is None else _progress(task, quote)

    def _problem(self, task: MonitorTask) -> str | None:
        if not task.running:
            return None
        if not self._book.running:
            return "the service is stopped"
        refused = self._book.refused.get(task.text().name)
        if refused is None and self._known(task.symbol) is None and self._quotes.quote(task.symbol) is None:
            return (
                f"nothing is known of {task.symbol}: the feed neither lists it nor has told a price; is the code right?"
            )
        return refused

    # ── changing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def create(self, terms: TaskTerms) -> MonitorTask:
        """Keep a new task, stopped; raises TakenError, RefusedRules, NotHereError or StoreError."""
        async with self._turn:
            self._refuse_taken(terms, but=None)
            task_id = await self._stored.next_id()
            await self._book.check(MonitorTask(id=task_id, terms=terms).text())
            return self._note(await self._stored.put(task_id, terms), "created")

    async def update(self, task_id: int, change: Mapping[str, Any]) -> MonitorTask:
        """Change these fields of a task, of a running one at once.

        Raises as `create` does, NoneSuchError, and ValidationError for what cannot be.
        """
        async with self._turn:
            task = self.task(task_id)
            # A name that is sent back as it was shown is none that was given: with another stock it would be wrong.
            shown = "stock_name", self.stock_name(task)
            given = dict(field for field in change.items() if field != shown)
            # Race: of two changes at once each must keep what the other has changed, so they are put together in here.
            terms = TaskTerms.model_validate({**task.terms.model_dump(), **given})
            self._refuse_taken(terms, but=task_id)
            changed: list[MonitorTask] = []

            async def keep() -> None:
                changed.append(await self._stored.put(task_id, terms))

            text = MonitorTask(id=task_id, terms=terms).text()
            if task.running:
                await self._book.put(text, keep=keep)
            else:
                await self._book.check(text)
                await keep()
            return self._note(changed[0], "updated")

    async def delete(self, task_id: int) -> MonitorTask:
        """Stop a task and forget it; its history stays. Raises NoneSuchError or StoreError."""
        async with self._turn:
            task = self.task(task_id)
            await self._book.drop(task.text().name, keep=lambda: self._stored.delete(task_id))
            del self._tasks[task_id]
        log.info("task_changed", task=task_id, symbol=task.symbol, change="deleted")
        self._tell(task, {"type": "status", "task_id": task_id, "stock_code": task.symbol, "status": "deleted"})
        return task

    async def start(self, task_id: int) -> tuple[MonitorTask, bool]:
        """Evaluate a task's rules from now on; return it, and whether it was not running before.

        Raises NoneSuchError, RefusedRules, NotHereError or StoreError.
        """
        async with self._turn:
            task = self.task(task_id)
            if task.running:
                return task, False
            started: list[MonitorTask] = []

            async def keep() -> None:
                started.append(await self._stored.run(task_id, running=True))

            await self._book.put(task.text(), keep=keep)
            return self._note(started[0], "started"), True

    async def stop(self, task_id: int) -> tuple[MonitorTask, bool]:
        """Evaluate a task's rules no more; return it, and whether it was running before. Raises as `delete` does."""
        async with self._turn:
            task = self.task(task_id)
            if not task.running:
                return task, False
            stopped: list[MonitorTask] = []

            async def keep() -> None:
                stopped.append(await self._stored.run(task_id, running=False))

            await self._book.drop(task.text().name, keep=keep)
            return self._note(stopped[0], "stopped"), True

    def tell_all(self) -> None:
        """Tell every task's channel its status: the service was started or stopped."""
        for task in self._tasks.values():
            self._tell(task, self.status(task))

    def _refuse_taken(self, terms: TaskTerms, *, but: int | None) -> None:
        for task in self._tasks.values():
            if task.symbol == terms.stock_code and task.id != but:
                raise TakenError(f"{terms.stock_code} has a task already, {task.id}")

    def _note(self, task: MonitorTask, what: str) -> MonitorTask:
        self._tasks[task.id] = task
        log.info("task_changed", task=task.id, symbol=task.symbol, change=what)
        self._tell(task, self.status(task))
        return task

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, task: MonitorTask, record: Mapping[str, Any]) -> None:
        if self._channels().is_followed(task.channel):
            self._channels().tell(task.channel, orjson.dumps(record))

    def _on_ticks(self, symbols: Collection[str]) -> None:
        """Tell progress of the running tasks that somebody follows."""
        channels = self._channels()
        followed = [task for task in self._tasks.values() if task.running and channels.is_followed(task.channel)]
        if not followed:
            return
        changed = set(symbols)
        for task in followed:
            progress = self.progress(task) if task.symbol in changed else None
            if progress is not None:
                channels.tell(task.channel, orjson.dumps(progress), latest=True)


def moment(ts_ms: int | None) -> str | None:
    """Return a time as ISO 8601 in Shanghai."""
    return None if ts_ms is None else shanghai_iso(ts_ms)


def _progress(task: MonitorTask, quote: Quote) -> dict[str, Any]:
    last, prev_close = quote["last"], quote["prev_close"]
    known = last > 0
    terms = task.terms
    levels = {name: getattr(terms, name) for name in LEVELS}
    return {
        "type": "progress", "task_id": task.id, "stock_code": task.symbol, "ts_event_ms": quote["ts_event_ms"],
        "time": shanghai_iso(quote["ts_event_ms"]), "last": last if known else None,
        "change_pct": (last / prev_close - 1) * 100 if known and prev_close > 0 else None,
        "in_entry_range": None if not known or terms.entry_min is None or terms.entry_max is None
        else terms.entry_min <= last <= terms.entry_max,
        **{f"to_{name}_pct": None if level is None or not known else (level / last - 1) * 100
           for name, level in levels.items()},
    }  # fmt: skip
