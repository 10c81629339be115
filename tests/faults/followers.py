"""Who follows a daemon's alerts: a WebSocket client that is cut and keeps a history; the programs of the documents."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sqlite3
import struct
import sys
from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.acceptance.daemon import ROOT, Daemon
from tests.faults.histories import Began, Heard, Learnt, Step

PAGE_SIZE = 500


class Follower:
    """A stock WebSocket client on the channel `alerts` that resumes wherever it was cut; it judges nothing.

    wanted: cleared, it stays away until it is set again, and has alerts to be told of then.
    steps: its history, for the checker. told: the ids in the order of first sight. counts: stood (came to
    stand), cuts, replayed, told_of_a_gap, history (learnt from it), notice_<code>, closed_<code>.
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        pause_s: float = 0.05,
        entrance: AbstractAsyncContextManager[Any] | None = None,
    ) -> None:
        """pause_s: between attempts to connect while nobody listens; entrance: held while it comes to stand."""
        self._entrance = entrance or nullcontext()
        self._entering = AsyncExitStack()
        self._daemon = daemon
        self._pause_s = pause_s
        self._epoch, self._off = "", 0
        self._subscribed = False
        self.wanted = asyncio.Event()
        self.wanted.set()
        self.steps: list[Step] = []
        self.told: dict[str, None] = {}
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Follow until cancelled, through whatever ends a connection."""
        while True:
            await self.follow(3600)

    async def follow(self, seconds: float, *, deaf_s: float = 0.0, reset: bool = False) -> bool:
        """Follow for so long, then cut the connection with what is under way; return whether it had come to stand.

        deaf_s: take no notice of what comes in the last moments, so that it is lost. reset: cut with RST. Returns early
        where the server ends it.
        """
        self._subscribed = False
        await self.wanted.wait()
        async with AsyncExitStack() as self._entering:
            await self._entering.enter_async_context(self._entrance)
            return await self._follow(seconds, deaf_s=deaf_s, reset=reset)

    async def _follow(self, seconds: float, *, deaf_s: float, reset: bool) -> bool:
        try:
            address = self._daemon.addresses()[-1].replace("http", "ws", 1)
            ws = await connect(f"{address}/v1/ws", open_timeout=10, compression=None)
        except (OSError, TimeoutError, WebSocketException, IndexError):  # not listening (yet, or any more)
            await asyncio.sleep(self._pause_s)
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._converse(ws)
        except TimeoutError:
            self.counts["cuts"] += self._subscribed
            await asyncio.sleep(deaf_s)
        except ConnectionClosed as closed:
            self.counts[f"closed_{closed.rcvd.code if closed.rcvd else 'abruptly'}"] += 1
        except aiohttp.ClientError:  # the history was cut off with everything else
            self.counts["closed_in_history"] += 1
        finally:
            _cut(ws, reset=reset)
        return self._subscribed

    async def _converse(self, ws: ClientConnection) -> None:
        since = {"epoch": self._epoch, "off": self._off}
        await ws.send(orjson.dumps({"id": 1, "op": "subscribe", "args": [{"ch": "alerts", "since": since}]}).decode())
        while True:
            frame = str(await ws.recv())
            for line in frame.split("\n"):
                if not await self._hear(orjson.loads(line)):
                    return

    async def _hear(self, message: dict[str, Any]) -> bool:
        if message.get("ch") == "alerts":
            self._take(message)
        elif message.get("op") == "hb":
            told = f"a heartbeat tells of {message['top']}, and what came last is {self._off}, {self.steps[-3:]}"
            assert message["top"]["alerts"] == self._off, told
        elif message.get("op") == "notice":
            self.counts[f"notice_{message['code']}"] += 1
        elif message.get("ok"):
            await self._begin(message["result"][0])
        else:
            assert message["error"]["temporary"], message
            return False
        return True

    async def _begin(self, place: dict[str, Any]) -> None:
        """Go on behind the old position, or be told that it is lost and page the history."""
        if place["recovered"]:
            self.steps.append(Began(place["epoch"], self._off, recovered=True if self.steps else None))
            self._epoch = place["epoch"]
            self.counts["replayed"] += place["replayed"]
        else:
            self.counts["told_of_a_gap"] += 1
            learnt = await self._read_history()  # the old position holds until then: we may be cut in the middle
            self.steps += [Began(place["epoch"], place["off"], recovered=False), *map(Learnt, learnt)]
            self.told |= dict.fromkeys(learnt)
            self._epoch, self._off = place["epoch"], place["off"]
        self.counts["stood"] += 1
        self._subscribed = True
        await self._entering.aclose()

    def _take(self, message: dict[str, Any]) -> None:
        self._epoch, self._off = message["epoch"], message["off"]
        self.steps.append(Heard(self._epoch, self._off, message["data"]["id"]))
        self.told.setdefault(message["data"]["id"])

    async def _read_history(self) -> list[str]:
        """Return the ids we never saw, oldest first; what is published again later has a known id."""
        ids: list[str] = []
        page = 1
        async with aiohttp.ClientSession(self._daemon.addresses()[-1]) as session:
            while True:
                async with session.get("/v1/alerts", params={"page": page, "page_size": PAGE_SIZE}) as response:
                    assert response.status == 200, await response.text()
                    alerts = (await response.json())["alerts"]
                ids += [alert["data"]["id"] for alert in alerts]
                if len(alerts) < PAGE_SIZE:
                    break
                page += 1
        unseen = [one for one in reversed(ids) if one not in self.told]
        self.counts["history"] += len(unseen)
        return unseen


def _cut(ws: ClientConnection, *, reset: bool) -> None:
    """End a TCP connection without a goodbye."""
    if reset:
        with suppress(OSError, AttributeError):
            linger = struct.pack("ii", 1, 0)
            ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    ws.transport.abort()


class DocumentedConsumer:
    """The program in docs/consumers.md as a process of its own; killed and started again it goes on."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        self._program = folder / "consumer.py"
        self._program.write_text(program_in("docs/consumers.md"))
        self._log = folder / "consumer.log"
        self._database = folder / "consumer.sqlite"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, self._program, self._url, self._database, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        assert self._process is not None
        assert self._process.returncode is None, self._log.read_text()[-4000:]
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def rows(self) -> list[tuple[str, int, str]]:
        """Return (id, offset, epoch) of the work done, in its order."""
        with suppress(sqlite3.OperationalError):  # not made yet
            reading = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=5)
            try:
                return reading.execute("SELECT id, off, epoch FROM alerts ORDER BY rowid").fetchall()
            finally:
                reading.close()
        return []


class DocumentedClient:
    """The WebSocket client in docs/websocket.md, run in a task of the test's loop."""

    def __init__(self, gateway: str) -> None:
        self.ids: list[str] = []
        self._program = loaded("docs/websocket.md")
        self._program.GATEWAY = gateway  # type: ignore[attr-defined]
        self._program.HEADERS = {}  # type: ignore[attr-defined]

    async def run(self) -> None:
        await self._program.follow(self._take)

    async def _take(self, alert: dict[str, Any]) -> None:
        self.ids.append(alert["id"])


def program_in(document: str) -> str:
    """Return the one Python program of a document."""
    text = (ROOT / document).read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return program


def loaded(document: str) -> ModuleType:
    """Load the program of a document as a module."""
    module = ModuleType(Path(document).stem)
    exec(compile(program_in(document), document, "exec"), module.__dict__)
    return module
