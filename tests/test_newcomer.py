"""What the newcomer's path prints goes into the READMEs as it is."""

from __future__ import annotations

import pytest

from tests.newcomer import READMES, ROOT, section, with_section


@pytest.mark.parametrize("name", READMES)
def test_a_readme_takes_new_times_and_nothing_else_of_it_changes(name: str) -> None:
    told, text = READMES[name], (ROOT / name).read_text(encoding="utf-8")
    lines = section(told, [("first", 61.4), ("second", 2.7)], load=0.26)
    assert lines.split("\n")[-6:] == [
        told.columns, "|---|---|", "| first | 61 |", "| second | 3 |", f"| {told.together} | 64 |", "",
    ]  # fmt: skip
    assert "0.3" in lines
    changed = with_section(text, lines, heading=told.heading)
    begin = text.index(told.heading)
    behind = text[text.index("\n## ", begin) :]
    assert changed == text[:begin] + lines + behind
    assert with_section(changed, lines, heading=told.heading) == changed
    with pytest.raises(ValueError, match="substring"):
        with_section("# no such section\n", lines, heading=told.heading)
