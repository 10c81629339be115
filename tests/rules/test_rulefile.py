"""Rule files: what they become, and how every mistake is told at its place in the file."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from feeds.instruments import Board, Instrument
from feeds.sessions import Session
from rules.document import MAX_DEPTH
from rules.errors import RuleError, RuleFileError
from rules.graph import Graph
from rules.language.report import render
from rules.language.text import normal, normal_formula
from rules.program import compile_slots
from rules.rule import Evaluation, Flap, Frequency, Gap, Mode, OnStart, Rule, RuleSet
from rules.rulefile import from_source, load, value_exprs
from rules.selector import Selector
from rules.state import StateTable
from tests.rules.w1 import Columns

EXAMPLE = Path(__file__).parents[2] / "config" / "rules" / "example.yaml"

HEAD = "version: 1\ngroups:\n- name: g\n  rules:\n"


def rule_file(*lines: str) -> str:
    """Return a file of one rule `r` over everything, with these further lines."""
    return HEAD + "  - id: r\n" + "".join(f"    {line}\n" for line in ("select: all", *lines))


def one(*lines: str) -> Rule:
    (rule,) = load({"f": rule_file(*lines)}).rules
    return rule


def errors(text: str) -> list[str]:
    """Return the refused file's findings as line:column+width message."""
    with pytest.raises(RuleFileError) as caught:
        load({"f": text})
    assert all(finding.hint for finding in caught.value.findings)
    return [f"{f.line}:{f.column}+{f.width} {f.message}" for f in caught.value.findings]


def bad(*lines: str) -> list[str]:
    return errors(rule_file(*lines))


# ── what a file becomes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_rule() -> None:
    text = """version: 1
defaults: {period: 5m, eval: bar_close, severity: warning, cooldown: 1h}
groups:
- name: price
  labels: {kind: price, team: a}
  rules:
  - id: brk-moutai
    select: [600519.SH]
    when: CROSS(LAST, 1800)
    rearm: LAST < 1782
    period: tick
    eval: tick
    freq: always
    cooldown: 10m
    max_per_day: 5
    on_start: fire
    session: [open_auction, continuous, open_auction]
    expires: "2026-12-31 14:00"
    labels: {team: b}
    message: {fire: "{name} {LAST:.2f}", resolve: "{symbol}"}
  - id: 均线
    select: {glob: ["60*.SH"]}
    when: CROSS(MA(C,5),MA(C,10))
"""
    first, second = load({"rules.yaml": text}).rules
    assert (first.id, first.group, first.file, first.line) == ("brk-moutai", "price", "rules.yaml", 7)
    assert first.select == Selector(symbols=frozenset({"600519.SH"}))
    assert normal_formula(first.legs[0].when) == "CROSS(LAST,1800)"
    assert first.legs[0].rearm is not None
    assert (first.period, first.evaluation, first.mode) == ("tick", Evaluation.TICK, Mode.EDGE)
    assert (first.frequency, first.cooldown_ms, first.max_per_day) == (Frequency.ALWAYS, 600_000, 5)
    assert (first.on_start, first.severity) == (OnStart.FIRE, "warning")
    assert first.session == (Session.OPEN_AUCTION, Session.CONTINUOUS)
    assert first.expires_ms == 1798696800000
    assert first.labels == {"kind": "price", "team": "b"}
    assert {event: template.text for event, template in first.messages.items()} == {
        "fire": "{name} {LAST:.2f}",
        "resolve": "{symbol}",
    }
    assert (second.id, second.period, second.cooldown_ms) == ("均线", "5m", 3_600_000)
    assert second.evaluation is Evaluation.BAR_CLOSE
    assert second.labels == {"kind": "price", "team": "a"}


def test_defaults_of_defaults() -> None:
    rule = one("when: SEALUP")
    assert (rule.period, rule.evaluation, rule.mode, rule.session, rule.frequency) == (
        "tick", Evaluation.TICK, Mode.EDGE, (Session.CONTINUOUS,), Frequency.ONCE_PER_DAY,
    )  # fmt: skip
    assert (rule.cooldown_ms, rule.max_per_day, rule.expires_ms, rule.on_start) == (None, None, None, OnStart.SUPPRESS)
    assert rule.messages == {}


def test_a_date_alone_expires_at_its_end_in_shanghai() -> None:
    assert one("when: SEALUP", "expires: 2026-12-31").expires_ms == 1798732800000


