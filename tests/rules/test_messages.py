"""The languages of messages: which text an event gets, and what is refused."""

from __future__ import annotations

import pytest

from feeds.inputs import Control, ControlKind
from rules.engine import Engine
from rules.errors import RuleError, RuleFileError
from rules.rulefile import from_source, load


def text(message: str) -> str:
    rule = f'{{id: a, select: all, when: "X: PCT; X > 3", cooldown: 1m, message: {message}}}'
    return f"version: 1\ngroups:\n- name: g\n  rules:\n  - {rule}\n"


def messages(message: str, language: str) -> dict[str, str]:
    (rule,) = load({"r.yaml": text(message)}, language=language).rules
    return {event: template.text for event, template in rule.messages.items()}


@pytest.mark.parametrize(
    ("message", "zh", "en"),
    [
        ('"涨 {X}"', {"fire": "涨 {X}"}, {"fire": "涨 {X}"}),
        ('{zh: "涨 {X}", en: "up {X}"}', {"fire": "涨 {X}"}, {"fire": "up {X}"}),
        ('{fire: "涨", resolve: "回"}', {"fire": "涨", "resolve": "回"}, {"fire": "涨", "resolve": "回"}),
        (
            '{fire: {zh: "涨", en: up}, resolve: {en: back}}',
            {"fire": "涨", "resolve": "back"},
            {"fire": "up", "resolve": "back"},
        ),
        (
            '{zh: {fire: "涨", resolve: "回"}, en: {fire: up}}',
            {"fire": "涨", "resolve": "回"},
            {"fire": "up", "resolve": "回"},
        ),
        (
            '{zh: "涨", en: {fire: up, resolve: back}}',
            {"fire": "涨", "resolve": "back"},
            {"fire": "up", "resolve": "back"},
        ),
    ],
)
def test_each_event_gets_the_text_of_the_language_else_the_other(
    message: str, zh: dict[str, str], en: dict[str, str]
) -> None:
    assert messages(message, "zh") == zh
    assert messages(message, "en") == en


@pytest.mark.parametrize(
    ("message", "place", "complaint", "hint"),
    [
        ('{zh: "{NO}", en: "{X}"}', "NO", "unknown name 'NO'", ""),
        ('{zh: "{X}", en: "{YES}"}', "YES", "unknown name 'YES'", ""),
        ('{fire: {zh: "{X}", en: "{X:q}"}}', "q}", "'q' is no format for X", ""),
        ("{zh: a, fire: b}", "zh", "events and languages stand side by side", "message: {zh: {fire:"),
        ("{fire: {fire: a}}", "fire: a", "message can't be 'fire'", "zh, en"),
        ("{zh: {en: a}}", "en", "message can't be 'en'", "pending, fire"),
        ("{zh: {fire: {en: a}}}", "en", "both are given", "write a text here"),
        ("{de: auf}", "de", "message can't be 'de'", ""),
        ("{fire: {}}", "{}", "there is no message here", "remove the key"),
        ("{fire: [a]}", "[a]", "a text is needed here", ""),
    ],
)
def test_every_language_is_checked_at_load(message: str, place: str, complaint: str, hint: str) -> None:
    source = text(message)
    for language in ("zh", "en"):
        with pytest.raises(RuleFileError) as refused:
            load({"r.yaml": source}, language=language)
        finding = refused.value.findings[0]
        assert complaint in finding.message
        assert hint in (finding.hint or "")
        line = source.split("\n")[4]
        assert finding.line == 5
        assert line[finding.column - 1 :].startswith(place)


def test_a_rule_set_made_again_from_its_source_speaks_the_same_language() -> None:
    made = load({"r.yaml": text("{zh: 涨, en: up}")}, language="en")
    assert from_source(made.source) == made
    plain = load({"r.yaml": text("{zh: 涨, en: up}")})
    assert '"language"' not in plain.source
    assert from_source(plain.source).rules[0].messages["fire"].text == "涨"


def test_an_unknown_language_is_refused() -> None:
    source = load({"r.yaml": text("hello")}, language="en").source.replace('"en"', '"xx"')
    with pytest.raises(RuleError, match="'xx', this program has zh, en"):
        from_source(source)
    with pytest.raises(RuleError):
        Engine().step(Control(ControlKind.RULES, source))
