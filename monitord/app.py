"""The composition root: builds everything from settings, owns the one TaskGroup, and the order of start and stop.

Start: store → broker → deliveries take their place → recovery → gateway → feed. Stop is upstream closes: feed → engine
(the last input is committed) → pump → deliveries until their deadline → sockets 1001 → broker. A second signal forces.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

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
from monitord.cpus import aside, kept_to
from monitord.errors import DaemonError, StartError
from monitord.gateway.quotes import QuoteBoard
from monitord.gateway.server import Gateway
from monitord.health import Health
from monitord.making import open_desks, open_rulebook
from monitord.metrics import Metrics
from monitord.pipeline import Pipeline
from monitord.positions import PositionSources
from monitord.pump import Pump
from monitord.recordrun import finish, run_beside
from monitord.reference import Reference
from monitord.restarts import Restarts, once
from monitord.retention import Retention
from monitord.rulebook import Rulebook
from monitord.store import Store
from monitord.storefile import STORE_NAME, state_folder
from monitord.systemd import notify
from monitord.told import Told, build_told
from monitord.vitalsigns import VitalSigns
from notifiers.alertstream import Fenced
from notifiers.channel import AlertChannel
from notifiers.errors import DeliveryError
from rules import exrightfile, positions
from rules.errors import RuleError

if TYPE_CHECKING:
    from monitord.recording import Recording

log = structlog.get_logger(__name__)

DRAIN_S: Final = 10.0
"""How long the pump, and then the deliveries, may take to empty what is there at a stop."""
SWITCH_S: Final = 0.0002
"""How long a thread may keep the interpreter from another. Python's 5 ms are a third of what an alert's whole way may
take, and the loop, the engine, the store and the vendor's thread would each wait them out."""
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
class Ground:
    """What the other parts stand on: where ticks come from, where events are kept, what carries them out."""

    broker: Broker
    feed: Feed
    store: Store
    channel: AlertChannel


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of, built and not yet running."""

    ground: Ground
    reference: Reference
    recording: Recording | None
    pipeline: Pipeline
    pump: Pump
    retention: Retention
    told: Told
    health: Health
    gateway: Gateway


class App:
    """One daemon. `run` is called once."""

    def __init__(self, settings: Settings, *, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._metrics = Metrics()
        self._signs = VitalSigns(self._metrics, console)
        self._collector = Collector()
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._restarts = Restarts()

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
        ground = await self._open_ground(cleanup)
        feed, store, quotes = ground.feed, ground.store, QuoteBoard()
        recording = await self._recording(feed, cleanup)
        reference = Reference(feed, folder=source_folder(settings, feed))
        book = await open_rulebook(
            store, settings.rules.texts, parse=partial(parse_rules, settings), shared=bool(settings.engine.share),
            change=lambda decide: pipeline.change_rules(decide),
        )  # fmt: skip
        pipeline = self._pipeline(feed, store, quotes, reference, recording, book)
        pump = Pump(
            store, ground.channel,
            on_offered=lambda epoch, alerts: gateway.hub.foresee(epoch, alerts),
            on_published=lambda epoch, alerts: gateway.hub.hear(epoch, alerts),
        )  # fmt: skip
        retention = Retention(store, keep_days=settings.history.keep_days)

        def known(symbol: str) -> Instrument | None:
            return pipeline.engine.market.instruments.get(symbol)

        told = await build_told(settings, store, broker_url=ground.broker.url, known=known, cleanup=cleanup)
        made = await open_desks(book, store, quotes=quotes, channels=lambda: gateway.hub, known=known)
        health = Health(
            feed, pipeline, store=store, pump=pump, deliveries=told.deliveries, reference=reference, recording=recording
        )
        gateway = Gateway(
            gateway_options(settings), alerts=ground.channel, history=store, rules=pipeline, quotes=quotes,
            health=health, metrics=self._metrics.render, desk=told.desk, made=made,
            study=build_study(settings, feed, pipeline, calendar=reference.calendar),
        )  # fmt: skip
        cleanup.push_async_callback(gateway.stop)
        cleanup.callback(self._console.stop)
        parts = Parts(ground, reference, recording, pipeline, pump, retention, told, health, gateway)
        self._watch(parts)
        return parts

    async def _open_ground(self, cleanup: AsyncExitStack) -> Ground:
        """Open what the other parts stand on, and claim our share of the rules; a bad file is said before that."""
        settings = self._settings
        folder = state_folder(settings)
        _make(folder)
        _check_files(settings)
        broker = build_broker(settings)
        cleanup.enter_context(kept_to(settings.engine.cpus))
        asyncio.get_running_loop().set_default_executor(aside())
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
        return Ground(broker, feed, store, channel)

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
            on_alerts=self._signs.tell,
            on_ticks=quotes.update,
            on_step=self._signs.count,
            on_rest=self._collector.rest,
            record=None if recording is None else recording.take,
            window=settings.engine.window,
            checkpoint_s=settings.engine.checkpoint_s,
            history=build_warmup(settings, feed, calendar=reference.calendar),
            keeping=build_keeping(settings, feed),
        )

    def _watch(self, parts: Parts) -> None:
        """Let metrics show what the parts count."""
        metrics, told, pipeline = self._metrics, parts.told, parts.pipeline
        metrics.watch_feed(parts.ground.feed.counters)
        metrics.watch_reference(parts.reference.counters)
        metrics.watch_engine(lambda: pipeline.engine.market.dropped, counters=pipeline.counters)
        if told.reports is not None:
            metrics.watch_orders(told.reports.counters)
        metrics.watch_receivers(told.desk.counters, statuses=told.desk.statuses, backlog=told.desk.backlog)
        metrics.watch_daemon(parts.health.levels, pump=parts.pump.counters, gateway=parts.gateway.counters)

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self, parts: Parts) -> None:
        """Recover, and let everyone who is told take their place before the first event is."""
        for delivery in parts.told.deliveries:
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
                return tasks.create_task(self._restarts.keep(name, run), name=name)

            background = [
                keep("broker", parts.ground.broker.run),
                keep("gateway", parts.gateway.run),
                keep("checkpoints", parts.pipeline.run_checkpoints),
                keep("retention", parts.retention.run),
                keep("history", parts.pipeline.run_history),
                keep("keeping", parts.pipeline.run_keeping),
                *([tasks.create_task(run_beside(parts.recording), name="recording")] if parts.recording else []),
                keep("reference", lambda: parts.reference.run(lambda: self._renew(parts.pipeline))),
                *([keep("reports", parts.told.reports.run)] if parts.told.reports else []),
                keep("reload", lambda: self._reload_on_signal(parts.pipeline)),
                keep("vital_signs", lambda: self._show_signs(parts)),
            ]
            pumping = keep("pump", parts.pump.run)
            delivering = [keep(f"delivery:{delivery.name}", delivery.run) for delivery in parts.told.deliveries]
            # Not begun again in place: after a failure the engine may be ahead of what is stored, and only recovery by
            # a new process puts that right.
            evaluating = tasks.create_task(once("pipeline", parts.pipeline.run), name="pipeline")
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
        await parts.ground.feed.close()
        await asyncio.wait([evaluating])
        await parts.pipeline.close()
        await finish(parts.recording)
        waiting = await parts.pump.drain(DRAIN_S)
        pumping.cancel()
        for delivery in parts.told.deliveries:
            delivery.stop(DRAIN_S)
        if delivering:
            await asyncio.wait(delivering)
        await parts.gateway.stop()
        parts.pipeline.end()
        self._console.stop()
        log.info("stopped", alerts=self._signs.alerts, left_in_outbox=waiting)

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

    async def _show_signs(self, parts: Parts) -> None:
        await self._signs.run(
            parts.pipeline, health=parts.health, store=parts.ground.store, gateway=parts.gateway,
            collector=self._collector,
        )  # fmt: skip


def _check_files(settings: Settings) -> None:
    """Raise what is wrong with the files that the settings name."""
    load_rules(settings)
    load_sectors(settings)
    exrightfile.load(settings.instruments.exright_texts())
    positions.load(settings.positions.texts())


def _make(state_dir: Path) -> None:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StartError(f"state_dir {state_dir} cannot be made: {error.strerror}; set another state_dir") from error


async def _until(event: asyncio.Event) -> None:
    await event.wait()
