"""What a start costs: a daemon comes up and tells its first alert without the packages that take longest to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

HEAVY = ("pandas", "pyarrow", "exchange_calendars", "scipy", "apprise", "xtquant")
"""Half of a start's processor time; whoever needs one imports it where it is needed."""
RULES = 'version: 1\ngroups:\n- name: g\n  rules:\n  - {id: x, select: all, when: "LAST > 0", on_start: fire}\n'
START = f"""
import sys
from monitord.__main__ import main

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY!r}:
            print("imported", name, flush=True)

sys.meta_path.insert(0, Watch())
from feeds import tradingdays
tradingdays.version = {{tradingdays.LIBRARY: tradingdays.WRITTEN_FROM}}.__getitem__  # whichever is installed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.acceptance
def test_a_daemon_tells_its_first_alert_without_importing_what_is_heavy(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = {"state_dir": tmp_path / "d", "log.format": "json", "gateway.port": 0, "rules.files": rules}
    settings |= {"feed.simulated.symbols": 5}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    told: list[str] = []
    with subprocess.Popen([sys.executable, "-c", START, "run", *flags], stdout=subprocess.PIPE, text=True) as daemon:
        late = Timer(120.0, daemon.kill)
        late.start()
        assert daemon.stdout is not None
        for line in daemon.stdout:
            told.append(line)
            if "alert_fired" in line:
                break
        daemon.terminate()
        daemon.communicate()
        late.cancel()
    assert daemon.returncode == 0, told
    assert any("alert_fired" in line for line in told), told
    assert not [line for line in told if line.startswith("imported")], told


def test_the_watch_of_that_test_sees_an_import() -> None:
    watch, _, _ = START.replace("from monitord.__main__ import main", "").partition("from feeds")
    told = subprocess.run([sys.executable, "-c", f"{watch}import scipy"], capture_output=True, text=True)
    assert told.stdout.startswith("imported scipy")  # whether it is there or not
