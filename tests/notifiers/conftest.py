"""Fakes for delivery: a store in memory, a clock that jumps, a stream in memory, and servers that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from notifiers.consumer import GroupEntry
from notifiers.delivery import Clock
from notifiers.errors import BrokerUnavailable
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import NO_LIMIT
from notifiers.recorded import Arrival, Attempt, DeliveryState, PendingDelivery
from notifiers.retry import WEBHOOK_SCHEDULE, ReceiverState
from rules.alert import Alert, Event

T0_MS = 1_675_216_923_000


def build_alert(number: int = 1, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": f"al_{number}",
        "episode_id": f"ep_{number}",
        "event": Event.FIRE,
        "rule": "brk",
        "rev": "9f2c1a",
        "symbol": "600519.SH",
        "name": "贵州茅台",
        "severity": "warning",
        "trade_date": "2023-02-01",
        "episode": number,
        "ts_event_ms": T0_MS,
        "period": "tick",
        "values": {"LAST": 1849.0},
        "message": "突破",
    }
    return Alert(**{**fields, **changes})


@dataclass
class Row:
    """A delivery as the memory store keeps it."""

    id: int
    receiver: str
    arrival: Arrival
    state: DeliveryState
    due_ms: int = 0
    failures: int = 0
    reason: str | None = None
    attempts: list[Attempt] = field(default_factory=list)


class MemoryStore:
    """The DeliveryStore contract in memory; `before` and `after` are called with a step's name: points to die at."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.states: dict[str, ReceiverState] = {}
        self.alarms: list[Alert] = []
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None

    async def begin(self, receiver: str, arrivals: Sequence[Arrival]) -> int:
        self.before("begin")
        new = 0
        for arrival in arrivals:
            if any(row.receiver == receiver and row.arrival.alert_id == arrival.alert_id for row in self.rows):
                continue
            state = DeliveryState.PENDING if arrival.dead is None else DeliveryState.DEAD
            self.rows.append(Row(len(self.rows), receiver, arrival, state, reason=arrival.dead))
            new += 1
        self.after("begin")
        return new

    def _pending(self, receiver: str) -> list[Row]:
        return [row for row in self.rows if row.receiver == receiver and row.state is DeliveryState.PENDING]

    async def due(self, receiver: str, now_ms: int, *, limit: int) -> Sequence[PendingDelivery]:
        ready = [row for row in self._pending(receiver) if row.due_ms <= now_ms][:limit]
        return [
            PendingDelivery(id=r.id, alert_id=r.arrival.alert_id, record=r.arrival.record, failures=r.failures)
            for r in ready
        ]

    async def empty_buckets(self, receiver: str, now_ms: int, *, limit: int) -> None:
        """There are none: what groups and paces is tested over the real store."""

    async def next_due_ms(self, receiver: str) -> int | None:
        return min((row.due_ms for row in self._pending(receiver)), default=None)

    async def settle(
        self, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
    ) -> None:
        self.before("settle")
        row = self.rows[delivery_id]
        row.attempts.append(attempt)
        row.state = state
        if state is DeliveryState.PENDING:
            assert due_ms is not None
            row.due_ms, row.failures = due_ms, row.failures + 1
        if state is DeliveryState.DEAD:
            row.reason = attempt.text
        self.after("settle")

    async def replay(self, receiver: str, delivery_ids: Sequence[int] | None = None) -> int:
        dead = [row for row in self.rows if row.receiver == receiver and row.state is DeliveryState.DEAD]
        chosen = [row for row in dead if delivery_ids is None or row.id in delivery_ids]
        for row in chosen:
            row.state, row.due_ms, row.failures, row.reason = DeliveryState.PENDING, 0, 0, None
        return len(chosen)

    async def origin(self) -> str:
        return "memory"

    async def receiver_state(self, receiver: str) -> ReceiverState | None:
        return self.states.get(receiver)

    async def set_receiver_state(self, receiver: str, state: ReceiverState, *, alarm: Alert | None = None) -> None:
        self.before("set_receiver_state")
        self.states[receiver] = state
        if alarm is not None:
            self.alarms.append(alarm)

    def states_of(self, receiver: str = "hook") -> list[str]:
        return [str(row.state) for row in self.rows if row.receiver == receiver]


class FakeClock:
    """A wall clock that stands still until somebody waits on it."""

    def __init__(self) -> None:
        self.ms = T0_MS
        self.horizon_ms: int | None = None
        self.at_horizon: Callable[[], None] = lambda: None

    def advance(self, ms: int) -> None:
        self.ms += ms
        if self.horizon_ms is not None and self.ms >= self.horizon_ms:
            self.at_horizon()

    async def sleep(self, seconds: float) -> None:
        self.advance(round(seconds * 1000))
        await asyncio.sleep(0)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.ms, self.sleep)