@pytest.mark.parametrize(
    ("written", "ms"),
    [("30s", 30_000), ("10m", 600_000), ("1h30m", 5_400_000), ("250ms", 250), ("1.5h", 5_400_000), ("1d", 86_400_000)],
)
def test_durations(written: str, ms: int) -> None:
    assert one("when: SEALUP", f"cooldown: {written}").cooldown_ms == ms


def test_legs() -> None:
    rule = one('legs: {up: {when: PCT > 5, rearm: "PCT < 4"}, down: {when: PCT < -5}}', "cooldown: 1m")
    assert [(leg.name, normal_formula(leg.when), leg.rearm is None) for leg in rule.legs] == [
        ("up", "PCT>5", False),
        ("down", "PCT<-5", True),
    ]


@pytest.mark.parametrize(
    ("select", "covered"),
    [
        ("all", "ABCD"),
        ("[600519.SH, 430047.BJ]", "AD"),
        ("600519.SH", "A"),
        ('{glob: ["6*.SH"]}', "AB"),
        ("{board: [main, star]}", "ABC"),
        ("{board: star}", "B"),
        ('{name: ["*ST*"]}', "C"),
        ("{sector: [白酒]}", "A"),
        ('{exclude: {name: ["*ST*"]}}', "ABD"),
        ('{all: true, exclude: {board: [star], name: ["*ST*"]}}', "AD"),
        ('{board: [main], symbols: ["600519.SH"]}', "A"),
    ],
)
def test_selections(select: str, covered: str) -> None:
    market = {
        "A": Instrument("600519.SH", name="贵州茅台", board=Board.MAIN, sectors=("白酒",)),
        "B": Instrument("688981.SH", name="中芯国际", board=Board.STAR),
        "C": Instrument("000005.SZ", name="*ST星源", board=Board.MAIN),
        "D": Instrument("430047.BJ"),
    }
    (rule,) = load({"f": rule_file("when: SEALUP").replace("select: all", f"select: {select}")}).rules
    assert "".join(key for key, instrument in market.items() if rule.select.covers(instrument)) == covered


def test_several_files_keep_their_order() -> None:
    second = rule_file("when: SEALUP").replace("id: r", "id: a")
    assert [rule.id for rule in load({"z": rule_file("when: SEALUP"), "b": second}).rules] == ["r", "a"]
    assert load({}).rules == ()


# ── the source and the revision ───────────────────────────────────────────────────────────────────────────────────────


def test_a_set_is_made_again_from_its_source() -> None:
    texts = {"规则.yaml": EXAMPLE.read_text("utf-8"), "b": rule_file("when: PCT > 5")}
    made = load(texts)
    again = from_source(made.source)
    assert again == made
    assert again.warnings == made.warnings
    assert from_source(again.source).source == made.source


@pytest.mark.parametrize(
    "source", ["", "{}", "[]", '{"v":2,"files":[]}', '{"v":1,"files":[["a",1]]}', '{"v":1,"files":3}']
)
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(RuleError):
        from_source(source)


def test_bad_rules_in_a_source_are_refused_like_in_a_file() -> None:
    with pytest.raises(RuleFileError, match="unknown name 'NOPE'"):
        from_source(orjson.dumps({"v": 1, "files": [["f", rule_file("when: NOPE > 1")]]}).decode())


BASE = ("when: CLOSE > 5 AND PCT>3", "rearm: PCT < 2", "message: hello", "labels: {a: b}")


@pytest.mark.parametrize(
    "lines",
    [
        ("when: C>5 and ( pct > 3 )", *BASE[1:]),
        ("when: 'C > 5 AND {comment} PCT > 3;'", *BASE[1:]),
        (*BASE[:2], 'message: "{name}"', "labels: {}", "severity: critical"),
        (*BASE, "period: tick", "mode: edge", "session: [continuous]"),
    ],
)
def test_spelling_labels_and_texts_keep_the_revision(lines: tuple[str, ...]) -> None:
    assert one(*lines).rev == one(*BASE).rev


