"""From the vendor's callback to a WebSocket client, through everything: decode, inbox, engine, SQLite, broker, gateway.

A whole daemon (App, with its embedded broker) takes 5,500 symbols every 3 s from a thread that calls back as the vendor
does, runs 100 rules, and tells about 20 alerts a second to 100 clients in the load generator's process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from config.settings import BrokerSection, EngineSection, GatewaySection, RulesSection, Settings
from config.sources import FeedSection
from feeds.decode import Decoder
from feeds.inbox import TickInbox
from feeds.inputs import FeedInput
from feeds.instruments import Board, Instrument
from feeds.tick import FloatArray
from monitord import app
from rules.alert import Alert
from tests.bench.load import play
from tests.bench.report import Line, Report
from tests.bench.timing import Timing

SYMBOLS, SNAPSHOTS, CLIENTS, RULES = 5500, 60, 100, 100
PUSHES, PUSHED_SNAPSHOTS = 30, 20
"""Behind its first push the vendor brings what has changed, a part of the market at a time: a figure to know beside
that of a whole market in one callback, whose alerts all come in one burst."""
FIRST: Final = 2
"""Snapshots told on a line of their own as well: the first arms the rules, the second is the first burst that new
connections carry, 45 ms to its last client."""
TOLD: Final = "60*.SH"
"""The symbols whose crossings are told: so many that from 09:52 on 100 rules tell about 20 alerts a second."""


class PipedFeed:
    """A feed whose callbacks come from another process: its thread decodes and pushes as `XtFeed`'s does."""

    source_id = "bench:pipe"
    has_offsets = False
    paced = True

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._decoder = Decoder(proven=tuple(Board))
        self.called_ns: dict[int, int] = {}
        """recv_ms → when the callback came (Unix ns): the time that latencies are counted from."""

    async def open(self, *, after: int = -1) -> None:
        self._inbox = TickInbox(256)

    def begin(self, address: str) -> None:
        """Tell the load generator where the gateway is, and take its callbacks from now on."""
        self._pipe.send(address)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while (payload := self._pipe.recv()) is not None:
            called_ns = time.time_ns()
            recv_ms = called_ns // 1_000_000
            self.called_ns[recv_ms] = called_ns
            self._inbox.push(self._decoder.decode(payload, recv_ms=recv_ms))
        self._inbox.close()

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        async for value in self._inbox:
            yield FeedInput(-1, value)

    async def instruments(self) -> Sequence[Instrument]:
        return ()

    async def close(self) -> None:
        self._inbox.close()

    def counters(self) -> Mapping[str, int]:
        return {}


class Starter:
    """A console that begins the load when the gateway listens."""

    def __init__(self, feed: PipedFeed) -> None:
        self._feed = feed

    def start(self, address: str) -> None:
        self._feed.begin(address)

    def alert_fired(self, alert: Alert) -> None: ...

    def progress(self, **counts: Any) -> None: ...

    def stop(self) -> None: ...


def rule_file(rules: int, told: str) -> str:
    """Return rules that share terms as real ones do; all watch the whole market, and the symbols `told` may fire."""
    lines = ["version: 1", "groups:", "- name: bench", "  rules:"]
    for i in range(rules):
        level = -9 + i * 0.18
        lines.append(
            f'  - {{id: r{i}, select: {{glob: ["{told}"]}}, when: "PCT > {level:.2f} AND VOLDAY > {100 + i % 5}", '
            f'rearm: "PCT < {level - 0.05:.2f}", freq: always, session: all_trading}}'
        )
    return "\n".join(lines)


