"""A soak: the whole daemon under the load of a large installation for a market day, and nothing lost or grown.

Simulated market at ten times the speed of life, a thousand rules, a hundred WebSocket clients, five receivers that are
real HTTP servers, SIGTERM under load at the end. Then the checker of the faults judges the histories: what the store
holds, the stream, what each client and each receiver was told.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import aiohttp
import orjson

from tests.acceptance.daemon import Daemon
from tests.faults.checker import check
from tests.faults.histories import Histories
from tests.faults.sessions import Hook, committed_of, published_in, serving_hook, settled_of
from tests.soak.crowd import Follower, follow
from tests.soak.rules import rule_file

DATE: Final = 20250102
OPEN_MS: Final = (9 * 60 + 30) * 60_000
LATE_S: Final = 0.05
"""Loop lag of which 99 of 100 looks may be no more."""
HOUR_S: Final = 3600.0
GROWTH_BYTES: Final = 16 << 20
LEVEL_S: Final = 300.0
"""Market time over which memory's level is taken."""
STOP_S: Final = 30.0
START_S: Final = 300.0
LOOK_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the daemon has to bear. market_s: how long, in the market's time."""

    market_s: float
    speed: float = 10.0
    symbols: int = 5500
    rules: int = 1000
    clients: int = 100
    receivers: int = 5
    seed: int = 5


@dataclass(frozen=True, slots=True)
class Look:
    """The daemon at one moment. market_s: since the opening, lunch left out; late: le (s) → looks so far."""

    market_s: float
    rss_bytes: int
    late: dict[float, float]


@dataclass(slots=True)
class Result:
    """What was seen. faults: what must not be, in words; empty is good."""

    load: Load
    faults: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    events: int = 0
    told: int = 0
    stop_s: float = 0.0
    wall_s: float = 0.0

    def late_share(self) -> float:
        """Return the share of looks at which the loop was more than LATE_S late, from the first look on."""
        first, last = self.looks[0].late, self.looks[-1].late
        seen = last[float("inf")] - first[float("inf")]
        return 1 - (last[LATE_S] - first[LATE_S]) / seen if seen else 0.0

    def growth_bytes(self, *, after_s: float) -> int:
        """Return by how much memory grew after so much market time, to the end.

        Both are the median of some minutes: for a second each minute a checkpoint's copy of the state stands there too.
        """
        end_s = self.looks[-1].market_s
        before = [look.rss_bytes for look in self.looks if after_s <= look.market_s <= after_s + LEVEL_S]
        after = [look.rss_bytes for look in self.looks if look.market_s >= end_s - LEVEL_S]
        return round(median(after) - median(before)) if before else 0

    def __str__(self) -> str:
        load, last = self.load, self.looks[-1]
        return "\n".join(
            [
                f"{last.market_s / 60:.0f} market minutes in {self.wall_s:.0f} s: {load.symbols:,} symbols, "
                f"{load.rules:,} rules, {load.clients} clients, {load.receivers} receivers",
                f"{self.events:,} events, {self.told:,} of them for receivers; "
                f"{self.events * load.clients + self.told * load.receivers:,} messages; stopped in {self.stop_s:.1f} s",
                f"loop more than {LATE_S * 1000:.0f} ms late at {self.late_share():.2%} of looks",
                "RSS in MB: "
                + ", ".join(f"{look.rss_bytes / 1e6:.0f}" for look in _some(self.looks))
                + f"; {self.growth_bytes(after_s=HOUR_S) / 1e6:+.1f} since the first hour",
                *(self.faults[:20] or ["0 lost, 0 duplicate, 0 phantom"]),
            ]
        )


