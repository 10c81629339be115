"""Why a rule says what it says: scope, session, arming, timers, counts, and each part of its condition."""

from __future__ import annotations

import numpy as np
import pytest

from feeds.inputs import Control, ControlKind, Mark, MarkKind
from feeds.instruments import encode_table, instrument_of
from rules.engine import Engine
from rules.errors import RuleError
from rules.explain import Explanation, LegExplanation, explain, render
from rules.rulefile import load
from rules.testfeed import lay_out
from rules.testfile import read_suite

RULES = """\
version: 1
groups:
- name: g
  rules:
  - id: over
    select: [600519.SH]
    when: "N:=10; X: LAST*2; CROSS(LAST, N) AND (X > 5 OR PCT > 3)"
    rearm: LAST < 9
    freq: always
    cooldown: 10m
  - id: trend
    select: {board: [star], exclude: {name: ["N*"]}}
    period: 1m
    when: "M:=MA(C,5); C > M AND REF(M,1) < C"
  - {id: held, select: all, mode: state, for: 30s, keep_firing: 60s, when: LAST > 10}
  - {id: legs, select: all, cooldown: 1m, legs: {a: {when: LAST > 1e3}, b: {when: LAST > 10}}}
  - {id: over-now, select: all, expires: "2025-01-02 10:00", when: SEALUP}
  - {id: auction, select: all, session: open_auction, when: AUCP > 10, cooldown: 1m}
  - {id: bank, select: {sector: [银行], name: ["*行"]}, when: SEALUP}
"""


def played(feed: str, *, instruments: str = "{}", symbol: str = "600519.SH") -> Engine:
    body = f"name: t, symbol: {symbol}, feed: [{feed}], instruments: {instruments}, expect: []"
    text = f"rule_files: [r]\ntests:\n- {{{body}}}\n"
    (case,) = read_suite(text, file="t").cases
    engine = Engine()
    if case.instruments:
        engine.step(Control(ControlKind.INSTRUMENTS, encode_table(case.instruments.values())))
    engine.step(Control(ControlKind.RULES, load({"r": RULES}).source))
    for given in lay_out(case, read=lambda segment: ()):
        engine.step(given)  # type: ignore[arg-type]
    return engine


def values(leg: LegExplanation) -> dict[str, float | bool | None]:
    return {part.text: part.value for part in leg.condition}


def only(explanation: Explanation) -> LegExplanation:
    (leg,) = explanation.legs
    return leg


def test_each_part_of_the_condition_has_its_value_and_names_their_expression() -> None:
    leg = only(explain(played('{start: "10:00:00", LAST: "9 11"}'), "over", "600519.SH"))
    assert [(part.depth, part.text, part.value) for part in leg.condition] == [
        (0, "CROSS(LAST,N) AND (X>5 OR PCT>3)", False),
        (1, "CROSS(LAST,N)", False),
        (2, "LAST", 11.0),
        (2, "N", 10.0),
        (1, "X>5 OR PCT>3", True),
        (2, "X>5", True),
        (3, "X = LAST*2", 22.0),
        (4, "LAST", 11.0),
        (2, "PCT>3", None),
        (3, "PCT", None),
    ]
    assert [(part.text, part.value) for part in leg.rearm] == [("LAST<9", False), ("LAST", 11.0)]


def test_values_of_bars_are_those_of_the_closed_ones_and_the_forming_one() -> None:
    engine = played('{bars: 1m, C: "1 2 3 4 5 6 7"}', symbol="688001.SH")
    leg = only(explain(engine, "trend", "688001.SH"))
    assert values(leg)["M = MA(C,5)"] == np.mean([3, 4, 5, 6, 7])
    assert values(leg)["REF(M,1)"] == np.mean([2, 3, 4, 5, 6])
    assert values(leg)["C>M AND REF(M,1)<C"] is True


def test_what_is_warming_says_how_many_bars_are_there() -> None:
    leg = only(explain(played('{bars: 1m, C: "1 2 3"}', symbol="688001.SH"), "trend", "688001.SH"))
    (need,) = leg.warmup
    assert need.period == "1m"
    assert need.there == 2 < need.needed
    assert values(leg)["C>M AND REF(M,1)<C"] is None
    assert f"warming: 2 of {need.needed} bars of 1m" in render(
        explain(played('{bars: 1m, C: "1 2 3"}'), "trend", "600519.SH")
    )


def test_explaining_changes_nothing() -> None:
    engine = played('{start: "10:00:00", LAST: "9 11 _*20"}')
    before = engine.checkpoint()
    for rule in engine.rules.rules:
        explain(engine, rule.id, "600519.SH")
    after = engine.checkpoint()
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    for name, array in before[0].items():
        np.testing.assert_array_equal(array, after[0][name])


# ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("last", "phase", "sent", "held", "outlook"),
    [
        ("9", "armed", 0, 0, None),
        ("11", "armed", 0, 0, None),  # a cross needs a tick before it
        ("9 11", "disarmed", 1, 0, "cooldown"),
        ("9 11 8", "armed", 1, 0, "cooldown"),
        ("9 11 8 11", "disarmed", 1, 1, "cooldown"),
        ("9 11 8*250", "armed", 1, 0, None),
    ],
)
def test_the_arming_of_an_edge_and_what_would_become_of_a_fire(
    last: str, phase: str, sent: int, held: int, outlook: str | None
) -> None:
    leg = only(explain(played(f'{{start: "10:00:00", LAST: "{last}"}}'), "over", "600519.SH"))
    assert (leg.phase, leg.sent_today, leg.held_back, leg.holds_back) == (phase, sent, held, outlook)


@pytest.mark.parametrize(
    ("last", "phase", "timer"),
    [
        ("9", "idle", None),
        ("9 11 _*3", "pending", "for 30s runs since 10:00:03, ends at 10:00:33"),
        ("9 11 _*20", "firing", None),
        ("9 11 _*20 9 _", "firing", "keep_firing 60s runs since 10:01:06, ends at 10:02:06"),
    ],
)
def test_the_phase_of_a_state_and_its_timer(last: str, phase: str, timer: str | None) -> None:
    leg = only(explain(played(f'{{start: "10:00:00", LAST: "{last}"}}'), "held", "600519.SH"))
    assert (leg.phase, leg.timer) == (phase, timer)


def test_an_edge_that_has_seen_no_valid_sample_has_not_started() -> None:
    leg = explain(played('{start: "10:00:00", LAST: "nan"}'), "legs", "600519.SH").legs[0]
    assert (leg.phase, values(leg)) == ("not started", {"LAST>1000": None, "LAST": None})


def test_every_leg_is_explained() -> None:
    legs = explain(played('{start: "10:00:00", LAST: "9 11"}'), "legs", "600519.SH").legs
    assert [(leg.leg, leg.sent_today) for leg in legs] == [("a", 0), ("b", 1)]


# ── scope and session ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "symbol", "instruments", "why"),
    [
        ("over", "600519.SH", "{}", None),
        ("over", "000001.SZ", "{}", "select wants one of 1 symbols"),
        ("trend", "000001.SZ", "{}", "select wants board star; this is main"),
        ("trend", "688001.SH", "{688001.SH: {name: N新}}", "select excludes it"),
        ("bank", "000001.SZ", "{}", "select wants a name like *行; this is not known"),
        ("bank", "000001.SZ", "{000001.SZ: {name: 平安银行}}", "select wants sector 银行; this is in none known"),
        ("bank", "000001.SZ", "{000001.SZ: {name: 平安银行, sectors: [银行]}}", None),
    ],
)
def test_why_a_rule_does_not_watch_a_symbol(rule: str, symbol: str, instruments: str, why: str | None) -> None:
    engine = played('{start: "10:00:00", LAST: "9"}', instruments=instruments, symbol=symbol)
    assert explain(engine, rule, symbol).not_watched == why


def test_why_a_rule_is_not_sampled() -> None:
    engine = played('{start: "10:00:00", LAST: "9"}')
    assert explain(engine, "over", "600519.SH").not_sampled is None
    assert explain(engine, "over", "000001.SZ").not_sampled == "no tick of it has come"
    assert explain(engine, "over-now", "600519.SH").not_sampled == "the rule has expired"
    assert explain(engine, "auction", "600519.SH").not_sampled == "the time is outside open_auction"
    engine.step(Mark(MarkKind.SILENT, engine.market.clock_ms + 10_000))
    assert explain(engine, "over", "600519.SH").not_sampled == "the feed is silent"
    halted = played('{start: "10:00:00", LAST: "9", STATUS: "17"}')
    assert explain(halted, "over", "600519.SH").not_sampled == "the symbol is halted"


def test_an_unknown_rule_is_refused_and_an_engine_that_saw_nothing_explains() -> None:
    engine = Engine()
    with pytest.raises(RuleError, match="there is no rule 'nope'"):
        explain(engine, "nope", "600519.SH")
    engine.step(Control(ControlKind.RULES, load({"r": RULES}).source))
    explanation = explain(engine, "over", "600519.SH")
    assert (explanation.clock, explanation.tick, explanation.legs) == (None, None, ())
    assert "no tick of it has come" in render(explanation)


def test_the_text_shows_unknown_values_and_the_last_events() -> None:
    engine = played('{start: "10:00:00", LAST: "9 11"}')
    event = {"event_ts": "2025-01-02T10:00:03.000+08:00", "event": "suppressed", "why": "cooldown", "message": "hello"}
    explanation = explain(engine, "over", "600519.SH", last=[event])
    lines = [line.strip() for line in render(explanation).split("\n")]
    assert lines[0] == "rule over, 600519.SH, at 2025-01-02 10:00:03"
    assert any(line.startswith("PCT>3") and line.endswith("- unknown") for line in lines)
    assert lines[-1] == "2025-01-02 10:00:03 suppressed (cooldown) hello"
    assert Explanation.of(explanation.record()) == explanation
    assert instrument_of("600519.SH").name is None
