"""A quote page on this machine: answers as Tencent and Sina write them, and fails in every way a public page can."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from feeds.sessions import trade_date, unix_ms

DAY = 20250102
TEN = unix_ms(DAY, 36_000_000)


@dataclass(frozen=True)
class Stock:
    """What a page knows of one code; volume in shares, amount in yuan."""

    name: str = "贵州茅台"
    last: float = 10.05
    open: float = 10.0
    high: float = 10.5
    low: float = 9.5
    prev_close: float = 9.9
    shares: int = 1_234_567
    amount: float = 12_345_670.0
    bid: float = 10.04
    ask: float = 10.05
    ts_ms: int = TEN
    status: str = ""
    limit_up: float = 10.89
    limit_down: float = 8.91

    def later(self, seconds: float, **changes: Any) -> Stock:
        """Return the same stock some seconds later, with a trade of 100 shares unless told otherwise."""
        traded = {"shares": self.shares + 100, "amount": self.amount + 100 * self.last}
        return replace(self, ts_ms=self.ts_ms + round(seconds * 1000), **(traded | changes))


NOT_OPENED = Stock(last=0.0, open=0.0, high=0.0, low=0.0, shares=0, amount=0.0, bid=0.0, ask=0.0)


def _clock(ts_ms: int) -> str:
    seconds = (ts_ms + 8 * 3_600_000) // 1000 % 86_400
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}"


def tencent(code: str, stock: Stock, *, in_shares: bool | None = None) -> bytes:
    """Write a record as Tencent does: STAR counts shares, everything else lots."""
    counted = stock.shares if (code.startswith("sh688") if in_shares is None else in_shares) else stock.shares // 100
    fields = ["" for _ in range(88)]
    fields[0:7] = ["1", stock.name, code[2:], f"{stock.last:.2f}", f"{stock.prev_close:.2f}", f"{stock.open:.2f}", ""]
    fields[6] = fields[36] = str(counted)
    for level in range(5):
        for at, price in ((9, stock.bid - level / 100), (19, stock.ask + level / 100)):
            fields[at + 2 * level] = f"{price:.2f}" if stock.last else "0.00"
            fields[at + 2 * level + 1] = str(7 + level) if stock.last else "0"
    fields[30] = f"{trade_date(stock.ts_ms)}{_clock(stock.ts_ms)}"
    fields[33:36] = [f"{stock.high:.2f}", f"{stock.low:.2f}", f"{stock.last:.2f}/{counted}/{stock.amount:.0f}"]
    fields[37] = f"{stock.amount / 10_000:.0f}"
    fields[40] = "S" if stock.status == "suspended" else ""
    fields[47:49] = [f"{stock.limit_up:.2f}", f"{stock.limit_down:.2f}"]
    return f'v_{code}="{"~".join(fields)}";\n'.encode("gbk")


def sina(code: str, stock: Stock) -> bytes:
    """Write a record as Sina does: volumes in shares."""
    date, clock = str(trade_date(stock.ts_ms)), _clock(stock.ts_ms)
    prices = [stock.open, stock.prev_close, stock.last, stock.high, stock.low, stock.bid, stock.ask]
    fields = [stock.name, *(f"{price:.3f}" for price in prices), str(stock.shares), f"{stock.amount:.3f}"]
    for first, step in ((stock.bid, -1), (stock.ask, 1)):
        for level in range(5):
            there = bool(stock.last)
            fields += [
                str(700 + 100 * level) if there else "0",
                f"{first + step * level / 100:.3f}" if there else "0.000",
            ]
    fields += [f"{date[:4]}-{date[4:6]}-{date[6:]}", f"{clock[:2]}:{clock[2:4]}:{clock[4:]}"]
    fields += ["03" if stock.status == "suspended" else "00", ""]
    return f'var hq_str_{code}="{",".join(fields)}";\n'.encode("gbk")


def unknown(vendor: str, code: str) -> bytes:
    """Write what a page says of a code that does not exist: Tencent nothing, Sina an empty record."""
    return f'var hq_str_{code}="";\n'.encode() if vendor == "sina" else b""


Reply = Callable[[web.Request, bytes], Any]


async def _slow(request: web.Request, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response(body=body)


async def _truncated(request: web.Request, body: bytes) -> web.StreamResponse:
    """Promise more than is sent, and hang up in the middle of a record."""
    response = web.StreamResponse(headers={"Content-Length": str(len(body) + 100)})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


def _status(status: int, **headers: str) -> Reply:
    async def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return reply


def _body(text: bytes) -> Reply:
    async def reply(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=text)

    return reply


FAILURES: Mapping[str, Reply] = {
    "timeout": _slow,
    "truncated": _truncated,
    "http_403": _status(403),
    "http_429": _status(429, Retry_After="90"),
    "http_error": _status(502),
    "empty": _body(b""),
    "garbled": _body(b"<html><body>blocked</body></html>"),
}
"""Reason a client counts → how the page fails."""


@dataclass
class Page:
    """The page: `stocks` by code (sh600519); `fails` are taken one a request; `always` fails every request."""

    vendor: str = "tencent"
    stocks: dict[str, Stock] = field(default_factory=dict)
    fails: deque[str] = field(default_factory=deque)
    always: str | None = None
    asked: list[tuple[float, list[str]]] = field(default_factory=list)
    on_request: Callable[[], None] = lambda: None
    record: Callable[[str, Stock], bytes] | None = None
    headers: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        app = web.Application()
        app.router.add_get("/{query:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/{'q' if self.vendor == 'tencent' else 'list'}="

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def body(self, codes: list[str]) -> bytes:
        """Return the answer on these codes."""
        write = self.record or (tencent if self.vendor == "tencent" else sina)
        known = self.stocks
        records = (write(code, known[code]) if code in known else unknown(self.vendor, code) for code in codes)
        return b"".join(records) or b'v_pv_none_match="1";\n'

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        codes = request.match_info["query"].partition("=")[2].split(",")
        self.asked.append((asyncio.get_running_loop().time(), codes))
        self.headers.append(request.headers)
        body = self.body(codes)
        failing = self.fails.popleft() if self.fails else self.always
        response = await FAILURES[failing](request, body) if failing else web.Response(body=body)
        self.on_request()
        return response