@pytest.mark.parametrize(
    "lines",
    [
        ("when: C > 5 AND PCT>4", *BASE[1:]),
        (BASE[0], "rearm: PCT < 1", *BASE[2:]),
        (BASE[0], "cooldown: 1m", *BASE[2:]),
        (*BASE, "period: 1m"),
        (*BASE, "freq: always"),
        (*BASE, "cooldown: 5m"),
        (*BASE, "max_per_day: 5"),
        (*BASE, "expires: 2030-01-01"),
        (*BASE, "on_start: fire"),
        (*BASE, "session: all_trading"),
        (f"legs: {{x: {{{BASE[0]}, {BASE[1]}}}}}", *BASE[2:]),
    ],
)
def test_what_changes_the_meaning_changes_the_revision(lines: tuple[str, ...]) -> None:
    assert one(*lines).rev != one(*BASE).rev


def test_another_selection_is_another_revision() -> None:
    text = rule_file(*BASE)
    (changed,) = load({"f": text.replace("select: all", "select: [600519.SH]")}).rules
    assert changed.rev != one(*BASE).rev


# ── values of events ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_carry_outputs_operands_and_names_of_the_message() -> None:
    rule = one(
        "period: 5m",
        "when: |",
        "  n:=5; 五日:MA(close, n); HI:=hhv(H,20);",
        "  CROSS(五日, MA(C,10)) AND (C > HI * 2 OR 3 > 1+1) AND LONGCROSS(V, REF(V,1), 3) AND n < C",
        'message: "{last} {PCT} {五日} {name}"',
    )
    values = value_exprs(rule, rule.legs[0])
    assert list(values) == ["五日", "MA(C,10)", "C", "HI*2", "V", "REF(V,1)", "LAST", "PCT"]
    assert normal(values["HI*2"]) == "HI*2"


def test_every_leg_has_its_own_values() -> None:
    rule = one("legs: {a: {when: PCT > 5}, b: {when: SEALUP}}", "cooldown: 1m", 'message: "{LAST}"')
    assert [list(value_exprs(rule, leg)) for leg in rule.legs] == [["PCT", "LAST"], ["LAST"]]


