"""Parameters of rules, and shipped rules used with others: what they mean, and how mistakes are told at their place."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator

import pytest

from feeds.instruments import Board
from rules.catalog.shipped import TEXTS, shipped_rules
from rules.errors import RuleFileError
from rules.language.report import render
from rules.language.text import normal_formula
from rules.rule import Frequency, Mode, Rule, RuleSet
from rules.rulefile import from_source, load

HEAD = "version: 1\ngroups:\n- name: g\n  labels: {team: a, kind: mine}\n  rules:\n"


def rules(*lines: str, head: str = HEAD) -> RuleSet:
    """Return the set of rules given in YAML flow style, each without its braces."""
    return load({"f": head + "".join(f"  - {{{line}}}\n" for line in lines)})


def one(line: str) -> Rule:
    (rule,) = rules(line).rules
    return rule


def refused(*lines: str) -> list[str]:
    """Return `column+width message` of every finding; each has a hint."""
    with pytest.raises(RuleFileError) as caught:
        rules(*lines)
    assert all(finding.hint and finding.file == "f" for finding in caught.value.findings)
    return [f"{f.column}+{f.width} {f.message}" for f in caught.value.findings]


def hints(*lines: str) -> str:
    with pytest.raises(RuleFileError) as caught:
        rules(*lines)
    return " | ".join(str(finding.hint) for finding in caught.value.findings)


# ── parameters ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "number"),
    [("3", "3"), ("3%", "0.03"), ("-2.5%", "-0.025"), ("5m", "300"), ("1h30m", "5400"), ("250ms", "0.25"),
     ("1e6", "1000000"), (".5", "0.5"), ("+4", "4"), ("'7'", "7")],
)  # fmt: skip
def test_a_parameter_is_the_number_it_says(written: str, number: str) -> None:
    rule = one(f"id: r, select: all, params: {{x: {written}}}, when: PCT > x, rearm: PCT < 0")
    assert normal_formula(rule.legs[0].when) == f"PCT>{number}"


def test_parameters_stand_wherever_a_number_may_and_case_makes_no_difference() -> None:
    rule = one(
        "id: r, select: all, period: 1m, params: {Days: 5, up: 3%}, "
        "when: 'M: MA(C,DAYS); C > M*(1+UP)', rearm: 'C < MA(C,days)', message: '{days:.0f} {Up:.1%} {M:.2f}'"
    )
    assert normal_formula(rule.legs[0].when) == "M:MA(C,5);C>M*(1+0.03)"
    assert rule.legs[0].rearm is not None
    assert normal_formula(rule.legs[0].rearm) == "C<MA(C,5)"
    assert rule.messages["fire"].render({"M": 9.5}) == "5 3.0% 9.50"


def test_another_value_is_another_meaning() -> None:
    def rev(value: str) -> str:
        return one(f"id: r, select: all, params: {{x: {value}}}, when: PCT > x, rearm: PCT < 0").rev

    assert rev("3") == rev("3.0") == one("id: r, select: all, when: PCT > 3, rearm: PCT < 0").rev
    assert rev("3") != rev("4")


@pytest.mark.parametrize(
    ("params", "when", "found"),
    [
        ("{x: fast}", "PCT > x", "38+4 a parameter is a number, not 'fast'"),
        ("{x: 1e999}", "PCT > x", "38+5 a parameter is a number, not '1e999'"),
        ("{x: .nan}", "PCT > x", "38+4 .nan without quotes is read as a number"),
        ("{x: 1:30}", "PCT > x", "38+4 1:30 without quotes is read as 90 by many YAML readers"),
        ("{x: [1]}", "PCT > x", "38+3 a text is needed here, not a list"),
        ("{x: 40d}", "PCT > x", "38+3 a duration is from 1ms to 31d, not '40d'"),
        ("{LAST: 1}", "LAST > 2", "35+4 LAST is a word of the language"),
        ("{name: 1}", "LAST > 2", "35+4 name is a word of the language"),
        ("{a-b: 1}", "LAST > 2", "35+3 'a-b' is no name"),
        ("{x: 1, X: 2}", "PCT > x", "41+1 X is x again"),
        ("[x]", "PCT > 1", "34+3 params is a table of key: value, not a list"),
        ("{x: 1}", "'x:=2; PCT > x'", "49+1 x is a parameter and can't be assigned"),
        ("{k: 0}", "'REF(LAST,k) > MA(C,k)'", "63+2 MA looks back over bars, and period tick has none"),
    ],
)
def test_bad_parameters_are_refused_at_their_place_and_nothing_else_is(params: str, when: str, found: str) -> None:
    assert refused(f"id: r, select: all, params: {params}, when: {when}, cooldown: 1m") == [found]


def test_a_parameter_that_nothing_uses_is_linted() -> None:
    (warning,) = rules("id: r, select: all, params: {x: 1, z: 2}, when: PCT > x, rearm: PCT < 0").warnings
    assert (warning.message, warning.column) == ("parameter z is not used", 44)


# ── shipped rules ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_used_rule_is_the_shipped_one() -> None:
    (shipped,) = (rule for rule in load(dict(TEXTS)).rules if rule.id == "limit-up-sealed")
    rule = one("use: limit-up-sealed")
    assert (rule.id, rule.rev, rule.legs, rule.messages) == (shipped.id, shipped.rev, shipped.legs, shipped.messages)
    assert (rule.mode, rule.frequency) == (Mode.STATE, Frequency.ALWAYS)
    assert rule.labels == {"team": "a", **shipped.labels}
    assert (rule.file, rule.line, rule.group) == ("f", 6, "g")


def test_what_stands_beside_use_replaces_what_the_shipped_rule_says() -> None:
    rule = one(
        "id: mine, use: limit-up-near, select: {board: [star]}, params: {NEAR: 2%}, cooldown: 1h, max_per_day: 1, "
        "severity: critical, labels: {zh: 快了}, message: '{near:.0%} {LAST}'"
    )
    assert (rule.id, rule.cooldown_ms, rule.max_per_day, rule.severity) == ("mine", 3_600_000, 1, "critical")
    assert rule.select.boards == {Board.STAR}
    assert normal_formula(rule.legs[0].when) == "LAST>=LIMITUP*(1-0.02) AND LAST<LIMITUP"
    assert rule.legs[0].rearm is not None
    assert normal_formula(rule.legs[0].rearm) == "LAST<LIMITUP*(1-0.03)"
    assert (rule.labels["zh"], rule.labels["kind"]) == ("快了", "pankou")
    assert rule.messages["fire"].render({"LAST": 9.9}) == "2% 9.9"
    assert rule.frequency is Frequency.ALWAYS


def test_defaults_of_the_file_do_not_reach_into_a_used_rule() -> None:
    head = HEAD.replace("groups", "defaults: {period: 5m, freq: once, severity: critical}\ngroups")
    (rule,) = rules("use: limit-up-near", head=head).rules
    assert (rule.period, rule.frequency, rule.severity) == ("tick", Frequency.ALWAYS, "info")


def test_one_shipped_rule_may_be_used_twice_under_two_ids() -> None:
    found = rules("use: limit-up-near", "id: closer, use: limit-up-near, params: {near: 0.5%}").rules
    assert [rule.id for rule in found] == ["limit-up-near", "closer"]
    assert found[0].rev != found[1].rev


def test_messages_are_in_the_language_of_the_set() -> None:
    text = HEAD + "  - use: limit-up-near\n"
    (zh,), (en,) = (load({"f": text}, language=language).rules for language in ("zh", "en"))
    assert zh.messages["fire"].text.startswith("{name} 逼近涨停")
    assert en.messages["fire"].render({"name": "X"}).startswith("X within 1.0% of limit-up")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("use: limit-up-neer", "11+13 there is no shipped rule 'limit-up-neer'"),
        ("use: [gap-up]", "11+8 a text is needed here, not a list"),
        ("use: limit-up-near, params: {neer: 1%}", "35+4 the shipped rule has no parameter 'neer'"),
        ("use: limit-up-near, when: SEALUP", "26+4 a rule with use has no key 'when'"),
        ("use: limit-up-near, period: 1m", "26+6 a rule with use has no key 'period'"),
        ("use: limit-up-near, for: 3s", "26+3 for does not go with mode: edge"),
        ("use: limit-up-near, freq: once_per_bar", "32+12 freq: once_per_bar needs bars, and period tick has none"),
        ("use: gap-up, params: {least: x}", "35+1 a parameter is a number, not 'x'"),
        ("use: gap-up, message: '{edge} {open_}'", "37+5 unknown name 'open_' in the message"),
        ("use: range-volume, params: {base: 2.5}",
         "40+3 base = 2.5: SUM(X,N): N is a number of bars and must be whole, not 2.5"),
        ("use: range-volume, params: {minutes: 5m, base: 3000}",
         "53+4 base = 3000: SUM(X,N): N must be at most 2000 bars, not 3000"),
        ("use: range-volume, params: {base: 0}", "40+1 base = 0: division by zero: the value is never known"),
    ],
)  # fmt: skip
def test_bad_use_is_refused_at_its_place_in_the_users_file(line: str, found: str) -> None:
    assert found in refused(line)


def test_hints_name_what_was_meant() -> None:
    assert hints("use: limit-up-neer") == "did you mean limit-up-near?"
    assert hints("use: limit-up-near, params: {neer: 1%}") == "did you mean near?"
    assert hints("use: limit-up-sealed, params: {x: 1%}") == "it has none"
    assert hints("use: zzz") == "docs/catalog.md lists them"


def test_shipped_rule_files_are_good_free_of_lints_and_named_once() -> None:
    found = load(dict(TEXTS))
    assert found.warnings == ()
    assert [rule.id for rule in found.rules] == list(shipped_rules())
    assert load(dict(TEXTS), language="en").warnings == ()
    for rule in found.rules:
        assert rule.messages["fire"].text, rule.id
        assert {"zh", "en", "kind"} <= set(rule.labels), rule.id


USE_FILE = (
    HEAD
    + """  - use: limit-up-sealed
  - id: near
    use: limit-up-near
    select: {board: [main, star]}
    params: {near: 2%, back: 4%}
    cooldown: 5m
  - use: gap-up
    params: {least: 1%, within: 3m}
    message: "{name} {EDGE:.2f} {least:.0%}"
  - use: range-volume
    params: {minutes: 3, base: 20, times: 5}
    max_per_day: 2
  - id: own
    select: all
    params: {up: 7%, cny: 1e7}
    when: PCT >= up*100 AND AMTDAY > cny
    rearm: PCT < up*90
