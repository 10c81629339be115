"""`monitord doctor`: each check on good and bad ground, its report, its exit codes, and that it keeps secrets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from config.settings import Settings
from feeds.sessions import Calendar, unix_ms
from feeds.tick import CORE, TickBatch
from monitord.__main__ import main
from monitord.checks import (
    CHECKS,
    Examined,
    Finding,
    Verdict,
    calendar,
    clock,
    feed,
    gateway,
    in_thread,
    rules,
    state,
    units,
)
from monitord.checks import broker as broker_check
from monitord.checks import receivers as receivers_check
from monitord.commands import FINDINGS, GOOD, UNUSABLE, doctor

DAY = 20250102
TEN = unix_ms(DAY, 36_000_000)
SECRET = "planted-secret-81c2"
SMALL = {"name": "simulated", "simulated": {"symbols": 60, "speed": 0, "start": "10:00:00"}}


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def examined(tmp_path: Path, **settings: Any) -> Examined:
    return Examined(Settings(state_dir=tmp_path / "state", **settings), now_ms=lambda: TEN)


def ticks(*, amount_factor: float = 1.0, late_ms: int = 500, n: int = 10, lots: float = 1000.0) -> TickBatch:
    ts_ms = np.full(n, TEN, np.int64)
    columns = {name: np.full(n, 10.0) for name in CORE}
    columns |= {"volume_lots": np.full(n, lots), "amount_cny": np.full(n, lots * 1000.0 * amount_factor)}
    symbols = tuple(f"{600000 + row}.SH" for row in range(n))
    return TickBatch(symbols, ts_ms, columns=columns, recv_ms=ts_ms + late_ms)


# ── each check ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_state_directory_that_can_be_written_is_good_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    finding = await state.check(examined(tmp_path))
    assert finding.verdict in (Verdict.OK, Verdict.WARN)
    assert "will be made" in finding.found
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_state_directory_that_cannot_be_written_has_failed(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o500)
    finding = await state.check(examined(tmp_path))
    assert (finding.verdict, "cannot be written" in finding.found) == (Verdict.FAIL, True)


def test_a_state_directory_under_a_file_has_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert state.look(tmp_path / "file" / "state").verdict is Verdict.FAIL


def test_a_drive_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    found = state.look(Path("/no/drive/state"))
    assert found.verdict is Verdict.FAIL
    assert "on no drive" in found.found


@pytest.mark.parametrize(
    ("free", "verdict"), [(100 << 20, Verdict.FAIL), (1 << 30, Verdict.WARN), (100 << 30, Verdict.OK)]
)
def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    assert state.look(tmp_path).verdict is verdict


async def test_rules_that_load_and_rules_that_do_not(tmp_path: Path) -> None:
    good = await rules.check(examined(tmp_path))
    assert good.verdict in (Verdict.OK, Verdict.WARN)
    assert "rules load" in good.found
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\ngroups: [{name: x, rules: [{id: a, select: all, when: 'CLOSE >'}]}]\n")
    bad = await rules.check(examined(tmp_path, rules={"files": [str(path)]}))
    assert bad.verdict is Verdict.FAIL
    assert "bad.yaml" in bad.found
    missing = await rules.check(examined(tmp_path, rules={"files": ["nowhere/*.yaml"]}))
    assert missing.verdict is Verdict.FAIL


async def test_receivers_are_named_and_their_addresses_are_not(tmp_path: Path) -> None:
    assert (await receivers_check.check(examined(tmp_path))).verdict is Verdict.WARN
    notify = {"webhooks": [{"name": "ops", "url": f"https://example.com/{SECRET}"}]}
    finding = await receivers_check.check(examined(tmp_path, notify=notify))
    assert finding == Finding(Verdict.OK, "1 configured: ops")


async def test_a_receiver_with_a_bad_key_has_failed(tmp_path: Path) -> None:
    notify = {"webhooks": [{"name": "ops", "url": "https://example.com/x", "secrets": ["whsec_not base64"]}]}
    finding = await receivers_check.check(examined(tmp_path, notify=notify))
    assert finding.verdict is Verdict.FAIL
    assert "ops" in finding.todo


async def test_the_gateways_port_is_free_or_taken(tmp_path: Path) -> None:
    free = await gateway.check(examined(tmp_path, gateway={"port": 0}))
    assert (free.verdict, "nobody would be let in" in free.found) == (Verdict.WARN, True)
    open_ = {"port": 0, "allow_loopback_without_token": True}
    assert (await gateway.check(examined(tmp_path, gateway=open_))).verdict is Verdict.OK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = await gateway.check(examined(tmp_path, gateway={"port": taken.getsockname()[1]}))
    assert "listens" in finding.found


@pytest.mark.parametrize(
    ("days", "today", "verdict"),
    [
        ([20250102, 20251231], 20250102, Verdict.OK),
        ([20250102, 20250103], 20250102, Verdict.WARN),
        ([20240102, 20241231], 20250102, Verdict.FAIL),
        ([], 20250102, Verdict.FAIL),
    ],
)
def test_the_calendar_covers_today_and_the_year(days: list[int], today: int, verdict: Verdict) -> None:
    assert calendar.judge(Calendar(days), today).verdict is verdict


async def test_a_broker_that_is_not_there_has_failed_and_its_password_is_not_told(tmp_path: Path) -> None:
    finding = await broker_check.check(examined(tmp_path, broker={"url": f"redis://:{SECRET}@127.0.0.1:9/0"}))
    assert finding.verdict is Verdict.FAIL
    assert SECRET not in f"{finding}"


async def test_our_own_broker_is_not_started_to_be_looked_at(tmp_path: Path) -> None:
    finding = await broker_check.check(examined(tmp_path))
    assert (finding.verdict, "will start" in finding.found) == (Verdict.OK, True)
    assert not (tmp_path / "state").exists()


async def test_a_feed_that_opens_brings_ticks_for_the_checks_after_it(tmp_path: Path) -> None:
    found = examined(tmp_path, feed=SMALL)
    assert (await feed.check(found)).verdict is Verdict.OK
    assert found.batches
    assert not found.live
    assert (await units.check(found)).verdict is Verdict.OK


async def test_a_feed_that_cannot_be_opened_has_failed_with_its_own_words(tmp_path: Path) -> None:
    inputs = {"name": "replay", "replay": {"inputs": ["nowhere.parquet"]}}
    finding = await feed.check(examined(tmp_path, feed=inputs))
    assert (finding.verdict, "nowhere.parquet" in finding.found) == (Verdict.FAIL, True)
    assert finding.todo
    assert (await units.check(examined(tmp_path))).verdict is Verdict.SKIP


async def test_wrong_units_and_too_little_trade(tmp_path: Path) -> None:
    found = examined(tmp_path)
    found.batches = [ticks(amount_factor=0.01)]
    wrong = await units.check(found)
    assert (wrong.verdict, "main" in wrong.found) == (Verdict.FAIL, True)
    found.batches = [ticks(lots=1.0)]
    assert (await units.check(found)).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("late_ms", "verdict"), [(500, Verdict.OK), (-5_000, Verdict.FAIL), (60_000, Verdict.WARN), (-500, Verdict.OK)]
)
async def test_our_clock_against_the_ticks(tmp_path: Path, late_ms: int, verdict: Verdict) -> None:
    found = examined(tmp_path)
    found.batches, found.live = [ticks(late_ms=late_ms)], True
    assert (await clock.check(found)).verdict is verdict


async def test_our_clock_against_the_broker_and_nothing(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert (await clock.check(found)).verdict is Verdict.SKIP
    found.broker_ahead_s = 0.01
    assert (await clock.check(found)).verdict is Verdict.OK
    found.broker_ahead_s = -30.0
    assert (await clock.check(found)).verdict is Verdict.WARN


async def test_a_real_broker_is_asked_for_version_safety_and_time(tmp_path: Path, broker: Any) -> None:
    found = examined(tmp_path, broker={"url": broker.url})
    finding = await broker_check.check(found)
    assert finding.verdict is Verdict.OK
    assert found.broker_ahead_s == pytest.approx(0, abs=1)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


def words(tmp_path: Path, *more: str) -> list[str]:
    sets = {"state_dir": tmp_path / "state", "feed.simulated.symbols": 60, "feed.simulated.speed": 0, "gateway.port": 0}
    return ["doctor", *more, *(word for name, value in sets.items() for word in ("--set", f"{name}={value}"))]


def test_the_report_as_json_has_every_check(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(words(tmp_path, "--json")) == GOOD
    report = json.loads(capfdbinary.readouterr().out)
    assert report["good"] is True
    assert [one["name"] for one in report["checks"]] == ["configuration", *CHECKS]
    assert {one["verdict"] for one in report["checks"]} <= set(Verdict)
    assert all(one["todo"] for one in report["checks"] if one["verdict"] in ("warn", "fail"))


def test_the_report_for_people_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--skip", "feed", "broker")) == GOOD
    text = capsys.readouterr().out
    assert all(name in text for name in ("configuration", *CHECKS))
    assert "left out" in text


def test_a_failure_is_exit_code_1_and_strict_makes_warnings_failures(tmp_path: Path) -> None:
    bad = words(tmp_path, "--skip", "feed", "broker", "--set", "rules.files=nowhere.yaml")
    assert main(bad) == FINDINGS
    assert main(words(tmp_path, "--strict", "--skip", "feed", "broker")) == FINDINGS


def test_settings_that_cannot_be_read_are_exit_code_2_and_a_report_all_the_same(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["doctor", "--json", "--set", "feed.name=nothing"]) == UNUSABLE
    report = json.loads(capfdbinary.readouterr().out)
    assert report["good"] is False
    assert report["checks"][0]["verdict"] == "fail"
    assert "feed.name" in report["checks"][0]["found"]
    assert {one["verdict"] for one in report["checks"][1:]} == {"skip"}


async def test_no_secret_is_ever_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blabs(examined: Examined) -> Finding:
        raise ValueError(f"cannot reach https://x/{SECRET}")

    monkeypatch.setattr(state, "check", blabs)
    notify = {"webhooks": [{"name": "ops", "url": f"https://x/{SECRET}", "secrets": [f"whsec_{SECRET}"]}]}
    settings = Settings(state_dir=tmp_path, notify=notify, feed=SMALL, broker={"url": f"redis://:{SECRET}@127.0.0.1:9"})
    findings = await doctor.examine(settings, skipped=["feed"])
    assert findings["state"].verdict is Verdict.FAIL
    assert SECRET not in str(findings)


async def test_a_check_that_hangs_has_failed_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(examined: Examined) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(state, "check", hangs)
    monkeypatch.setattr(state, "DEADLINE_S", 0.01)
    findings = await doctor.examine(Settings(state_dir=tmp_path), skipped=[*set(CHECKS) - {"state"}])
    assert "no answer within 0.01 s" in findings["state"].found


async def test_work_in_a_thread_that_hangs_is_left_behind() -> None:
    import threading

    never = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await in_thread(never.wait)
    never.set()
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(OSError, match="mine"):
        await in_thread(lambda: (_ for _ in ()).throw(OSError("mine")))


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_check_has_a_deadline(name: str) -> None:
    from importlib import import_module

    assert 0 < import_module(CHECKS[name]).DEADLINE_S <= 60