class FakeReader:
    """A stream in memory; a read that finds nothing takes its whole block time on the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.new: deque[GroupEntry] = deque()
        self.unacked: dict[str, GroupEntry] = {}
        self.opened_from_start: bool | None = None
        self.down = False
        self.blocks_ms: list[int] = []
        self.before: Callable[[str], None] = lambda _: None
        self.last = 0

    def add(self, *alerts: Alert) -> None:
        for alert in alerts:
            self.last += 1
            self.new.append(GroupEntry(id=f"{self.last}-0", record=alert.to_json()))

    async def open(self, *, from_start: bool) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        self.opened_from_start = from_start

    async def read(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        if self.down:
            raise BrokerUnavailable("down")
        self.blocks_ms.append(block_ms)
        if not self.new:
            self.clock.advance(block_ms)
            await asyncio.sleep(0)
        taken = [self.new.popleft() for _ in range(min(limit, len(self.new)))]
        self.unacked.update((entry.id, entry) for entry in taken)
        return taken

    async def ack(self, ids: Sequence[str]) -> None:
        self.before("ack")
        for entry_id in ids:
            self.unacked.pop(entry_id, None)

    def crash(self) -> None:
        """Hand out again what the last reader did not acknowledge."""
        again = [GroupEntry(id=e.id, record=e.record, deliveries=e.deliveries + 1) for e in self.unacked.values()]
        self.new.extendleft(reversed(again))
        self.unacked.clear()

    async def close(self) -> None:
        pass


class FakeNotifier:
    """Answers by a function of the alert's id; keeps what it was sent and when."""

    def __init__(self, clock: FakeClock, **options: Any) -> None:
        self.options = NotifierOptions(**{"name": "hook", **options})
        self.schedule = WEBHOOK_SCHEDULE
        self.pacing = NO_LIMIT
        self.clock = clock
        self.sent: list[tuple[int, str]] = []
        self.bundles: list[tuple[int, Bundle]] = []
        self.answer: Callable[[Any], Outcome] = lambda _: Outcome(verdict=Verdict.OK, code=200)
        self.takes_ms = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, notification: Notification) -> Outcome:
        self.sent.append((self.clock.ms, notification.alert.id))
        self.clock.advance(self.takes_ms)
        await asyncio.sleep(0)
        return self.answer(notification)

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        self.bundles.append((self.clock.ms, bundle))
        self.clock.advance(self.takes_ms)
        await asyncio.sleep(0)
        return self.answer(bundle)


@pytest.fixture(scope="session")
def alert() -> Callable[..., Alert]:
    return build_alert


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reader(clock: FakeClock) -> FakeReader:
    return FakeReader(clock)


@pytest.fixture(scope="session")
def new_store() -> Callable[[], MemoryStore]:
    return MemoryStore


@pytest.fixture(scope="session")
def new_clock() -> Callable[[], FakeClock]:
    return FakeClock


@pytest.fixture(scope="session")
def new_reader() -> Callable[[FakeClock], FakeReader]:
    return FakeReader


@pytest.fixture(scope="session")
def new_notifier() -> Callable[..., FakeNotifier]:
    return FakeNotifier


@dataclass
class Received:
    """One request as a server saw it."""

    path: str
    headers: dict[str, str]
    body: bytes


GZIP_BOMB = gzip.compress(bytes(50_000_000))


class HookServer:
    """A receiver on a loopback port that behaves as the request's path says, and keeps what it got."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.bytes_written = 0
        self.answer_body = b""
        self.echo = False
        self.arrived = asyncio.Event()
        self.retry_after = "7"
        self.location = "http://169.254.169.254/latest/meta-data/"
        self._released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(Received(request.path_qs, {k.lower(): v for k, v in request.headers.items()}, body))
        self.arrived.set()
        kind = request.path.rsplit("/", 1)[-1]
        if kind.isdigit():
            headers = {"Retry-After": self.retry_after} if kind in {"429", "503"} else {}
            headers |= {"Location": self.location} if kind.startswith("3") else {}
            echo = f"{request.url} {request.headers}".encode() if self.echo else self.answer_body
            return web.Response(status=int(kind), headers=headers, body=echo)
        answer: web.StreamResponse = await getattr(self, f"_{kind}")(request)
        return answer

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        await self._released.wait()
        return web.Response()

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 and then a body that never ends: one byte, then silence."""
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        await self._released.wait()
        return response

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500, headers={"Content-Length": str(1_000_000_000)})
        await response.prepare(request)
        block = bytes(65_536)
        while self.bytes_written < 1_000_000_000:
            await response.write(block)
            self.bytes_written += len(block)
        return response

    async def _bomb(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, headers={"Content-Encoding": "gzip"}, body=GZIP_BOMB)

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        sock: socket.socket = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return web.Response()

    def release(self) -> None:
        self._released.set()


@pytest.fixture
async def hook() -> AsyncIterator[tuple[HookServer, str]]:
    """Yield a running HookServer and its URL, which ends without a slash."""
    server = HookServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield server, f"http://127.0.0.1:{port}"
    server.release()
    await runner.cleanup()
