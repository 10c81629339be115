"""`monitord test` from end to end; the rules and tests are those of the rule reference, as they stand there."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from monitord.__main__ import main

RULES = """\
version: 1
defaults: {period: tick, eval: tick, session: continuous, mode: edge, freq: once_per_day, severity: info}
groups:
- name: price
  labels: {kind: price}
  rules:
  - id: brk-moutai
    select: [600519.SH]
    when: CROSS(LAST, 1800)
    rearm: LAST < 1782
    freq: always
    cooldown: 10m
    message: "{name} 突破 1800：{LAST:.2f} {PCT:+.2f}%"
"""
STATE_RULE = """\
  - id: box-exit
    select: [000001.SZ]
    when: LAST > 21.50 OR LAST < 19.80
    mode: state
    for: 30s
    keep_firing: 60s
"""
TESTS = """\
rule_files: [rules.yaml]
tests:
- name: breakout fires once, needs the pull-back, honours the cooldown
  rule: brk-moutai
  symbol: 600519.SH
  feed: [{start: "10:00:00", step: 3s, LAST: "1795 1799 1801 1799 1801 1803 1781 1801 1780*203 1801"}]
  expect:
  - {at: "10:00:06", event: fire, LAST: 1801}
  - {at: "10:00:21", event: suppressed, why: cooldown}
  - {at: "10:10:33", event: fire, LAST: 1801}
"""
STATE_TEST = """\
- name: for 30s sleeps over lunch
  rule: box-exit
  symbol: 000001.SZ
  feed:
  - {start: "11:29:48", step: 3s, LAST: "21.4 21.6 21.6 21.6"}
  - {start: "13:00:00", step: 3s, LAST: "21.6 _*9 21.0*25"}
  expect:
  - {at: "11:29:51", event: pending}
  - {at: "13:00:21", event: fire, LAST: 21.6}
  - {at: "13:01:30", event: resolve, LAST: 21.0}
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    (tmp_path / "tests.yaml").write_text(TESTS, encoding="utf-8")
    return tmp_path / "tests.yaml"


def test(*argv: object) -> int:
    return main(["test", *map(str, argv)])


test.__test__ = False  # type: ignore[attr-defined]


