"""A secret is planted wherever the settings take one; it shows up in no log, error, metric, answer, command or file."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from config.loading import load
from config.notify import NotifySection
from notifiers.notifier import NOTIFIERS
from tests.faults.counts import VARIABLE
from tests.faults.lives import ForkedDaemon, ForkedProcess
from tests.faults.sessions import levels, rule_file
from tests.notifiers.receiving import section

pytestmark = pytest.mark.acceptance

PLANTED = "pl4nted"
TOKEN = f"{PLANTED}-token-of-the-desk"
SIGNING = "whsec_" + base64.b64encode(f"{PLANTED}-signing-secret-012345".encode()).decode()
KEYS = {"webhook": "webhooks"}
"""Kind → key in [notify] where they differ."""
PATHS = (
    "/metrics", "/readyz", "/v1/health", "/v1/receivers", "/v1/rules", "/openapi.json", "/v1/silences", "/",
    "/v1/deliveries?page_size=1000", "/v1/alerts?page_size=1000",
    "/api/v1/notification/channels", "/api/v1/realtime/monitors", "/api/v1/monitor/tasks", "/v1/backup",
)  # fmt: skip
ANSWERS = (200, 302, 400, 403, 429, 500)


class Echo:
    """A server that tells everybody what it was asked, and refuses now and then in another way."""

    def __init__(self) -> None:
        self.asked = 0

    async def handle(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        self.asked += 1
        echo = f"{request.url} {request.raw_path} {dict(request.headers)} {body}"
        told = {"errcode": 310000, "code": 999, "ok": False, "errmsg": echo, "message": echo, "description": echo}
        status = ANSWERS[self.asked % len(ANSWERS)]
        return web.Response(status=status, text=json.dumps(told, ensure_ascii=False), headers={"Location": "/x"})


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, int]]:
    server = Echo()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, runner.addresses[0][1]
    await runner.cleanup()


def receivers(port: int, folder: Path) -> dict[str, str]:
    """Return a receiver of every kind for each way of failing: it echoes, its address is refused, it is away."""
    lists: dict[str, list[dict[str, Any]]] = {}
    for kind in NOTIFIERS:
        ways = {"echo": port, "refused": port, "away": 1}
        for way, where in ways.items():
            fields = section(kind, where, folder)
            if kind in ("email", "redis") and way == "echo":
                continue  # they don't speak HTTP
            allowed = {} if way == "refused" else {"allow_networks": ["127.0.0.0/8"]}
            extra = {
                "webhook": {"secrets": [SIGNING]},
                "email": {"username": "me", "password": f"{PLANTED}-mail", "security": "tls"},
            }
            lists.setdefault(KEYS.get(kind, kind), []).append(
                {"name": f"{kind}-{way}", **fields, **allowed, **extra.get(kind, {})}
            )
    return {f"notify.{key}": orjson.dumps(found).decode() for key, found in lists.items()}


async def said_by(argv: list[str], log: Path) -> str:
    """Run one command to its end; return all it said."""
    process = ForkedProcess(argv, log)
    async with asyncio.timeout(300):
        await process.wait()
    return await asyncio.to_thread(log.read_text, errors="replace")


@pytest.fixture
async def daemon(tmp_path: Path, echo: tuple[Echo, int]) -> AsyncIterator[ForkedDaemon]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(*levels(-1, 0, 1)))
    daemon = ForkedDaemon(
        tmp_path / "d",
        {
            **receivers(echo[1], tmp_path),
            "rules.files": rules,
            "log.level": "debug",
            "feed.simulated.symbols": 20,
            "feed.simulated.speed": 60,
            "feed.simulated.start": "10:30:00",
            "gateway.tokens": orjson.dumps([{"name": "desk", "token": TOKEN}]).decode(),
        },
    )
    await daemon.start()
    await daemon.listening()
    yield daemon
    await daemon.ended()


async def test_a_planted_secret_shows_up_nowhere(daemon: ForkedDaemon, echo: tuple[Echo, int], tmp_path: Path) -> None:
    shown: dict[str, str] = {}
    address = daemon.addresses()[-1]
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(address, headers=bearer) as session, aiohttp.ClientSession(address) as stranger:

        async def keep(path: str) -> None:
            async with session.get(path) as response:
                said = (await response.read()).decode(errors="replace")
                shown[f"{path} {response.status}"] = f"{response.headers} {said}"

        async def all_failed() -> bool:
            async with session.get("/v1/receivers") as response:
                states = {one["name"]: one for one in (await response.json())["receivers"]}
            tried = [one for name, one in states.items() if not name.startswith("tdx")]
            return all(one["failures"] > 0 or one["dead"] > 0 for one in tried)

        await daemon.until("every receiver had failed", all_failed, 300)
        for path in PATHS:
            await keep(path)
        async with session.get("/v1/deliveries?page_size=1000") as response:
            numbers = [one["id"] for one in (await response.json())["deliveries"]]
        for number in numbers[:: max(1, len(numbers) // 40)]:
            await keep(f"/v1/deliveries/{number}")
        wrong = {"Authorization": f"Bearer {PLANTED}-wrong"}
        for request in ({"headers": wrong}, {"params": {"token": f"{PLANTED}-wrong"}}, {}):
            async with stranger.get("/v1/rules", **request) as response:
                assert response.status == 401
                shown[f"stranger {request.keys()}"] = f"{response.headers} {await response.text()}"
    settings = [word for name, value in daemon.settings.items() for word in ("--set", f"{name}={value}")]
    at = ["--url", address, *settings]
    commands: dict[str, list[str]] = {
        "config show": ["config", "show", *settings],
        "receivers": ["receivers", "list", *at],
        "deliveries list": ["deliveries", "list", *at],
        "deliveries show": ["deliveries", "show", str(numbers[0]), *at],
        "notify test": ["notify", "test", "--all", *settings],
        "nobody answers": ["deliveries", "list", "--url", "http://127.0.0.1:1", *settings],
        "bad setting": ["config", "show", *settings, "--set", "gateway.port=x"],
        "bad receiver": ["config", "show", *settings, "--set",
                         f'notify.dingtalk=[{{"name":"x","url":"ftp://{PLANTED}","secret":5}}]'],
    }  # fmt: skip
    for name, argv in commands.items():
        shown[name] = await said_by(argv, tmp_path / "said.log")
        (tmp_path / "said.log").unlink()
    assert await daemon.interrupt() == 0, daemon.tail()
    shown["log"] = daemon.log.read_text(errors="replace")
    files = [file for file in sorted(daemon.state_dir.rglob("*")) if file.is_file()]
    shown |= {str(file): file.read_bytes().decode(errors="replace") for file in files}
    assert echo[0].asked > 10
    assert len(shown["log"]) > 1000
    assert "contract" not in shown["config show"]
    assert "dingtalk-echo" in shown["config show"]
    assert "dingtalk-echo" in shown["receivers"]
    secrets = (PLANTED, SIGNING, SIGNING.removeprefix("whsec_"), base64.b64encode(PLANTED.encode()).decode()[:9])
    leaks = {place: _around(text, secret) for place, text in shown.items() for secret in secrets if secret in text}
    assert leaks == {}


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 200) : at + 60]


def test_every_kind_of_receiver_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(VARIABLE)]:
        monkeypatch.delenv(name)  # the counts of the faults are no settings
    given = receivers(1, tmp_path)
    loaded = load([f"{name}={value}" for name, value in given.items()]).settings.notify
    assert {one.kind for one in loaded.receivers()} == set(NOTIFIERS)
    assert set(given) == {f"notify.{key}" for key in NotifySection.model_fields if key not in ("routes", "inhibits")}
