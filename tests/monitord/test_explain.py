"""`monitord explain`, over a recorded session and from a daemon's gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pandas as pd
import pytest

from feeds.inputs import Control, ControlKind
from monitord.__main__ import main
from rules.rulefile import load
from tests.monitord.gateway.stand import SECRET, Stand, standing, token

RULES = """\
version: 1
groups:
- name: g
  rules:
  - {id: over-20, select: all, when: LAST >= 20, rearm: LAST < 19.5, freq: always, message: "{LAST:.2f}"}
"""
TEN_MS = 1675216800000  # 2023-02-01 10:00:00 in Shanghai


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    rows = [
        {"symbol": "600519.SH", "ts_event": TEN_MS + 3000 * k, "last": last, "open": 19.0, "high": 22.0, "low": 18.0,
         "prev_close": 19.0, "volume_lots": 100.0 + k, "amount_cny": 2e5, "status": 13}
        for k, last in enumerate((19.0, 20.0, 19.0, 21.0))
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "day.parquet")
    return ["--rules", str(tmp_path / "rules.yaml"), "--input", str(tmp_path / "day.parquet")]


def test_a_session_is_explained_at_its_end_with_the_events_so_far(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "over-20", "600519.SH", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clock"] == "2023-02-01 10:00:09"
    assert found["tick"]["last"] == 21
    assert [(event["event"], event["message"]) for event in found["last"]] == [("fire", "21.00"), ("fire", "20.00")]


def test_and_at_a_time_of_day(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "over-20", "600519.SH", *given, "--at", "10:00:07"]) == 0
    text = capsys.readouterr().out
    assert "at 2023-02-01 10:00:07" in text
    assert "latest tick: last 19" in text
    assert "phase: armed" in text
    assert main(["explain", "over-20", "600519.SH", *given, "--at", "14:00:00", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clock"] == "2023-02-01 14:00:00"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["nope", "600519.SH"], "there is no rule 'nope'"),
        (["over-20", "600519.SH", "--at", "ten"], "write a time of day such as 10:02:03"),
    ],
)
def test_what_cannot_be_answered_ends_with_code_2(
    argv: list[str], complaint: str, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *argv, *given]) == 2
    assert complaint in capsys.readouterr().err


def test_half_of_what_a_session_needs_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "over-20", "600519.SH", *given[:2]]) == 2
    assert "--rules and --input go together" in capsys.readouterr().err
    assert main(["explain", "over-20", "600519.SH", "--at", "10:00:00"]) == 2
    assert "--at needs a session" in capsys.readouterr().err


# ── from a daemon ─────────────────────────────────────────────────────────────────────────────────────────────────


async def ask(stand: Stand, *argv: str) -> int:
    return await asyncio.to_thread(main, ["explain", *argv, "--url", stand.gateway.address])


def with_rules(stand: Stand) -> None:
    stand.rules.engine.step(Control(ControlKind.RULES, load({"r": RULES}).source))


async def test_a_daemon_answers_with_the_last_events_of_its_store(capsys: pytest.CaptureFixture[str]) -> None:
    async with standing() as stand:
        with_rules(stand)
        assert await ask(stand, "over-20", "600519.SH") == 0
        text = capsys.readouterr().out
        assert "rule over-20, 600519.SH, at the start\n" in text
        assert "2023-02-01 10:02:03 fire alert 1" in text
        assert "sampled: no, no tick of it has come" in text
        (wanted, _, size) = stand.history.asked[0]
        assert (wanted.rule, wanted.symbol, size) == ("over-20", "600519.SH", 5)


async def test_a_daemon_refuses_unknown_rules_and_what_is_no_symbol(capsys: pytest.CaptureFixture[str]) -> None:
    async with standing() as stand:
        with_rules(stand)
        assert await ask(stand, "a/b?c", "600519.SH") == 2
        assert "404: there is no rule 'a/b?c'" in capsys.readouterr().err
        assert await ask(stand, "over-20", "600519") == 2
        assert "is no symbol such as 600519.SH" in capsys.readouterr().err


async def test_the_first_token_that_may_read_rules_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(tokens=(token("rules"),)) as stand:
        with_rules(stand)
        assert await ask(stand, "over-20", "600519.SH") == 2
        assert "answers 401" in capsys.readouterr().err
        tokens = json.dumps(
            [{"name": "a", "token": "another-secret-of-32-characters!", "channels": ["alerts"]},
             {"name": "b", "token": SECRET, "channels": ["rules"]}]
        )  # fmt: skip
        assert await ask(stand, "over-20", "600519.SH", "--set", f"gateway.tokens={tokens}", "--json") == 0
        out = capsys.readouterr().out
        assert json.loads(out)["last"] == []
        assert stand.history.asked == []


@pytest.mark.parametrize(("body", "complaint"), [(b"hi", "is no monitord"), (b"{}", "not one of this version")])
async def test_what_is_no_daemon_is_said(body: bytes, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.to_thread(main, ["explain", "a", "600519.SH", "--url", url]) == 2
    assert complaint in capsys.readouterr().err
    assert await asyncio.to_thread(main, ["explain", "a", "600519.SH", "--url", url]) == 2
    assert "no daemon answers at" in capsys.readouterr().err


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "a", "600519.SH", "--url", "ftp:"]) == 2
    assert "write an address" in capsys.readouterr().err