def test_a_file_whose_tests_all_pass_ends_with_code_0(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert test(tests) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"


def test_an_extra_fire_fails_with_its_place_and_a_diff(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests.write_text(TESTS.replace("1781", "1783"), encoding="utf-8")
    assert test(tests) == 1
    out = capsys.readouterr().out
    assert f"FAIL {tests}:3: breakout fires once" in out
    assert "  - 10:00:21 suppressed why=cooldown" in out
    assert "0 passed, 1 failed" in out


def test_update_writes_what_came_and_leaves_the_rest(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = TESTS.replace('LAST: 1801}\n  - {at: "10:00:21"', 'LAST: 1802}  # why\n  - {at: "10:00:21"')
    tests.write_text(changed, encoding="utf-8")
    assert test(tests) == 1
    assert test(tests, "--update") == 0
    assert "UPDATED" in capsys.readouterr().out
    assert tests.read_text(encoding="utf-8") == TESTS
    assert test(tests) == 0
    assert not list(tests.parent.glob(".*.part"))


def test_update_leaves_a_good_file_untouched(tests: Path) -> None:
    tests.write_bytes(TESTS.replace("\n", "\r\n").encode())
    before = tests.stat().st_mtime_ns, tests.read_bytes()
    assert test(tests, "--update") == 0
    assert (tests.stat().st_mtime_ns, tests.read_bytes()) == before


def test_junit_names_every_test_and_what_failed(tests: Path, tmp_path: Path) -> None:
    failing = TESTS[TESTS.index("- name") :].replace("breakout", "<also> breakout").replace("cooldown}", "freq}")
    tests.write_text(TESTS + failing, encoding="utf-8")
    assert test(tests, "--junit", tmp_path / "results.xml") == 1
    root = ElementTree.parse(tmp_path / "results.xml").getroot()
    (suite,) = root.findall("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    good, bad = suite.findall("testcase")
    assert good.find("failure") is None
    assert bad.get("name", "").startswith("<also> breakout")
    failure = bad.find("failure")
    assert failure is not None
    assert "suppressed why=freq" in (failure.text or "")


def test_files_named_in_a_feed_lie_beside_the_tests(tests: Path, tmp_path: Path) -> None:
    at_ms = 1735783200000  # 2025-01-02 10:00:00 in Shanghai
    rows = [
        {"symbol": "600519.SH", "ts_event": at_ms + 3000 * k, "last": last, "open": last, "high": last, "low": last,
         "prev_close": 1790.0, "volume_lots": k, "amount_cny": k, "status": 13}
        for k, last in enumerate((1795.0, 1801.0, 1780.0))
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "day.parquet")
    pd.DataFrame(
        {"symbol": ["600519.SH"] * 2, "ts_end": [at_ms - 300_000, at_ms], "open": [1795.0] * 2, "high": [1795, 1801.0],
         "low": [1795.0] * 2, "close": [1795, 1801.0]}
    ).to_csv(tmp_path / "bars.csv", index=False)  # fmt: skip
    head, case = TESTS[: TESTS.index("- name")], TESTS[TESTS.index("- name") : TESTS.index("  feed:")]
    tests.write_text(
        f'{head}{case}  feed: [{{session: day.parquet}}]\n  expect: [{{at: "10:00:03", event: fire, LAST: 1801}}]\n'
        f'{case}  feed: [{{file: bars.csv, period: 5m}}]\n  expect: [{{at: "10:00:00", event: fire, LAST: 1801}}]\n',
        encoding="utf-8",
    )
    assert test(tests) == 0


def test_messages_are_in_the_language_asked_for(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = RULES.replace('"{name} 突破 1800：{LAST:.2f} {PCT:+.2f}%"', '{zh: "突破 {LAST}", en: "above {LAST}"}')
    (tests.parent / "rules.yaml").write_text(rules, encoding="utf-8")
    tests.write_text(TESTS.replace("LAST: 1801}", 'LAST: 1801, message: "above 1801"}'), encoding="utf-8")
    assert test(tests, "--language", "en") == 0
    assert test(tests) == 1
    assert "message is 突破 1801" in capsys.readouterr().out


# ── what cannot be used ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("LAST:", "LSAT:", "tests.yaml:6:40: error"),
        ("[rules.yaml]", "[missing.yaml]", "missing.yaml: cannot be read"),
        ("rule: brk-moutai", "rule: brk", "tests.yaml:3: test 'breakout"),
        ("feed: [{start", "feed: [{session: no.parquet}, {start", "no.parquet: there is no such file"),
        ("feed: [{start", "feed: [{file: no.csv, period: 5m}, {start", "no.csv: cannot be read"),
        ("tests:", "tests", "not YAML"),
    ],
)
def test_what_cannot_be_run_ends_with_code_2(
    old: str, new: str, complaint: str, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests.write_text(TESTS.replace(old, new, 1), encoding="utf-8")
    assert test(tests) == 2
    assert complaint in capsys.readouterr().err


def test_a_bad_rule_file_ends_with_code_2_and_its_findings(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tests.parent / "rules.yaml").write_text(RULES.replace("CROSS", "CORSS"), encoding="utf-8")
    assert test(tests) == 2
    assert "did you mean CROSS?" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_said(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert test(tests, "--junit", tests.parent / "no" / "results.xml") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_examples_of_the_rule_reference_run_as_they_stand(tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tests.parent / "rules.yaml").write_text(RULES + STATE_RULE, encoding="utf-8")
    tests.write_text(TESTS + STATE_TEST, encoding="utf-8")
    assert test(tests) == 0, capsys.readouterr().out
