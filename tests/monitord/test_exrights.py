"""Ex-rights days from files: what the commands make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from monitord.__main__ import main

RULES = """\
version: 1
groups:
- name: price
  rules:
  - id: under-ten
    select: [600519.SH]
    when: CROSS(10, LAST)
    rearm: LAST > 10.2
    freq: always
"""
DAYS = "symbol,date,factor\n600519.SH,2023-02-02,0.9\n"
TEST = """\
rule_files: [rules.yaml]
tests:
- name: a night
  rule: under-ten
  symbol: 600519.SH
  date: 2023-02-01
  feed:
  - {start: "14:56:00", PRECLOSE: "10.4", LAST: "10.4"}
  - {date: 2023-02-02, start: "09:30:00", PRECLOSE: "10.4", LAST: "9.3"}
  expect: []
"""
START_MS = 1675234560000  # 2023-02-01 14:56:00 in Shanghai
NEXT_MS = 1675301400000  # 2023-02-02 09:30:00


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("rules.yaml", RULES), ("days.csv", DAYS), ("test.yaml", TEST), ("bad.csv", "symbol\n")):
        Path(name).write_text(text, encoding="utf-8")
    return tmp_path


def session(file: Path, ts_ms: int, prices: list[float], *, prev_close: float) -> str:
    rows = [
        {
            "symbol": "600519.SH", "ts_event": ts_ms + 3000 * k, "last": price, "open": price, "high": price,
            "low": price, "prev_close": prev_close, "volume_lots": 100.0 + k, "amount_cny": 1e5 + k, "status": 13,
        }
        for k, price in enumerate(prices)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(file, index=False)
    return str(file)


def told(*argv: str) -> list[tuple[str, str | None]]:
    assert main(["replay", "--rules", "rules.yaml", "--output", "out.jsonl", *argv]) == 0
    records = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(record["event"], record["gap"]) for record in records if record["rule"] != "feed"]


def test_replay_takes_them(folder: Path) -> None:
    days = (
        session(folder / "a.parquet", START_MS, [10.4, 10.4], prev_close=10.4),
        session(folder / "b.parquet", NEXT_MS, [9.3, 10.3, 9.9], prev_close=10.4),
    )
    assert told("--input", *days) == [("fire", "session"), ("fire", None)]
    assert told("--input", *days, "--exrights", "days.csv") == [("fire", "exright")]


def test_replay_sees_them_in_the_previous_close(folder: Path) -> None:
    days = (
        session(folder / "a.parquet", START_MS + 241_000, [10.4, 10.4], prev_close=10.4),
        session(folder / "b.parquet", NEXT_MS, [9.3, 10.3, 9.9], prev_close=9.36),
    )
    assert told("--input", *days) == [("fire", "exright")]


def test_rule_tests_take_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "test.yaml"]) == 1
    assert "fire" in capsys.readouterr().out
    assert main(["test", "test.yaml", "--exrights", "days.csv"]) == 0


def test_check_warns_of_prices_that_are_older(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "rules.yaml"]) == 0
    assert "warning:" not in capsys.readouterr().out
    assert main(["check", "rules.yaml", "--exrights", "days.csv", "--strict"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rules.yaml:7:")
    assert "10 is a price of before or after 2023-02-02, when 600519.SH went ex-rights" in lines[0]
    assert "^" in lines[2]


@pytest.mark.parametrize("command", ["check rules.yaml", "test test.yaml", "replay --rules rules.yaml --input x.csv"])
def test_a_bad_file_is_unusable_input_with_its_place(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--exrights", "bad.csv"]) == 2
    assert "bad.csv:1:" in capsys.readouterr().err
