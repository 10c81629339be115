"""Warnings about the market that rules are to watch, each at its place in the rule file."""

from __future__ import annotations

import pytest

from feeds.instruments import instrument_of
from rules.lints import KnownMarket, market_lints, needs_of
from rules.rulefile import load

MOUTAI = instrument_of("600519.SH", name="贵州茅台")
PINGAN = instrument_of("000001.SZ", name="平安银行", sectors=("银行",))


def rule_text(*fields: str) -> str:
    lines = "".join(f"    {field}\n" for field in fields)
    return f"version: 1\ngroups:\n- name: g\n  rules:\n  - id: a\n{lines}"


def warned(market: KnownMarket, *fields: str) -> list[tuple[int, int, str]]:
    found = market_lints(load({"r.yaml": rule_text(*fields)}), market)
    assert all((one.severity, one.rule, one.file) == ("warning", "a", "r.yaml") for one in found)
    assert all(one.hint for one in found)
    return [(one.line, one.column, one.message) for one in found]


@pytest.mark.parametrize(
    ("select", "nothing"),
    [
        ("all", False),
        ("[600519.SH]", False),
        ("[600000.SH]", True),
        ("{board: [star]}", True),
        ("{board: [main]}", False),
        ("{name: ['*茅台']}", False),
        ("{name: ['*ST*']}", True),
        ("{sector: [银行]}", False),
        ("{sector: [白酒]}", True),
        ("{glob: ['60*'], exclude: {name: ['贵州*']}}", True),
    ],
)
def test_a_selector_that_matches_nothing(select: str, nothing: bool) -> None:
    found = warned(KnownMarket((MOUTAI, PINGAN)), f"select: {select}", "when: SEALUP")
    assert found == ([(6, 5, "selects none of the 2 instruments there are")] if nothing else [])


@pytest.mark.parametrize("select", ["{sector: [白酒]}", "{name: ['*ST*']}"])
def test_where_names_or_sectors_are_not_known_nobody_can_tell(select: str) -> None:
    assert warned(KnownMarket((instrument_of("600519.SH"),)), f"select: {select}", "when: SEALUP") == []
    assert warned(KnownMarket(), "select: [600000.SH]", "when: SEALUP") == []


def test_more_history_than_the_feed_has() -> None:
    fields = ("select: all", "period: 5m", "when: C > MA(C,60)", "cooldown: 1m")
    assert warned(KnownMarket(bars={"5m": 60}), *fields) == []
    assert warned(KnownMarket(bars={"5m": 48}), *fields) == [
        (8, 5, "needs 60 bars of 5m, and the feed has 48 at a start")
    ]
    assert warned(KnownMarket(bars={"1m": 1}), *fields) == []
    legs = ("select: all", "period: 1d", "cooldown: 1m", "legs: {x: {when: 'C > EMA(C,26)'}}")
    (found,) = warned(KnownMarket(bars={"1d": 30}), *legs)
    assert found[:2] == (9, 5)
    assert "of 1d, and the feed has 30 at a start" in found[2]


def test_what_a_rule_needs_is_the_most_of_its_legs_and_nothing_on_ticks() -> None:
    def needs(*fields: str) -> dict[str, int]:
        (rule,) = load({"r.yaml": rule_text("select: all", "cooldown: 1m", *fields)}).rules
        return needs_of(rule)

    assert needs("when: LAST > 10") == {}
    assert needs("period: 5m", "when: C > MA(C,20)", "rearm: C < LLV(C,34)") == {"5m": 34}
    assert needs("period: 1m", "legs: {p: {when: 'C > MA(C,5)'}, q: {when: 'C > MA(C,9)'}}") == {"1m": 9}
    assert needs("period: 1m", "cap: 400", "when: C > REF(C,BARSLAST(C>O))") == {"1m": 401}


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("CROSS(LAST, 1800)", "1800"),
        ("1800 < LAST", "1800"),
        ("LIMIT:=1800; LAST > LIMIT", "LIMIT"),
        ("M:=(DAYHIGH+DAYLOW)/2; M > 1800", "1800"),
        ("LAST*2 > 3600 AND PCT > 1", "3600"),
        ("BIDP1 >= 1800", "1800"),
        ("PCT > 3", None),
        ("LAST/PRECLOSE > 1.05", None),
        ("LAST > PRECLOSE", None),
        ("AMTDAY > 1e8", None),
        ("LAST > DAYOPEN*1.05", None),
        ("LAST-PRECLOSE > 0", None),
    ],
)
def test_an_absolute_price_over_an_ex_date(when: str, number: str | None) -> None:
    market = KnownMarket((MOUTAI,), ex_dates={"600519.SH": "2023-06-30"})
    message = f"{number} is a price of before or after 2023-06-30, when 600519.SH went ex-rights"
    expected = [(7, 12 + when.rindex(number), message)] if number else []
    assert warned(market, "select: [600519.SH]", f'when: "{when}"', "cooldown: 1m") == expected
    assert warned(market, "select: [000001.SZ]", f'when: "{when}"', "cooldown: 1m")[1:] == []
    assert warned(KnownMarket((MOUTAI,)), "select: [600519.SH]", f'when: "{when}"', "cooldown: 1m") == []


def test_an_absolute_price_of_a_leg_or_a_parameter_is_shown_where_it_stands() -> None:
    market = KnownMarket((MOUTAI,), ex_dates={"600519.SH": "2023-06-30"})
    legs = "legs: {a: {when: 'LAST > 1800'}, b: {when: 'PCT > 3 AND LAST < 1700'}}"
    found = warned(market, "select: [600519.SH]", legs, "cooldown: 1m")
    assert [(line, column) for line, column, _ in found] == [(7, 5 + legs.index("1800")), (7, 5 + legs.index("1700"))]
    found = warned(market, "select: [600519.SH]", "params: {top: 1800}", "when: LAST > top", "cooldown: 1m")
    assert [(line, column) for line, column, _ in found] == [(8, 18)]


def test_rules_of_several_files_are_found_in_their_own() -> None:
    texts = {"a.yaml": rule_text("select: [600000.SH]", "when: SEALUP")}
    texts["b.yaml"] = "\ufeff" + texts["a.yaml"].replace("id: a", "id: b").replace("version", "# so\nversion", 1)
    found = market_lints(load(texts), KnownMarket((MOUTAI,)))
    assert [(one.file, one.line, one.rule) for one in found] == [("a.yaml", 6, "a"), ("b.yaml", 7, "b")]


def test_a_shipped_rule_without_an_id_has_its_place_too() -> None:
    text = "version: 1\ngroups:\n- name: g\n  rules:\n  - use: rocket\n    select: [600000.SH]\n"
    (found,) = market_lints(load({"r.yaml": text}), KnownMarket((MOUTAI,)))
    assert (found.rule, found.line, found.column) == ("rocket", 6, 5)