def run(*, quick: bool = False) -> Report:
    """Measure for 3 minutes, and one more in pushes (`quick`: 12 s each, fewer clients)."""
    symbols, snapshots, clients = (300, 4, 10) if quick else (SYMBOLS, SNAPSHOTS, CLIENTS)
    whole = _measured(symbols=symbols, snapshots=snapshots, clients=clients, pushes=1, told="*" if quick else TOLD)
    pushed = _measured(
        symbols=symbols, snapshots=min(snapshots, PUSHED_SNAPSHOTS), clients=clients, pushes=PUSHES,
        told="*" if quick else TOLD,
    )  # fmt: skip
    took = whole.took_ms
    p50, p99 = np.percentile(took, [50, 99])
    pushed_p50, pushed_p99 = np.percentile(pushed.took_ms, [50, 99])
    seconds = snapshots * 3.0
    return Report(
        "callback_to_client",
        [
            Line("callback → client, p99", float(p99), "ms", most=None if quick else 15.0),
            Line("callback → client, median", float(p50), "ms"),
            Line("first burst of new connections, last client", whole.first_ms, "ms"),
            Line("alerts a second", len(took) / clients / seconds, "/s", least=None if quick else 18.0),
            Line("messages received", float(len(took)), ""),
            Line(f"the same market in {PUSHES} pushes, p99", float(pushed_p99), "ms"),
            Line(f"the same market in {PUSHES} pushes, median", float(pushed_p50), "ms"),
        ],
        {"all": Timing("callback → client", len(took), float(p50), *map(float, np.percentile(took, [10, 90])), False)},
        [f"{symbols} symbols every 3 s, {RULES} rules, {clients} clients, {seconds:.0f} s"],
    )


class Heard(NamedTuple):
    """How long each message took from its callback to its client, and the longest of the first callbacks' (ms)."""

    took_ms: FloatArray
    first_ms: float


def _measured(*, symbols: int, snapshots: int, clients: int, pushes: int, told: str) -> Heard:
    """Run daemon and load generator until all snapshots have come."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    load = multiprocessing.get_context("spawn").Process(
        target=play,
        args=(theirs,),
        kwargs={"symbols": symbols, "snapshots": snapshots, "clients": clients, "pushes": pushes},
    )
    load.start()
    cpus = _own_core(load.pid)
    with awake(), tempfile.TemporaryDirectory(prefix="bench-") as folder:
        feed = PipedFeed(ours)
        heard = _serve(feed, ours, Path(folder), told=told, cpus=cpus)
    load.join()
    behind_ms = sorted(feed.called_ns)[FIRST * pushes]
    took = np.array([(at_ns - feed.called_ns[recv_ms]) / 1e6 for recv_ms, at_ns in heard])
    first = took[np.array([recv_ms < behind_ms for recv_ms, _ in heard])]
    return Heard(took, float(first.max(initial=0)))


def _own_core(load: int | None) -> str:
    """Return the core that the daemon keeps to, as docs/operations.md advises; the load generator gets the others.

    Where there is one core alone, or no way to choose, everyone may use all.
    """
    if not hasattr(os, "sched_getaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2 or load is None:
        return ""
    os.sched_setaffinity(load, cores[1:])
    return str(cores[0])


@contextmanager
def awake() -> Iterator[None]:
    """Keep the processors from sleeping, as docs/operations.md advises, with a loop on each that anyone else precedes.

    Three seconds without work are enough for a virtual machine's processor to lose its place on the host.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    loops = [multiprocessing.get_context("spawn").Process(target=_loop, args=(core,), daemon=True) for core in cores]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def _loop(core: int) -> None:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        os.sched_yield()  # else the kernel leaves it its place until the next tick, though the daemon could run


def _serve(feed: PipedFeed, pipe: Connection, folder: Path, *, told: str, cpus: str) -> list[tuple[int, int]]:
    rules = folder / "rules.yaml"
    rules.write_text(rule_file(RULES, told))
    settings = Settings(
        state_dir=folder / "state",
        feed=FeedSection(),
        rules=RulesSection(files=(str(rules),)),
        engine=EngineSection(checkpoint_s=60.0, cpus=cpus),
        broker=BrokerSection(socket=folder / "s"),
        gateway=GatewaySection(port=0, allow_loopback_without_token=True),
    )
    app.build_feed = lambda settings, **_: feed  # type: ignore[assignment,return-value]  # the one part that is not the product's
    asyncio.run(app.App(settings, console=Starter(feed)).run())
    heard: list[tuple[int, int]] = pipe.recv()
    return heard
