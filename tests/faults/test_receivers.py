"""Receivers that fail in every way there is, over the real store on a clock that jumps: none lost, no false success."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from monitord.deliveries import DeliveryFilter
from notifiers.notifier import Verdict, build_notifier
from notifiers.recorded import DeliveryState
from tests.faults.counts import count
from tests.faults.histories import Posted
from tests.faults.receivers import HOUR_MS, MINUTE_MS, Desk, alert
from tests.faults.sessions import judged
from tests.notifiers.receiving import http_receiver, opened
from tests.notifiers.test_chat_bots import TABLE
from tests.notifiers.vendors import BOTS, Bot, DingTalkBot

pytestmark = pytest.mark.acceptance

ROUNDS = count("receiver_rounds", ci=1, long=20)
ALERTS, WITHIN_MS = 5000, 10_000
CLOCK_STEPS = count("clock_steps", ci=60, long=5_000)
STEPS_AT_ONCE = 60
"""As many alerts come, so that none has to wait for others in a digest."""
IDS = re.compile(r"al_[0-9a-f]{20}")

# ── a webhook ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class BadHook:
    """A webhook that does one bad thing after the other, then takes everything. inside: where redirects lead."""

    def __init__(self, faults: list[str], inside: str) -> None:
        self.faults, self.inside = deque(faults), inside
        self.posts: list[Posted] = []
        self.written = 0
        self._released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        alert_id = orjson.loads(await request.read())["data"]["id"]
        fault = self.faults.popleft() if self.faults else ""
        # A body that drips behind a status of success undoes nothing: it was taken.
        self.posts.append(Posted((alert_id,), fault in ("", "dripping body")))
        if not fault:
            return web.Response(status=204)
        return await getattr(self, "_" + fault.replace(" ", "_"))(request)  # type: ignore[no-any-return]

    async def _500(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="x" * 100_000)

    async def _429(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "7"})

    async def _503_for_an_hour(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "3600"})

    async def _hang(self, request: web.Request) -> web.StreamResponse:
        await self._released.wait()
        return web.Response()

    async def _dripping_body(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x")
        await self._released.wait()
        return response

    async def _dripping_headers(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\nX-Long: a")
        await self._released.wait()
        return web.Response()

    async def _a_gigabyte(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500, headers={"Content-Length": str(10**9)})
        await response.prepare(request)
        while self.written < 10**9:
            await response.write(bytes(65_536))
            self.written += 65_536
        return response

    async def _gzip_bomb(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, headers={"Content-Encoding": "gzip"}, body=BOMB)

    async def _redirect_to_metadata(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})

    async def _redirect_inside(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": self.inside})

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        raw: socket.socket = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
        return web.Response()

    async def _garbage(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
        request.transport.close()
        return web.Response()

    def release(self) -> None:
        self._released.set()


BOMB = gzip.compress(bytes(50_000_000))
FAULTS = [name[1:].replace("_", " ") for name in vars(BadHook) if name.startswith("_") and "__" not in name]


@asynccontextmanager
async def bad_hook(faults: list[str], inside: str) -> AsyncIterator[tuple[BadHook, str]]:
    hook = BadHook(faults, inside)
    application = web.Application()
    application.router.add_post("/hook", hook.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield hook, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    hook.release()
    await runner.cleanup()


async def test_a_webhook_that_fails_in_every_way_gets_every_alert_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifiers.egress.BODY_WAIT_S", 0.05)
    for number in range(ROUNDS):
        await go_through_every_fault(tmp_path / f"{number}", random.Random(5 + number))


async def go_through_every_fault(folder: Path, chance: random.Random) -> None:
    """Let a webhook fail in each way once, in any order. More at once would only be an outage of days: all are dead."""
    reached: list[int] = []
    inside = await asyncio.start_server(lambda r, w: reached.append(1), "127.0.0.1", 0)
    faults = chance.sample(FAULTS, len(FAULTS))
    desk = await Desk.open(folder)
    desk.add([alert(number) for number in range(60)], every_ms=500)
    metadata = f"http://127.0.0.1:{inside.sockets[0].getsockname()[1]}/latest/meta-data/"
    async with bad_hook(faults, metadata) as (hook, url):
        notifier = build_notifier(
            "webhook", name="hook", url=url, allow_networks=["127.0.0.0/8"], connect_timeout_s=0.3, total_timeout_s=0.3
        )
        # Behind ten failures the breaker lets one probe through a minute, and one answer asks for an hour.
        delivery = await desk.deliver(notifier, 5 * HOUR_MS + len(faults) * MINUTE_MS)
    inside.close()
    report = judged(await desk.histories({"hook": hook.posts}))
    print(f"{len(faults)} faults, {delivery.counters()}, {hook.written / 1e6:.0f} MB of the gigabyte were written")
    assert not hook.faults
    assert len([post for post in hook.posts if not post.accepted]) == len(faults) - 1
    assert delivery.counters()["sent"] == 60
    assert reached == []
    assert hook.written < 64_000_000
    assert report.sizes["posts"] == 60 + len(faults) - 1


# ── bots ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def bot_and_desk(kind: str, folder: Path) -> AsyncIterator[tuple[Desk, Bot, Any, list[Posted]]]:
    """Open a desk and the vendor's stand-in, which checks signatures, keywords and rates by the desk's clock."""
    desk = await Desk.open(folder / "d")
    posts: list[Posted] = []
    secret = {} if kind == "wecom" else {"secret": "SECpl4nted-secret"}
    keyword = {} if kind == "wecom" else {"keyword": "监控"}
    bot = BOTS[kind](now_ms=lambda: desk.wall.ms, **secret, **keyword)

    async def answer(request: web.Request, body: bytes) -> web.Response:
        taken = len(bot.texts)
        status, told = bot.answer(request.path, request.rel_url.raw_query_string, body)
        posts.append(Posted(tuple(dict.fromkeys(IDS.findall(body.decode()))), len(bot.texts) > taken))
        return web.json_response(told, status=status)

    async with http_receiver(kind) as (receiver, port):
        receiver.answer = answer
        async with opened(kind, port, folder, total_timeout_s=5, connect_timeout_s=2, **secret, **keyword) as notifier:
            yield desk, bot, notifier, posts


@pytest.mark.parametrize("kind", sorted(BOTS))
async def test_every_code_of_a_bot_is_no_success_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        await go_through_every_code(kind, tmp_path / f"{number}", random.Random(6 + number))


async def go_through_every_code(kind: str, folder: Path, chance: random.Random) -> None:
    """Let a bot refuse with each code twice, in any order, and 200 alerts come meanwhile."""
    refusals = [(status, told) for of, told, verdict, _ in TABLE if of == kind and verdict is not Verdict.OK
                for status in (200, 400)]  # fmt: skip
    chance.shuffle(refusals)
    async with bot_and_desk(kind, folder) as (desk, bot, notifier, posts):
        bot.forced.extend(refusals)
        desk.add([alert(number) for number in range(200)], every_ms=3000)
        delivery = await desk.deliver(notifier, 6 * HOUR_MS)
        state = delivery.state
    histories = await desk.histories({"contract": posts})
    judged(histories)
    states = [one.state for one in histories.settled["contract"]]
    print(f"{kind}: {len(refusals)} refusals, {delivery.counters()}, dead {states.count('dead')}")
    assert not bot.forced
    assert {"delivered", "dead"} == set(states)
    assert states.count("delivered") > 100
    assert state.disabled is None
    if isinstance(bot, DingTalkBot):
        assert bot.while_blocked == 0


@pytest.mark.parametrize("kind", sorted(BOTS)[: count("burst_bots", ci=1, long=3)])
async def test_5000_alerts_in_10_s_reach_a_slow_bot_each_once(kind: str, tmp_path: Path) -> None:
    async with bot_and_desk(kind, tmp_path) as (desk, bot, notifier, posts):
        desk.add([alert(number, message="涨停" * 20) for number in range(ALERTS)], every_ms=WITHIN_MS / ALERTS)
        began_ms = desk.wall.ms
        await desk.deliver(notifier, 15 * MINUTE_MS)
    histories = await desk.histories({"contract": posts})
    judged(histories)
    print(f"{kind}: {len(posts)} messages")
    assert all(post.accepted for post in posts), "paced within the vendor's rates"
    assert {one.state for one in histories.settled["contract"]} == {"delivered"}
    assert len(histories.settled["contract"]) == ALERTS
    assert sum(len(post.ids) == 1 for post in posts) >= 4
    assert desk.wall.ms - began_ms <= 16 * MINUTE_MS
    if isinstance(bot, DingTalkBot):
        assert bot.while_blocked == 0


# ── the clock on the wall ─────────────────────────────────────────────────────────────────────────────────────────────


def clock_that_steps(desk: Desk, chance: random.Random) -> Callable[[], None]:
    """Let the wall's clock jump, forth and back, by seconds, hours, over midnight and by days."""

    def step() -> None:
        far_ms = chance.choice([5_000, 60_000, HOUR_MS, 14 * HOUR_MS, 26 * HOUR_MS])
        desk.wall.ms += chance.choice([-1, 1]) * chance.randrange(far_ms)

    return step