# ── mistakes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TRAPS = {
    "on as a key": (("on: tick", "when: SEALUP"), ["7:5+2 on without quotes is read as True by many YAML readers"]),
    "a symbol without exchange": (
        ("when: SEALUP", "labels: {code: 000001}"),
        ["8:20+6 000001 without quotes is read as a number"],
    ),
    "a time": (
        ("when: SEALUP", "labels: {at: 14:57}"),
        ["8:18+5 14:57 without quotes is read as 897 by many YAML readers"],
    ),
    "no as a text": (
        ("when: SEALUP", "labels: {a: no}"),
        ["8:17+2 no without quotes is read as False by many YAML readers"],
    ),
    "Yes as a text": (
        ("when: SEALUP", "message: Yes"),
        ["8:14+3 Yes without quotes is read as True by many YAML readers"],
    ),
    "true as a formula": (("when: true",), ["7:11+4 true without quotes is a truth value, and a text is needed here"]),
    "an empty value": (("when:",), ["7:9+1 there is no value here"]),
    "null": (("when: ~",), ["7:11+1 there is no value here"]),
    "octal": (("when: SEALUP", "labels: {a: 0o17}"), ["8:17+4 0o17 without quotes is read as a number"]),
    "a number as a key": (("when: SEALUP", "labels: {1: a}"), ["8:14+1 1 is a number"]),
    "a duplicate key": (("when: SEALUP", "when: SEALDOWN"), ["8:5+4 duplicate key 'when'"]),
    "a tab": (("when: SEALUP", "\tfreq: always"), ["8:5+1 a tab where YAML wants spaces"]),
    "an undefined alias": (
        ("when: SEALUP", "message: *ST"),
        ["8:14+1 not YAML: found undefined alias 'ST'"],
    ),
    "a tag": (("when: !!str SEALUP",), ["7:11+12 tags are not used in rule files"]),
    "a merge key": (("when: SEALUP", "<<: {freq: always}"), ["8:5+2 a rule has no key '<<'"]),
    "a list as a key": (("when: SEALUP", "? [a]", ": b"), ["8:7+3 a key must be one word"]),
    "a misspelt key": (("when: SEALUP", "cooldwon: 10m"), ["8:5+8 a rule has no key 'cooldwon'"]),
    "a duration without unit": (("when: SEALUP", "cooldown: 600"), ["8:15+3 a duration is needed here, not '600'"]),
    "a duration of nothing": (("when: SEALUP", "cooldown: 0s"), ["8:15+2 a duration is from 1ms to 31d, not '0s'"]),
    "a list for a text": (("when: [SEALUP]",), ["7:11+8 a text is needed here, not a list"]),
    "a text for a number": (
        ("when: SEALUP", 'max_per_day: "5"'),
        ["8:18+3 a whole number is needed here, not '5'"],
    ),
    "a fraction for a number": (
        ("when: SEALUP", "max_per_day: 1.5"),
        ["8:18+3 a whole number is needed here, not '1.5'"],
    ),
    "nought for a number": (
        ("when: SEALUP", "max_per_day: 0"),
        ["8:18+1 a number from 1 to 1000000 is needed here, not 0"],
    ),
    "an unknown choice": (("when: SEALUP", "freq: alwais"), ["8:11+6 freq can't be 'alwais'"]),
    "an unknown session": (("when: SEALUP", "session: [continuous, lunch]"), ["8:27+5 session can't be 'lunch'"]),
    "no date": (("when: SEALUP", "expires: soon"), ["8:14+4 'soon' is no date in Shanghai time"]),
    "an impossible date": (
        ("when: SEALUP", "expires: 2026-02-30"),
        ["8:14+10 '2026-02-30' is no date in Shanghai time"],
    ),
    "the last date of all": (
        ("when: SEALUP", "expires: 9999-12-31"),
        ["8:14+10 '9999-12-31' is no date in Shanghai time"],
    ),
    "bars on ticks": (
        ("when: SEALUP", "eval: bar_close", "freq: once_per_bar"),
        [
            "8:11+9 eval: bar_close needs bars, and period tick has none",
            "9:11+12 freq: once_per_bar needs bars, and period tick has none",
        ],
    ),
    "no condition": ((), ["5:5+1 when is missing"]),
    "when beside legs": (("when: SEALUP", "legs: {a: {when: SEALUP}}"), ["7:5+4 when and legs can't stand together"]),
    "no leg": (("legs: {}",), ["7:11+2 legs is empty"]),
    "a leg with more": (("legs: {a: {when: SEALUP, for: 3s}}",), ["7:30+3 a leg has no key 'for'"]),
    "an unknown event": (("when: SEALUP", "message: {fired: x}"), ["8:15+5 message can't be 'fired'"]),
    "a word of bars in a tick message": (
        ("when: SEALUP", 'message: "{H}"'),
        ["8:16+1 unknown name 'H' in the message"],
    ),
    "a private name in a message": (
        ("when: A:=PCT; A > 5", "cooldown: 1m", 'message: "{A}"'),
        ["9:16+1 unknown name 'A' in the message"],
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_an_error_at_its_place(name: str) -> None:
    lines, findings = TRAPS[name]
    assert bad(*lines) == findings


@pytest.mark.parametrize(
    ("code", "meant"),
    [("000001", "000001.SZ"), ("600519", "600519.SH"), ("300750", "300750.SZ"), ("430047", "430047.BJ"),
     ("920002", "920002.BJ"), ("510300", "510300.SH"), ("159915", "159915.SZ"), ("688981", "688981.SH")],
)  # fmt: skip
def test_a_bare_code_is_refused_with_its_exchange(code: str, meant: str) -> None:
    for written in (code, f'"{code}"'):
        with pytest.raises(RuleFileError) as caught:
            load({"f": rule_file("when: SEALUP").replace("all", f"[{written}]")})
        (finding,) = caught.value.findings
        assert finding.hint == f"write {meant}"
        assert (finding.line, finding.column, finding.width) == (6, 14, len(written))


def test_000001_is_said_to_be_1() -> None:
    (finding,) = errors(rule_file("when: SEALUP").replace("all", "[000001]"))
    assert finding == "6:14+6 000001 is a code without its exchange, which YAML reads as the number 1"


@pytest.mark.parametrize(
    ("select", "finding"),
    [
        ("[600519.sh]", "6:14+9 '600519.sh' is no symbol"),
        ('["60*.SH"]', "6:14+8 '60*.SH' is no symbol"),
        ("[]", "6:13+2 the list is empty"),
        ("{}", "6:13+2 nothing is selected"),
        ("{bord: [main]}", "6:14+4 select has no 'bord'"),
        ("{board: [mian]}", "6:22+4 board can't be 'mian'"),
        ("{positions: main, board: [main]}", "6:31+5 board and positions can't stand together"),
        ("{all: no}", "6:19+2 all can only be true"),
        ("{exclude: [600519.SH]}", "6:23+11 exclude is a table of key: value, not a list"),
    ],
)
def test_a_bad_selection(select: str, finding: str) -> None:
    assert errors(rule_file("when: SEALUP").replace("select: all", f"select: {select}")) == [finding]


def test_the_fields_of_state_mode_are_read() -> None:
    rule = one("when: SEALUP", "mode: state", "for: 30s", "keep_firing: 1m", "gap: suppress", "period: 1w")
    assert (rule.mode, rule.for_ms, rule.keep_firing_ms, rule.gap, rule.period) == (
        Mode.STATE, 30_000, 60_000, Gap.SUPPRESS, "1w",
    )  # fmt: skip


def test_steps_flaps_and_confirmation_are_read() -> None:
    rule = one("when: SEALUP", "period: 1m", "confirm: bar_close", "freq: {step: 1.5%}", "flap: {over: 4, within: 10m}")
    assert (rule.confirm, rule.frequency, rule.step, rule.flap) == (True, Frequency.ALWAYS, 0.015, Flap(4, 600_000))


@pytest.mark.parametrize(
    "line",
    ["mode: state", "gap: suppress", "flap: {over: 4, within: 10m}", "freq: {step: 1%}", "freq: once_per_session"],
)
def test_every_field_of_the_life_changes_the_revision(line: str) -> None:
    assert one("when: SEALUP", line).rev != one("when: SEALUP").rev


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        (("for: 30s",), "8:5+3 for does not go with mode: edge"),
        (("keep_firing: 30s",), "8:5+11 keep_firing does not go with mode: edge"),
        (("rearm: LAST < 1", "mode: state"), "8:5+5 rearm does not go with mode: state"),
        (("confirm: bar_close",), "8:14+9 confirm needs bars"),
        (("freq: {stop: 1%}",), "8:11+10 freq is a word or {step: …}"),
        (("freq: {step: 0}",), "8:18+1 a share of up to 100% is needed here, not '0'"),
        (("freq: {step: 101%}",), "8:18+4 a share of up to 100% is needed here, not '101%'"),
        (("flap: {over: 4}",), "8:11+9 flap needs over and within"),
        (("flap: on",), "8:11+2 on without quotes is read as True by many YAML readers"),
    ],
)
def test_fields_of_the_life_that_make_no_sense_are_refused(lines: tuple[str, ...], finding: str) -> None:
    assert bad("when: SEALUP", *lines) == [finding]


