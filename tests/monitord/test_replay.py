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
  - id: over-20
    select: all
    when: LAST >= 20
    rearm: LAST < 19.5
    freq: always
    message: "{LAST:.2f}"
  - id: never
    select: all
    when: LAST > 1e6
"""
OPEN_MS = 1675215000000  # 2023-02-01 09:30:00 in Shanghai


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return tmp_path / "rules.yaml"


def _session(file: Path, last: dict[str, list[float]]) -> Path:
    """Write a recorded session: each symbol's prices, 3 s apart from 10:00:00 on."""
    rows = [
        {
            "symbol": symbol, "ts_event": OPEN_MS + 1_800_000 + 3000 * k, "last": price, "open": 19.0, "high": 22.0,
            "low": 18.0, "prev_close": 19.0, "volume_lots": 100.0 + k, "amount_cny": 2e5 + 2000 * k, "status": 13,
        }
        for symbol, prices in last.items()
        for k, price in enumerate(prices)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).sort_values("ts_event", kind="stable")
    frame.to_parquet(file, index=False) if file.suffix == ".parquet" else frame.to_csv(file, index=False)
    return file


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return _session(
        tmp_path / "day.parquet",
        {"600519.SH": [19.0, 20.0, 20.5, 19.0, 20.0], "000001.SZ": [19.0, 19.9, 21.0, 21.0, 21.0]},
    )


def replay(*argv: object) -> int:
    return main(["replay", *map(str, argv)])


