"""A gateway on a free port with fakes behind it, and what tests need to talk to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson

from monitord.gateway.auth import Token
from monitord.gateway.options import GatewayOptions
from monitord.gateway.quotes import QuoteBoard
from monitord.gateway.server import Gateway
from monitord.paging import Page
from monitord.store import HistoryFilter, StoredAlert
from monitord.warmup import Progress
from notifiers.alertstream import Envelope, Position
from notifiers.errors import DeliveryError
from rules.alert import Alert, Event
from rules.engine import Engine
from rules.explain import Explanation, explain
from rules.needs import Readiness

EPOCH = "k3f9"
SECRET = "s3cret-of-the-desk"


def record(number: int, *, symbol: str = "600519.SH", rule: str = "brk", severity: str = "info") -> bytes:
    """Return the JSON of an alert; its id holds its number."""
    return Alert(
        id=f"al_{number}",
        episode_id=f"ep_{number}",
        event=Event.FIRE,
        rule=rule,
        rev="r1",
        symbol=symbol,
        name="贵州茅台",
        severity=severity,
        trade_date="2023-02-01",
        episode=number,
        ts_event_ms=1_675_216_923_000 + number,
        period="tick",
        values={"LAST": 1849.0},
        message=f"alert {number}",
    ).to_json()


class FakeStream:
    """What `FakeAlerts.subscribe` returns: Positions and Envelopes from one queue."""

    def __init__(self, alerts: FakeAlerts, since: tuple[str, int] | None) -> None:
        self._alerts = alerts
        self.queue: asyncio.Queue[Position | Envelope | Exception] = asyncio.Queue()
        epoch, top = alerts.epoch, alerts.newest
        if since is None:
            self.queue.put_nowait(Position(epoch, top, recovered=True))
            return
        recovered = since[0] == epoch
        self.queue.put_nowait(Position(epoch, since[1] if recovered else top, recovered=recovered))
        for envelope in alerts.kept:
            if recovered and envelope.off > since[1]:
                self.queue.put_nowait(envelope)

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Position | Envelope:
        step = await self.queue.get()
        if isinstance(step, Exception):
            raise step
        return step

    async def aclose(self) -> None:
        self._alerts.streams.remove(self)


class FakeAlerts:
    """An alert channel in memory. kept: what its stream holds; reads: how often it was read."""

    def __init__(self, *, epoch: str = EPOCH) -> None:
        self.epoch = epoch
        self.kept: list[Envelope] = []
        self.newest = 0
        self.streams: list[FakeStream] = []
        self.reads = 0
        self.down = False

    async def top(self) -> tuple[str, int]:
        self._check()
        return self.epoch, self.newest

    async def read(self, *, after: int, count: int) -> Sequence[Envelope]:
        self._check()
        self.reads += 1
        await asyncio.sleep(0)
        return [envelope for envelope in self.kept if envelope.off > after][:count]

    def subscribe(self, since: tuple[str, int] | None) -> FakeStream:
        stream = FakeStream(self, since)
        self.streams.append(stream)
        return stream

    def publish(self, count: int = 1, **fields: str) -> None:
        """Publish alerts whose number is their offset."""
        for _ in range(count):
            self.newest += 1
            envelope = Envelope(self.newest, self.epoch, record(self.newest, **fields))
            self.kept.append(envelope)
            for stream in self.streams:
                stream.queue.put_nowait(envelope)

    def announce(self, position: Position) -> None:
        self.epoch, self.newest = position.epoch, position.off
        for stream in self.streams:
            stream.queue.put_nowait(position)

    def trim(self, *, below: int) -> None:
        self.kept = [envelope for envelope in self.kept if envelope.off >= below]

    def _check(self) -> None:
        if self.down:
            raise DeliveryError("the broker cannot be reached")


class FakeHistory:
    """A store that remembers what it was asked."""

    def __init__(self) -> None:
        self.rows = [StoredAlert(n, f"al_{n}", record(n), EPOCH, n) for n in (3, 2, 1)]
        self.asked: list[tuple[HistoryFilter, int, int]] = []
        self.copied: Any = None
        """`Store.copied` of a real one, where a test has it."""

    async def history(self, wanted: HistoryFilter, *, page: int = 1, page_size: int = 100) -> Page[StoredAlert]:
        self.asked.append((wanted, page, page_size))
        return Page(tuple(self.rows), len(self.rows), page, page_size)

    async def alert(self, alert_id: str) -> StoredAlert | None:
        return next((row for row in self.rows if row.id == alert_id), None)


@dataclass
class FakeRules:
    """Rules in force; `failure` is raised by the next reloads."""

    failure: Exception | None = None
    reloads: int = 0
    in_force: tuple[Any, ...] = ()
    values: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    search: Progress | None = None

    def rules(self) -> Any:
        return SimpleNamespace(rules=self.in_force, source="")

    async def reload(self) -> None:
        self.reloads += 1
        if self.failure is not None:
            raise self.failure

    async def readiness(self) -> Mapping[str, Readiness]:
        return self.engine.readiness()

    @property
    def warming(self) -> Progress | None:
        return self.search

    async def explain(self, rule: str, symbol: str) -> Explanation:
        return explain(self.engine, rule, symbol)

    async def indicators(self, symbol: str) -> Mapping[str, Mapping[str, float | None]]:
        return self.values


@dataclass
class FakeHealth:
    why: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        return self.why

    def report(self) -> Mapping[str, Any]:
        return {"ticks": 7}


@dataclass
class Stand:
    """A running gateway and its fakes."""

    gateway: Gateway
    alerts: FakeAlerts
    history: FakeHistory
    rules: FakeRules
    board: QuoteBoard
    health: FakeHealth
    session: aiohttp.ClientSession
    made: Any = None

    @property
    def ws_url(self) -> str:
        return self.gateway.address.replace("http://", "ws://") + "/v1/ws"

    @property
    def port(self) -> int:
        return int(self.gateway.address.rpartition(":")[2])

    async def connect(self, query: str = "", **kwargs: Any) -> Talk:
        return Talk(await self.session.ws_connect(self.ws_url + query, max_msg_size=0, **kwargs))

    async def caught_up(self, off: int) -> None:
        """Wait until the gateway has taken the alert with this offset."""
        await until(lambda: self.gateway.hub.kept.top is not None and self.gateway.hub.kept.top.off >= off)


class Talk:
    """One WebSocket client that splits frames into messages."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames = 0
        self._messages: list[dict[str, Any]] = []

    async def say(self, *messages: Any) -> None:
        await self.ws.send_str("\n".join(orjson.dumps(message).decode() for message in messages))

    async def hear(self) -> dict[str, Any]:
        """Return the next message that is no heartbeat."""
        while True:
            message = await self.hear_any()
            if message.get("op") != "hb":
                return message

    async def hear_any(self) -> dict[str, Any]:
        while not self._messages:
            frame = await asyncio.wait_for(self.ws.receive(), 5)
            assert frame.type is aiohttp.WSMsgType.TEXT, (frame.type, frame.data, self.ws.close_code)
            self.frames += 1
            self._messages += [orjson.loads(line) for line in frame.data.split("\n")]
        return self._messages.pop(0)

    async def ask(self, message: Any) -> dict[str, Any]:
        """Say something and return the reply to it; what comes before it is dropped."""
        await self.say(message)
        while True:
            heard = await self.hear()
            if "ok" in heard and heard["id"] == message.get("id"):
                return heard

    async def close_code(self) -> int | None:
        """Wait for the end; return its code."""
        while True:
            frame = await asyncio.wait_for(self.ws.receive(), 5)
            if frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return self.ws.close_code