def test_a_leg_of_a_state_has_no_rearm() -> None:
    assert bad("mode: state", "legs: {a: {when: LAST > 1, rearm: LAST < 1}}") == [
        "8:32+5 rearm does not go with mode: state"
    ]


FEED_TAKEN = "2:33+4 the id 'feed' is taken by the events of the feed's health"


def test_the_defaults_of_later_fields_are_taken() -> None:
    assert one("when: SEALUP", "gap: tag", "flap: off", "mode: edge").rev == one("when: SEALUP").rev


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "1:1+1 the file is empty"),
        ("# only a comment\n", "1:1+1 the file is empty"),
        ("hello", "1:1+5 a rule file is a table of key: value, not 'hello'"),
        ("- a\n", "1:1+3 a rule file is a table of key: value, not a list"),
        ("version: 1\n", "1:1+1 groups is missing"),
        ("groups: [{name: g, rules: [{id: r, select: all, when: SEALUP}]}]\n", "1:1+1 version is missing"),
        (
            "version: 2\ngroups: [{name: g, rules: [{id: r, select: all, when: SEALUP}]}]\n",
            "1:10+1 this program reads version 1",
        ),
        ("version: 1\ngroups: [{rules: [{id: r, select: all, when: SEALUP}]}]\n", "2:10+1 a group needs a name"),
        ("version: 1\ngroups: [{name: g}]\n", "2:10+1 a group needs rules"),
        ("version: 1\ngroups: [{name: g, rules: [{select: all, when: SEALUP}]}]\n", "2:28+1 a rule needs an id"),
        ("version: 1\ngroups: [{name: g, rules: [{id: feed, select: all, when: SEALED}]}]\n", FEED_TAKEN),
        ("version: 1\ngroups: [{name: g, rules: [{id: a b, select: all, when: SEALUP}]}]\n", "2:33+3 'a b' is no id"),
        ("version: 1\ngroups: [{name: g, rules: [{id: r, when: SEALUP}]}]\n", "2:28+1 select is missing"),
        (HEAD + "  - id: r\n---\na: b\n", "6:1+1 a second document"),
        ("a: [1\n", "2:1+1 not YAML: expected ',' or ']', but got '<stream end>'"),
        ('a: "\\UFFFFFFFF"\n', None),
        ("a: b\x07\n", None),
        ("\ufeff" * 2 + "a: b", None),
        ("%YAML 9.9\n---\na: b", None),
        ("[" * 100_000, None),
        ("- " * 100_000, None),
        ("{a: " * 5_000, None),
        ("x" * 600_000, "1:1+1 the file has 600000 characters, more than 512000"),
        ("a: &a [*a]\n", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_none(text: str, finding: str | None) -> None:
    found = errors(text)
    assert found
    if finding is not None:
        assert found == [finding]


def test_a_bomb_of_aliases_is_bounded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    start = time.process_time()
    (finding,) = errors(bomb)
    assert "more than 100000 values" in finding
    assert time.process_time() - start < 2


def test_aliases_go_as_deep_as_what_they_stand_for() -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, MAX_DEPTH + 2))
    (finding,) = errors(chain)
    assert f"nested more than {MAX_DEPTH} deep" in finding
    assert not any("deep" in finding for finding in errors(chain[: chain.index(f"a{MAX_DEPTH - 2}:")]))


