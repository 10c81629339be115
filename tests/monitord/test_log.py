from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from monitord import log

ROOT = Path(__file__).parents[2]
SECRET = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Give the root logger and structlog back as they were."""
    root, access = logging.getLogger(), logging.getLogger("aiohttp.access")
    handlers, levels = root.handlers[:], (root.level, access.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    access.setLevel(levels[1])
    structlog.reset_defaults()


class Stdout:
    """All that was written to stdout in this test so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


@pytest.fixture
def stdout(capsys: pytest.CaptureFixture[str]) -> Stdout:
    return Stdout(capsys)


def lines(stream: Stdout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_event_first_then_the_fields(stdout: Stdout) -> None:
    log.configure()
    structlog.get_logger().info(
        "rule_fired", rule="brk", symbol="600519.SH", name="贵州茅台", n=3, share=0.5, none=None
    )
    (line,) = lines(stdout)
    assert list(line) == ["ts", "level", "event", "rule", "symbol", "name", "n", "share", "none"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["ts"])
    assert (line["level"], line["event"], line["name"], line["n"], line["none"]) == (
        "info",
        "rule_fired",
        "贵州茅台",
        3,
        None,
    )


def test_the_level_holds_for_our_events_and_for_those_of_libraries(stdout: Stdout) -> None:
    log.configure(level="warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("aiohttp.server").info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("aiohttp.server").error("boom %s", "here")
    assert [line["event"] for line in lines(stdout)] == ["loud", "library_log"]
    assert lines(stdout)[1]["text"] == "boom here"
    assert lines(stdout)[1]["logger"] == "aiohttp.server"


def test_a_second_configure_replaces_the_first(stdout: Stdout) -> None:
    log.configure()
    log.configure()
    structlog.get_logger().info("once")
    assert len(lines(stdout)) == 1


def test_request_lines_of_the_server_are_not_logged(stdout: Stdout) -> None:
    log.configure(level="debug")
    logging.getLogger("aiohttp.access").info("GET /v1/ws?ticket=%s", SECRET)
    assert stdout.getvalue() == ""


def test_an_exception_is_one_line_with_its_traceback_and_no_secret(stdout: Stdout) -> None:
    log.configure(secrets=[SECRET])
    try:
        raise ValueError(f"cannot reach redis://:{SECRET}@host")
    except ValueError:
        structlog.get_logger().exception("broker_lost")
    (line,) = lines(stdout)
    assert "Traceback" in line["exception"]
    assert "ValueError" in line["exception"]
    assert SECRET not in stdout.getvalue()


@pytest.mark.parametrize(
    "fields",
    [
        {"token": SECRET},
        {"api_key": SECRET},
        {"gateway_password": SECRET},
        {"headers": {"Authorization": f"Token {SECRET}", "Set-Cookie": SECRET}},
        {"receiver": {"secrets": [SECRET, SECRET]}},
        {"url": f"https://oapi.dingtalk.com/robot/send?access_token={SECRET}"},
        {"webhook_url": f"https://open.feishu.cn/open-apis/bot/v2/hook/{SECRET}"},
        {"error": f"POST https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={SECRET}&x=1 timed out"},
        {"error": f"https://open.feishu.cn/open-apis/bot/v2/hook/{SECRET} refused"},
        {"error": f"Authorization: Bearer {SECRET}"},
        {"error": ValueError(f"redis://user:{SECRET}@10.0.0.1:6379")},
        {"signing": f"whsec_{SECRET}"},
        {"args": ("a", {"deep": [f"bearer {SECRET}"]})},
    ],
)
def test_what_looks_like_a_secret_is_blotted_out_without_being_known(stdout: Stdout, fields: dict[str, Any]) -> None:
    log.configure()
    structlog.get_logger().info("delivery_failed", **fields)
    assert SECRET not in stdout.getvalue()
    assert log.BLOT in stdout.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_known_secret_is_blotted_out_wherever_it_stands(stdout: Stdout, format: str) -> None:
    log.configure(format=format, secrets=[SECRET])
    structlog.get_logger().info("odd", message=f"got {SECRET}!", rows=[{"x": {SECRET}}])
    logging.getLogger("redis").warning("AUTH %s failed", SECRET)
    assert SECRET not in stdout.getvalue()
    assert stdout.getvalue().count(log.BLOT) >= 3


def test_a_webhook_address_keeps_its_host_so_that_one_sees_who_failed(stdout: Stdout) -> None:
    log.configure()
    structlog.get_logger().info("delivery_failed", url="https://user:pw@hooks.example.com:8443/a/b?c=d")
    assert lines(stdout)[0]["url"] == f"https://hooks.example.com:8443/{log.BLOT}"


def test_counts_are_no_secrets_even_under_such_a_name(stdout: Stdout) -> None:
    log.configure()
    structlog.get_logger().info("auth_summary", tokens=3, secret_age_s=1.5)
    assert lines(stdout)[0]["tokens"] == 3
    assert lines(stdout)[0]["secret_age_s"] == 1.5


def test_a_value_that_json_cannot_hold_does_not_lose_the_line(stdout: Stdout) -> None:
    log.configure()
    structlog.get_logger().info("odd", path=Path("/x"), keys={1: "a"}, raw=b"\xff", big=2**80, half="\ud800")
    (line,) = lines(stdout)
    assert line["path"] == "/x"
    assert line["keys"] == {"1": "a"}


def test_console_lines_are_for_people(stdout: Stdout) -> None:
    log.configure(format="console")
    structlog.get_logger().info("rule_fired", rule="brk", name="贵州茅台")
    assert "rule_fired" in stdout.getvalue()
    assert "贵州茅台" in stdout.getvalue()
    assert "\x1b[" not in stdout.getvalue()  # a file is no terminal


def test_lines_go_to_what_stdout_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure()
    later = io.StringIO()
    monkeypatch.setattr(sys, "stdout", later)
    structlog.get_logger().info("rule_fired")
    assert "rule_fired" in later.getvalue()


def _log_calls() -> Iterator[tuple[Path, ast.Call]]:
    for package in ("monitord", "notifiers", "feeds", "rules", "config"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical")
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in ("log", "logger", "_log")
                ):
                    yield path, node


def test_every_event_of_ours_has_a_static_name() -> None:
    calls = list(_log_calls())
    assert calls
    for path, call in calls:
        name = call.args[0] if call.args else None
        static = isinstance(name, ast.Constant) and re.fullmatch(r"[a-z][a-z0-9_]*", str(name.value))
        assert static, f"{path.relative_to(ROOT)}:{call.lineno}: the event of a log line is a constant snake_case name"
