"""The systemd units: systemd itself takes them, and finds them hardened; they start what there is to start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from monitord.__main__ import parser

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
DAEMONS = [unit for unit in SERVICES if unit.name != "monitord-backup.service"]
INSTALLED = "/opt/monitord/bin/monitord"
MOST_EXPOSED = 1.5

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: Debian's package systemd has it"
)


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Return key → values of a unit, of all its sections."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_takes_every_unit_without_a_word(tmp_path: Path) -> None:
    """`verify` looks for the program too, so the one that runs these tests stands in for the installed one."""
    program = tmp_path / "monitord"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    for unit in UNITS:
        named = tmp_path / unit.name.replace("@.", "@0-2.")
        named.write_text(unit.read_text(encoding="utf-8").replace(INSTALLED, str(program)), encoding="utf-8")
    verdict = analyze("verify", "--man=no", *tmp_path.glob("*.service"), *tmp_path.glob("*.timer"))
    said = [line for line in verdict.stderr.splitlines() if "monitord" in line]
    assert (verdict.returncode, said) == (0, [])


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_is_exposed_by_one_and_a_half_at_most(unit: Path) -> None:
    verdict = analyze("security", "--offline=true", unit)
    (level,) = re.findall(r"Overall exposure level for .*: ([\d.]+)", verdict.stdout)
    assert float(level) <= MOST_EXPOSED, verdict.stdout


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_starts_a_command_that_there_is_with_options_it_takes(unit: Path) -> None:
    (line,) = settings_of(unit)["ExecStart"]
    program, *words = shlex.split(line.replace("%I", "0/2"))
    assert program == INSTALLED
    assert parser().parse_args(words).config == Path("/etc/monitord/monitord.toml")


@pytest.mark.parametrize("unit", DAEMONS, ids=lambda unit: unit.name)
def test_a_daemon_tells_systemd_how_it_is_and_gets_its_secrets_as_credentials(unit: Path) -> None:
    settings = settings_of(unit)
    assert settings["Type"] == ["notify"]
    assert settings["WatchdogSec"] == ["15"]
    assert settings["LoadCredential"] == ["monitord:/etc/monitord/secrets"]
    assert settings["Restart"] == ["on-failure"]
    assert int(settings["TimeoutStopSec"][0]) > 30  # a stop takes 30 s at most


def test_who_has_a_broker_of_its_own_alone_hears_that_it_must_stop() -> None:
    for name in ("monitord.service", "monitord@.service"):
        assert settings_of(ROOT / "deploy" / "systemd" / name)["KillMode"] == ["mixed"]
