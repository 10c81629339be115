"""Brokers of a killed test run end with it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monitord.test_broker import OWNER
from tests.reaper import left_behind


@pytest.mark.acceptance
def test_a_broker_left_by_a_killed_run_is_ended_when_the_pipe_closes(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "b"), str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid = next(int(line.split()[1]) for line in owner.stdout if line.startswith("pid "))
        owner.kill()
    assert list(left_behind(tmp_path)) == [pid]
    watched = os.pidfd_open(pid)
    try:
        reaper = Path(__file__).with_name("reaper.py")
        subprocess.run([sys.executable, str(reaper), str(tmp_path)], stdin=subprocess.DEVNULL, check=True, timeout=10)
        assert select.select([watched], [], [], 10)[0], "it did not end"
    finally:
        os.close(watched)


def test_a_process_that_has_got_the_number_of_a_broker_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "valkey.pid").write_text(str(os.getpid()))
    assert list(left_behind(tmp_path)) == []
