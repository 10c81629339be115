"""A daemon in a process of its own, for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson

from monitord.broker import EmbeddedBroker
from notifiers.alertstream import Envelope
from notifiers.channel import AlertChannel

ROOT = Path(__file__).resolve().parents[2]
LOOK_S = 0.05
"""How often a process is looked at: it has no other way to tell a test what it does."""


class Daemon:
    """`monitord run` on a state directory; settings as for --set, without their section's quotes."""

    def __init__(self, state_dir: Path, settings: Mapping[str, object]) -> None:
        self.state_dir = state_dir
        self.settings = {"state_dir": state_dir, "log.format": "json", "gateway.port": 0, **settings}
        self.process: asyncio.subprocess.Process | None = None
        self.log = state_dir.with_suffix(".log")
        self._listened_before = 0
        self._lines_of: Path | None = None
        self._lines_end = 0
        self._lines: list[dict[str, Any]] = []
        self._by_event: dict[str | None, list[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Start the process; its output goes to the log file."""
        flags = [word for name, value in self.settings.items() for word in ("--set", f"{name}={value}")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MONITORD_")}
        with self.log.open("ab") as log:
            self._listened_before = len(self.addresses())
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "monitord", "run", *flags, stdout=log, stderr=log, cwd=ROOT, env=environment,
            )  # fmt: skip

    async def end(self, deadline_s: float = 120.0) -> int:
        """Wait for the process to end by itself; return its exit code. It is killed at the deadline."""
        assert self.process is not None
        try:
            async with asyncio.timeout(deadline_s):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"the daemon did not end within {deadline_s} s:\n{self.tail()}") from None

    async def killed_after(self, seconds: float) -> bool:
        """Kill -9 after so many seconds; return False if it had ended before."""
        assert self.process is not None
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
            return False
        except TimeoutError:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            return True

    async def interrupt(self, number: int = signal.SIGINT) -> int:
        """Ask the process to stop and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.end(40.0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop the process with SIGSTOP for a while; it goes on whatever happens, else nobody could end it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def until(self, what: str, true: Callable[[], Awaitable[bool]], deadline_s: float = 60.0) -> None:
        """Wait until something is true of the running process; it must not end before.

        The deadline is there for what never comes, so it is long: a slow machine is no failure.
        """
        assert self.process is not None
        for _ in range(round(deadline_s / LOOK_S)):
            if await true():
                return
            assert self.process.returncode is None, f"the daemon ended before {what}:\n{self.tail()}"
            await asyncio.sleep(LOOK_S)
        raise AssertionError(f"{what}: not within {deadline_s:g} s\n{self.tail()}")

    async def listening(self, deadline_s: float = 60.0) -> str:
        """Wait until this run's gateway listens; return its address."""

        async def listens() -> bool:
            return len(self.addresses()) > self._listened_before

        await self.until("the gateway listened", listens, deadline_s)
        return self.addresses()[-1]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines of all runs, or those of one event; each is read once, however often it is asked for."""
        if self._lines_of != self.log:
            self._lines_of, self._lines_end = self.log, 0
            self._lines, self._by_event = [], defaultdict(list)
        for text in self._new_lines():
            if text.startswith(b"{"):
                line = orjson.loads(text)
                self._lines.append(line)
                self._by_event[line.get("event")].append(line)
        return list(self._lines if name is None else self._by_event[name])

    def _new_lines(self) -> list[bytes]:
        """Return the lines since the last call that are written to their end: the last one may be on its way."""
        with self.log.open("rb") as log:
            log.seek(self._lines_end)
            whole = log.read().rpartition(b"\n")[0]
        self._lines_end += len(whole) + bool(whole)
        return whole.splitlines()

    def tail(self, size: int = 4000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-size:]

    def addresses(self) -> list[str]:
        """Return where its gateways listened, run after run."""
        return [line["listens_on"] for line in self.events("gateway_listening")]


@asynccontextmanager
async def stream_of(state_dir: Path) -> AsyncIterator[AlertChannel]:
    """Open the alert channel that a daemon left behind in its state directory."""
    broker = EmbeddedBroker(state_dir / "broker")
    await broker.start()
    channel = AlertChannel(broker.url)
    try:
        yield channel
    finally:
        await channel.close()
        await broker.stop()


async def whole_stream(channel: AlertChannel) -> list[Envelope]:
    """Read everything the stream holds."""
    envelopes: list[Envelope] = []
    while page := await channel.read(after=envelopes[-1].off if envelopes else 0, count=1000):
        envelopes += page
    return envelopes
