"""Slots: what of a rule set is compiled again when it changes."""

from __future__ import annotations

import pytest

from rules.graph import Graph
from rules.program import Slot, compile_slots
from rules.rule import RuleSet
from rules.rulefile import load
from rules.state import StateTable
from tests.rules.w1 import Columns

FIRST = 'id: first, select: all, period: 1m, when: "LAST > MA(C,5)", rearm: "LAST < MA(C,5)", message: "{LAST}"'
SECOND = 'id: second, select: [600519.SH], period: 1m, eval: bar_close, when: "CROSS(C, MA(C,20))"'


def rule_set(*rules: str, above: str = "") -> RuleSet:
    lines = ["version: 1", above, "groups:", "- name: g", "  rules:", *(f"  - {{{rule}}}" for rule in rules), ""]
    return load({"r.yaml": "\n".join(lines)})


@pytest.fixture
def graph() -> Graph:
    state = StateTable(3)
    return Graph(state, Columns(state))


def kept(before: list[Slot], after: list[Slot]) -> list[str]:
    """Return the ids of rules whose slots have the very nodes of before."""
    nodes = {slot.rule.id: list(map(id, slot.nodes)) for slot in before}
    return [slot.rule.id for slot in after if list(map(id, slot.nodes)) == nodes.get(slot.rule.id)]


def test_rules_that_stay_are_not_compiled_again_wherever_they_stand_now(graph: Graph) -> None:
    before = compile_slots(rule_set(FIRST, SECOND), graph)
    moved = rule_set(SECOND, 'id: third, select: all, when: "PCT > 5"', FIRST, above="# a line more")
    after = compile_slots(moved, graph, known=before)
    assert kept(before, after) == ["second", "first"]
    assert [slot.order for slot in after] == [0, 1, 2]
    assert [slot.rule for slot in after] == list(moved.rules)
    fresh = compile_slots(moved, graph)
    assert [list(map(id, slot.nodes)) for slot in fresh] == [list(map(id, slot.nodes)) for slot in after]


@pytest.mark.parametrize(
    "changed",
    [
        FIRST.replace("{LAST}", "{LAST} {PCT}"),
        FIRST.replace("LAST > MA(C,5)", "LAST > MA(C,6)"),
        FIRST.replace("rearm: ", "freq: always, rearm: "),
    ],
    ids=["message", "condition", "life"],
)
def test_a_rule_that_changed_is_compiled_as_it_is_now(graph: Graph, changed: str) -> None:
    before = compile_slots(rule_set(FIRST, SECOND), graph)
    after = compile_slots(rule_set(changed, SECOND), graph, known=before)
    assert after[0].rule != before[0].rule
    fresh = compile_slots(rule_set(changed, SECOND), graph)
    assert [(slot.rule, slot.values) for slot in after] == [(slot.rule, slot.values) for slot in fresh]
    assert [list(map(id, slot.nodes)) for slot in after] == [list(map(id, slot.nodes)) for slot in fresh]
