"""The rule files shipped as examples, together."""

from __future__ import annotations

from pathlib import Path

from rules.catalog.shipped import shipped_rules
from rules.graph import Graph
from rules.program import compile_slots
from rules.rulefile import load
from rules.state import StateTable
from tests.rules.w1 import Columns

FOLDER = Path(__file__).parents[3] / "config" / "rules"


def test_the_shipped_rule_files_go_together_without_a_lint_and_compile() -> None:
    texts = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.yaml"))}
    for language in ("zh", "en"):
        found = load(texts, language=language)
        assert found.warnings == ()
    used = [rule for rule in found.rules if rule.file == "pankou.yaml"]
    assert len(used) >= 10
    assert {rule.id for rule in used} <= set(shipped_rules())
    state = StateTable(2)
    assert len(compile_slots(found, Graph(state, Columns(state)))) >= len(found.rules)
