from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from monitord import systemd
from monitord.systemd import notify, tell_alive


def test_the_state_arrives_on_the_socket_systemd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert listener.recv(64) == b"READY=1"


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


async def test_the_watchdog_is_told_until_the_stop_and_then_of_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    stopping = asyncio.Event()

    def hear(state: str) -> bool:
        told.append(state)
        if len(told) == 3:
            stopping.set()
        return True

    monkeypatch.setattr(systemd, "notify", hear)
    monkeypatch.setattr(systemd, "WATCHDOG_S", 0.001)
    await tell_alive(stopping)
    assert told == ["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
