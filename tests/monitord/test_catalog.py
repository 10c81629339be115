from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitord.__main__ import main
from rules.catalog.shipped import shipped_rules
from rules.rulefile import load

DOCUMENT = Path(__file__).parents[2] / "docs" / "catalog.md"


def test_the_command_lists_every_rule_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_rules())
    (gap,) = (line for line in lines if line.startswith("gap-up "))
    assert gap.split() == ["gap-up", "8211", "Gap", "up", "向上缺口", "{least:", "0%,", "within:", "5m}"]


@pytest.mark.parametrize("rule", shipped_rules())
def test_a_rule_printed_whole_is_one_to_paste(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", rule]) == 0
    (pasted,) = load({"f": "version: 1\ngroups:\n- name: g\n  rules:\n" + capsys.readouterr().out}).rules
    (used,) = load({"f": f"version: 1\ngroups:\n- name: g\n  rules:\n  - use: {rule}\n"}).rules
    assert (pasted.id, pasted.rev, pasted.messages) == (used.id, used.rev, used.messages)


def test_an_unknown_rule_is_told_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "gap-op"]) == 2
    assert "did you mean gap-up?" in capsys.readouterr().err


def test_the_document_has_every_rule_with_its_code_names_and_defaults() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| (.*?) \| (.*?) · (.*?) \| (.+?) \| (.*?) \|$", DOCUMENT.read_text("utf-8"), re.M
    )
    found = {rule: (code, zh, en, params.strip("`")) for rule, code, zh, en, _, params in rows}
    wanted = {}
    for one in shipped_rules().values():
        code = " / ".join(filter(None, (one.labels.get("code"), one.labels.get("resolve_code"))))
        wanted[one.id] = (code or "–", one.labels["zh"], one.labels["en"], one.parameters or "–")
    assert found == wanted
    assert list(found) == list(shipped_rules())