async def until(reached: Any, *, within_s: float = 5.0) -> None:
    """Let the loop turn until `reached()`."""
    end = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def standing(
    *,
    alerts: FakeAlerts | None = None,
    ready: bool = True,
    metrics: bytes = b"",
    desk: Any = None,
    study: Any = None,
    history: Any = None,
    make: Any = None,
    **options: Any,
) -> AsyncIterator[Stand]:
    """Run a gateway on a free port; without tokens in the options, loopback may do everything.

    make: given quotes and where to get the hub, makes what is made by API.
    """
    source = alerts or FakeAlerts()
    history, rules, board, health = history or FakeHistory(), FakeRules(), QuoteBoard(), FakeHealth()
    made = None if make is None else await make(board, lambda: gateway.hub)
    given = {"port": 0, "allow_loopback_without_token": "tokens" not in options, "heartbeat_s": 3600.0, **options}
    gateway = Gateway(
        GatewayOptions(**given),
        alerts=source,
        history=history,
        rules=rules,
        quotes=board,
        health=health,
        desk=desk,
        made=made,
        metrics=lambda: metrics,
        study=study,
    )
    await gateway.start()
    running = asyncio.create_task(gateway.run())
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            stand = Stand(gateway, source, history, rules, board, health, session, made)
            if ready:
                await until(lambda: gateway.hub.kept.top is not None)
            yield stand
    finally:
        await gateway.stop()
        running.cancel()
        with suppress(asyncio.CancelledError, DeliveryError):
            await running


def token(*channels: str, secret: str = SECRET, expires_ms: int | None = None) -> Token:
    return Token.of(secret, name="desk", channels=channels or ("*",), expires_ms=expires_ms)


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
