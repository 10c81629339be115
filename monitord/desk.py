"""`Desk`: what people may see and do about receivers, deliveries and silences; the API and the metrics ask it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from config.receivers import Receiver
from monitord.deliveries import Deliveries, DeliveryFilter, StoredDelivery
from monitord.paging import Page
from monitord.silences import StoredSilences
from monitord.store import StoredAlert
from monitord.trial import try_out
from notifiers.delivery import Delivery
from notifiers.notifier import Outcome
from notifiers.recorded import Attempt, DeliveryState
from notifiers.retry import ReceiverState, ReceiverStatus
from notifiers.silences import Silence, Silences

log = structlog.get_logger(__name__)
LISTED_SILENCES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverReport:
    """How a receiver is. pending, dead, withheld: deliveries in the store; counters: since the start."""

    name: str
    status: ReceiverStatus
    why: str | None
    state: ReceiverState
    pending: int
    dead: int
    withheld: int
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverKind:
    """What is configured of a receiver, without secrets. events, rules, symbols, severities: () = no limit."""

    name: str
    kind: str
    events: tuple[str, ...]
    rules: tuple[str, ...]
    symbols: tuple[str, ...]
    severities: tuple[str, ...]
    per_minute: int


@dataclass(frozen=True, slots=True)
class Told:
    """A delivery with its attempts, oldest first, and the event; None: a bundle, or pruned."""

    delivery: StoredDelivery
    attempts: Sequence[Attempt]
    event: StoredAlert | None


class Events(Protocol):
    """Where events are (`Store`)."""

    async def alerts(self, alert_ids: Sequence[str]) -> Mapping[str, StoredAlert]:
        """Return the events of these ids that there are, by id."""


class Desk:
    """The receivers of one daemon. Event-loop thread; every method may be called while deliveries run."""

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        *,
        stored: Deliveries,
        silences: Silences,
        kept: StoredSilences,
        events: Events | None = None,
        receivers: Sequence[Receiver] = (),
        redact: Callable[[str], str] = str,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """silences: those the receivers' routers ask; kept: where they are stored; events: those that were told.

        receivers: as the settings have them; redact: blots secrets out of what a receiver answers to a test.
        """
        self._events, self._receivers, self._redact = events, {one.name: one for one in receivers}, redact
        self._testing = asyncio.Lock()
        self._deliveries = {delivery.name: delivery for delivery in deliveries}
        self._stored, self._silences, self._kept, self._clock_ms = stored, silences, kept, clock_ms
        self._backlog: Mapping[tuple[str, str], int] = {}

    # ── receivers ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def receivers(self) -> list[ReceiverReport]:
        """Return how each receiver is, in the settings' order."""
        counts = await self._stored.counts()
        return [self._report(delivery, counts) for delivery in self._deliveries.values()]

    async def receiver(self, name: str) -> ReceiverReport | None:
        """Return how one receiver is, None if there is none of this name."""
        return next((report for report in await self.receivers() if report.name == name), None)

    async def enable(self, name: str, *, replay: bool = False) -> int:
        """Switch a receiver on, its failures forgotten; with `replay` its dead letters again: return how many."""
        await self._deliveries[name].enable()
        log.info("receiver_enabled", receiver=name)
        return await self._stored.replay(name) if replay else 0

    async def disable(self, name: str, *, reason: str) -> None:
        """Switch a receiver off: what comes becomes a dead letter."""
        await self._deliveries[name].disable(reason)

    def statuses(self) -> Mapping[str, ReceiverStatus]:
        """Return each receiver's status now."""
        now_ms = self._clock_ms()
        return {name: delivery.state.status(now_ms) for name, delivery in self._deliveries.items()}

    async def take_stock(self) -> None:
        """Count what waits and what is dead, for `backlog`."""
        self._backlog = await self._stored.backlog()

    def backlog(self) -> Mapping[tuple[str, str], int]:
        """Return how many deliveries are pending or dead, by (receiver, state), as of the last `take_stock`."""
        kinds = (DeliveryState.PENDING, DeliveryState.DEAD)
        return {(name, str(one)): self._backlog.get((name, str(one)), 0) for name in self._deliveries for one in kinds}

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Return each receiver's counts since the start."""
        return {name: delivery.counters() for name, delivery in self._deliveries.items()}

    def _report(self, delivery: Delivery, counts: Mapping[tuple[str, str], int]) -> ReceiverReport:
        state, status = delivery.state, delivery.state.status(self._clock_ms())
        why = {
            ReceiverStatus.OK: None,
            ReceiverStatus.PAUSED: f"{state.failures} failures, nothing is sent for a while",
            ReceiverStatus.MISCONFIGURED: f"the last {state.refusals} alerts were refused; see its dead letters",
            ReceiverStatus.DISABLED: state.disabled,
        }[status]
        pending, dead, withheld = (
            counts.get((delivery.name, str(one)), 0)
            for one in (DeliveryState.PENDING, DeliveryState.DEAD, DeliveryState.WITHHELD)
        )
        return ReceiverReport(
            name=delivery.name, status=status, why=why, state=state, pending=pending, dead=dead, withheld=withheld,
            counters=delivery.counters(),
        )  # fmt: skip

    # ── deliveries ────────────────────────────────────────────────────────────────────────────────────────────────

    async def deliveries(self, wanted: DeliveryFilter, *, page: int, page_size: int) -> Page[StoredDelivery]:
        """Return a page of the deliveries that pass, newest first."""
        return await self._stored.listing(wanted, page=page, page_size=page_size)

    async def delivery(self, delivery_id: int) -> tuple[StoredDelivery, list[Attempt], list[str]] | None:
        """Return a delivery, its attempts and, of a bundle, its alerts' ids; None if there is none."""
        found = await self._stored.one(delivery_id)
        if found is None:
            return None
        return found, await self._stored.attempts(delivery_id), await self._stored.alert_ids(delivery_id)

    async def replay(self, wanted: DeliveryFilter) -> int:
        """Deliver the dead letters that pass again, from the first attempt on; return how many alerts they are."""
        count = await self._stored.replay_all(wanted)
        log.info("deliveries_replayed", alerts=count, receiver=wanted.receiver)
        return count

    async def notifications(self, wanted: DeliveryFilter, *, page: int, page_size: int) -> Page[Told]:
        """Return a page of the deliveries that pass, newest first, each with its attempts and its event."""
        found = await self._stored.listing(wanted, page=page, page_size=page_size)
        attempts = await self._stored.attempts_of([one.id for one in found.rows])
        ids = [one.alert_id for one in found.rows if one.kind is None]
        events = {} if self._events is None else await self._events.alerts(ids)
        told = tuple(Told(one, attempts.get(one.id, ()), events.get(one.alert_id)) for one in found.rows)
        return Page(told, found.total, found.page, found.page_size)

    def channels(self) -> list[ReceiverKind]:
        """Return what is configured, in the settings' order; secrets are not in it."""
        return [
            ReceiverKind(
                name=one.name, kind=one.kind, events=one.events, rules=one.rules, symbols=one.symbols,
                severities=one.severities, per_minute=one.per_minute,
            )
            for one in self._receivers.values()
        ]  # fmt: skip

    async def test(self, name: str) -> Outcome:
        """Send a test message to a receiver, one test at a time; its answer comes without secrets."""
        async with self._testing:
            outcome = await try_out(self._receivers[name])
        log.info("receiver_tested", receiver=name, verdict=outcome.verdict)
        return replace(outcome, text=self._redact(outcome.text))

    # ── silences ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def silences(self) -> list[Silence]:
        """Return the newest silences, expired ones too, newest first."""
        return await self._kept.newest(limit=LISTED_SILENCES)

    async def silence(self, silence: Silence) -> Silence:
        """Keep a silence, and let it take effect; raises SilenceError. Durable when it returns."""
        added = await self._kept.add(silence)
        await self.load_silences()
        log.info("silence_added", silence=added.id, author=added.author, start_ms=added.start_ms, end_ms=added.end_ms)
        return added

    async def expire(self, silence_id: int) -> Silence | None:
        """End a silence now and return it, None if there is none of this id."""
        ended = await self._kept.expire(silence_id)
        await self.load_silences()
        if ended is not None:
            log.info("silence_expired", silence=silence_id)
        return ended

    async def load_silences(self) -> None:
        """Let what is stored take effect."""
        self._silences.put(await self._kept.alive())
