"""The composition root: builds everything from settings, owns the one TaskGroup, and the order of start and stop.

Start: store → broker → deliveries take their place → recovery → gateway → feed. Stop is upstream closes: feed → engine
(the last input is committed) → pump → deliveries until their deadline → sockets 1001 → broker. A second signal forces.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from config.receivers import Receiver
from config.settings import Settings
from feeds.errors import FeedError
from feeds.feed import Feed, counts_by_one
from feeds.instruments import Instrument
from feeds.journal import Journal
from monitord.broker import Broker
from monitord.building import (
    build_broker,
    build_keeping,
    build_study,
    build_warmup,
    gateway_options,
    load_exrights,
    load_rules,
    load_sectors,
    parse_rules,
    source_folder,
)
from monitord.checkpoint import CheckpointFolder
from monitord.choice import build_feed
from monitord.collector import Collector
from monitord.console import Console
from monitord.desk import Desk
from monitord.engineroom import Outcome
from monitord.errors import DaemonError, StartError
from monitord.gateway.quotes import QuoteBoard
from monitord.gateway.server import Gateway
from monitord.health import Health
from monitord.log import Redaction
from monitord.making import build_programs, build_reports, open_desks, open_rulebook
from monitord.metrics import Metrics
from monitord.pipeline import Pipeline
from monitord.positions import PositionSources
from monitord.pump import Pump
from monitord.recordrun import finish, run_beside
from monitord.reference import Reference
from monitord.retention import Retention
from monitord.routing import build_routing
from monitord.rulebook import Rulebook
from monitord.store import Store
from monitord.storefile import STORE_NAME, state_folder
from monitord.systemd import WATCHDOG_S, notify
from notifiers.alertstream import Fenced
from notifiers.channel import AlertChannel
from notifiers.delivery import Delivery
from notifiers.errors import DeliveryError
from notifiers.group import AlertConsumer, consumer_client
from notifiers.notifier import Notifier, build_notifier
from notifiers.reports import ReportDesk
from notifiers.routing import Router, Routing
from notifiers.silences import Silences
from rules import exrightfile, positions
from rules.alert import Alert
from rules.errors import RuleError

if TYPE_CHECKING:
    from monitord.recording import Recording

log = structlog.get_logger(__name__)

DRAIN_S: Final = 10.0
"""How long the pump, and then the deliveries, may take to empty what is there at a stop."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 30.0
RESTARTS, RESTARTS_WITHIN_S = 5, 60.0
SWITCH_S: Final = 0.0002
"""How long a thread may keep the interpreter from another. Python's 5 ms are a third of what an alert's whole way may
take, and the loop, the engine, the store and the vendor's thread would each wait them out."""
VITAL_SIGNS_S: Final = 0.25
FAILED: Final = 1
"""Exit code of a daemon that must be started again; recovery puts right what it left behind."""
FENCED: Final = 3
"""Exit code of a daemon whose share of the rules another one has taken: started again, it would take it back."""


