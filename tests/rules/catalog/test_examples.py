"""The rule files shipped as examples, together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rules.catalog.shipped import shipped_rules
from rules.document import Scalar, Table
from rules.graph import Graph
from rules.language.parser import parse
from rules.language.tree import Number, walk
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


FACTS = {0.0, 1.0, 60.0, 100.0, 1e9, 92500.0}
"""Numbers that are no thresholds: the tick before, seconds of a minute, %, shares of a lot, more yuan than any price,
the time of the auction's result."""


def formulas(table: Table) -> Iterator[str]:
    for key in ("when", "rearm"):
        value = table.get(key)
        if isinstance(value, Scalar):
            yield value.text
    legs = table.get("legs")
    for _, leg in legs.pairs if isinstance(legs, Table) else ():
        assert isinstance(leg, Table)
        yield from formulas(leg)


@pytest.mark.parametrize("name", sorted(shipped_rules()))
def test_every_threshold_of_a_shipped_rule_is_a_parameter_that_a_rule_file_can_set(name: str) -> None:
    texts = list(formulas(shipped_rules()[name].rule))
    assert texts
    numbers = {
        one.value for text in texts for s in parse(text).statements for one in walk(s.expr) if isinstance(one, Number)
    }
    assert numbers <= FACTS
    params = shipped_rules()[name].rule.get("params")
    given = {key.text: value.text for key, value in params.pairs} if isinstance(params, Table) else {}  # type: ignore[union-attr]
    for key, value in given.items():
        other = re.sub(r"[\d.]+", lambda match: str(int(float(match[0])) + 1), value, count=1)
        text = f"version: 1\ngroups:\n- name: g\n  rules:\n  - {{use: {name}, params: {{{key}: {other}}}}}\n"
        changed, plain = (
            load({"r.yaml": one}).rules[0] for one in (text, text.replace(f", params: {{{key}: {other}}}", ""))
        )
        assert changed.rev != plain.rev, f"{key} changes nothing"
