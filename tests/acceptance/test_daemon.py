"""The whole daemon as a person meets it: start, look, change rules, stop, start again, and ways to get it wrong."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.acceptance.daemon import Daemon, stream_of, whole_stream
from tests.faults.lives import ForkedDaemon, ForkedProcess

pytestmark = pytest.mark.acceptance

SMALL: dict[str, object] = {
    "feed.simulated.symbols": 60,
    "feed.simulated.speed": 20,
    "feed.simulated.start": "10:30:00",
    "gateway.allow_loopback_without_token": True,
}
STEADY = '{id: steady, select: all, when: "LAST > 0", rearm: "LAST < 0", on_start: fire, freq: always}'
"""Fires once for every symbol, and again for every symbol should it ever lose its arming."""


def rule_file(*rules: str) -> str:
    return "\n".join(["version: 1", "groups:", "- name: mine", "  rules:", *(f"  - {rule}" for rule in rules), ""])


def edited(level: float) -> str:
    return f'{{id: edited, select: all, when: "LAST > {level}", rearm: "LAST < 0", on_start: fire, freq: always}}'


def crossings() -> list[str]:
    """Write rules that fire now and then, ever again."""
    return [
        f'{{id: over{at}, select: all, when: "PCT > {level}", rearm: "PCT < {level}", freq: always}}'
        for at, level in enumerate((-1, -0.5, -0.2, 0, 0.2, 0.5, 1))
    ]


@asynccontextmanager
async def running(daemon: Daemon, *, token: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Start a daemon, give a session on its gateway, and end the daemon if the test has not."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    await daemon.start()
    try:
        async with aiohttp.ClientSession(await daemon.listening(), headers=headers) as session:
            yield session
    finally:
        assert daemon.process is not None
        if daemon.process.returncode is None:
            await daemon.interrupt()


async def answer(session: aiohttp.ClientSession, path: str, *, status: int = 200, method: str = "GET") -> Any:
    async with session.request(method, path) as response:
        assert response.status == status, (path, response.status, await response.text())
        return await response.json()


async def ready(daemon: Daemon, session: aiohttp.ClientSession) -> None:
    async def is_ready() -> bool:
        async with session.get("/readyz") as response:
            assert (response.status == 200) == (await response.json())["ready"]
            return response.status == 200

    await daemon.until("it was ready", is_ready)


async def alerts_of(daemon: Daemon, session: aiohttp.ClientSession, rule: str | None = None, *, at_least: int) -> int:
    """Wait until a rule, or all together, have so many fires; return how many."""
    totals: list[int] = []
    which = "" if rule is None else f"&rule={rule}"

    async def enough() -> bool:
        totals.append((await answer(session, f"/v1/alerts?event=fire{which}"))["total"])
        return totals[-1] >= at_least

    await daemon.until(f"{rule} had {at_least} alerts", enough)
    return totals[-1]


async def logged(daemon: Daemon, event: str, *, times: int = 1) -> dict[str, Any]:
    """Wait until an event was logged so often; return the last one."""

    async def seen() -> bool:
        return len(daemon.events(event)) >= times

    await daemon.until(f"{event} was logged", seen)
    return daemon.events(event)[-1]


def complaints(daemon: Daemon) -> list[dict[str, Any]]:
    """Return what was logged above info."""
    return [line for line in daemon.events() if line["level"] not in ("debug", "info")]


def in_store(daemon: Daemon, sql: str) -> list[tuple[Any, ...]]:
    store = sqlite3.connect(daemon.state_dir / "monitord.sqlite")
    try:
        return store.execute(sql).fetchall()
    finally:
        store.close()


def broker_lives(state_dir: Path) -> bool:
    """Tell whether a broker holds the folder: its lock lives as long as it does."""
    pid_file = state_dir / "broker" / "valkey.pid"
    return pid_file.exists() and Path(f"/proc/{pid_file.read_text().strip()}").exists()


# ── a first run ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_first_run_with_the_defaults_shows_an_alert_within_ten_seconds(tmp_path: Path) -> None:
    """5,500 simulated stocks at the speed of life, the shipped rules; only the address is not the default."""
    daemon = Daemon(tmp_path / "d", {"gateway.allow_loopback_without_token": True})
    started = time.monotonic()
    async with running(daemon) as session:
        await ready(daemon, session)
        async with session.get("/") as page:
            assert page.content_type == "text/html"
            assert "monitord" in await page.text()
        first = await logged(daemon, "alert_fired")
        assert time.monotonic() - started < 10
        rules = await answer(session, "/v1/rules")
        assert first["rule"] in {rule["id"] for rule in rules["rules"]}
        quote = await answer(session, f"/v1/quotes/{first['symbol']}")
        assert quote["tick"]["last"] > 0
        # A leg's values stand under rule/leg.
        assert first["rule"] in {name.partition("/")[0] for name in quote["indicators"]}
        listed = await answer(session, "/v1/alerts")
        assert first["id"] in {alert["data"]["id"] for alert in listed["alerts"]}
        one = await answer(session, f"/v1/alerts/{first['id']}")
        assert one["data"]["message"] == first["message"]
        health = await answer(session, "/v1/health")
        assert (health["ready"], health["engine"]["symbols"]) == (True, 5500)
        async with session.get("/metrics") as metrics:
            text = await metrics.text()
        counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert float(counts["monitord_ticks_total"]) >= 5500
        assert float(counts["monitord_loop_lag_seconds"]) < 2
        asked = time.monotonic()
        assert await daemon.interrupt() == 0
        assert time.monotonic() - asked < 10
    assert complaints(daemon) == []
    assert in_store(daemon, "SELECT count(*) FROM events WHERE sent_ms IS NULL") == [(0,)]
    assert not broker_lives(daemon.state_dir)


async def test_a_second_start_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(STEADY, *crossings()))
    daemon = ForkedDaemon(tmp_path / "d", {**SMALL, "rules.files": rules, "feed.simulated.speed": 60})
    async with running(daemon) as session:
        await alerts_of(daemon, session, at_least=80)
        assert await daemon.interrupt() == 0
    ((offset,),) = in_store(daemon, "SELECT offset FROM inputs")
    ids = in_store(daemon, "SELECT id FROM events ORDER BY seq")
    async with running(daemon) as session:
        assert daemon.events("recovered")[-1]["offset"] == offset
        await alerts_of(daemon, session, at_least=len(ids) + 20)
        assert await daemon.interrupt(signal.SIGTERM) == 0
    ((went_on,),) = in_store(daemon, "SELECT offset FROM inputs")
    assert went_on > offset
    assert in_store(daemon, "SELECT id FROM events ORDER BY seq")[: len(ids)] == ids
    assert in_store(daemon, "SELECT count(*) FROM events WHERE rule = 'steady'") == [(60,)]
    async with stream_of(daemon.state_dir) as channel:
        told = await whole_stream(channel)
    assert [(orjson.loads(one.alert_json)["id"],) for one in told] == in_store(
        daemon, "SELECT id FROM events ORDER BY seq"
    )
    assert [one.off for one in told] == list(range(1, len(told) + 1))
    assert len({one.epoch for one in told}) == 1
    assert complaints(daemon) == []


# ── rules change while it runs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["SIGHUP", "POST"])
async def test_rules_are_swapped_whole_or_not_at_all_and_unchanged_ones_keep_their_state(
    tmp_path: Path, by: str
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(STEADY, edited(0)))
    daemon = ForkedDaemon(tmp_path / "d", {**SMALL, "rules.files": rules})
    async with running(daemon) as session:
        assert daemon.process is not None
        assert await alerts_of(daemon, session, "steady", at_least=60) == 60
        assert await alerts_of(daemon, session, "edited", at_least=60) == 60

        rules.write_text(rule_file(STEADY, edited(0.01)).replace("LAST > 0.01", "LAST >> 0.01"))
        place = f"{rules}:6:"
        if by == "SIGHUP":
            daemon.process.send_signal(signal.SIGHUP)
            rejected = await logged(daemon, "rules_rejected")
            assert place in rejected["why"]
            assert rejected["kept"] == 2
        else:
            told = (await answer(session, "/v1/rules/reload", method="POST", status=422))["error"]
            (finding,) = told["findings"]
            assert f"{finding['file']}:{finding['line']}:" == place
            assert finding["column"] > 1
        in_force = {rule["id"]: rule["legs"][0]["when"] for rule in (await answer(session, "/v1/rules"))["rules"]}
        assert in_force == {"steady": "LAST > 0", "edited": "LAST > 0"}

        rules.write_text(rule_file(STEADY, edited(0.01)))
        if by == "SIGHUP":
            daemon.process.send_signal(signal.SIGHUP)
        else:
            assert await answer(session, "/v1/rules/reload", method="POST") == {"rules": 2}
        assert (await logged(daemon, "rules_loaded"))["rules"] == 2
        assert await alerts_of(daemon, session, "edited", at_least=120) == 120
        assert await alerts_of(daemon, session, "steady", at_least=60) == 60
        assert await daemon.interrupt() == 0
    assert [line["event"] for line in complaints(daemon)] == (["rules_rejected"] if by == "SIGHUP" else [])


# ── systemd ───────────────────────────────────────────────────────────────────────────────────────


async def test_systemd_hears_when_it_is_ready_that_it_lives_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "n"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        heard: list[bytes] = []
        async with running(Daemon(tmp_path / "d", SMALL)) as session:
            async with asyncio.timeout(10):
                while len(heard) < 3:
                    heard.append(await asyncio.get_running_loop().sock_recv(systemd, 64))
            await answer(session, "/livez")
        while heard[-1] != b"STOPPING=1":
            heard.append(systemd.recv(64))
    assert heard[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]


# ── what is wrong is said, and nothing is left behind ─────────────────────────────────────────────────────────────────


async def refusal(state_dir: Path, settings: Mapping[str, object], *, deadline_s: float = 60) -> tuple[int, str]:
    """Run a daemon that must not come up; return its exit code and what it said on stderr."""
    settings = {"state_dir": state_dir, "gateway.port": 0, **SMALL, **settings}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    errors = state_dir.with_suffix(".err")
    process = ForkedProcess(["run", *flags], state_dir.with_suffix(".log"), errors=errors)
    try:
        async with asyncio.timeout(deadline_s):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"it did not end within {deadline_s:g} s") from None
    assert not broker_lives(state_dir)
    return code, errors.read_text()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("gateway.prot", 8710, ["gateway.prot", "gateway.port"]),
        ("gateway.port", 99999, ["gateway.port", "65535"]),
        ("feed.simulated.date", "2025-01-04", ["no trading day", "20250106"]),
        ("gateway.host", "0.0.0.0", ["gateway.host", "token"]),
        ("rules.files", "no/such/*.yaml", ["rules.files", "no/such/*.yaml"]),
        ("broker.url", "unix:///no/such/socket", ["broker.url"]),
    ],
)
async def test_a_wrong_setting_is_named_with_exit_code_2(
    tmp_path: Path, setting: str, value: object, said: list[str]
) -> None:
    code, stderr = await refusal(tmp_path / "d", {setting: value})
    assert code == 2
    for words in said:
        assert words in stderr
    assert "Traceback" not in stderr


async def test_a_wrong_rule_file_is_told_with_its_place(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(STEADY, '{id: bad, select: all, when: "CLOES > 3"}'))
    code, stderr = await refusal(tmp_path / "d", {"rules.files": rules})
    assert code == 2
    assert f"{rules}:6:" in stderr
    assert "CLOES" in stderr
    assert "Traceback" not in stderr


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, stderr = await refusal(tmp_path / "d", {"gateway.port": port})
    assert code == 2
    assert f"127.0.0.1:{port}" in stderr
    assert "gateway.port" in stderr
    assert "Traceback" not in stderr


async def test_a_second_daemon_on_the_same_state_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    daemon = ForkedDaemon(tmp_path / "d", SMALL)
    async with running(daemon) as session:
        assert daemon.process is not None
        second = ForkedDaemon(tmp_path / "d", SMALL, name="second")
        await second.start()
        assert await second.end(60) == 2
        assert f"pid {daemon.process.pid}" in second.log.read_text()
        assert "Traceback" not in second.log.read_text()
        assert broker_lives(daemon.state_dir)
        await ready(daemon, session)
        assert await daemon.interrupt() == 0
    assert complaints(daemon) == []
