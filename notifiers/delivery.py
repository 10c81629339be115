"""The delivery of alerts to one receiver: recorded first, then acknowledged, then sent until it arrives or is dead."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from notifiers.consumer import BLOCK_MS, MAX_DELIVERIES, GroupEntry, GroupReader
from notifiers.errors import BrokerUnavailable
from notifiers.health import TEXT_CHARACTERS, ReceiverHealth, remaining_ms
from notifiers.notifier import Bundle, Notification, Notifier, Outcome, Verdict
from notifiers.recorded import Arrival, Attempt, DeliveryState, DeliveryStore, PendingDelivery
from notifiers.retry import ReceiverState, cured
from notifiers.routing import Router
from notifiers.suspects import Suspects
from notifiers.turns import Turns
from rules.alert import Alert

log = structlog.get_logger()

READ_BATCH: Final = 256
AWAY_MIN_MS: Final = 100
AWAY_MAX_MS: Final = 5_000
"""Pauses between attempts at a broker that is away: doubled from the first to the second."""
COUNTERS: Final = (
    "received",
    "filtered",
    "withheld",
    "duplicates",
    "trimmed",
    "sent",
    "bundles",
    "divided",
    "retried",
    "dead",
    "in_flight",
    "broker_failures",
)


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall clock in Unix ms, and a wait in seconds: an argument, so that a test's day takes no time."""

    now_ms: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]]