"""
)
_INSERTED = "()<>=:;,.{}[]'\"%&*#!|-+ \n\t0A５；（\\"


def mutated(text: str, rng: random.Random) -> str:
    """Return the text with one to three characters gone, put in, changed or swapped."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(HEAD) - 10, len(text) - 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + text[at + 1 :]
            case 1:
                text = text[:at] + rng.choice(_INSERTED) + text[at:]
            case 2:
                text = text[:at] + rng.choice(_INSERTED) + text[at + 1 :]
            case _:
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Spare a measurement the collections that look through what hundreds of other tests have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen_heap")
def test_200_slips_in_a_file_that_uses_the_catalog_are_refused_with_place_and_hint_or_valid() -> None:
    load({"f": USE_FILE})
    refusals, slowest_s = 0, 0.0
    for seed in range(200):
        text = mutated(USE_FILE, random.Random(seed))
        start = time.process_time()
        try:
            found = load({"f": text})
        except RuleFileError as error:
            slowest_s = max(slowest_s, time.process_time() - start)
            refusals += 1
            lines = text.split("\n")
            for finding in error.findings:
                assert finding.file == "f"
                assert 1 <= finding.line <= len(lines)
                assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
                assert finding.hint, render(finding)
        else:
            slowest_s = max(slowest_s, time.process_time() - start)
            assert from_source(found.source) == found
    assert 60 < refusals < 195
    assert slowest_s < 0.1
