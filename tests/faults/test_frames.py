"""Frames that nobody should send: each ends with the right code or not at all, and nothing is left of who sent them."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections import Counter
from typing import Any

import orjson
import pytest
import structlog

from tests.faults.counts import count
from tests.faults.frames import CLOSE, KINDS, LEAVES, PROTOCOL_ERROR, TEXT, Said, frame, said
from tests.monitord.gateway.stand import EPOCH, Stand, standing, until

FRAMES = count("frames", ci=2_000, long=10_000)
AT_ONCE = 20
PROBE = frame(b'{"id":"probe","op":"ping"}')
HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Raw:
    """A client that writes bytes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return cls(reader, writer)

    async def until_probed(self) -> int | None:
        """Return None when the probe is answered, else the code the connection was closed with, 1006 without one."""
        try:
            while True:
                opcode, payload = await self._frame()
                if opcode == CLOSE:
                    return int(struct.unpack("!H", payload[:2])[0]) if payload else 1005
                if opcode == TEXT and any(orjson.loads(line).get("id") == "probe" for line in payload.split(b"\n")):
                    return None
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def _frame(self) -> tuple[int, bytes]:
        first, size = await self._reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return first & 15, await self._reader.readexactly(size)

    def leave(self) -> None:
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def talk(stand: Stand, sayings: list[Said], ends: Counter[tuple[str, Any]]) -> None:
    """Say one thing after another, on a new connection whenever one has ended; count what became of each."""
    client: Raw | None = None
    for one in sayings:
        client = client or await Raw.connect(stand.port)
        client.writer.write(one.wire if one.leaves else one.wire + PROBE)
        if one.leaves:
            await client.writer.drain()
            client.leave()
            client = None
            ends[one.kind, LEAVES] += 1
            continue
        async with asyncio.timeout(20):
            code = await client.until_probed()
        ends[one.kind, code] += 1
        assert code in one.ends, f"{one.kind}: {code} instead of {one.ends} for {one.wire[:200]!r}"
        if code is not None:
            client.leave()
            client = None
    if client is not None:
        client.leave()


async def test_each_frame_ends_with_its_code_and_nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chance, ends = random.Random(11), Counter[tuple[str, Any]]()
    sayings = [said(chance) for _ in range(FRAMES)]
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    with structlog.testing.capture_logs() as logs:
        async with standing(messages_per_s=1_000_000, close_timeout_s=0.5) as stand:
            tasks = len(asyncio.all_tasks())
            async with asyncio.TaskGroup() as talks:
                for first in range(AT_ONCE):
                    talks.create_task(talk(stand, sayings[first::AT_ONCE], ends))
            await until(lambda: stand.gateway.clients == 0, within_s=20)
            await until(lambda: len(asyncio.all_tasks()) <= tasks, within_s=20)
            assert stand.gateway.hub._groups == {}
            assert stand.gateway._floor.ticks._watches == {}
            assert "client_errors" not in stand.gateway.counters()
            listener = await stand.connect("?ch=alerts")
            assert (await listener.hear())["result"] == [{"ch": "alerts", "epoch": EPOCH, "off": 0}]
            stand.alerts.publish()
            assert (await listener.hear())["off"] == 1
    print(f"{FRAMES} frames: {dict(sorted(ends.items(), key=str))}")
    assert {kind for kind, _ in ends} == set(KINDS)
    assert unhandled == []
    assert [line for line in logs if line["log_level"] not in ("debug", "info") or "exc_info" in line] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


def test_frames_are_written_as_the_standard_says() -> None:
    assert frame(b"ab") == b"\x81\x82\0\0\0\0ab"
    assert frame(b"x" * 200)[:4] == b"\x81\xfe\0\xc8"
    assert PROTOCOL_ERROR == 1002
