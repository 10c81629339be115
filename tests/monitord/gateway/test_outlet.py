"""Sending without waiting: what leaves when, and when a client is let go."""

from __future__ import annotations

import asyncio

import pytest

from monitord.gateway.fanout import FanOut
from monitord.gateway.outlet import Ending, Outlet
from monitord.gateway.protocol import WEBSOCKET, Burst, CloseCode, text_frame


class Pipe:
    """A transport whose socket takes `room` bytes and then nothing until `read`."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room, self.taken, self.buffer = room, b"", b""
        self.closing = False
        self.writes = 0
        self.emptied = asyncio.Event()
        self.high: int | None = None

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, *, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def is_closing(self) -> bool:
        return self.closing

    def write(self, frame: bytes) -> None:
        self.writes += 1
        self.buffer += frame
        self._move()

    def read(self, size: int) -> None:
        self.room += size
        self._move()

    def abort(self) -> None:
        self.closing = True

    async def drain(self) -> None:
        while self.buffer:
            self.emptied.clear()
            await self.emptied.wait()

    def _move(self) -> None:
        moved, self.buffer = self.buffer[: self.room], self.buffer[self.room :]
        self.taken += moved
        self.room -= len(moved)
        if not self.buffer:
            self.emptied.set()


def outlet(pipe: Pipe, *, backlog_bytes: int = 1000, send_timeout_s: float = 5.0) -> Outlet:
    return Outlet(
        pipe,  # type: ignore[arg-type]
        pipe.drain,
        WEBSOCKET,
        fan_out=FanOut(),
        backlog_bytes=backlog_bytes,
        send_timeout_s=send_timeout_s,
    )


def burst(text: str) -> Burst:
    return WEBSOCKET.burst([text.encode()])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_due_in_one_turn_of_the_loop_is_one_write_of_one_frame() -> None:
    pipe = Pipe()
    out = outlet(pipe)
    for text in ("a", "b", "c"):
        out.add(burst(text))
    out.offer("tick", burst("old"))
    out.offer("tick", burst("new"))
    assert pipe.writes == 0
    await turns()
    assert (pipe.writes, pipe.taken) == (1, text_frame(b"a\nb\nc\nnew"))


async def test_a_single_burst_leaves_as_the_very_bytes_all_others_get() -> None:
    pipe = Pipe()
    written = []
    pipe.write = written.append  # type: ignore[method-assign]
    one = burst("x" * 300)
    outlet(pipe).add(one)
    await turns()
    assert written[0] is one.frame


async def test_bursts_behind_a_full_socket_wait_in_order_and_ticks_keep_the_latest() -> None:
    pipe = Pipe(room=2)
    out = outlet(pipe)
    running = asyncio.create_task(out.run())
    for text in ("a", "b", "c"):
        out.add(burst(text))
        out.offer("tick", burst(f"tick {text}"))
        await turns()
    assert out.behind_bytes > 0
    pipe.read(1 << 20)
    await turns()
    first, *rest = [text_frame(t) for t in (b"a\ntick a", b"b", b"c", b"tick c")]
    assert pipe.taken == first + b"".join(rest)
    assert out.behind_bytes == 0
    running.cancel()


async def test_too_far_behind_ends_with_4008_and_drops_the_queue() -> None:
    pipe = Pipe(room=0)
    out = outlet(pipe, backlog_bytes=100)
    for _ in range(3):
        out.add(burst("x" * 60))
        await turns()
    ending = out.ended.result()
    assert (ending.code, ending.cut) == (CloseCode.SLOW, False)
    assert out.behind_bytes == 62  # what the transport has already


async def test_a_socket_that_takes_nothing_for_too_long_ends_with_4008_and_a_cut() -> None:
    pipe = Pipe(room=0)
    out = outlet(pipe, send_timeout_s=0.02)
    out.add(burst("a"))
    await out.run()
    assert (out.ended.result().code, out.ended.result().cut) == (CloseCode.SLOW, True)


async def test_a_slow_socket_that_takes_something_in_time_stays() -> None:
    pipe = Pipe(room=0)
    out = outlet(pipe, send_timeout_s=0.05)
    running = asyncio.create_task(out.run())
    for _ in range(4):
        out.add(burst("a"))
        await asyncio.sleep(0.03)
        pipe.read(1 << 10)
        await turns()
    assert not out.ended.done()
    assert pipe.taken == text_frame(b"a") * 4
    running.cancel()


async def test_settled_waits_for_the_socket_or_the_end() -> None:
    pipe = Pipe(room=0)
    out = outlet(pipe)
    running = asyncio.create_task(out.run())
    out.say(b"a")
    waiting = asyncio.create_task(out.settled())
    await turns()
    assert not waiting.done()
    pipe.read(100)
    await waiting
    pipe.room = 0
    out.say(b"b")
    waiting = asyncio.create_task(out.settled())
    await turns()
    assert not waiting.done()
    out.end(Ending(None))
    await waiting
    running.cancel()


async def test_after_the_goodbye_nothing_is_written() -> None:
    pipe = Pipe()
    out = outlet(pipe)
    out.add(burst("before"))
    out.discard()
    out.add(burst("after"))
    await turns()
    assert pipe.writes == 0


async def test_the_first_ending_stands() -> None:
    out = outlet(Pipe())
    out.end(Ending(CloseCode.GAP))
    out.end(Ending(CloseCode.SLOW))
    assert out.ended.result().code is CloseCode.GAP


async def test_finishing_writes_what_is_left_and_gives_up_in_time() -> None:
    pipe = Pipe(room=0)
    out = outlet(pipe)
    running = asyncio.create_task(out.run())
    out.say(b"a")
    await turns()
    asyncio.get_running_loop().call_soon(pipe.read, 100)
    await out.finish(running, within_s=5)
    assert pipe.taken == text_frame(b"a")
    deaf = outlet(stuck := Pipe(room=0))
    running = asyncio.create_task(deaf.run())
    deaf.say(b"a")
    await turns()
    await deaf.finish(running, within_s=0.01)
    assert running.cancelled()
    assert deaf.behind_bytes == stuck.get_write_buffer_size() > 0


async def test_a_transport_that_is_gone_ends_without_a_code() -> None:
    pipe = Pipe()
    out = outlet(pipe)
    pipe.closing = True
    out.add(burst("a"))
    await turns()
    assert out.ended.result() == Ending(None)
    with pytest.raises(asyncio.InvalidStateError):
        out.ended.set_result(Ending(None))
