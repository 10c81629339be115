"""Where values stand in a TOML text."""

from __future__ import annotations

import pytest

from config.places import place_in_table

TEXT = """\
[log]
level = "info"

[[notify.webhooks]]
name = "a"
rules = ["x"]
[[ notify . webhooks ]]
  name = "b"
  rules = [
    "x",  # first
    'y',
  ]
[gateway]
port = 1
"""


@pytest.mark.parametrize(
    ("number", "key", "value", "expected"),
    [
        (0, None, None, (4, 1, 19)),
        (0, "rules", "x", (6, 11, 1)),
        (1, "rules", "x", (10, 6, 1)),
        (1, "rules", "y", (11, 6, 1)),
        (1, "rules", "z", (9, 3, 5)),
        (1, "symbols", "z", (7, 1, 23)),
        (1, "port", "1", (7, 1, 23)),
    ],
)
def test_a_value_is_found_in_its_table(number: int, key: str, value: str, expected: tuple[int, int, int]) -> None:
    place = place_in_table(TEXT, "notify.webhooks", number, key=key, value=value)
    assert (place.line, place.column, place.width) == expected
    assert place.source == TEXT.splitlines()[place.line - 1]


def test_inline_tables_are_found_by_their_key() -> None:
    place = place_in_table('[notify]\nwebhooks = [{name = "a"}]\n', "notify.webhooks", 0, key="rules", value="x")
    assert (place.line, place.column, place.width) == (2, 1, 8)
    assert place_in_table("", "notify.webhooks", 0).line == 1
