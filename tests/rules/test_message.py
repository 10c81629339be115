"""Message templates: what they show, and what they refuse to be."""

from __future__ import annotations

import math

import pytest

from rules.errors import RuleFileError
from rules.message import Template

ALLOWED = {"LAST", "PCT", "多头", "SEALUP"}


def shown(text: str, **values: float | str | None) -> str:
    return Template.parse(text, allowed=ALLOWED).render(values)


def test_the_message_of_the_rule_language_page() -> None:
    text = "{name} 突破 1800：{LAST:.2f} {PCT:+.2f}%"
    assert shown(text, name="贵州茅台", LAST=1801.0, PCT=0.1834) == "贵州茅台 突破 1800：1801.00 +0.18%"


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("{LAST}", 1801.0, "1801"),
        ("{LAST}", 18.5, "18.5"),
        ("{last}", 0.1 + 0.2, "0.3"),
        ("{LAST}", None, "-"),
        ("{LAST}", math.nan, "-"),
        ("{LAST:.2f}", None, "-"),
        ("{LAST:.2f}", math.nan, "-"),
        ("{LAST:,.0f}", 1234567.0, "1,234,567"),
        ("{LAST:>8.1f}|", 1.25, "     1.2|"),
        ("{LAST:.1%}", 0.125, "12.5%"),
        ("{LAST}", math.inf, "inf"),
        ("{{LAST}} {LAST}", 1.0, "{LAST} 1"),
        ("", 1.0, ""),
    ],
)
def test_a_value_is_shown(text: str, value: float | None, expected: str) -> None:
    assert shown(text, LAST=value) == expected


def test_missing_values_are_a_dash() -> None:
    assert shown("{name} {LAST}") == "- -"


def test_context_may_be_padded() -> None:
    assert shown("{symbol:<11}|{rule:>6}|", symbol="600519.SH", rule="r1") == "600519.SH  |    r1|"


def test_names_are_upper_case_once_each_and_without_context() -> None:
    assert Template.parse("{name}{last}{PCT}{LAST:.2f}{多头}", allowed=ALLOWED).names == ("LAST", "PCT", "多头")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{LSAT}", "m:1:2: error: unknown name 'LSAT' in the message\n{LSAT}\n ^^^^\n    hint: did you mean LAST?"),
        (
            "涨{Name}",
            "m:1:3: error: unknown name 'Name' in the message\n涨{Name}\n   ^^^^\n    hint: did you mean name?",
        ),
        (
            "{LAST:d}",
            "m:1:7: error: 'd' is no format for LAST\n{LAST:d}\n      ^\n"
            "    hint: use one for a number, as in {LAST:.2f} or {PCT:+.2f}",
        ),
        (
            "{name:.2f}",
            "m:1:7: error: '.2f' is no format for name\n{name:.2f}\n      ^^^\n"
            "    hint: use one for a text, as in {name:>8}",
        ),
        ("a\nb {", "m:2:3: error: a single '{'\nb {\n  ^\n    hint: double it to have it in the message"),
        ("}", "m:1:1: error: a single '}'\n}\n^\n    hint: double it to have it in the message"),
    ],
)
def test_a_bad_template_is_refused_at_its_place(text: str, error: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        Template.parse(text, allowed=ALLOWED, file="m")
    assert str(caught.value) == error


@pytest.mark.parametrize(
    "text",
    [
        "{}", "{0}", "{LAST.real}", "{LAST[0]}", "{LAST!r}", "{name.__class__.__mro__}", "{LAST:{PCT}}",
        "{LAST:1000000000}", "{LAST:.999f}", "{LAST:s}", "{LAST:x}", "{name:1000000}", "{LAST :.2f}", "{ENTRY}",
        "{" * 999,
    ],
)  # fmt: skip
def test_nothing_but_names_and_bounded_formats_is_taken(text: str) -> None:
    with pytest.raises(RuleFileError):
        Template.parse(text, allowed=ALLOWED)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RuleFileError) as caught:
        Template.parse("{A1} {B1} {LAST:q}", allowed=ALLOWED)
    assert [finding.column for finding in caught.value.findings] == [2, 7, 17]


def test_a_message_has_a_size_limit() -> None:
    with pytest.raises(RuleFileError, match="more than 2000"):
        Template.parse("x" * 2_001, allowed=ALLOWED)


@pytest.mark.parametrize("spec", ["", "+.2f", "08.3f", ",.0f", "e", "G", "n", "^12", "*<10.1f", "#.0f", " .1f", "_"])
def test_every_accepted_format_formats_any_number(spec: str) -> None:
    template = Template.parse("{LAST:" + spec + "}", allowed=ALLOWED)
    for value in (0.0, -1.5, 1e308, 5e-324, math.inf):
        assert template.render({"LAST": value})
