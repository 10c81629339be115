"""One burst to many connections: each gets the same bytes as if it were alone, whatever its socket takes."""

from __future__ import annotations

import asyncio
import os
import socket
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from monitord.gateway import fanout
from monitord.gateway.fanout import FanOut, send_to_all
from monitord.gateway.outlet import Outlet
from monitord.gateway.protocol import WEBSOCKET, Burst, CloseCode
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

    async def read(self, size: int) -> bytes:
        """Return so many bytes, and what comes soon behind them."""
        async with asyncio.timeout(10):
            came = await self._reader.readexactly(size)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                return came + await self._reader.read(1 << 20)
        return came


@asynccontextmanager
async def clients(count: int, *, send_timeout_s: float = 5.0, limit: int = 1 << 24) -> AsyncIterator[list[Client]]:
    made: list[Client] = []
    fan_out = FanOut()
    async with asyncio.TaskGroup() as tasks:
        running = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            _, writer = await asyncio.open_connection(sock=ours)
            reader, behind = await asyncio.open_connection(sock=theirs, limit=limit)
            outlet = Outlet(
                writer.transport, writer.drain, WEBSOCKET,
                fan_out=fan_out, backlog_bytes=1 << 24, send_timeout_s=send_timeout_s,
            )  # fmt: skip
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
            assert await client.read(len(one.frame)) == one.frame
        both = WEBSOCKET.burst([b"alert", b"other"]).frame
        assert await crowd[0].read(len(both)) == both


async def test_who_takes_less_gets_the_rest_in_order_and_holds_nobody_up(way: str) -> None:
    async with clients(3) as crowd:
        slow, *quick = crowd
        big, *later = [burst(BIG), burst("second"), burst("third")]
        behind = later[0].frame + later[1].frame
        slow.outlet.add(big)
        await turns(1)
        assert slow.outlet.behind_bytes > 0
        for each in later:
            for client in crowd:
                client.outlet.add(each)
            await turns(1)
        for client in quick:
            assert await client.read(len(behind)) == behind
        assert await slow.read(len(big.frame + behind)) == big.frame + behind
        await slow.outlet.settled()
        assert slow.outlet.behind_bytes == 0


async def test_ticks_that_wait_go_with_the_alerts_in_one_frame() -> None:
    async with clients(1) as (client,):
        client.outlet.offer("tick", burst("old"))
        client.outlet.add(burst("alert"))
        client.outlet.offer("tick", burst("new"))
        both = WEBSOCKET.burst([b"alert", b"new"]).frame
        assert await client.read(len(both)) == both


async def test_who_closes_is_not_written_to() -> None:
    async with clients(2) as crowd:
        crowd[0].transport.abort()
        for client in crowd:
            client.outlet.add(burst("alert"))
        assert await crowd[1].read(len(burst("alert").frame)) == burst("alert").frame
        async with asyncio.timeout(1):
            assert (await crowd[0].outlet.ended).code is None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_was_discarded_is_not_written_to(when: str) -> None:
    async with clients(2) as crowd:
        if when == "after":  # the hub lets him go a moment later
            crowd[0].outlet.discard()
        for client in crowd:
            client.outlet.add(burst("alert"))
        crowd[0].outlet.discard()
        assert await crowd[1].read(len(burst("alert").frame)) == burst("alert").frame
        assert await crowd[0].read(0) == b""


async def test_what_is_queued_goes_first_though_the_socket_is_empty_again() -> None:
    """Between the moment it is, and the turn in which `run` notices."""
    async with clients(1) as (client,):
        big, second, third = burst(BIG), burst("second"), burst("third")
        for one in (big, second):
            client.outlet.add(one)
            await turns(1)
        assert client.outlet.behind_bytes > 0
        everything = big.frame + second.frame + third.frame
        reading = asyncio.create_task(client.read(len(everything)))
        while client.transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0)
        client.outlet.add(third)
        assert await reading == everything


async def test_a_client_that_takes_but_a_part_of_one_frame_is_let_go_in_time(way: str) -> None:
    async with clients(1, send_timeout_s=0.05, limit=1024) as (client,):
        client.outlet.add(burst(BIG))
        await turns(1)
        assert client.outlet.behind_bytes > 0
        async with asyncio.timeout(5):
            await client.outlet.settled()
            ending = await client.outlet.ended
        assert (ending.code, ending.cut) == (CloseCode.SLOW, True)


def broken(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("step", ["take_single", "flush", "write_rest", "send_to_all"])
async def test_where_sending_fails_those_are_cut_off_and_the_others_get_all_of_it(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with clients(3) as crowd:
        first, one, other = burst(BIG), burst("alert"), burst("another")
        if step == "send_to_all":
            monkeypatch.setattr(fanout, step, broken)
            crowd[2].outlet.number = -1  # goes through the transport
        else:
            monkeypatch.setattr(crowd[0].outlet, step, broken)
        crowd[0].outlet.add(first if step == "write_rest" else one)
        if step == "flush":
            crowd[0].outlet.add(other)
        crowd[1].outlet.add(one)
        crowd[2].outlet.add(other)
        await turns(1)
        cut = [client.transport.is_closing() for client in crowd]
        assert cut == [True, step == "send_to_all", False]
        assert await crowd[2].read(len(other.frame)) == other.frame
        if step != "send_to_all":
            assert await crowd[1].read(len(one.frame)) == one.frame


def test_numbers_that_are_none_are_refused() -> None:
    if fanout.COMPILED is None:
        pytest.skip("not built here: no compiler")
    with pytest.raises(ValueError, match="array of C ints"):
        send_to_all(array("b", [1, 2, 3]), b"")


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
