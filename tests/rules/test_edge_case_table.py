"""The table of edge cases: every row is a test named after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROWS = (
    "true already at start",
    "start inside the dead band of rearm",
    "restart",
    "reload",
    "feed marks silence",
    "day roll",
    "one stock silent",
    "cross over night, lunch, halt or feed outage",
    "halted stock",
    "price 0 before open",
    "flips inside one bar",
    "flapping",
    "ex-rights day",
    "limits",
    "new listing",
    "out-of-order tick",
    "duplicate tick",
    "breadth with members missing",
    "instrument unknown",
)
FOLDER = Path(__file__).parent
TESTS = frozenset(
    node.name
    for name in ("test_edge_cases.py", "test_engine.py", "test_breadth.py", "test_exrights.py")
    for node in ast.walk(ast.parse((FOLDER / name).read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_table_is_a_test_named_after_it(row: str) -> None:
    words = row.replace(",", "").replace("-", "_").replace(" ", "_")
    assert any(test.startswith(f"test_{words}") for test in TESTS), f"no test begins with test_{words}"
