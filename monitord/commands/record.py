"""`monitord record`: any feed → sessions that `replay` reads, a Parquet file a trade date."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import GOOD, CommandError
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.settings import Settings
    from feeds.feed import Feed
    from feeds.inputs import Control
    from feeds.known import Known
    from monitord.recording import Recording
    from monitord.reference import Reference

HELP = "record a feed until it ends or a signal: one Parquet file a trade date, as replay reads it"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where (= --set record.folder=…)")
    parser.add_argument("--feed", metavar="NAME", help="which feed (= --set feed.name=…)")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Record; the files are whole at the end of a date and at the end of the command."""
    given = {"record.folder": args.to, "feed.name": args.feed}
    args.overrides = [*args.overrides, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    settings = load_settings(args).settings
    if settings.record.folder is None:
        raise CommandError("say where to record: --to FOLDER, or the setting record.folder")

    from feeds.errors import FeedError
    from monitord import log
    from rules.errors import RuleError

    log.configure(format=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    try:
        path = asyncio.run(_record(settings, settings.record.folder))
    except (FeedError, RuleError, OSError) as error:
        raise CommandError(str(error)) from None
    print("nothing came to be recorded" if path is None else f"recorded: {path}")
    return GOOD


async def _record(settings: Settings, folder: Path) -> Path | None:
    from feeds.errors import FeedError
    from feeds.feed import counts_by_one
    from monitord.building import build_broker, source_folder
    from monitord.choice import build_feed
    from monitord.recording import Recording
    from monitord.reference import Reference
    from monitord.signals import on_stop_signals
    from monitord.systemd import notify, tell_alive

    feed = build_feed(settings, broker_url=build_broker(settings).url)
    recording = Recording(folder, source_id=feed.source_id, patient=not feed.paced, counted=counts_by_one(feed))
    try:
        await recording.open()
        reference = Reference(feed, folder=source_folder(settings, feed))
        await _open(feed, recording)
        await reference.start()
        await _tell(reference, recording, settings)
        stopping = asyncio.Event()

        async def tell(told: Known) -> None:
            if await reference.hear(told):
                await _tell(reference, recording, settings)

        on_stop_signals(stopping.set)
        notify("READY=1")
        try:
            taking = _take_all(feed, recording, stopping, on_told=tell)
            await asyncio.gather(taking, _close_on(stopping, feed), recording.run(), tell_alive(stopping))
        except FeedError:
            await recording.stop()  # what came before the failure is as good as ever
            raise
        return await recording.stop()
    finally:
        await feed.close()
        await recording.abandon()


async def _open(feed: Feed, recording: Recording) -> None:
    """Open the feed behind what is recorded; write down that a live feed's inputs are missing."""
    from feeds.inputs import Mark, MarkKind

    recorder = recording.recorder
    assert recorder is not None
    await feed.open(after=recorder.last_offset if feed.has_offsets else -1)
    recorder.resume(recorder.last_offset)  # a stream trimmed meanwhile says so itself
    if not feed.has_offsets and recorder.clock_ms is not None:
        await recording.take(Mark(MarkKind.GAP, recorder.clock_ms, "the recorder was not running"))


async def _tell(reference: Reference, recording: Recording, settings: Settings) -> None:
    """Write down what holds from here on."""
    for control in await _controls(reference, settings):
        await recording.take(control)


async def _controls(reference: Reference, settings: Settings) -> Sequence[Control]:
    """Return what a replay must know besides ticks: instruments with their sectors, and ex-rights days."""
    from feeds.inputs import Control, ControlKind
    from feeds.instruments import encode_table
    from monitord.building import load_exrights, load_sectors
    from rules.sectors import merge

    table = encode_table(merge(reference.known.instruments, load_sectors(settings)))
    exrights = await asyncio.to_thread(lambda: load_exrights(settings, reference.calendar()))
    return [Control(ControlKind.INSTRUMENTS, table), Control(ControlKind.EXRIGHTS, exrights)]


async def _take_all(
    feed: Feed, recording: Recording, stopping: asyncio.Event, *, on_told: Callable[[Known], Awaitable[None]]
) -> None:
    try:
        async for given in feed:
            if given.known is not None:
                await on_told(given.known)
            await recording.take(given.value, given.offset)
    finally:
        stopping.set()
        recording.end()


async def _close_on(stopping: asyncio.Event, feed: Feed) -> None:
    await stopping.wait()
    await feed.close()
