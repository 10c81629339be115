"""`monitord status`: what it prints, its exit codes, and that a token which may little gets little."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from feeds.sessions import unix_ms
from monitord.__main__ import main
from monitord.commands.status import Status, lines
from tests.monitord.gateway.stand import SECRET, Stand, standing, token

TEN_MS = unix_ms(20250102, 36_000_000)
REPORT: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_s": 11_520.4,
    "feed": {"source": "xt", "silent": False, "ticks": 99_282, "overflowed": 0},
    "engine": {
        "ticks": 99_282, "symbols": 5500, "clock_ms": TEN_MS, "offset": 7, "rules": 27, "dropped": {"future": 3},
        "passed_over": 0,
    },
    "outbox": {"published": 35, "duplicates": 0, "redrives": 0, "failures": 0, "lag_rows": 0},
    "loop_lag_s": 0.0031,
}  # fmt: skip
RECEIVER = {"name": "ops", "status": "ok", "why": None, "pending": 0, "dead": 0}


def status(**changes: Any) -> Status:
    fields: dict[str, Any] = {
        "address": "http://127.0.0.1:8710", "ready": True, "reasons": (), "report": REPORT, "receivers": (RECEIVER,),
        "trade_date": "2025-01-02", "alerts_today": 35,
    }  # fmt: skip
    return Status(**{**fields, **changes})


def test_a_daemon_that_is_well_takes_six_lines() -> None:
    assert list(lines(status(), now_ms=TEN_MS + 3_400)) == [
        "monitord 0.1.0 at http://127.0.0.1:8710: ready, up 3 h 12 min",
        "feed       xt; 99,282 ticks",
        "engine     27 rules, 5,500 symbols, market clock 2025-01-02 10:00:00 (3 s ago), loop 3 ms late, "
        "3 ticks dropped",
        "alerts     35 on 2025-01-02",
        "pump       35 published, 0 wait",
        "receivers  ops ok",
    ]


def test_what_is_not_well_is_said() -> None:
    bad = {"name": "desk", "status": "disabled", "why": "410 Gone", "pending": 2, "dead": 1}
    report = {
        **REPORT,
        "feed": {**REPORT["feed"], "silent": True},
        "outbox": {**REPORT["outbox"], "lag_rows": 12, "failures": 4, "redrives": 1},
    }
    one = status(ready=False, reasons=("the broker takes nothing",), report=report, receivers=(RECEIVER, bad))
    text = "\n".join(lines(one, now_ms=TEN_MS + 10 * 86_400_000))
    for words in (
        "NOT READY", "  the broker takes nothing", "xt SILENT", "10:00:00, loop", "12 wait, 4 failures, 1 redrives",
        "           desk disabled, 2 pending, 1 dead: 410 Gone",
    ):  # fmt: skip
        assert words in text
    assert not one.is_well
    assert not status(report=report).is_well
    assert not status(receivers=(bad,)).is_well
    meant = {"name": "desk", "status": "disabled", "why": "holiday", "by_hand": True, "pending": 0, "dead": 0}
    one = status(receivers=(RECEIVER, meant))
    assert one.is_well
    assert list(lines(one, now_ms=TEN_MS))[-1] == "           desk disabled by hand: holiday"
    assert status().is_well
    assert status(receivers=None).is_well


def test_before_the_first_tick_there_is_no_day() -> None:
    report = {**REPORT, "engine": {**REPORT["engine"], "clock_ms": None}}
    text = "\n".join(lines(status(report=report, trade_date=None, alerts_today=None, receivers=()), now_ms=TEN_MS))
    assert "market clock -, loop" in text
    assert "alerts     none yet: no tick has come" in text
    assert "receivers  none" in text


class Desk:
    async def receivers(self) -> list[Any]:
        return []


async def asked(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(stand.health, "report", lambda: REPORT, raising=False)
    capsys.readouterr()  # what the gateway has logged
    code = await asyncio.to_thread(main, ["status", "--url", stand.gateway.address, *map(str, words)])
    return code, *capsys.readouterr()


async def test_it_asks_the_gateway_and_its_exit_code_says_how_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with standing(desk=Desk()) as stand:
        code, out, _ = await asked(stand, monkeypatch, capsys)
        assert (code, out.splitlines()[3:]) == (
            0,
            ["alerts     3 on 2025-01-02", "pump       35 published, 0 wait", "receivers  none"],
        )
        ((wanted, _, _),) = stand.history.asked
        assert (wanted.trade_date, wanted.event) == ("2025-01-02", "fire")
        stand.health.why = ["recovering: the journal is being run again"]
        code, out, _ = await asked(stand, monkeypatch, capsys, "--json")
        told = json.loads(out)
        assert (code, told["well"], told["ready"], told["reasons"]) == (1, False, False, stand.health.why)
        assert told["report"]["engine"]["rules"] == 27


async def test_a_token_that_may_little_is_shown_little(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "t").write_text(SECRET)
    async with standing(tokens=(token("alerts*"),)) as stand:
        code, out, _ = await asked(stand, monkeypatch, capsys, "--token-file", tmp_path / "t")
    assert code == 0
    assert out.splitlines()[0].endswith(": ready")
    assert out.count("the token may not read it") == 3
    assert SECRET not in out


async def test_where_nobody_or_somebody_else_answers_the_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await asyncio.to_thread(main, ["status", "--url", "http://127.0.0.1:1"]) == 2
    assert "no daemon answers at http://127.0.0.1:1" in capsys.readouterr().err
