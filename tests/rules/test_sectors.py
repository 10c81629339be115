"""Sector files, and what they add to the feed's instruments."""

from __future__ import annotations

import pytest

from feeds.instruments import Board, instrument_of
from rules.errors import RuleFileError
from rules.sectors import load, merge

YAML = "version: 1\nsectors:\n  银行: [600000.SH, 601398.SH]\n  白马: [600519.SH, 600000.SH]\n"
CSV = "sector,symbol,since\n银行,600000.SH,2020\n银行,601398.SH,\n白马,600519.SH,\n白马,600000.SH,\n白马,600000.SH,\n"


def errors(text: str, file: str = "s.yaml") -> list[str]:
    with pytest.raises(RuleFileError) as caught:
        load({file: text})
    assert all(finding.hint for finding in caught.value.findings)
    return [f"{f.line}:{f.column}+{f.width} {f.message}" for f in caught.value.findings]


def test_yaml_and_csv_say_the_same() -> None:
    expected = {"600000.SH": ("银行", "白马"), "601398.SH": ("银行",), "600519.SH": ("白马",)}
    assert load({"s.yaml": YAML}) == load({"s.csv": CSV}) == load({"s.yaml": YAML, "t.csv": CSV}) == expected
    assert load({}) == {}


def test_sectors_of_files_stand_behind_those_of_the_feed() -> None:
    bank = instrument_of("600000.SH", name="浦发银行", sectors=("沪深A股", "银行"))
    other = instrument_of("300750.SZ")
    merged = {one.symbol: one for one in merge([bank, other], load({"s.yaml": YAML}))}
    assert merged["600000.SH"].sectors == ("沪深A股", "银行", "白马")
    assert merged["600000.SH"].name == "浦发银行"
    assert merged["300750.SZ"] == other
    assert (merged["600519.SH"].board, merged["600519.SH"].sectors) == (Board.MAIN, ("白马",))


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("", ["1:1+1 the file is empty"]),
        ("sectors: {}", ["1:1+1 version is missing"]),
        ("version: 1", ["1:1+1 it has version and sectors"]),
        ("version: 1\nsectors: {}\nmore: 1", ["1:1+1 it has version and sectors"]),
        ("version: 1\nsectors: [a]", ["2:10+3 sectors is a table of key: value, not a list"]),
        ("version: 1\nsectors: {银行: [600000, 601398.sh]}", [
            "2:16+6 600000 is a code without its exchange, which YAML reads as the number 600000",
            "2:24+9 '601398.sh' is no symbol",
        ]),
        ("version: 1\nsectors: {1: [600000.SH]}", ["2:11+1 1 is a number"]),
        ("version: 1\nsectors: {银行: []}", ["2:15+2 the list is empty"]),
    ],
)  # fmt: skip
def test_a_mistake_in_yaml_stands_at_its_place(text: str, findings: list[str]) -> None:
    assert errors(text) == findings


def test_a_mistake_in_csv_stands_at_its_place() -> None:
    assert errors("symbol,name\n", "s.csv") == ["1:1+11 the header has no column sector"]
    assert errors("symbol,sector\n600000,银行\n600519.SH,\n", "s.csv") == [
        "2:1+6 600000 is a code without its exchange, which YAML reads as the number 600000",
        "3:11+1 there is no value here",
    ]
