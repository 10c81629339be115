"""Findings as text and as records."""

from __future__ import annotations

from rules.errors import Finding
from rules.language.report import SHOWN, record, render, summary


def test_a_finding_shows_place_rule_source_carets_and_hint() -> None:
    finding = Finding(
        file="rules.yaml", line=31, column=7, message="unknown function 'CORSS'", rule="ma-gold-5m",
        source="      CORSS(MA5,MA10) AND C>MA(C,60)", width=5, hint="did you mean CROSS?",
    )  # fmt: skip
    assert render(finding) == (
        "rules.yaml:31:7: error: rule ma-gold-5m: unknown function 'CORSS'\n"
        "      CORSS(MA5,MA10) AND C>MA(C,60)\n"
        "      ^^^^^\n"
        "    hint: did you mean CROSS?"
    )


def test_a_finding_without_source_or_hint_is_one_line() -> None:
    assert render(Finding("f", 1, 1, "bad", severity="warning")) == "f:1:1: warning: bad"


def test_carets_count_double_width_and_combining_characters() -> None:
    shown = render(Finding("f", 1, 4, "x", source="甲e\u0301乙丙", width=2)).split("\n")
    assert shown[2] == " " * 3 + "^" * 4


def test_carets_never_stand_beyond_the_line() -> None:
    assert render(Finding("f", 1, 99, "x", source="ab", width=50)).split("\n")[2] == "  ^"


def test_tabs_take_one_column_in_both_lines() -> None:
    assert render(Finding("f", 1, 3, "x", source="\t\tab", width=2)).split("\n")[1:] == ["  ab", "  ^^"]


def test_a_long_line_is_cut_around_the_carets() -> None:
    source = "a" * 5_000 + "HERE" + "b" * 5_000
    _, line, carets = render(Finding("f", 1, 5_001, "x", source=source, width=4)).split("\n")
    assert len(line) == SHOWN + 2
    assert line[carets.index("^") : carets.rindex("^") + 1] == "HERE"


def test_a_record_has_an_exclusive_end() -> None:
    found = record(Finding("f", 2, 3, "x", width=4, rule="r", hint="h", source="s"))
    assert found == {
        "file": "f", "line": 2, "column": 3, "end_column": 7, "severity": "error", "rule": "r", "message": "x",
        "hint": "h", "source": "s",
    }  # fmt: skip


def test_a_summary_renders_all() -> None:
    assert summary([Finding("f", 1, 1, "a"), Finding("g", 1, 1, "b")]) == "f:1:1: error: a\ng:1:1: error: b"