def fires(output: Path) -> list[tuple[str, str, int]]:
    """Return (symbol, message, seconds since 10:00:00) of every fire."""
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return [
        (record["symbol"], record["message"], (record["ts_event_ms"] - OPEN_MS) // 1000 - 1800)
        for record in records
        if record["event"] == "fire"
    ]


def test_every_event_is_a_json_line_in_order(rules: Path, session: Path, tmp_path: Path) -> None:
    output = tmp_path / "events.jsonl"
    assert replay("--rules", rules, "--input", session, "--output", output) == 0
    assert fires(output) == [("600519.SH", "20.00", 3), ("000001.SZ", "21.00", 6), ("600519.SH", "20.00", 12)]
    assert not list(tmp_path.glob("*.part"))


def test_the_output_is_the_same_bytes_every_time_and_from_csv(rules: Path, session: Path, tmp_path: Path) -> None:
    pd.read_parquet(session).to_csv(tmp_path / "day.csv", index=False)
    outputs = []
    for number, file in enumerate((session, session, tmp_path / "day.csv")):
        outputs.append(tmp_path / f"{number}.jsonl")
        assert replay("--rules", rules, "--input", file, "--output", outputs[-1]) == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes() == outputs[2].read_bytes()
    assert b'"stamps"' not in outputs[0].read_bytes()


def test_the_summary_has_a_row_for_every_rule_also_for_one_that_never_fired(
    rules: Path, session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--rules", rules, "--input", session) == 0
    rows = sections(capsys.readouterr().out)[""]
    assert rows["over-20"] == ["3", "0", "0", "0", "2", "2023-02-01", "10:00:03", "2023-02-01", "10:00:12"]
    assert rows["never"] == ["0", "0", "0", "0", "0"]
    assert rows["all"] == ["3", "0", "0", "0", "2"]


def sections(out: str) -> dict[str, dict[str, list[str]]]:
    """Return the tables by title, "" for the last; each its rows by their first word."""
    found: dict[str, dict[str, list[str]]] = {}
    titles = ("fires per day", "suppressed by", "most noisy symbols", "price after a fire")
    title = ""
    for line in filter(None, out.splitlines()):
        named = next((one for one in titles if line.startswith(one)), "")
        if named or line.split()[:2] == ["rule", "fires"]:
            title = named
        found.setdefault(title, {})[line.split()[0]] = line.split()[1:]
    return found


def test_the_summary_tells_days_reasons_noise_and_what_the_price_did(
    rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules.write_text(RULES.replace("freq: always", "freq: always\n    cooldown: 1m"), encoding="utf-8")
    quiet = [19.0] * 150
    session = _session(
        tmp_path / "day.parquet",
        {"600519.SH": [19.0, 20.0, 19.0, 21.0, *[22.0] * 200, *quiet], "000001.SZ": [19.0, 25.0, *[24.0] * 500]},
    )
    assert replay("--rules", rules, "--input", session) == 0
    found = sections(capsys.readouterr().out)
    assert found["fires per day"]["rule"] == ["2023-02-01"]
    assert found["fires per day"]["over-20"] == ["2"]
    assert found["suppressed by"]["rule"] == ["cooldown"]
    assert found["suppressed by"]["over-20"] == ["1"]
    assert found["most noisy symbols"]["600519.SH"] == ["1", "1", "over-20", "(2)"]
    assert found["most noisy symbols"]["000001.SZ"] == ["1", "0", "over-20", "(1)"]
    # 600519: 20 → 22 after 5 minutes (+10 %), 000001: 25 → 24 (-4 %); 30 minutes do not come
    assert found["price after a fire"]["over-20"] == ["2", "+3.00", "+3.00", "50%", "0", "-", "-", "-"]
    assert found[""]["all"] == ["2", "1", "0", "0", "2"]


def test_many_days_are_summed_up(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from collections import Counter

    from monitord.commands.summary import Tally, by_day

    tally = Tally(days=Counter({f"2023-02-{day:02}": day for day in range(1, 10)}))
    table = by_day({"a": tally, "never": Tally()})
    assert table.title == "fires per day, of 9 days with any"
    assert [list(column.cells) for column in table.columns] == [["a"], ["9"], ["5.0"], ["5"], ["9"], ["2023-02-09"]]


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
def test_a_table_has_a_row_per_event_with_the_price_later(
    name: str, rules: Path, session: Path, tmp_path: Path
) -> None:
    plain, output = tmp_path / "plain.jsonl", tmp_path / "events.jsonl"
    assert replay("--rules", rules, "--input", session, "--output", plain) == 0
    assert replay("--rules", rules, "--input", session, "--output", output, "--table", tmp_path / name) == 0
    assert output.read_bytes() == plain.read_bytes()
    frame = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert frame["id"].tolist() == [record["id"] for record in records]
    assert frame["last"].tolist() == [20.0, 21.0, 20.0]
    assert frame["time"].tolist() == ["10:00:03.000", "10:00:06.000", "10:00:12.000"]
    assert frame["last_5m"].isna().all()
    assert json.loads(frame["values"][0]) == {"LAST": 20.0}
    assert not list(tmp_path.glob(".*.part"))


def test_a_table_without_events_has_its_columns(rules: Path, tmp_path: Path) -> None:
    session = _session(tmp_path / "day.parquet", {"600519.SH": [19.0]})
    assert replay("--rules", rules, "--input", session, "--table", tmp_path / "t.csv") == 0
    assert "change_30m_pct" in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize("name", ["t.xlsx", "no/t.csv"])
def test_a_table_that_cannot_be_written_is_said(
    name: str, rules: Path, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--rules", rules, "--input", session, "--table", tmp_path / name) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_messages_are_in_the_language_asked_for(rules: Path, session: Path, tmp_path: Path) -> None:
    rules.write_text(RULES.replace('"{LAST:.2f}"', '{zh: "涨到 {LAST}", en: "up to {LAST}"}'), encoding="utf-8")
    for language, text in (("zh", "涨到 20"), ("en", "up to 20")):
        output = tmp_path / f"{language}.jsonl"
        assert replay("--rules", rules, "--input", session, "--output", output, "--language", language) == 0
        assert fires(output)[0][1] == text


def test_events_on_stdout_leave_the_table_to_stderr(
    rules: Path, session: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert replay("--rules", rules, "--input", session, "--output", "-") == 0
    out, err = capfdbinary.readouterr()
    assert [json.loads(line)["rule"] for line in out.splitlines()] == ["over-20"] * 3
    assert b"over-20" in err


@pytest.mark.parametrize("symbols", [["600519.SH"], ["600519.SH,300750.SZ"], ["600519.SH", "300750.SZ"]])
def test_only_the_chosen_symbols_are_played(rules: Path, session: Path, tmp_path: Path, symbols: list[str]) -> None:
    output = tmp_path / "events.jsonl"
    assert replay("--rules", rules, "--input", session, "--output", output, "--symbols", *symbols) == 0
    assert {symbol for symbol, _, _ in fires(output)} == {"600519.SH"}


def test_two_recordings_are_played_as_one_market(rules: Path, session: Path, tmp_path: Path) -> None:
    one = _session(tmp_path / "one.csv", {"600519.SH": [19.0, 20.0, 20.5, 19.0, 20.0]})
    other = _session(tmp_path / "other.csv", {"000001.SZ": [19.0, 19.9, 21.0, 21.0, 21.0]})
    assert replay("--rules", rules, "--input", session, "--output", tmp_path / "a.jsonl") == 0
    assert replay("--rules", rules, "--input", one, other, "--output", tmp_path / "b.jsonl") == 0
    assert fires(tmp_path / "a.jsonl") == fires(tmp_path / "b.jsonl")


# ── what cannot be used ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_bad_rule_file_ends_with_code_2_and_its_findings(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(RULES.replace("LAST >= 20", "CORSS(LAST, 20)"), encoding="utf-8")
    assert replay("--rules", bad, "--input", session, "--output", tmp_path / "o.jsonl") == 2
    err = capsys.readouterr().err
    assert f"{bad}:7:" in err
    assert "did you mean CROSS?" in err
    assert not (tmp_path / "o.jsonl").exists()


def test_a_recording_that_is_none_ends_with_code_2(
    rules: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "day.csv").write_text("symbol,last\n600519.SH,1\n")
    assert replay("--rules", rules, "--input", tmp_path / "day.csv") == 2
    assert "no column ts_event" in capsys.readouterr().err


def test_a_row_that_cannot_be_leaves_no_half_of_an_output(
    rules: Path, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_parquet(session)
    frame.loc[len(frame) - 1, "ts_event"] = OPEN_MS
    frame.to_parquet(tmp_path / "back.parquet")
    output = tmp_path / "events.jsonl"
    output.write_text("of an earlier run\n")
    assert replay("--rules", rules, "--input", tmp_path / "back.parquet", "--output", output) == 2
    assert "row 10" in capsys.readouterr().err
    assert output.read_text() == "of an earlier run\n"
    assert not list(tmp_path.glob("*.part"))


def test_an_output_that_cannot_be_written_is_said(
    rules: Path, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay("--rules", rules, "--input", session, "--output", tmp_path / "no" / "o.jsonl") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"), [(None, "cannot be read"), ("\xff\xfe".encode("latin-1"), "is not UTF-8")]
)
def test_a_rule_file_that_cannot_be_read_is_said(
    text: bytes | None, complaint: str, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rules.yaml"
    if text is not None:
        file.write_bytes(text)
    assert replay("--rules", file, "--input", session) == 2
    assert f"{file}: {complaint}" in capsys.readouterr().err


def test_a_recorded_day_gives_the_same_bytes_twice(market_data: Path, rules: Path, tmp_path: Path) -> None:
    day = market_data / "sessions" / "sh30-20211201.parquet"
    for name in ("a", "b"):
        assert replay("--rules", rules, "--input", day, "--output", tmp_path / name) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    prices = pd.read_parquet(day, columns=["symbol", "ts_event", "last"])
    continuous = prices[prices["ts_event"] % 86_400_000 >= 5_400_000]  # from 09:30 in Shanghai
    assert {symbol for symbol, _, _ in fires(tmp_path / "a")} <= set(continuous[continuous["last"] >= 20]["symbol"])