async def test_a_clock_that_steps_loses_and_doubles_nothing_and_holds_nothing_up(tmp_path: Path) -> None:
    for number in range(-(-CLOCK_STEPS // STEPS_AT_ONCE)):
        await go_through_clock_steps(tmp_path / f"{number}", random.Random(9 + number))


async def go_through_clock_steps(folder: Path, chance: random.Random) -> None:
    """A receiver that fails every third time and asks for pauses; between its answers the clock jumps."""
    desk = await Desk.open(folder)
    posts: list[Posted] = []
    step = clock_that_steps(desk, chance)

    async def answer(request: web.Request) -> web.Response:
        alert_id = orjson.loads(await request.read())["data"]["id"]
        good = chance.random() > 0.3
        posts.append(Posted((alert_id,), good))
        if len(posts) <= STEPS_AT_ONCE:
            step()
        pause = {"Retry-After": str(chance.choice([1, 30, 3600]))}
        return web.Response(status=204) if good else web.Response(status=chance.choice([500, 503]), headers=pause)

    application = web.Application()
    application.router.add_post("/hook", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    notifier = build_notifier("webhook", name="hook", url=url, allow_networks=["127.0.0.0/8"], per_minute=30)
    desk.add([alert(number) for number in range(STEPS_AT_ONCE)])
    for _ in range(20):  # a step forth over the horizon ends a run; the next one goes on
        await desk.deliver(notifier, 5 * HOUR_MS)
        deliveries = (await desk.store.deliveries.listing(DeliveryFilter())).rows
        if len(deliveries) == STEPS_AT_ONCE and all(one.state is not DeliveryState.PENDING for one in deliveries):
            break
    await runner.cleanup()
    histories = await desk.histories({"hook": posts})
    judged(histories)
    assert {one.state for one in histories.settled["hook"]} <= {"delivered", "dead"}
    assert len(posts) > STEPS_AT_ONCE
