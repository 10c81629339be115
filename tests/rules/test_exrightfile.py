"""Ex-rights files: what they say, and what is wrong with them, at its place."""

from __future__ import annotations

import pytest

from feeds.exrights import ExRight
from rules.errors import RuleFileError
from rules.exrightfile import load

YAML = """version: 1
exrights:
- {symbol: 600519.SH, date: 2023-06-30, cash: 25.911}
- {symbol: 000001.SZ, date: 2023-06-14, factor: 0.975}
- {symbol: 600519.SH, date: 2024-06-19, bonus: 1, rights: 0.3, rights_price: 8.5}
"""
CSV = """rights_price,symbol,date,factor,cash,bonus,rights,note
,600519.SH,2023-06-30,,25.911,,,dividend
,000001.SZ,2023-06-14,0.975,,,,
8.5,600519.SH,2024-06-19,,,1,0.3,
"""
DAYS = (
    ExRight("000001.SZ", 20230614, factor=0.975),
    ExRight("600519.SH", 20230630, cash_cny=25.911),
    ExRight("600519.SH", 20240619, bonus=1.0, rights=0.3, rights_cny=8.5),
)


def test_yaml_and_csv_say_the_same() -> None:
    assert load({"x.yaml": YAML}) == load({"x.csv": CSV}) == DAYS
    assert load({}) == load({"x.yaml": "version: 1\nexrights: []"}) == ()


@pytest.mark.parametrize(
    ("text", "file", "finding"),
    [
        ("exrights: []", "x.yaml", "1:1 version is missing"),
        ("version: 1", "x.yaml", "1:1 it has version and exrights"),
        ("version: 1\nexrights: {}", "x.yaml", "2:11 a list is needed here, not a table"),
        ("version: 1\nexrights: [{symbol: 600519, date: 2023-06-30, cash: 1}]", "x.yaml", "2:21 600519 is a code"),
        ("version: 1\nexrights: [{symbol: 600519.SH, cash: 1}]", "x.yaml", "2:12 date is missing"),
        ("version: 1\nexrights: [{symbol: 600519.SH, date: 2023-06-31, cash: 1}]", "x.yaml", "2:38 there is no day"),
        ("version: 1\nexrights: [{symbol: 600519.SH, date: 2023-06-30}]", "x.yaml", "2:12 it needs a factor"),
        ("version: 1\nexrights: [{symbol: 600519.SH, date: 2023-06-30, dividend: 1}]", "x.yaml", "2:50 an ex-rights"),
        ("version: 1\nexrights: [{symbol: 600519.SH, date: 2023-06-30, factor: 0}]", "x.yaml", "2:12 factor must be"),
        ("version: 1\nexrights: [{symbol: 600519.SH, date: 2023-06-30, cash: -1}]", "x.yaml", "2:56 a number is"),
        ("symbol,cash\n600519.SH,1\n", "x.csv", "1:1 "),
        ("symbol,date,cash\n600519.SH,2023-06-30,x\n", "x.csv", "2:22 a number is needed here, not 'x'"),
        ("symbol,date,cash\n600519.SH,2023-06-30,1\n600519.SH,2023-06-30,2\n", "x.csv", "3:1 600519.SH has two"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_a_hint(text: str, file: str, finding: str) -> None:
    with pytest.raises(RuleFileError) as refused:
        load({file: text})
    (found, *_) = refused.value.findings
    assert f"{found.line}:{found.column} {found.message}".startswith(finding)
    assert found.hint
