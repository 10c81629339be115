"""The composition root when a part fails: what is begun again, what ends the process, and what is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.loading import load
from config.settings import Settings
from feeds.recorder import Recorder
from monitord import app, restarts
from monitord.console import LogConsole
from monitord.errors import StoreError
from monitord.pipeline import Pipeline
from monitord.pump import Pump


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a small market that ends by itself."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: up, select: all, when: PCT > 1, rearm: PCT < 1}\n"
    )
    values = {
        "state_dir": tmp_path / "d",
        "rules.files": rules,
        "gateway.port": 0,
        "feed.simulated.symbols": 20,
        "feed.simulated.speed": 0,
        "feed.simulated.start": "14:50:00",
        "feed.simulated.days": 1,
    }
    return load([f"{name}={value}" for name, value in values.items()]).settings


def run(settings: Settings) -> tuple[int, list[Any]]:
    """Run a daemon to its end; return its exit code and what it logged."""
    with capture_logs() as logs:
        code = app.main(settings, console=LogConsole())
    return code, logs


def named(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def test_the_end_of_the_feed_is_a_clean_end(settings: Settings) -> None:
    code, logs = run(settings)
    assert code == 0
    assert [line for line in logs if line["log_level"] in ("warning", "error") and "gateway" not in line["event"]] == []
    assert named(logs, "stopped")[0]["left_in_outbox"] == 0
    assert named(logs, "broker_stopped")


def test_a_failing_pipeline_ends_the_process_and_takes_the_broker_down(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def disk_full(self: Pipeline, *_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Pipeline, "_take", disk_full)
    code, logs = run(settings)
    assert code == app.FAILED
    (failed,) = named(logs, "task_failed")
    assert failed["task"] == "pipeline"
    assert named(logs, "daemon_failed")[0]["why"] == ["the disk is full"]
    assert named(logs, "broker_stopped")
    assert not named(logs, "stopped")


def test_a_pump_that_fails_is_begun_again_and_loses_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, failures = Pump._step, [StoreError("locked"), StoreError("locked")]

    async def fails_twice(self: Pump) -> bool:
        if failures:
            raise failures.pop()
        return await step(self)

    monkeypatch.setattr(Pump, "_step", fails_twice)
    monkeypatch.setattr(restarts, "FIRST_BACKOFF_S", 0.001)
    code, logs = run(settings)
    assert code == 0
    assert [line["task"] for line in named(logs, "task_failed")] == ["pump", "pump"]
    assert named(logs, "stopped")[0]["left_in_outbox"] == 0


def test_a_pump_that_fails_for_ever_ends_the_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Pump) -> bool:
        raise StoreError("locked")

    monkeypatch.setattr(Pump, "_step", fails)
    monkeypatch.setattr(restarts, "FIRST_BACKOFF_S", 0.001)
    code, logs = run(settings)
    assert code == app.FAILED
    assert len(named(logs, "task_failed")) == restarts.RESTARTS + 1
    assert named(logs, "daemon_failed")[0]["why"] == ["locked"]
    assert named(logs, "broker_stopped")


def recording(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"record": settings.record.model_copy(update={"folder": folder})})


def test_a_folder_of_recordings_that_cannot_be_used_costs_no_alerts(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, logs = run(recording(settings, tmp_path / "file" / "recordings"))
    assert code == 0
    assert "cannot be used for recordings" in named(logs, "recording_failed")[0]["why"]
    assert named(logs, "stopped")[0]["alerts"] > 0


@pytest.mark.parametrize("part", ["add", "finish", "close"])
def test_whatever_fails_in_the_recorder_costs_no_alerts(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OverflowError("a date beyond all dates")

    monkeypatch.setattr(Recorder, part, fail)
    code, logs = run(recording(settings, tmp_path / "recordings"))
    assert code == 0
    assert named(logs, "recording_failed")
    assert named(logs, "stopped")[0]["alerts"] > 0


def test_a_state_directory_that_cannot_be_says_which_setting_to_change(settings: Settings) -> None:
    settings.state_dir.write_text("a file")
    with pytest.raises(app.StartError, match=r"state_dir .*d cannot be made: File exists; set another state_dir"):
        run(settings)
