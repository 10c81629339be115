"""Routes, groups, a silence and a receiver that refuses everything, in a daemon that is killed on the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from monitord.store import Store
from notifiers.matching import Matcher
from notifiers.silences import Silence
from tests.faults.lives import ForkedDaemon

pytestmark = pytest.mark.acceptance

SYMBOLS = 60
RULES = """\
version: 1
groups:
- name: mine
  rules:
  - {id: steady, select: all, when: "LAST > 0", rearm: "LAST < 0", on_start: fire, freq: always}
  - {id: hushed, select: all, when: "LAST > 0", rearm: "LAST < 0", on_start: fire, freq: always}
"""
ROUTES: list[dict[str, Any]] = [
    {
        "name": "grouped", "receivers": ["ops"], "rules": ["steady", "hushed"], "group_by": ["rule"],
        "group_wait_s": 0.5, "group_interval_s": 1.0, "continue": True,
    },
    {"name": "each", "receivers": ["inner"], "rules": ["steady"]},
    {"name": "health", "receivers": ["ops", "inner"], "rules": ["delivery"]},
]  # fmt: skip


class Hook:
    """Keeps each message it was posted once: id → the (rule, id) of its alerts."""

    def __init__(self) -> None:
        self.messages: dict[str, list[tuple[str, str]]] = {}
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        held = orjson.loads(await request.read())["data"]
        alerts = held.get("alerts", [held])
        assert held.get("ids", [held["id"]]) == [one["id"] for one in alerts]
        self.messages[request.headers["webhook-id"]] = [(one["rule"], one["id"]) for one in alerts]
        return web.Response(status=204)

    def told(self, rule: str) -> Counter[str]:
        """Return how many messages each alert of a rule was in."""
        return Counter(alert for alerts in self.messages.values() for name, alert in alerts if name == rule)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    application = web.Application()
    application.router.add_post("/hook", hook.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield hook
    await runner.cleanup()


async def silence_before_the_start(state_dir: Path) -> None:
    store = await Store.open(state_dir / "monitord.sqlite")
    now_ms = time.time_ns() // 1_000_000
    matcher = Matcher(rules=("hush*",))
    await store.silences.add(
        Silence(matcher=matcher, start_ms=now_ms, end_ms=now_ms + 3_600_000, author="li", comment="test")
    )
    await store.close()


async def test_groups_silences_and_the_news_of_a_refusing_receiver_outlive_a_kill(tmp_path: Path, hook: Hook) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    ops = {"name": "ops", "url": hook.url, "allow_networks": ["127.0.0.0/8"]}
    inner = {"name": "inner", "url": hook.url}  # no public address: refused for good
    settings = {
        "rules.files": rules, "notify.webhooks": orjson.dumps([ops, inner]).decode(),
        "notify.routes": orjson.dumps(ROUTES).decode(), "feed.simulated.symbols": SYMBOLS, "feed.simulated.speed": 20,
        "feed.simulated.start": "10:30:00", "gateway.allow_loopback_without_token": True,
    }  # fmt: skip
    daemon = ForkedDaemon(tmp_path / "state", settings)
    await silence_before_the_start(daemon.state_dir)
    await daemon.start()
    assert daemon.process is not None
    try:

        async def somebody_was_told() -> bool:
            return bool(hook.messages)

        await daemon.until("a message", somebody_was_told)
        daemon.process.kill()
        await daemon.process.wait()
        await daemon.start()

        async def all_were_told() -> bool:
            return len(hook.told("steady")) == SYMBOLS and len(hook.told("delivery")) == 1

        await daemon.until("all were told", all_were_told)
        async with aiohttp.ClientSession(await daemon.listening()) as session:
            await _look_at(session)
    finally:
        if daemon.process.returncode is None:
            await daemon.interrupt()
    assert set(hook.told("steady").values()) == {1}
    assert hook.told("hushed") == {}
    assert max(len(alerts) for alerts in hook.messages.values()) > 1


async def _look_at(session: aiohttp.ClientSession) -> None:
    """Ask the API and the metrics what they know of it."""
    async with session.get("/v1/receivers") as reply:
        receivers = {one["name"]: one for one in (await reply.json())["receivers"]}
    assert {name: one["status"] for name, one in receivers.items()} == {"ops": "ok", "inner": "misconfigured"}
    assert receivers["inner"]["dead"] >= 3
    async with session.get("/v1/deliveries?state=withheld&receiver=ops") as reply:
        withheld = await reply.json()
    assert withheld["total"] == SYMBOLS
    assert {one["reason"] for one in withheld["deliveries"]} == {"silence 1 by li: test"}
    async with session.get("/v1/alerts?rule=delivery") as reply:
        (news,) = (await reply.json())["alerts"]
    assert news["data"]["labels"] == {"receiver": "inner"}
    async with session.get("/metrics") as reply:
        assert 'monitord_receiver_state{receiver="inner",state="misconfigured"} 1.0' in await reply.text()
