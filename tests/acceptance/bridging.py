"""A bridge in a process of its own, a recorder of all that its stream holds, and what an engine makes of that."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat, Mark, MarkKind
from feeds.journal import read_journal
from feeds.remote import RemoteFeed
from feeds.simulated import Market
from feeds.tick import TickBatch
from rules.alert import Alert
from rules.engine import Engine
from tests.faults.lives import ForkedProcess


class BridgeProcess:
    """`monitord bridge` on a state directory, forked; settings as for --set.

    live: over a market that waits for nobody.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: Mapping[str, object],
        *,
        live: bool = False,
        environment: Mapping[str, str] = {},
    ) -> None:
        self._settings = {"state_dir": state_dir, "log.format": "json", **settings}
        self._module = "tests.acceptance.live_market" if live else "monitord.__main__"
        self._environment = environment
        self.log = state_dir.with_suffix(".log")
        self._held_before = 0
        self.process: ForkedProcess | None = None

    async def start(self) -> None:
        """Start the process; its output goes to the log file."""
        flags = [word for name, value in self._settings.items() for word in ("--set", f"{name}={value}")]
        self.log.touch()
        self._held_before = len(self.events("bridge_holds_stream"))
        self.process = ForkedProcess(["bridge", *flags], self.log, module=self._module, environment=self._environment)

    @property
    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        assert self.process is not None
        return self.process.returncode

    async def until_it_holds(self) -> None:
        """Wait until this run holds the stream, or has ended."""
        while self.ended is None and len(self.events("bridge_holds_stream")) <= self._held_before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def kill(self) -> bool:
        """Kill -9; return False if it had ended before."""
        return await self.stop(signal.SIGKILL) == -signal.SIGKILL

    async def stop(self, number: int = signal.SIGINT, *, within_s: float = 60.0) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.end(within_s)

    async def end(self, within_s: float) -> int:
        """Wait for its end; return its exit code."""
        assert self.process is not None
        try:
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"the bridge did not end within {within_s} s:\n{self.tail()}") from None

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log lines of one event, of all runs."""
        lines = (orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{"))
        return [line for line in lines if line.get("event") == name]

    def tail(self, size: int = 4000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-size:]


class Recorder:
    """Reads a whole stream while it is written; `inputs` is what every engine on it gets."""

    def __init__(self, url: str) -> None:
        self._feed = RemoteFeed(url=url)
        self.inputs: list[FeedInput] = []

    async def run(self) -> None:
        """Record until `stop`."""
        await self._feed.open()
        async for given in self._feed:
            self.inputs.append(given)

    async def stop(self) -> None:
        """Let `run` end."""
        await self._feed.close()

    @property
    def last(self) -> int:
        """The offset of the newest input."""
        return self.inputs[-1].offset if self.inputs else -1


def decided(inputs: Sequence[FeedInput], state: Path, *, rules: Control | None = None) -> list[Alert]:
    """Return what one engine that never stops decides from these inputs, with the control records of a daemon.

    state: the daemon's folder of journal and store. rules: what it takes instead of the daemon's, whose share they are.
    """
    (folder,) = (state / "sources").iterdir()
    controls = [(record.follows, record.value) for record in read_journal(folder / "journal")]
    if rules is not None:
        controls = [(at, rules if value.kind is ControlKind.RULES else value) for at, value in controls]
    engine, alerts = Engine(), []
    for given in inputs:
        while controls and controls[0][0] < given.offset:
            alerts += engine.step(controls.pop(0)[1])
        alerts += engine.step(given.value, offset=given.offset)
    for _, control in controls:
        alerts += engine.step(control)
    return alerts


def told_by_market(settings: Mapping[str, object]) -> Iterator[TickBatch | Heartbeat]:
    """Yield what the simulated market of these settings tells, from its first day's start."""
    hour, minute, second = map(int, str(settings["feed.simulated.start"]).split(":"))
    start_ms = ((hour * 60 + minute) * 60 + second) * 1000
    market = Market(
        seed=1, symbols=int(str(settings["feed.simulated.symbols"])), date=20250102, interval_ms=3000, days=1
    )
    first = next(place for place, moment in enumerate(market.timetable) if moment.clock_ms >= start_ms)
    market.skip_to(first)
    whole = True
    while (value := market.next(whole=whole)) is not None:
        whole = False
        yield value


def account(delivered: Sequence[FeedInput], said: Iterable[TickBatch | Heartbeat]) -> dict[str, int]:
    """Count what became of every batch the market told up to the last one delivered.

    Raises AssertionError for one that nobody accounts for.

    Delivered batches are those that were told, bit for bit and in their order, none twice; where some are missing, a
    gap mark stands in their place.
    """
    told = (value for value in said if isinstance(value, TickBatch))
    counts = dict.fromkeys(("delivered", "delivered_ticks", "missing", "missing_ticks", "gap_marks"), 0)
    marked = True  # a bridge that starts late has no need to say so
    for given in delivered:
        if isinstance(given.value, Mark) and given.value.kind is MarkKind.GAP:
            counts["gap_marks"] += 1
            marked = True
        if not isinstance(given.value, TickBatch):
            continue
        while (batch := next(told, None)) is not None and batch != given.value:
            assert marked, f"batch of {batch.span_ms} is missing before offset {given.offset}, and no gap mark says so"
            counts["missing"] += 1
            counts["missing_ticks"] += len(batch)
        assert batch is not None, f"what offset {given.offset} holds was never told, or came twice or out of order"
        counts["delivered"] += 1
        counts["delivered_ticks"] += len(batch)
        marked = False
    return counts
