"""docs/rules.md says what is so: its rule files load, its rule tests pass, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from monitord.__main__ import main, parser
from rules.exrightfile import load

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "rules.md"
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
FILES = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in FENCES if kind == "yaml"}
COMMANDS = [line for kind, text in FENCES if kind == "sh" for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_example_is_a_file_of_its_own() -> None:
    yaml = [text for kind, text in FENCES if kind == "yaml"]
    assert len(FILES) == len(yaml) > 15
    assert all(re.fullmatch(r"[a-z]+(_test)?\.yaml", name) for name in FILES)
    assert {kind for kind, _ in FENCES} == {"yaml", "sh", "csv"}


def test_the_ex_rights_file_of_the_document_is_good() -> None:
    (text,) = [text for kind, text in FENCES if kind == "csv"]
    assert [(one.date, one.factor, one.cash_cny) for one in load({"exrights.csv": text})] == [
        (20230614, 0.975, 0.0),
        (20230630, None, 25.911),
    ]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("_test.yaml")])
def test_the_tests_of_the_document_pass(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["test", str(folder / name)])
    out, err = capsys.readouterr()
    assert code == 0, out + err


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("_test.yaml")])
def test_the_rules_of_the_document_are_good_and_tested(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["check", "--strict", str(folder / name)])
    out, err = capsys.readouterr()
    assert code == 0, out + err
    assert f"rule_files: [{name}]" in FILES[name.replace(".yaml", "_test.yaml")]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_document_exist(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "monitord"
    parser().parse_args(words[1:])