def test_an_anchor_may_be_used_again() -> None:
    text = (
        rule_file("when: &cond PCT > 5", "cooldown: 1m")
        + "  - id: s\n    select: all\n    when: *cond\n    cooldown: 2m\n"
    )
    first, second = load({"f": text}).rules
    assert first.legs == second.legs


def test_a_rule_id_is_used_once_over_all_files() -> None:
    with pytest.raises(RuleFileError) as caught:
        load({"a.yaml": rule_file("when: SEALUP"), "b.yaml": rule_file("when: SEALUP")})
    assert str(caught.value) == (
        "b.yaml:5:9: error: rule r: rule id 'r' is used twice\n"
        "  - id: r\n"
        "        ^\n"
        "    hint: it is already in a.yaml:5"
    )


def test_a_bad_rule_keeps_its_id_taken() -> None:
    text = rule_file("when: NOPE > 1") + "  - id: r\n    select: all\n    when: SEALUP\n"
    assert [finding.split(" ", 1)[1] for finding in errors(text)] == [
        "unknown name 'NOPE'",
        "rule id 'r' is used twice",
    ]


def test_all_mistakes_of_all_files_are_told_in_order() -> None:
    bad_file = rule_file("freq: alwais", "when: NOPE > 1", "message: '{NO}'")
    with pytest.raises(RuleFileError) as caught:
        load({"b": bad_file, "a": "", "c": rule_file("when: SEALUP").replace("id: r", "id: c")})
    places = [(f.file, f.line) for f in caught.value.findings]
    assert places == [("b", 7), ("b", 8), ("b", 9), ("a", 1)]