SYSTEM_CLOCK: Final = Clock(lambda: time.time_ns() // 1_000_000, asyncio.sleep)


class Delivery:
    """Carries the alert stream to one receiver; each receiver has its own, so none waits for another.

    The stream is read in batches; what the receiver wants is recorded in the store and only then acknowledged, so being
    killed anywhere loses nothing. What is due is sent one at a time in the order of recording, which is the stream's:
    first attempts keep stream order, and a failed delivery steps aside until its next attempt. The backlog stands in
    the store, not in memory. All methods are for the event loop's thread.
    """

    def __init__(
        self,
        notifier: Notifier,
        reader: GroupReader,
        store: DeliveryStore,
        *,
        router: Router | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Make ready. router: of this receiver, None = told of all it wants; random: a uniform number in [0, 1)."""
        self.name = notifier.options.name
        self._router = router or Router(self.name)
        self._turns = Turns(self.name, store, pacing=notifier.pacing.slowed(notifier.options.per_minute))
        self._notifier = notifier
        self._filter = notifier.options.filter
        self._reader = reader
        self._store = store
        self._clock = clock
        self._random = random
        self._health = ReceiverHealth(self.name, store, now_ms=clock.now_ms)
        self._suspects = Suspects()
        self._known: bool | None = None
        """Whether the store has seen this receiver; None until it was asked."""
        self._opened = False
        self._stopping = False
        self._deadline: asyncio.Timeout | None = None
        self._deadline_at_s: float | None = None
        self._idle: asyncio.Timeout | None = None
        self._away_until_ms = 0
        self._away_ms = 0
        self._counts = dict.fromkeys(COUNTERS, 0)

    @property
    def state(self) -> ReceiverState:
        """The receiver's health."""
        return self._health.state

    def counters(self) -> Mapping[str, int]:
        """Return counts since the start; `in_flight` is 1 while an attempt is being made."""
        return dict(self._counts)

    async def open(self) -> None:
        """Take the receiver's place in the stream; await it before the first alert is published. Idempotent.

        A receiver never seen before begins behind the last alert, a known one where it was, or, if the broker has lost
        that, at the stream's first entry. Raises BrokerUnavailable.
        """
        if self._opened:
            return
        await self._restore()
        await self._reader.open(from_start=bool(self._known))
        if not self._known:
            await self._store.set_receiver_state(self.name, self.state)
        self._opened = self._known = True

    async def run(self) -> None:
        """Deliver until `stop`; then return once nothing is due, or at its deadline.

        Survives a broker that is away (deliveries go on); raises what the store raises, and may then be run again.
        Cancelling at any point loses nothing; the attempt in flight is made again with the same alert id.
        """
        try:
            async with asyncio.timeout_at(self._deadline_at_s) as self._deadline:
                await self._restore()
                await self._notifier.open()
                while await self._cycle():
                    pass
        except TimeoutError:
            if self._deadline is None or not self._deadline.expired():
                raise
            log.warning("delivery_deadline", receiver=self.name)
        finally:
            self._deadline = None
            await self._notifier.close()
            await self._reader.close()

    def stop(self, deadline_s: float) -> None:
        """Let `run` take and send what is there now, within deadline_s seconds; what remains stays in the store."""
        loop = asyncio.get_running_loop()
        self._stopping = True
        self._deadline_at_s = loop.time() + deadline_s
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(self._deadline_at_s)
        if self._idle is not None and not self._idle.expired():
            self._idle.reschedule(loop.time())

    async def enable(self) -> None:
        """Switch the receiver on, its failures forgotten."""
        await self._restore()
        await self._health.keep(cured)

    async def disable(self, reason: str) -> None:
        """Switch the receiver off: alerts become dead letters with this reason, pending deliveries wait."""
        await self._restore()
        await self._health.keep(lambda state: replace(state, disabled=reason))

    async def replay(self, delivery_ids: Sequence[int] | None = None) -> int:
        """Deliver dead letters (these, or all) again from the first attempt on; return how many."""
        return await self._store.replay(self.name, delivery_ids)

    async def _restore(self) -> None:
        """Take up what the store kept, once: the receiver's health, and how much of its rates is used."""
        if self._known is None:
            known = await self._health.restore()
            if known:
                await self._turns.restore(self._clock.now_ms())
            self._known = known

    async def _cycle(self) -> bool:
        """Take what came and send what is due; return False if stopped and there was neither."""
        taken = await self._take()
        sent = await self._send_due()
        return taken + sent > 0 or not self._stopping

    async def _take(self) -> int:
        """Read entries, record them, acknowledge them: in this order. Return how many; 0 while the broker is away."""
        try:
            entries = await self._read()
            if entries:
                await self._record(entries)
                await self._reader.ack([entry.id for entry in entries])
        except BrokerUnavailable as error:
            self._note_away(str(error))
            return 0
        return len(entries)

    async def _read(self) -> Sequence[GroupEntry]:
        """Wait for entries until something is due, but not after `stop`, and not at a broker that has just failed."""
        wait_ms = await self._idle_ms()
        away_ms = remaining_ms(self._away_until_ms, self._clock.now_ms(), limit_ms=AWAY_MAX_MS)
        try:
            async with asyncio.timeout(None) as self._idle:
                wait_ms = 0 if self._stopping else wait_ms
                if away_ms > 0:
                    await self._clock.sleep(min(wait_ms, away_ms) / 1000)
                    return ()
                await self.open()
                entries = await self._reader.read(block_ms=wait_ms, limit=READ_BATCH)
                self._away_ms = 0
                return entries
        except TimeoutError:
            if self._idle is None or not self._idle.expired():
                raise
            return ()
        finally:
            self._idle = None

    async def _idle_ms(self) -> int:
        """Return how long nothing needs to be sent, at most BLOCK_MS."""
        due_ms = await self._store.next_due_ms(self.name)
        if due_ms is None or self.state.disabled is not None:
            return BLOCK_MS
        now_ms = self._clock.now_ms()
        held_ms, slot_ms = self._health.hold_ms(now_ms), self._turns.slot_ms(now_ms)
        return min(max(due_ms - now_ms, held_ms, slot_ms - now_ms, 0), BLOCK_MS)

    def _note_away(self, text: str) -> None:
        """Count the broker's failure and leave it alone for a while, longer each time."""
        self._counts["broker_failures"] += 1
        if self._away_ms == 0:
            log.warning("delivery_broker_away", receiver=self.name, text=text)
        self._away_ms = min(max(self._away_ms * 2, AWAY_MIN_MS), AWAY_MAX_MS)
        self._away_until_ms = self._clock.now_ms() + self._away_ms

    async def _record(self, entries: Sequence[GroupEntry]) -> None:
        """Record what the receiver wants, in one transaction."""
        self._counts["received"] += len(entries)
        arrivals = [arrival for entry in entries if (arrival := self._arrival(entry)) is not None]
        if arrivals:
            new = await self._store.begin(self.name, arrivals)
            self._counts["duplicates"] += len(arrivals) - new

    def _arrival(self, entry: GroupEntry) -> Arrival | None:
        """Return what to record of an entry, None for nothing."""
        if entry.record is None:
            self._counts["trimmed"] += 1
            log.error("alert_trimmed_unread", receiver=self.name, entry=entry.id)
            return None
        alert = read_alert(entry.record)
        if alert is None:
            return self._dead_arrival(f"entry {entry.id}", entry.record, "not a readable alert record")
        if entry.deliveries > MAX_DELIVERIES:  # before anything that this record may be the end of
            return self._dead_arrival(alert.id, entry.record, f"handed out {entry.deliveries} times, never recorded")
        self._router.inhibitor.note(alert)
        place = self._router.place(alert, self._clock.now_ms()) if self._filter.passes(alert) else None
        if place is None:
            self._counts["filtered"] += 1
            return None
        if place.withheld is not None:
            self._counts["withheld"] += 1
            return Arrival(alert_id=alert.id, record=entry.record, route=place.route, withheld=place.withheld)
        if self.state.disabled is not None:
            return self._dead_arrival(alert.id, entry.record, f"receiver is off: {self.state.disabled}")
        return Arrival(alert_id=alert.id, record=entry.record, route=place.route, bucket=place.bucket)

    def _dead_arrival(self, alert_id: str, record: bytes, why: str) -> Arrival:
        self._counts["dead"] += 1
        log.warning("delivery_dead", receiver=self.name, alert_id=alert_id, text=why)
        return Arrival(alert_id=alert_id, record=record, dead=why)

    async def _send_due(self) -> int:
        """Attempt what is due, oldest first, until the receiver has to be left alone; return how many.

        While the breaker is open a failed attempt closes the door again, so each one is a probe.
        """
        now_ms = self._clock.now_ms()
        if self._health.is_resting(now_ms):
            return 0
        attempts = 0
        for delivery in await self._turns.next_messages(now_ms):
            await self._send(delivery)
            attempts += 1
            if self._health.is_resting(self._clock.now_ms()):
                break
        return attempts

    async def _send(self, delivery: PendingDelivery) -> None:
        """Make one attempt and record what came of it."""
        at_ms = self._clock.now_ms()
        self._counts["in_flight"] = 1
        try:
            outcome = self._blamed(delivery, await self._attempt(delivery, at_ms))
        finally:
            self._counts["in_flight"] = 0
        now_ms = self._clock.now_ms()
        self._turns.sent(now_ms)
        attempt = Attempt(
            at_ms=at_ms,
            latency_ms=max(0, now_ms - at_ms),
            verdict=outcome.verdict,
            code=outcome.code,
            text=outcome.text[:TEXT_CHARACTERS],
        )
        if await self._divide(delivery, attempt):
            return  # the receiver is judged by what it says of the parts
        await self._settle(delivery, attempt, delay_s=self._delay_s(outcome, delivery))
        await self._health.judge(outcome, now_ms)

    async def _attempt(self, delivery: PendingDelivery, now_ms: int) -> Outcome:
        """Return the notifier's outcome; a defect in it fails this attempt, not the whole program."""
        records = [delivery.record] if delivery.bundle is None else await self._store.records(delivery.id)
        alerts = [alert for record in records if (alert := read_alert(record)) is not None]
        if not alerts or len(alerts) < len(records):
            return Outcome(verdict=Verdict.PERMANENT, text="not a readable alert record")
        try:
            if delivery.bundle is None or len(alerts) == 1:
                return await self._notifier.send(Notification(alert=alerts[0], record=records[0], now_ms=now_ms))
            return await self._notifier.send_bundle(
                Bundle(
                    id=delivery.alert_id, kind=delivery.bundle, alerts=tuple(alerts), records=tuple(records),
                    now_ms=now_ms,
                )
            )  # fmt: skip
        except Exception as error:
            # The top of a foreign part: were it let through, one receiver's defect would restart and in the end stop
            # the monitor. The error's text stays out of the log, it may hold the URL.
            log.error("notifier_defect", receiver=self.name, error=type(error).__name__, place=place_of(error))
            return Outcome(verdict=Verdict.RETRY, text=f"defect in the notifier: {type(error).__name__}")

    def _blamed(self, delivery: PendingDelivery, outcome: Outcome) -> Outcome:
        """Return the outcome; that of an unknown code as PERMANENT once the message is to blame, not the receiver."""
        if outcome.verdict is Verdict.OK:
            self._suspects.accepted(delivery.id)
        elif outcome.unknown and self._suspects.refused(delivery.id):
            return replace(outcome, verdict=Verdict.PERMANENT)
        return outcome

    async def _divide(self, delivery: PendingDelivery, attempt: Attempt) -> bool:
        """Try the halves of a refused bundle by themselves, so that one alert does not take the others with it.

        Return False where there is nothing to divide, and where the receiver refuses whatever it is sent.
        """
        if delivery.bundle is None or attempt.verdict is not Verdict.PERMANENT:
            return False
        if self._health.refuses_all or len(await self._store.records(delivery.id)) < 2:
            return False
        parts = await self._store.divide(delivery.id, attempt)
        self._suspects.forget(delivery.id)
        self._suspects.divided(parts)
        self._counts["divided"] += 1
        log.warning(
            "bundle_divided", receiver=self.name, bundle=delivery.alert_id, code=attempt.code, text=attempt.text
        )  # fmt: skip
        return True

    def _delay_s(self, outcome: Outcome, delivery: PendingDelivery) -> float | None:
        """Return the seconds until the next attempt, None for none."""
        if outcome.verdict is not Verdict.RETRY:
            return None
        return self._notifier.schedule.delay_s(
            delivery.failures + 1, random=self._random(), retry_after_s=outcome.retry_after_s
        )

    async def _settle(self, delivery: PendingDelivery, attempt: Attempt, *, delay_s: float | None) -> None:
        """Record the attempt with the delivery's new state: delivered, pending again, or dead."""
        if attempt.verdict is Verdict.OK:
            await self._store.settle(delivery.id, attempt, state=DeliveryState.DELIVERED)
            self._counts["sent"] += 1
            self._counts["bundles"] += delivery.bundle is not None
        elif delay_s is not None:
            due_ms = self._clock.now_ms() + round(delay_s * 1000)
            await self._store.settle(delivery.id, attempt, state=DeliveryState.PENDING, due_ms=due_ms)
            self._counts["retried"] += 1
        else:
            await self._store.settle(delivery.id, attempt, state=DeliveryState.DEAD)
            self._suspects.forget(delivery.id)
            self._counts["dead"] += 1
            log.warning(
                "delivery_dead",
                receiver=self.name,
                alert_id=delivery.alert_id,
                failures=delivery.failures + 1,
                code=attempt.code,
                text=attempt.text,
            )


def read_alert(record: bytes) -> Alert | None:
    """Decode a record; None if it is not one that this program can carry."""
    try:
        alert = Alert.from_json(record)
    except (ValueError, AttributeError):
        return None
    texts = (alert.id, alert.episode_id, alert.rule, alert.severity, alert.message)
    sound = (
        all(isinstance(text, str) for text in texts)
        and isinstance(alert.ts_event_ms, int)
        and isinstance(alert.labels, dict)
        and isinstance(alert.symbol, str | None)
    )
    return alert if sound else None


def place_of(error: BaseException) -> str:
    """Return file:line of the innermost frame of an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
