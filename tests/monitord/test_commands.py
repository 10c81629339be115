from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from monitord.__main__ import main
from monitord.commands import COMMANDS

SECRET = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MONITORD_CONFIG", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def usage(*argv: str) -> int:
    """Run a command line that argparse refuses; return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return int(caught.value.code or 0)


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage("--help") == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^    {name}( |$)", out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(name, "--help") == 0
    assert f"usage: monitord {name}" in capsys.readouterr().out


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert usage("--version") == 0
    assert capsys.readouterr().out == f"monitord {version('monitord')}\n"


def test_no_command_or_an_unknown_one_is_bad_usage() -> None:
    assert usage() == 2
    assert usage("rnu") == 2


def test_letters_that_stdout_lacks_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    western = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")  # as redirected on a Windows that is not Chinese
    monkeypatch.setattr(sys, "stdout", western)
    assert main(["catalog"]) == 0
    western.flush()
    assert rb"\u" in western.buffer.getvalue()  # type: ignore[attr-defined]


def test_help_does_not_import_what_is_slow() -> None:
    code = (
        "import sys; from monitord.__main__ import parser; parser(); "
        "print(*{'numpy', 'pandas', 'pyarrow', 'aiohttp', 'pydantic', 'rich', 'redis'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert out.strip() == ""


# ── config ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_config_show_prints_each_setting_with_its_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITORD_ENGINE__WINDOW", "300")
    assert main(["config", "show", "--set", f"broker.password={SECRET}"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "300" in rows["engine.window"]
    assert "environment: MONITORD_ENGINE__WINDOW" in rows["engine.window"]
    assert rows["engine.checkpoint_s"].split() == ["engine.checkpoint_s", "60.0", "default"]
    assert "********** " in rows["broker.password"]
    assert SECRET not in out


def test_config_show_tells_of_an_address_its_host_alone(capsys: pytest.CaptureFixture[str]) -> None:
    mirror = f'notify.bark=[{{"name":"phone","key":"k","server":"https://bark.example:8443/{SECRET}/x?y={SECRET}"}}]'
    assert (
        main(["config", "show", "--set", mirror, "--set", f"feed.quotes_http.sina_url=http://sina.example/{SECRET}"])
        == 0
    )
    told = capsys.readouterr().out
    assert "https://bark.example:8443/***" in told
    assert "http://sina.example/***" in told
    assert "https://api.day.app" not in told
    assert SECRET not in told


def test_config_show_changed_leaves_defaults_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--changed", "--set", "log.level=debug"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["setting", "log.level"]


def test_config_init_prints_a_file_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == 0
    Path("monitord.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["config", "show", "--changed"]) == 0
    assert capsys.readouterr().out.split() == ["setting", "value", "from"]


def test_settings_that_cannot_be_used_end_with_code_2_and_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--set", "gateway.prot=1", "--set", "log.levle=x"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("monitord: the settings cannot be used\n")
    assert "did you mean gateway.port?" in err
    assert "did you mean log.level?" in err


# ── run ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_stops_before_anything_starts_when_a_setting_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--state-dir", "state", "--set", "gateway.host=0.0.0.0"]) == 2
    assert "there is no token" in capsys.readouterr().err
    assert not Path("state").exists()


def test_the_short_options_of_run_are_settings_and_win_over_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--set", "gateway.port=1", "--port", "seven"]) == 2
    assert "gateway.port (from command line: --set gateway.port): 'seven'" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m monitord config init | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("# monitord.toml")
    assert done.stderr == ""
