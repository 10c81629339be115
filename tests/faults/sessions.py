"""A daemon under faults, who listens to it, and the histories that all of them leave."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from redis.exceptions import RedisError

from feeds.journal import read_journal
from feeds.simulated import SimulatedFeed
from monitord.broker import EmbeddedBroker
from notifiers.alertstream import connect_to
from notifiers.channel import AlertChannel
from rules.alert import Alert
from rules.engine import Engine
from tests.acceptance.daemon import Daemon, whole_stream
from tests.faults.checker import Report, check
from tests.faults.histories import Committed, Decided, Histories, Posted, Published, Settled

SIMULATED = "feed.simulated."


def rule_file(*rules: str) -> str:
    """Write a file of these rules."""
    return "\n".join(["version: 1", "groups:", "- name: mine", "  rules:", *(f"  - {rule}" for rule in rules), ""])


def levels(*percents: float) -> list[str]:
    """Write rules that fire as often as a stock crosses one of these changes on the day."""
    return [
        f'{{id: level{at}, select: all, when: "PCT > {level}", rearm: "NOT (PCT > {level})", freq: always}}'
        for at, level in enumerate(percents)
    ]


SILENT = rule_file('{id: never, select: all, when: "LAST < 0"}')


# ── who is told ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Hook:
    """A webhook that takes everything, and remembers it."""

    def __init__(self) -> None:
        self.posts: list[Posted] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        alert_id = orjson.loads(await request.read())["data"]["id"]
        assert alert_id == request.headers["webhook-id"]
        self.posts.append(Posted((alert_id,), True))
        return web.Response(status=204)

    def section(self, name: str) -> dict[str, Any]:
        """Return the settings of a receiver that leads here."""
        return {"name": name, "url": self.url, "allow_networks": ["127.0.0.0/8"]}


@asynccontextmanager
async def serving_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    application = web.Application()
    application.router.add_post("/hook", hook.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield hook
    await runner.cleanup()


# ── the broker of a daemon ────────────────────────────────────────────────────────────────────────────────────────────


async def broker_pid(url: str) -> int:
    """Return the pid of the broker as soon as it answers."""
    async with asyncio.timeout(60):
        while True:
            redis = connect_to(url)
            with suppress(RedisError, OSError):
                return int((await redis.info("server"))["process_id"])
            await redis.aclose()
            await asyncio.sleep(0.02)


def lives(pid: int) -> bool:
    """Tell whether a process still runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


async def kill_and_see_it_die(pid: int) -> None:
    """Kill -9 a process that is no child of ours; until it is dead it may still write."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while lives(pid):  # noqa: ASYNC110  # nobody tells who is no parent
        await asyncio.sleep(0.005)


# ── histories ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def health_of(daemon: Daemon) -> dict[str, Any]:
    """Return what /v1/health says, {} while nobody answers."""
    try:
        async with aiohttp.ClientSession(daemon.addresses()[-1]) as session, session.get("/v1/health") as response:
            return dict(await response.json())
    except (aiohttp.ClientError, IndexError):
        return {}


def committed_of(state_dir: Path) -> list[Committed]:
    """Return the store's events; the daemon must have ended."""
    with closing(sqlite3.connect(state_dir / "monitord.sqlite")) as store:
        rows = store.execute("SELECT id, symbol, rule, event, epoch, off FROM events ORDER BY seq").fetchall()
    return [Committed(*row) for row in rows]


def settled_of(state_dir: Path) -> dict[str, list[Settled]]:
    """Return what became of each alert at each receiver, digests and groups left out."""
    with closing(sqlite3.connect(state_dir / "monitord.sqlite")) as store:
        rows = store.execute(
            "SELECT receiver, alert_id, state FROM deliveries WHERE kind IS NULL ORDER BY id"
        ).fetchall()
    settled: dict[str, list[Settled]] = {}
    for receiver, alert_id, state in rows:
        settled.setdefault(receiver, []).append(Settled(alert_id, state))
    return settled


async def published_of(url: str) -> list[Published]:
    """Return all that the stream holds."""
    channel = AlertChannel(url)
    try:
        return [
            Published(one.epoch, one.off, orjson.loads(one.alert_json)["id"]) for one in await whole_stream(channel)
        ]
    finally:
        await channel.close()


async def published_in(state_dir: Path) -> list[Published]:
    """Return all that the stream of a daemon's own broker holds, after the daemon has ended."""
    broker = EmbeddedBroker(state_dir / "broker")
    await broker.start()
    try:
        return await published_of(broker.url)
    finally:
        await broker.stop()


async def decided_by_one_engine(daemon: Daemon) -> list[Decided]:
    """Return what an engine that never stops decides from the market the daemon saw, up to the daemon's last input.

    The market is made anew from its seed; the records of rules and instruments are those of the daemon's journal.
    """
    with closing(sqlite3.connect(daemon.state_dir / "monitord.sqlite")) as store:
        ((last,),) = store.execute("SELECT offset FROM inputs").fetchall()
    (folder,) = (daemon.state_dir / "sources").iterdir()
    controls = [(record.follows, record.value) for record in read_journal(folder / "journal")]
    fields = {
        name.removeprefix(SIMULATED): value for name, value in daemon.settings.items() if name.startswith(SIMULATED)
    }
    feed = SimulatedFeed(**{**fields, "speed": None})  # type: ignore[arg-type]
    await feed.open()
    engine, alerts = Engine(), list[Alert]()
    async for given in feed:
        if given.offset > last:
            break
        while controls and controls[0][0] < given.offset:
            alerts += engine.step(controls.pop(0)[1])
        alerts += engine.step(given.value, offset=given.offset)
    await feed.close()
    for _, control in controls:
        alerts += engine.step(control)
    return [Decided(one.id, one.symbol) for one in alerts]


async def histories_of(
    daemon: Daemon, published: list[Published], *, followers: Mapping[str, Any], hooks: Mapping[str, Hook] = {}
) -> Histories:
    """Gather everything after the daemon has ended, and leave it beside its state directory."""
    histories = Histories(
        decided=await decided_by_one_engine(daemon),
        committed=committed_of(daemon.state_dir),
        published=published,
        received={name: list(follower.steps) for name, follower in followers.items()},
        posted={name: list(hook.posts) for name, hook in hooks.items()},
        settled=settled_of(daemon.state_dir),
    )
    histories.write(daemon.state_dir.with_suffix(".histories"))
    return histories


def judged(histories: Histories, *, repeats: Mapping[str, int] | None = None, in_order: tuple[str, ...] = ()) -> Report:
    """Judge a run; print the figures, and fail with every fault that was found."""
    report = check(histories, repeats=repeats, in_order=in_order)
    print(report)
    assert report.clean, f"\n{report}"
    return report
