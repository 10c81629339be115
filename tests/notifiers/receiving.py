"""Servers on loopback for every kind of receiver: good ones, and one that behaves as badly as it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP as MailProtocol
from fakeredis import TcpFakeServer

from notifiers.notifier import NOTIFIERS, Notifier, build_notifier, load_notifier

HOST = "127.0.0.1"
SECRET = "pl4nted"
"""Begins every secret of every section below."""
OVER_HTTP = ("webhook", "dingtalk", "feishu", "wecom", "telegram", "bark", "pushplus", "serverchan")
WITH_CODES = OVER_HTTP[1:]
"""Kinds whose success is a code in the body."""
OVER_TCP = (*OVER_HTTP, "email", "redis", "apprise")
QUICK = {"connect_timeout_s": 0.4, "total_timeout_s": 0.6, "allow_networks": ["127.0.0.0/8"]}


def section(kind: str, port: int, folder: Path, host: str = HOST) -> dict[str, Any]:
    """Return the fields of this kind that lead to a port; secrets wherever the kind takes some."""
    at = f"http://{host}:{port}"
    token = f"{SECRET}-token"
    fields: dict[str, dict[str, Any]] = {
        "webhook": {"url": f"{at}/hooks/{token}"},
        "dingtalk": {"url": f"{at}/robot/send?access_token={token}", "secret": f"SEC{SECRET}-secret"},
        "feishu": {"url": f"{at}/open-apis/bot/v2/hook/{token}", "secret": f"{SECRET}-secret"},
        "wecom": {"url": f"{at}/cgi-bin/webhook/send?key={token}"},
        "telegram": {"token": f"123:{token}", "chat_id": "-1001", "server": at},
        "bark": {"key": token, "server": at},
        "pushplus": {"token": token, "server": at},
        "serverchan": {"key": f"SCT{token}", "server": at},
        "email": {"host": host, "port": port, "security": "none", "sender": "m@example.com", "to": ["a@example.com"]},
        "redis": {"url": f"redis://:{token}@{host}:{port}/0"},
        "tdx": {"signs": str(folder / "extern_user.txt"), "block": str(folder / "M.blk")},
        "apprise": {"url": f"json://user:{token}@{host}:{port}/{token}"},
    }
    return fields[kind]


def accepted(kind: str) -> bytes:
    """Return an answer body that this kind of receiver gives for success."""
    return getattr(load_notifier(kind), "accepted", b"")


class HttpReceiver:
    """Answers every request with `answer`, by default what tells of success; keeps paths, headers and bodies."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.status, self.headers, self.body = 200, {}, accepted(kind)  # type: ignore[var-annotated]
        self.answer: Callable[[web.Request, bytes], Any] | None = None
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.written = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.raw_path, dict(request.headers), body))
        if self.answer is not None:
            answer: web.StreamResponse = await self.answer(request, body)
            return answer
        return web.Response(status=self.status, headers=self.headers, body=self.body)

    async def pour(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Answer 200 and a body of 1 GB."""
        response = web.StreamResponse(headers={"Content-Length": str(1_000_000_000)})
        await response.prepare(request)
        block = b" " * 65_536
        while self.written < 1_000_000_000:
            await response.write(block)
            self.written += len(block)
        return response


@asynccontextmanager
async def http_receiver(kind: str) -> AsyncIterator[tuple[HttpReceiver, int]]:
    """Serve a receiver of this kind; yield it with its port."""
    receiver = HttpReceiver(kind)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield receiver, runner.addresses[0][1]
    await runner.cleanup()


class Mailbox:
    """What aiosmtpd hands its mails to; recipients in `refusals` are refused with that answer."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes]] = []
        self.refusals: dict[str, str] = {}
        self.answer = "250 taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            self.mails.append((list(envelope.rcpt_tos), envelope.original_content))
        return self.answer


@asynccontextmanager
async def mail_server(mailbox: Mailbox, **options: Any) -> AsyncIterator[int]:
    """Serve mail; `ssl` for TLS from the start, else options of aiosmtpd's SMTP. Yields the port."""
    tls = options.pop("ssl", None)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: MailProtocol(mailbox, hostname="mail.example", loop=loop, **options), HOST, 0, ssl=tls
    )
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def redis_server() -> AsyncIterator[tuple[TcpFakeServer, int]]:
    """Serve a Redis in a thread; yield it with its port."""
    server = TcpFakeServer((HOST, 0), server_type="redis")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, server.server_address[1]
    server.shutdown()
    server.server_close()


Badness = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing at all until the other side goes."""
    while await reader.read(65_536):
        pass
    writer.close()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say one byte now and then, for ever: no read times out."""
    going = asyncio.create_task(hang(reader, writer))
    try:
        while not going.done():
            writer.write(b"1")
            await writer.drain()
            await asyncio.wait([going], timeout=0.05)
    except OSError:
        pass
    going.cancel()


async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak no protocol that there is."""
    writer.write(b"\x16\x03\x01\x02\x00 \xff\xfe banana\r\n\r\n\x00\x00\r\n")
    await writer.drain()
    writer.close()


async def hush(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close at once."""
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read something and send a reset."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send for as long as the other side reads, and never a line's end."""
    try:
        while True:
            writer.write(b"2" * 65_536)
            await writer.drain()
    except OSError:
        pass
    writer.close()


BADNESSES: dict[str, Badness] = {
    "hang": hang, "drip": drip, "garble": garble, "hush": hush, "reset": reset, "pour": pour
}  # fmt: skip


@asynccontextmanager
async def bad_server(badness: str) -> AsyncIterator[tuple[list[int], int]]:
    """Serve badly; yield a list that grows with each connection, and the port."""
    connections: list[int] = []

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        with suppress(asyncio.CancelledError):  # the loop ends before the other side does
            await BADNESSES[badness](reader, writer)

    server = await asyncio.start_server(on_connect, HOST, 0)
    yield connections, server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def opened(kind: str, port: int, folder: Path, **options: Any) -> AsyncIterator[Notifier]:
    """Build and open a receiver of this kind that leads to the port."""
    host = options.pop("host", HOST)
    fields = {"name": "contract", **QUICK, **section(kind, port, folder, host), **options}
    notifier = build_notifier(kind, **fields)
    await notifier.open()
    try:
        yield notifier
    finally:
        await notifier.close()


ALL = tuple(sorted(NOTIFIERS))
