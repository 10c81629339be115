from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from monitord.__main__ import main

ROOT = Path(__file__).parents[2]
GOOD = """\
version: 1
groups:
- name: price
  rules:
  - id: over-20
    select: all
    when: LAST >= 20
    rearm: LAST < 19.5
"""
LINTED = GOOD.replace("    rearm: LAST < 19.5\n", "")
BAD = GOOD.replace("LAST >= 20", "CORSS(LAST, 20)")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "rules.yaml") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write_file


def check(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["check", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_good_file_is_code_0(write, capsys) -> None:  # type: ignore[no-untyped-def]
    assert check(capsys, write(GOOD)) == (0, "1 file: 0 errors, 0 warnings\n", "")


def test_an_error_is_code_1_with_its_place_carets_and_hint(write, capsys) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = check(capsys, write(BAD))
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("rules.yaml:7:11: error: rule over-20: ")
    assert lines[1].index("CORSS") == lines[2].index("^^^^^")
    assert "did you mean CROSS?" in lines[3]
    assert lines[-1] == "1 file: 1 error, 0 warnings"


def test_a_warning_is_code_0_and_code_1_when_strict(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(LINTED)
    code, out, _ = check(capsys, name)
    assert code == 0
    assert "warning: rule over-20" in out
    assert out.endswith("1 file: 0 errors, 1 warning\n")
    assert check(capsys, name, "--strict")[0] == 1


def test_json_holds_each_finding_with_its_place(write, capfd) -> None:  # type: ignore[no-untyped-def]
    assert main(["check", "--json", write(BAD)]) == 1
    report = json.loads(capfd.readouterr().out)
    assert report["good"] is False
    (finding,) = report["findings"]
    assert (finding["file"], finding["line"], finding["column"], finding["end_column"]) == ("rules.yaml", 7, 11, 16)
    assert (finding["severity"], finding["rule"]) == ("error", "over-20")
    assert main(["check", "--json", write(LINTED)]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["good"] is True
    assert [finding["severity"] for finding in report["findings"]] == ["warning"]


def test_a_rule_id_in_two_files_is_an_error(write, capsys) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = check(capsys, write(GOOD, "a.yaml"), write(GOOD, "b.yaml"))
    assert code == 1
    assert "b.yaml:5:" in out
    assert "over-20" in out
    assert out.endswith("2 files: 1 error, 0 warnings\n")


def test_every_file_is_reported_not_only_the_first(write, capsys) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = check(capsys, write(BAD, "a.yaml"), write(BAD.replace("over-20", "other"), "b.yaml"))
    assert code == 1
    assert "a.yaml:7:11" in out
    assert "b.yaml:7:11" in out


def test_an_empty_file_is_a_finding(write, capsys) -> None:  # type: ignore[no-untyped-def]
    assert check(capsys, write(""))[0] == 1


def test_a_file_that_cannot_be_read_is_code_2(write, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = check(capsys, write(GOOD), "gone.yaml")
    assert (code, out) == (2, "")
    assert "gone.yaml: cannot be read: No such file" in err
    (tmp_path / "gbk.yaml").write_bytes("# 涨停\n".encode("gbk"))
    assert "gbk.yaml: is not UTF-8" in check(capsys, "gbk.yaml")[2]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_first_rule_of_the_readme_is_good_even_strictly(readme: str, write, capsys) -> None:  # type: ignore[no-untyped-def]
    (rule,) = re.findall(r"```yaml\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert check(capsys, "--strict", write(rule, "mine.yaml")) == (0, "1 file: 0 errors, 0 warnings\n", "")


def test_the_shipped_rules_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(map(str, (ROOT / "config" / "rules").glob("*.yaml")))
    assert files
    code, out, _ = check(capsys, *files)
    assert code == 0, out


SHARED = """\
[engine]
share = "0/2"

[broker]
url = "redis://127.0.0.1:6379/0"

[[notify.webhooks]]
name = "desk"
url = "https://example.com/desk"

[[notify.inhibits]]
name = "sealed"
source = { rules = ["over-20"] }
target = { severities = ["info"] }
equal = ["symbol"]
"""


def test_an_inhibition_beside_shares_is_a_warning_at_its_place(write, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "monitord.toml").write_text(SHARED)
    code, out, _ = check(capsys, write(GOOD), "--config", "monitord.toml")
    assert code == 0
    (line,) = [line for line in out.splitlines() if "inhibition sealed" in line]
    assert line.startswith(f"monitord.toml:{SHARED.splitlines().index('[[notify.inhibits]]') + 1}:")
    assert "engine.share = 0/2" in line
    assert "name the receivers in the settings of one of the processes alone" in out
    (tmp_path / "monitord.toml").write_text(SHARED.replace('share = "0/2"', ""))
    assert "inhibition sealed" not in check(capsys, write(GOOD), "--config", "monitord.toml")[1]


# ── what is known of the market ───────────────────────────────────────────────────────────────────────────────────

TREND = """\
version: 1
groups:
- name: trend
  rules:
  - {id: ma, select: [600519.SH], period: 1d, eval: bar_close, when: "C > MA(C,5)"}
  - {id: level, select: all, when: LAST > 1800, rearm: LAST < 1790}
"""


def _table(file: str, last: float, prev_close: float) -> str:
    Path(file).write_text(f"symbol,name,last,prev_close\n000001.SZ,平安银行,{last},{prev_close}\n", encoding="utf-8")
    return file


def test_the_bars_that_rules_need_are_told(write, capsys) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = check(capsys, write(TREND))
    assert (code, out.splitlines()[0]) == (0, "ma needs 5 bars of 1d")
    code, out, _ = check(capsys, write(TREND), "--json")
    assert json.loads(out)["needs"] == {"ma": {"1d": 5}}


def test_tables_of_instruments_give_more_warnings(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(TREND)
    tables = [_table("close_20230629.csv", 12.0, 11.9), _table("close_20230630.csv", 11.8, 11.5)]
    code, out, _ = check(capsys, name, "--instruments", *tables, "--history", "3")
    assert code == 0
    assert "rules.yaml:5:14: warning: rule ma: selects none of the 1 instruments there are" in out
    assert "rules.yaml:5:64: warning: rule ma: needs 5 bars of 1d, and the feed has 3 at a start" in out
    assert "rule level: 1800 is a price of before or after 2023-06-30, when 000001.SZ went ex-rights" in out
    assert check(capsys, name, "--instruments", *tables, "--strict")[0] == 1
    assert "ex-rights" not in check(capsys, name, "--instruments", tables[1])[1]
    assert "ex-rights" not in check(capsys, name, "--instruments", _table("close_20230703.csv", 9, 9), tables[0])[1]


def test_recorded_sessions_tell_symbols_days_and_bars(market_data, write, capsys) -> None:  # type: ignore[no-untyped-def]
    days = [str(market_data / "sessions" / f"600519-000333-2023020{day}.parquet") for day in (1, 2)]
    code, out, _ = check(capsys, write(TREND), "--input", *days)
    assert code == 0
    assert "needs 5 bars of 1d, and the feed has 2 at a start" in out
    assert "ex-rights" not in out
    assert "selects none" not in out


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("--instruments", "no.csv"), "no.csv: cannot be read"),
        (("--instruments", "rules.yaml"), "neither .parquet nor .csv"),
        (("--instruments", "odd.csv"), "odd.csv: needs a column symbol"),
        (("--input", "odd.csv"), "odd.csv: no column"),
        (("--history", "-1"), "0 or more"),
    ],
)
def test_what_cannot_be_known_is_code_2(argv, complaint, write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(TREND)
    Path("odd.csv").write_text("symbol\n600519\n")
    code, _, err = check(capsys, name, *argv)
    assert code == 2
    assert complaint in err


# ── who is told ───────────────────────────────────────────────────────────────────────────────────────────────────

RECEIVERS = """\
[rules]
files = ["rules.yaml"]

[[notify.webhooks]]
name = "ops"
url = "https://example.com/pl4nted"
rules = ["ovr-20"]

[[notify.webhooks]]
name = "desk"
url = "https://example.com/pl4nted"
severities = ["critical"]
"""


def test_receivers_that_let_nothing_through_are_warned_of_at_their_place(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(GOOD)
    write(RECEIVERS, "monitord.toml")
    code, out, _ = check(capsys, name)
    assert code == 0
    assert out.splitlines() == [
        "rules.yaml:5:5: warning: rule over-20: no receiver's filters let its alerts through",
        "  - id: over-20",
        "    ^^",
        "    hint: loosen a filter of ops, desk; clients of the gateway are told all the same",
        "monitord.toml:7:11: warning: receiver ops: there is no rule 'ovr-20'",
        'rules = ["ovr-20"]',
        "          ^^^^^^",
        "    hint: did you mean over-20?",
        "monitord.toml:12:16: warning: receiver desk: no rule has the severity 'critical'",
        'severities = ["critical"]',
        "               ^^^^^^^^",
        "    hint: there are info, warning",
        "1 file: 0 errors, 3 warnings",
    ]
    assert check(capsys, name, "--strict")[0] == 1
    assert check(capsys, name, "--config", write("", "none.toml"))[1] == "1 file: 0 errors, 0 warnings\n"


def test_without_files_those_of_the_settings_are_checked(write, capsys) -> None:  # type: ignore[no-untyped-def]
    write(BAD)
    write(RECEIVERS, "monitord.toml")
    code, out, _ = check(capsys)
    assert code == 1
    assert out.startswith("rules.yaml:7:11: error: rule over-20: ")
    assert check(capsys, "--set", "rules.files=gone.yaml")[0] == 2


def test_a_receiver_of_a_rule_in_another_file_asks_not_in_vain(write, capsys) -> None:  # type: ignore[no-untyped-def]
    write(GOOD)
    other = write(GOOD.replace("over-20", "other"), "other.yaml")
    write(RECEIVERS.replace("ovr-20", "over-20").replace('"critical"', '"info"'), "monitord.toml")
    assert check(capsys, other) == (0, "1 file: 0 errors, 0 warnings\n", "")


def test_receivers_of_the_command_line_have_no_line(write, capfd) -> None:  # type: ignore[no-untyped-def]
    hook = 'notify.webhooks=[{"name": "ops", "url": "https://example.com/pl4nted", "symbols": ["000001.SZ"]}]'
    name = write(GOOD.replace("select: all", "select: [600519.SH]"))
    assert main(["check", name, "--set", hook, "--set", f"rules.files={name}"]) == 0
    out = capfd.readouterr().out
    assert "command line: --set notify.webhooks: warning: receiver ops: no rule watches 000001.SZ\n" in out
    assert "pl4nted" not in out


ROUTES = """\
[[notify.webhooks]]
name = "ops"
url = "https://example.com/pl4nted"

[[notify.routes]]
name = "all"
receivers = ["ops"]

[[notify.routes]]
name = "rest"
receivers = ["ops"]
rules = ["over-*"]
"""


def test_routes_that_nothing_can_take_are_warned_of_at_their_place(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(GOOD)
    write(ROUTES, "monitord.toml")
    code, out, _ = check(capsys, name, "--set", f"rules.files={name}")
    assert code == 0
    assert "monitord.toml:9:1: warning: route rest: routes before it take all of its alerts\n" in out
    assert check(capsys, name, "--set", f"rules.files={name}", "--strict")[0] == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('group_by = ["colour"]', "notify.routes: route rest: group_by: an alert has no 'colour'"),
        ('active = ["lunch"]', "notify.routes: route rest: 'lunch' is no time such as 11:30-13:00"),
        ('boards = ["nasdaq"]', "notify.routes: route rest: 'nasdaq' is not a valid Board"),
        ('active = ["10:00-11:00"]\nquiet = ["09:00-12:00"]', "route rest: is quiet at all times"),
        ('receivers2 = ["x"]', "receivers2"),
        ("group_wait_s = 4.0", "group_wait_s"),
        ('quiet_then = "sleep"', "quiet_then"),
    ],
)
def test_a_route_that_cannot_be_is_code_2_and_named(line, complaint, write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(GOOD)
    write(f"{ROUTES}{line}\n", "monitord.toml")
    code, _, err = check(capsys, name)
    assert code == 2
    assert complaint in err


def test_a_route_to_nobody_there_is_is_code_2(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(GOOD)
    write(ROUTES.replace('receivers = ["ops"]\nrules', 'receivers = ["opps"]\nrules'), "monitord.toml")
    code, _, err = check(capsys, name)
    assert code == 2
    assert "route 'rest' names a receiver 'opps' that there is not" in err
    write(ROUTES.replace('"rest"', '"all"'), "monitord.toml")
    assert "two routes are named 'all'" in check(capsys, name)[2]


def test_settings_that_cannot_be_used_are_code_2(write, capsys) -> None:  # type: ignore[no-untyped-def]
    name = write(GOOD)
    write("[nonsense]\n", "monitord.toml")
    code, _, err = check(capsys, name)
    assert code == 2
    assert "the settings cannot be used" in err


def test_an_id_of_a_tasks_rule_is_an_error(write, capsys) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = check(capsys, write(GOOD.replace("over-20", "task-force.over-20")))
    assert code == 1
    assert "'task-force.over-20' is that of a task's rule" in out