async def soak(load: Load, folder: Path) -> Result:
    """Run it in a new folder, and judge what came of it."""
    result, started = Result(load), time.monotonic()
    rules = folder / "rules.yaml"
    rules.write_text(rule_file(load.rules, symbols=load.symbols, seed=load.seed, date=DATE), encoding="utf-8")
    async with AsyncExitStack() as serving:
        hooks = {f"hook{number}": await serving.enter_async_context(serving_hook()) for number in range(load.receivers)}
        daemon = Daemon(folder / "d", _settings(load, rules, hooks))
        await daemon.start()
        try:
            followers = await follow(await _ready(daemon), load.clients)
            await _watch(daemon, load, result)
            asked = time.monotonic()
            code = await daemon.interrupt(signal.SIGTERM)
            result.stop_s = time.monotonic() - asked
        finally:
            if daemon.process is not None and daemon.process.returncode is None:
                daemon.process.kill()
                await daemon.process.wait()
        if code:
            result.faults.append(f"it ended with code {code}:\n{daemon.tail()}")
        await _judge(daemon, followers, hooks, result)
    if result.stop_s > STOP_S:
        result.faults.append(f"it took {result.stop_s:.1f} s to stop")
    result.faults += [f"logged: {line}" for line in daemon.events() if line["level"] not in ("debug", "info")]
    result.wall_s = time.monotonic() - started
    return result


def _settings(load: Load, rules: Path, hooks: Mapping[str, Hook]) -> dict[str, object]:
    webhooks = [hook.section(name) for name, hook in hooks.items()]
    return {
        "feed.simulated.symbols": load.symbols,
        "feed.simulated.speed": load.speed,
        "feed.simulated.seed": load.seed,
        "feed.simulated.start": "09:30:00",
        "rules.files": rules,
        "gateway.allow_loopback_without_token": True,
        "notify.webhooks": orjson.dumps(webhooks).decode(),
    }


async def _ready(daemon: Daemon) -> str:
    """Wait until clients can subscribe; a thousand rules are read before, ten seconds on a quiet machine."""

    async def listens() -> bool:
        return bool(daemon.events("gateway_alerts_loaded"))

    await daemon.until("the gateway had its place in the stream", listens, START_S)
    return daemon.addresses()[-1]


async def _watch(daemon: Daemon, load: Load, result: Result) -> None:
    """Look at the daemon now and then until the market has run so long."""
    assert daemon.process is not None
    async with aiohttp.ClientSession(daemon.addresses()[-1]) as session:
        while not result.looks or result.looks[-1].market_s < load.market_s:
            assert daemon.process.returncode is None, daemon.tail()
            async with session.get("/metrics") as answer:
                numbers = await answer.text()
            result.looks.append(_look(numbers, daemon.process.pid))
            await asyncio.sleep(LOOK_S)


def _look(numbers: str, pid: int) -> Look:
    values = dict(line.rsplit(" ", 1) for line in numbers.splitlines() if not line.startswith("#"))
    late = {
        float(le): float(values[f'monitord_loop_late_seconds_bucket{{le="{le}"}}'])
        for le in re.findall(r'monitord_loop_late_seconds_bucket\{le="([^"]+)"\}', numbers)
    }
    clock_ms = round(float(values["monitord_market_clock_seconds"]) * 1000)
    status = Path(f"/proc/{pid}/status").read_text()
    (rss,) = re.findall(r"VmRSS:\s*(\d+) kB", status)
    return Look(_since_open_s(clock_ms), int(rss) * 1024, late)


def _since_open_s(clock_ms: int) -> float:
    """Return how long the market has run, 0 before its first tick."""
    in_day_ms = (clock_ms + 8 * 3_600_000) % 86_400_000
    lunch_ms = 90 * 60_000 if in_day_ms >= 13 * 3_600_000 else 0
    return max(in_day_ms - OPEN_MS - lunch_ms, 0) / 1000 if clock_ms else 0.0


async def _judge(daemon: Daemon, followers: Sequence[Follower], hooks: Mapping[str, Hook], result: Result) -> None:
    """Give what the store, the stream, the clients and the receivers have to the checker."""
    histories = Histories(
        committed=committed_of(daemon.state_dir),
        published=await published_in(daemon.state_dir),
        received={f"client {number}": follower.steps for number, follower in enumerate(followers)},
        posted={name: hook.posts for name, hook in hooks.items()},
        settled=settled_of(daemon.state_dir),
    )
    result.events = len(histories.committed)
    result.told = sum(one.is_told for one in histories.committed)
    report = check(histories, in_order=tuple(hooks))
    if not report.clean:
        result.faults.append(str(report))
    result.faults += [f"client {n}: {fault}" for n, follower in enumerate(followers) for fault in follower.faults]


def _some(looks: Sequence[Look]) -> Sequence[Look]:
    step = max(len(looks) // 12, 1)
    return [*looks[::step], looks[-1]]