def main(settings: Settings, *, console: Console) -> int:
    """Run the daemon until a signal or the end of its feed; return the exit code, FAILED if a part failed for good.

    Raises StartError for what a person must mend first.
    """
    try:
        return asyncio.run(App(settings, console=console).run())
    except (DaemonError, FeedError, RuleError, DeliveryError, OSError) as error:
        raise StartError(str(error)) from error
    except ExceptionGroup as failures:  # each was logged with its traceback at its task's top
        log.error("daemon_failed", why=[str(failure) or type(failure).__name__ for failure in failures.exceptions])
        return FAILED if failures.subgroup(Fenced) is None else FENCED


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of, built and not yet running."""

    store: Store
    broker: Broker
    channel: AlertChannel
    feed: Feed
    reference: Reference
    pipeline: Pipeline
    pump: Pump
    retention: Retention
    deliveries: tuple[Delivery, ...]
    gateway: Gateway
    health: Health
    recording: Recording | None
    reports: ReportDesk | None


class App:
    """One daemon. `run` is called once."""

    def __init__(self, settings: Settings, *, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._metrics = Metrics()
        self._collector = Collector()
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._restarts: deque[float] = deque()
        self._alerts = 0

    async def run(self) -> int:
        """Build, run, and take down in order; return 0 after a clean stop."""
        async with AsyncExitStack() as cleanup:
            cleanup.callback(self._collector.stop)
            parts = await self._build(cleanup)
            await self._start(parts)
            await self._serve(parts)
        return 0

    # ── building ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _build(self, cleanup: AsyncExitStack) -> Parts:
        """Make the parts; what is open is closed by `cleanup`, last opened first."""
        settings = self._settings
        folder = state_folder(settings)
        _make(folder)
        load_rules(settings)  # a bad file is said before anything is opened
        load_sectors(settings)
        exrightfile.load(settings.instruments.exright_texts())
        positions.load(settings.positions.texts())
        broker = build_broker(settings)
        feed = build_feed(settings, broker_url=broker.url)
        store = await Store.open(folder / STORE_NAME)
        cleanup.push_async_callback(store.close)
        await broker.start()
        cleanup.push_async_callback(broker.stop)
        channel = AlertChannel(broker.url, share=settings.engine.share)
        cleanup.push_async_callback(channel.close)
        if settings.engine.share:
            log.info("share_claimed", share=settings.engine.share, token=await channel.claim())
        cleanup.push_async_callback(feed.close)
        quotes = QuoteBoard()
        recording = await self._recording(feed, cleanup)
        reference = Reference(feed, folder=source_folder(settings, feed))
        book = await open_rulebook(
            store, settings.rules.texts, parse=partial(parse_rules, settings), shared=bool(settings.engine.share),
            change=lambda decide: pipeline.change_rules(decide),
        )  # fmt: skip
        pipeline = self._pipeline(feed, store, quotes, reference, recording, book)
        self._metrics.watch_engine(lambda: pipeline.engine.market.dropped, counters=pipeline.counters)
        pump = Pump(
            store, channel,
            on_offered=lambda epoch, alerts: gateway.hub.foresee(epoch, alerts),
            on_published=lambda epoch, alerts: gateway.hub.hear(epoch, alerts),
        )  # fmt: skip
        retention = Retention(store, keep_days=settings.history.keep_days)
        silences = Silences()
        routing = await asyncio.to_thread(build_routing, settings.notify)
        routers = await self._routers(routing, store, silences, pipeline)
        deliveries = tuple(self._delivery(one, broker, store, routers[one.name]) for one in settings.notify.receivers())
        for program in build_programs(settings, store, broker_url=broker.url):
            router = Router(program.options.name, of_people=False)
            deliveries += (self._delivering(program, broker, store, router),)
        reports = await build_reports(settings, store, broker_url=broker.url)
        if reports is not None:
            cleanup.push_async_callback(reports.close)
            self._metrics.watch_orders(reports.counters)
        made = await open_desks(
            book, store, quotes=quotes, channels=lambda: gateway.hub,
            known=lambda symbol: pipeline.engine.market.instruments.get(symbol),
        )  # fmt: skip
        desk = Desk(
            deliveries, stored=store.deliveries, silences=silences, kept=store.silences, events=store,
            receivers=settings.notify.receivers(), redact=Redaction(settings.secrets()).text,
        )  # fmt: skip
        await desk.load_silences()
        self._metrics.watch_receivers(desk.counters, statuses=desk.statuses, backlog=desk.backlog)
        health = Health(
            feed, pipeline, store=store, pump=pump, deliveries=deliveries, reference=reference, recording=recording
        )
        gateway = Gateway(
            gateway_options(settings),
            alerts=channel,
            history=store,
            rules=pipeline,
            quotes=quotes,
            health=health,
            metrics=self._metrics.render,
            desk=desk,
            study=build_study(settings, feed, pipeline, calendar=reference.calendar),
            made=made,
        )
        self._metrics.watch_daemon(health.levels, pump=pump.counters, gateway=gateway.counters)
        cleanup.push_async_callback(gateway.stop)
        cleanup.callback(self._console.stop)
        return Parts(
            store, broker, channel, feed, reference, pipeline, pump, retention, deliveries, gateway, health, recording,
            reports,
        )  # fmt: skip

    async def _recording(self, feed: Feed, cleanup: AsyncExitStack) -> Recording | None:
        """Open what is recorded beside, if anything is; a folder that cannot be used is logged, and alerts go on."""
        folder = self._settings.record.folder
        if folder is None:
            return None
        from monitord.recording import Recording  # here, for it brings Arrow along

        recording = Recording(folder, source_id=feed.source_id, patient=not feed.paced, counted=counts_by_one(feed))
        cleanup.push_async_callback(recording.abandon)
        try:
            await recording.open()
        except FeedError as error:
            log.error("recording_failed", why=str(error))
            return None
        return recording

    def _pipeline(
        self,
        feed: Feed,
        store: Store,
        quotes: QuoteBoard,
        reference: Reference,
        recording: Recording | None,
        book: Rulebook,
    ) -> Pipeline:
        settings = self._settings
        self._metrics.watch_feed(feed.counters)
        self._metrics.watch_reference(reference.counters)
        folder = source_folder(settings, feed)
        journal = Journal(folder / "journal", source_id=feed.source_id)
        if recording is not None and not feed.has_offsets:
            recording.go_on_behind(journal.end)
        return Pipeline(
            feed,
            journal=journal,
            store=store,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
            load_rules=book.load,
            positions=PositionSources(settings.positions.texts, store.held),
            load_sectors=lambda: load_sectors(settings),
            load_exrights=lambda: load_exrights(settings, reference.calendar()),
            reference=reference,
            on_alerts=self._tell,
            on_ticks=quotes.update,
            on_step=self._count,
            on_rest=self._collector.rest,
            record=None if recording is None else recording.take,
            window=settings.engine.window,
            checkpoint_s=settings.engine.checkpoint_s,
            history=build_warmup(settings, feed, calendar=reference.calendar),
            keeping=build_keeping(settings, feed),
        )

    async def _routers(
        self, routing: Routing, store: Store, silences: Silences, pipeline: Pipeline
    ) -> dict[str, Router]:
        """Make each receiver's router; what inhibits now, those of before the start know from the store."""

        def known(symbol: str) -> Instrument | None:
            return pipeline.engine.market.instruments.get(symbol)

        routers = {
            name: Router(name, routing, silences=silences, known=known) for name in self._settings.notify.receiver_names
        }
        longest_ms = max((router.inhibitor.longest_ms for router in routers.values()), default=0)
        if longest_ms:
            records = await store.recent(within_ms=longest_ms)
            alerts = [Alert.from_json(record) for record in records]
            for router in routers.values():
                router.inhibitor.note_all(alerts)
        return routers

    def _delivery(self, receiver: Receiver, broker: Broker, store: Store, router: Router) -> Delivery:
        return self._delivering(build_notifier(receiver.kind, **receiver.options()), broker, store, router)

    def _delivering(self, notifier: Notifier, broker: Broker, store: Store, router: Router) -> Delivery:
        share = self._settings.engine.share
        name = f"monitord:{share}" if share else "monitord"
        consumer = AlertConsumer(consumer_client(broker.url), notifier.options.name, consumer=name)
        return Delivery(notifier, consumer, store.deliveries, router=router)

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, parts: Parts) -> None:
        """Recover, and let everyone who is told take their place before the first event is."""
        for delivery in parts.deliveries:
            await delivery.open()
        await parts.pipeline.recover()
        if parts.recording is not None:
            parts.recording.resume(parts.pipeline.engine.offset)
        await parts.gateway.start()
        self._console.start(parts.gateway.address)
        self._watch_signals()
        self._collector.start()
        sys.setswitchinterval(SWITCH_S)
        notify("READY=1")

    async def _serve(self, parts: Parts) -> None:
        """Run until a signal or the end of the feed, then stop from upstream to downstream."""
        async with asyncio.TaskGroup() as tasks:

            def keep(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
                return tasks.create_task(self._restarting(name, run), name=name)

            background = [
                keep("broker", parts.broker.run),
                keep("gateway", parts.gateway.run),
                keep("checkpoints", parts.pipeline.run_checkpoints),
                keep("retention", parts.retention.run),
                keep("history", parts.pipeline.run_history),
                keep("keeping", parts.pipeline.run_keeping),
                *([tasks.create_task(run_beside(parts.recording), name="recording")] if parts.recording else []),
                keep("reference", lambda: parts.reference.run(lambda: self._renew(parts.pipeline))),
                *([keep("reports", parts.reports.run)] if parts.reports else []),
                keep("reload", lambda: self._reload_on_signal(parts.pipeline)),
                keep("vital_signs", lambda: self._take_vital_signs(parts)),
            ]
            pumping = keep("pump", parts.pump.run)
            delivering = [keep(f"delivery:{delivery.name}", delivery.run) for delivery in parts.deliveries]
            # Not begun again in place: after a failure the engine may be ahead of what is stored, and only recovery by
            # a new process puts that right.
            evaluating = tasks.create_task(_once("pipeline", parts.pipeline.run), name="pipeline")
            stopping = tasks.create_task(_until(self._stopping), name="stop")
            await asyncio.wait([evaluating, stopping], return_when=asyncio.FIRST_COMPLETED)
            await self._stop(parts, evaluating, pumping, delivering)
            for task in (*background, stopping):
                task.cancel()

    async def _stop(
        self,
        parts: Parts,
        evaluating: asyncio.Task[None],
        pumping: asyncio.Task[None],
        delivering: Sequence[asyncio.Task[None]],
    ) -> None:
        """Stop each stage once everything upstream of it has come through."""
        notify("STOPPING=1")
        log.info("stopping")
        parts.health.stopping = True
        await parts.feed.close()
        await asyncio.wait([evaluating])
        await parts.pipeline.close()
        await finish(parts.recording)
        waiting = await parts.pump.drain(DRAIN_S)
        pumping.cancel()
        for delivery in parts.deliveries:
            delivery.stop(DRAIN_S)
        if delivering:
            await asyncio.wait(delivering)
        await parts.gateway.stop()
        self._console.stop()
        log.info("stopped", alerts=self._alerts, left_in_outbox=waiting)

    async def _restarting(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a component, again after a failure; too many failures end the process, so that systemd takes over."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                return await run()
            except Fenced as error:
                log.error("daemon_fenced", why=str(error), hint="another daemon runs this share; stop one of the two")
                raise
            except Exception:
                log.exception("task_failed", task=name, retry_s=backoff_s)
                if self._fails_too_often():
                    raise
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    def _fails_too_often(self) -> bool:
        now = time.monotonic()
        self._restarts.append(now)
        while now - self._restarts[0] > RESTARTS_WITHIN_S:
            self._restarts.popleft()
        return len(self._restarts) > RESTARTS

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)

    def _on_stop_signal(self) -> None:
        if self._stopping.is_set():
            # Everything told is durable, so there is nothing to lose but the wait.
            log.warning("stop_forced")
            signal.raise_signal(signal.SIGKILL)
        self._stopping.set()

    async def _reload_on_signal(self, pipeline: Pipeline) -> None:
        """Reload the rules at SIGHUP; a bad file is reported and the rules in force stay."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                await pipeline.reload()
            except (RuleError, OSError, UnicodeDecodeError) as error:
                log.error("rules_rejected", why=str(error), kept=len(pipeline.rules().rules))

    async def _renew(self, pipeline: Pipeline) -> None:
        """Let new instruments and trading days take effect; with a bad file beside them the old ones stay."""
        try:
            await pipeline.renew_instruments()
        except (RuleError, OSError, UnicodeDecodeError) as error:
            log.error("instruments_rejected", why=str(error))

    async def _take_vital_signs(self, parts: Parts) -> None:
        """Measure how late the loop wakes, tell systemd that it does, and keep the gauges of what stands and waits."""
        loop = asyncio.get_running_loop()
        ping_due = loop.time()
        while True:
            due = loop.time() + VITAL_SIGNS_S
            await asyncio.sleep(VITAL_SIGNS_S)
            parts.health.lag_s = max(loop.time() - due, 0.0)
            if loop.time() >= ping_due and parts.health.alive():
                notify("WATCHDOG=1")
                ping_due = loop.time() + WATCHDOG_S
            self._metrics.loop_lag.set(parts.health.lag_s)
            self._metrics.loop_late.observe(parts.health.lag_s)
            self._metrics.outbox.set(parts.store.lag_rows)
            self._metrics.clients.set(parts.gateway.clients)
            self._show_progress(parts)
            self._collector.wait_no_longer()

    def _show_progress(self, parts: Parts) -> None:
        market = parts.pipeline.engine.market
        self._console.progress(
            ticks=market.ticks,
            symbols=len(market.universe),
            clock_ms=market.clock_ms,
            lag_ms=parts.health.lag_s * 1000,
            alerts=self._alerts,
            warming=parts.pipeline.warming,
        )

    def _count(self, outcome: Outcome) -> None:
        self._metrics.ticks.inc(outcome.ticks)
        self._metrics.step.observe(outcome.seconds)

    def _tell(self, alerts: Sequence[Alert]) -> None:
        for (severity, event), count in Counter((alert.severity, alert.event) for alert in alerts).items():
            self._metrics.alerts.labels(severity=severity, event=event).inc(count)
        for alert in alerts:
            self._console.alert_fired(alert)
        self._alerts += len(alerts)


async def _once(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a component that must not fail; its failure ends the process."""
    try:
        await run()
    except Exception:
        log.exception("task_failed", task=name)
        raise


def _make(state_dir: Path) -> None:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StartError(f"state_dir {state_dir} cannot be made: {error.strerror}; set another state_dir") from error


async def _until(event: asyncio.Event) -> None:
    await event.wait()