STYLES = {
    "plain": ("when: PCT>3 AND 量比>2", "7:21+2"),
    "plain over lines": ("when: PCT>3 AND\n      量比>2", "8:7+2"),
    "literal block": ("when: |\n      X:=PCT;{注}\n      X>3 AND 量比>2", "9:15+2"),
    "literal block, more indented": ("when: |  # why\n      X:=PCT;\n         X>3 AND 量比>2", "9:18+2"),
    "folded block": ("when: >\n      PCT>3\n      AND 量比>2", "9:11+2"),
    "stripped block": ("when: |-\n\n      PCT>3 AND 量比>2", "9:17+2"),
    "single quotes": ("when: 'PCT>3 AND 量比>2'", "7:22+2"),
    "double quotes": ('when: "PCT>3 AND 量比>2"', "7:22+2"),
    "double quotes with escapes": ('when: "\\x50CT>3\\tAND \\u91cf比>2"', "7:26+7"),
    "double quotes over lines": ('when: "PCT>3 \\\n      AND\n\n      量比>2"', "10:7+2"),
    "anchor": ("when: &a PCT>3 AND 量比>2", "7:24+2"),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_formula_error_stands_at_its_place_in_every_yaml_style(style: str) -> None:
    written, place = STYLES[style]
    (finding,) = bad(written, "cooldown: 1m")
    assert finding == f"{place} unknown name '量比'"


def test_windows_line_ends_and_a_byte_order_mark_change_no_place() -> None:
    text = rule_file("when: |", "  PCT>3 AND", "  NOPE>2", "cooldown: 1m")
    assert errors("\ufeff" + text.replace("\n", "\r\n")) == errors(text) == ["9:7+4 unknown name 'NOPE'"]


def test_an_error_in_a_file_looks_as_documented() -> None:
    text = rule_file("when: |", "  MA5:=MA(C,5); MA10:=MA(C,10);", "  CORSS(MA5,MA10) AND C>MA(C,60)", "period: 5m")
    with pytest.raises(RuleFileError) as caught:
        load({"rules.yaml": text})
    assert str(caught.value) == (
        "rules.yaml:9:7: error: rule r: unknown function 'CORSS'\n"
        "      CORSS(MA5,MA10) AND C>MA(C,60)\n"
        "      ^^^^^\n"
        "    hint: did you mean CROSS?"
    )


def test_a_formula_that_ends_too_early_is_shown_at_its_end() -> None:
    assert bad("when: |", "  PCT >", "cooldown: 1m")[0].startswith("8:12+1 the formula ends where a value is needed")


# ── lints ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def warnings(*lines: str) -> list[str]:
    return [f"{f.line}:{f.column} {f.message}" for f in load({"f": rule_file(*lines)}).warnings]


def test_a_threshold_on_ticks_without_a_way_back_is_linted() -> None:
    said = ["7:5 fires anew each time a tick crosses the threshold, however little"]
    assert warnings("when: PCT > 5") == said
    assert warnings("when: CROSS(LAST,10)") == said
    for more in ("rearm: PCT < 4", "cooldown: 5m", "freq: once", "period: 1m\n    eval: bar_close"):
        assert warnings("when: PCT > 5", more) == []
    assert warnings("when: SEALUP") == []


def test_warns_of_an_age_that_is_looked_at_when_it_ends() -> None:
    said = ["7:11 a rule is looked at when its symbol ticks, and FEED_AGE is next to 0 then"]
    assert warnings("when: FEED_AGE > 60", "cooldown: 1m") == said
    assert warnings("when: FEED_AGE > 60", "cooldown: 1m", "period: 1m", "eval: bar_close") == []


def test_lints_of_formulas_stand_in_the_file_and_name_the_rule() -> None:
    made = load({"f": rule_file("when: SEALUP AND PCT>3 OR VALID", "cooldown: 1m")})
    (finding,) = made.warnings
    assert render(finding) == (
        "f:7:11: warning: rule r: AND and OR are mixed without parentheses; AND binds tighter\n"
        "    when: SEALUP AND PCT>3 OR VALID\n"
        "          ^^^^^^^^^^^^^^^^\n"
        "    hint: write (SEALUP AND PCT>3) if that is meant"
    )


# ── the shipped example, and what a slip of the finger makes of it ────────────────────────────────────────────────────


def compiled(rules: RuleSet) -> int:
    """Put every rule into a graph, as the engine does, and return how many slots there are."""
    state = StateTable(2)
    return len(compile_slots(rules, Graph(state, Columns(state))))


def test_the_shipped_example_is_free_of_lints_and_compiles() -> None:
    rules = load({"example.yaml": EXAMPLE.read_text("utf-8")})
    assert rules.warnings == ()
    assert compiled(rules) == len(rules.rules) >= 10
    assert all(rule.messages for rule in rules.rules)


MUTATIONS = 60
_INSERTED = "()<>=:;,.{}[]'\"%&*#!|-+ \n\t0A５；（\\"


def mutated(text: str, rng: random.Random) -> str:
    """Return the text with one to three slips: a character gone, doubled, changed or swapped, a line gone or moved."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) - 1)
        match rng.randrange(7):
            case 0:
                text = text[:at] + text[at + 1 :]
            case 1:
                text = text[:at] + rng.choice(_INSERTED) + text[at:]
            case 2:
                text = text[:at] + rng.choice(_INSERTED) + text[at + 1 :]
            case 3:
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            case 4:
                lines = text.split("\n")
                del lines[rng.randrange(len(lines))]
                text = "\n".join(lines)
            case 5:
                lines = text.split("\n")
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                text = "\n".join(lines)
            case _:
                text = text[: at // 2 * 2] if rng.random() < 0.2 else text.replace(rng.choice(_INSERTED), "", 1)
    return text


def test_slips_are_refused_quickly_with_place_and_hint_or_still_valid() -> None:
    good = EXAMPLE.read_text("utf-8")
    load({"x": good})
    refused = 0
    took_s: dict[str, float] = {}
    for seed in range(MUTATIONS):
        text = mutated(good, random.Random(seed))
        took_s[text] = loading_s(text)
        try:
            rules = load({"x": text})
        except RuleFileError as error:
            refused += 1
            lines = text.split("\n")
            for finding in error.findings:
                assert finding.file == "x"
                assert 1 <= finding.line <= len(lines)
                assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
                assert finding.hint, render(finding)
        else:
            assert from_source(rules.source) == rules
            compiled(rules)
    assert refused > MUTATIONS // 3
    # The slowest once more: what else the machine does is no property of the text.
    slowest = max(took_s, key=lambda text: took_s[text])
    assert min(loading_s(slowest) for _ in range(3)) < 0.1


def loading_s(text: str) -> float:
    """Return the CPU time of loading a file, good or bad."""
    start = time.process_time()
    with suppress(RuleFileError):
        load({"x": text})
    return time.process_time() - start


HALF_RULES = """\
version: 1
groups:
- name: {group}
  labels: {{team: {label}}}
  rules:
  - {{id: a, select: all, when: "LAST > 1", message: {message}, labels: {{{key}: x}}}}
"""


@pytest.mark.parametrize("half", [r'"x\ud800"', r'"\udc00"', r'"\ud83d\ude00"'])
@pytest.mark.parametrize(("field", "line"), [("group", 3), ("label", 4), ("message", 6), ("key", 6)])
def test_half_a_character_is_refused_at_its_place(field: str, line: int, half: str) -> None:
    """YAML's escapes can write it, and no encoder takes it: an alert with it in could be neither stored nor told."""
    words = {"group": "g", "label": "t", "message": "m", "key": "k"}
    text = HALF_RULES.format(**{**words, field: half})
    with pytest.raises(RuleFileError, match=r"alone is no character, but half of one") as refused:
        load({"f.yaml": text})
    (finding,) = refused.value.findings
    assert finding.line == line
    assert text.splitlines()[line - 1][finding.column - 1 :].startswith(half)
    whole = load({"f.yaml": HALF_RULES.format(**{**words, field: r'"\U0001F600"'})})
    assert orjson.loads(whole.source)


def test_half_a_character_in_the_text_itself_is_refused_and_can_be_told() -> None:
    with pytest.raises(RuleFileError) as refused:
        load({"f.yaml": HALF_RULES.format(group="\ud800", label="t", message="m", key="k")})
    assert str(refused.value).encode()


def test_files_read_before_give_the_same_set_in_any_company() -> None:
    files = {name: HEAD + f"  - {{id: {name}, select: all, when: LAST > 1}}\n" for name in ("b", "a", "c")}
    first, again = load(files), load(files)
    assert again == first
    assert [rule.id for rule in again.rules] == ["b", "a", "c"]
    assert all(one is other for one, other in zip(first.rules, again.rules, strict=True)), "they were kept"
    assert len(again.warnings) == 3
    assert from_source(again.source) == first
    assert load({"a": files["a"]}).rules == (first.rules[1],)
    assert load({"other": files["a"]}).rules[0].file == "other"
    assert load({**files, "a": "\ufeff" + files["a"]}).rules == first.rules


def test_an_id_in_two_files_that_were_read_before_is_told_at_the_second() -> None:
    files = {"a": rule_file("when: LAST > 1"), "b": rule_file("when: LAST > 2")}
    for file, text in files.items():
        load({file: text})
    for _ in range(2):
        with pytest.raises(RuleFileError) as told:
            load(files)
        assert [(one.file, one.line, one.hint) for one in told.value.findings] == [("b", 5, "it is already in a:5")]


def test_a_bad_file_beside_one_that_was_read_before_is_told_with_all_its_errors() -> None:
    bad = rule_file("when: LAST > ", "cooldown: 5")
    for _ in range(2):
        with pytest.raises(RuleFileError) as told:
            load({"good": rule_file("when: LAST > 1").replace("id: r", "id: q"), "bad": bad})
        assert [one.file for one in told.value.findings] == ["bad", "bad"]
