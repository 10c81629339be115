"""Tasks: what may be asked for, and what rules it becomes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from feeds.sessions import Session
from monitord.taskids import task_of
from monitord.tasks import MonitorTask, TaskTerms
from rules import rulefile
from rules.errors import RuleFileError
from rules.rule import Frequency, Mode, OnStart, Rule

STOCK = {"stock_code": "600519.SH"}
WHOLE: dict[str, Any] = {
    **STOCK, "task_name": "短线 \"a\": {b}", "entry_min": 1790, "entry_max": 1800.5, "take_profit": 1900,
    "stop_loss": 1700, "check_interval": 90, "quant_config": [
        {"when": "CROSS(LAST,1750)", "rearm": "LAST < 1740", "severity": "critical"},
        {"when": "CROSS(C,MA(C,5))", "period": "5m"},
    ],
}  # fmt: skip


def rules_of(**terms: Any) -> dict[str, Rule]:
    """Return a task's rules by what their ids end in, read as files are."""
    text = MonitorTask(id=7, terms=TaskTerms.model_validate({**STOCK, **terms})).text()
    return {rule.id.partition(".")[2]: rule for rule in rulefile.load({text.name: text.text}).rules}


def test_each_price_and_condition_is_a_rule_of_its_own() -> None:
    rules = rules_of(**WHOLE)
    assert list(rules) == ["entry", "take_profit", "stop_loss", "condition-1", "condition-2"]
    formulas = {name: rule.legs[0].when.text for name, rule in rules.items()}
    assert formulas == {
        "entry": "BETWEEN(LAST,1790,1800.5)", "take_profit": "LAST >= 1900", "stop_loss": "LAST <= 1700",
        "condition-1": "CROSS(LAST,1750)", "condition-2": "CROSS(C,MA(C,5))",
    }  # fmt: skip
    assert [rule.severity for rule in rules.values()] == ["info", "warning", "critical", "critical", "info"]
    assert (rules["condition-1"].legs[0].rearm.text, rules["condition-2"].period) == ("LAST < 1740", "5m")  # type: ignore[union-attr]
    for rule in rules.values():
        assert (rule.mode, rule.frequency, rule.on_start) == (Mode.EDGE, Frequency.ALWAYS, OnStart.FIRE)
        assert rule.select.symbols == {"600519.SH"}
        assert (rule.labels["task"], rule.labels["task_name"]) == ("7", WHOLE["task_name"])


def test_the_interval_holds_back_everything_but_the_stop() -> None:
    rules = rules_of(**WHOLE)
    assert {name: rule.cooldown_ms for name, rule in rules.items()} == {
        "entry": 90_000, "take_profit": 90_000, "stop_loss": None, "condition-1": 90_000, "condition-2": 90_000,
    }  # fmt: skip


@pytest.mark.parametrize(("only", "session"), [(True, Session.CONTINUOUS), (False, Session.ALL_TRADING)])
def test_trading_hours_are_a_session(only: bool, session: Session) -> None:
    assert rules_of(stop_loss=1, trading_hours_only=only)["stop_loss"].session == (session,)


def test_a_task_nobody_is_to_be_told_of_says_so_in_a_label_that_changes_no_meaning() -> None:
    told, quiet = (rules_of(stop_loss=1, notification_enabled=on)["stop_loss"] for on in (True, False))
    assert ("deliver" in told.labels, quiet.labels["deliver"]) == (False, "never")
    assert told.rev == quiet.rev


def test_null_is_what_a_field_is_without_a_word() -> None:
    plain = TaskTerms.model_validate({**STOCK, "stop_loss": 1})
    nulls = dict.fromkeys(set(TaskTerms.model_fields) - {"stock_code", "stop_loss"})
    assert TaskTerms.model_validate({**STOCK, "stop_loss": 1, **nulls}) == plain


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"stock_code": "600519", "stop_loss": 1}, "stock_code"),
        ({**STOCK}, "entry_min"),
        ({**STOCK, "entry_min": 1}, "entry_max"),
        ({**STOCK, "entry_max": 1}, "entry_min"),
        ({**STOCK, "entry_min": 2, "entry_max": 1}, "entry_max"),
        ({**STOCK, "take_profit": 1, "stop_loss": 1}, "stop_loss"),
        ({**STOCK, "stop_loss": -1}, "stop_loss"),
        ({**STOCK, "stop_loss": float("nan")}, "stop_loss"),
        ({**STOCK, "stop_loss": 1, "check_interval": 0}, "check_interval"),
        ({**STOCK, "stop_loss": 1, "colour": "red"}, "colour"),
        ({**STOCK, "stop_loss": 1, "colour": None}, "colour"),
        ({"stock_code": None, "stop_loss": 1}, "stock_code"),
        ({**STOCK, "quant_config": [{"when": "LAST > 1", "then": "buy"}]}, "quant_config.0.then"),
        ({**STOCK, "quant_config": {"rearm": "LAST > 1"}}, "quant_config.0.when"),
        ({**STOCK, "quant_config": "LAST > 1"}, "quant_config"),
    ],
)
def test_what_cannot_be_names_its_field(terms: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskTerms.model_validate(terms)
    first = caught.value.errors()[0]
    assert (".".join(map(str, first["loc"])) or first["ctx"]["field"]) == field


@pytest.mark.parametrize("part", ["when", "rearm"])
def test_a_finding_knows_the_field_it_is_about(part: str) -> None:
    condition = {"when": "LAST > 1", "rearm": "LAST < 1", part: "CORSS(LAST, 1)"}
    terms = TaskTerms.model_validate({**STOCK, "stop_loss": 1, "quant_config": [{"when": "LAST > 2"}, condition]})
    text = MonitorTask(id=7, terms=terms).text()
    with pytest.raises(RuleFileError) as caught:
        rulefile.load({text.name: text.text})
    (finding,) = caught.value.findings
    assert (text.field_of(finding), finding.rule) == (f"quant_config.1.{part}", "task-7.condition-2")


def test_a_task_is_known_by_its_rules() -> None:
    assert task_of("task-7.entry") == (7, "entry")
    assert task_of("task-12.condition-3") == (12, "condition")
    for other in ("task-7", "task-7.exit", "my-task-7.entry", "task-.entry", "task-7.entry.x"):
        assert task_of(other) is None
