"""One burst to many connections: each gets the same bytes as if it were alone, whatever its socket takes."""

from __future__ import annotations

import asyncio
import os
import socket
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from monitord.gateway import fanout
from monitord.gateway.fanout import FanOut, send_to_all
from monitord.gateway.outlet import Outlet
from monitord.gateway.protocol import WEBSOCKET, Burst
from tests.monitord.gateway.test_outlet import Pipe, burst, turns

BIG = "x" * 3_000_000
"""More than a socket takes at once."""


@pytest.fixture(params=["compiled", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(fanout, "COMPILED", None)
    elif fanout.COMPILED is None:
        pytest.skip("not built here: no compiler")
    return str(request.param)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Client:
    """One connection over a real socket: our outlet, and what its client reads."""

    def __init__(self, outlet: Outlet, transport: asyncio.Transport, reader: asyncio.StreamReader) -> None:
        self.outlet, self.transport, self._reader = outlet, transport, reader

    async def read(self, frames: bytes) -> None:
        """Expect these bytes and none behind them."""
        async with asyncio.timeout(10):
            assert await self._reader.readexactly(len(frames)) == frames
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await self._reader.readexactly(1)


@asynccontextmanager
async def clients(count: int) -> AsyncIterator[list[Client]]:
    made: list[Client] = []
    fan_out = FanOut()
    async with asyncio.TaskGroup() as tasks:
        running = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            _, writer = await asyncio.open_connection(sock=ours)
            reader, behind = await asyncio.open_connection(sock=theirs, limit=1 << 24)
            outlet = Outlet(
                writer.transport, writer.drain, WEBSOCKET, fan_out=fan_out, backlog_bytes=1 << 24, send_timeout_s=5.0
            )
            running.append((tasks.create_task(outlet.run()), writer, behind))
            made.append(Client(outlet, writer.transport, reader))
        try:
            yield made
        finally:
            for task, *writers in running:
                task.cancel()
                for writer in writers:
                    writer.close()


def test_a_socket_takes_what_it_has_room_for(way: str, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    (taken,) = send_to_all(array("i", [ours.fileno()]), BIG.encode())
    assert 0 < taken < len(BIG)
    assert send_to_all(array("i", [ours.fileno()]), b"more") == [0]
    theirs.setblocking(False)
    got = b""
    while len(got) < taken:
        got += theirs.recv(1 << 20)
    assert got == BIG.encode()[:taken]


def test_broken_sockets_and_none_at_all_take_nothing_and_keep_nobody_from_his(
    way: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    gone, their_end = socket.socketpair()
    their_end.close()
    reading, writing = os.pipe()
    os.close(writing)
    with gone:
        assert send_to_all(array("i", [gone.fileno(), writing, reading, ours.fileno()]), b"abc") == [0, 0, 0, 3]
    os.close(reading)
    assert theirs.recv(9) == b"abc"
    assert send_to_all(array("i"), b"abc") == []
    assert send_to_all(array("i", [ours.fileno()]), b"") == [0]


async def test_all_get_the_same_frame_in_one_call(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bytes]] = []

    def noted(numbers: array[int], frame: bytes) -> list[int]:
        calls.append((len(numbers), frame))
        return send_to_all(numbers, frame)

    monkeypatch.setattr(fanout, "send_to_all", noted)
    async with clients(3) as crowd:
        one, other = burst("alert"), burst("other")
        for client in crowd:
            client.outlet.add(one)
        crowd[0].outlet.add(other)
        await turns(1)
        assert calls == [(2, one.frame)]  # the first one's frame is his alone
        assert [client.outlet.behind_bytes for client in crowd] == [0, 0, 0]
        for client in crowd[1:]:
            await client.read(one.frame)
        await crowd[0].read(WEBSOCKET.burst([b"alert", b"other"]).frame)


async def test_who_takes_less_gets_the_rest_in_order_and_holds_nobody_up(way: str) -> None:
    async with clients(3) as crowd:
        slow, *quick = crowd
        big, *later = [burst(BIG), burst("second"), burst("third")]
        slow.outlet.add(big)
        await turns(1)
        assert slow.outlet.behind_bytes > 0
        for each in later:
            for client in crowd:
                client.outlet.add(each)
            await turns(1)
        for client in quick:
            await client.read(later[0].frame + later[1].frame)
        await slow.read(big.frame + later[0].frame + later[1].frame)
        await slow.outlet.settled()
        assert slow.outlet.behind_bytes == 0


async def test_ticks_that_wait_go_with_the_alerts_in_one_frame() -> None:
    async with clients(1) as (client,):
        client.outlet.offer("tick", burst("old"))
        client.outlet.add(burst("alert"))
        client.outlet.offer("tick", burst("new"))
        await client.read(WEBSOCKET.burst([b"alert", b"new"]).frame)


async def test_who_closes_is_not_written_to() -> None:
    async with clients(2) as crowd:
        crowd[0].transport.abort()
        for client in crowd:
            client.outlet.add(burst("alert"))
        await crowd[1].read(burst("alert").frame)
        async with asyncio.timeout(1):
            assert (await crowd[0].outlet.ended).code is None


async def test_who_was_discarded_is_not_written_to() -> None:
    async with clients(2) as crowd:
        for client in crowd:
            client.outlet.add(burst("alert"))
        crowd[0].outlet.discard()
        await crowd[1].read(burst("alert").frame)
        await crowd[0].read(b"")


async def test_one_that_fails_is_cut_off_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with clients(3) as crowd:
        for client in crowd:
            client.outlet.add(burst("alert"))
        monkeypatch.setattr(crowd[0].outlet, "_due", [burst("alert"), None])
        await turns(1)
        assert crowd[0].transport.is_closing()
        for client in crowd[1:]:
            await client.read(burst("alert").frame)


class Secret(Pipe):
    """A transport that encrypts what it is given."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self._connected = connected

    def get_extra_info(self, name: str) -> object:  # type: ignore[override]
        return {"socket": self._connected, "sslcontext": object()}.get(name)


async def test_what_is_encrypted_goes_through_the_transport(pair: tuple[socket.socket, socket.socket]) -> None:
    pipe = Secret(pair[0])
    outlet = Outlet(
        pipe,  # type: ignore[arg-type]
        pipe.drain,
        WEBSOCKET,
        fan_out=FanOut(),
        backlog_bytes=1000,
        send_timeout_s=1.0,
    )
    said: Burst = burst("alert")
    outlet.add(said)
    await turns()
    assert pipe.taken == said.frame
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
