"""`monitord notify test`: the very code that delivers, what came back in a line, and an exit code to build on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from monitord.__main__ import main
from monitord.commands import FINDINGS, GOOD, UNUSABLE


class Vendor(BaseHTTPRequestHandler):
    """Answers as DingTalk: a token that ends in `good` is one."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        good = "good" in self.path and "测试" in body.decode()
        told = b'{"errcode":0}' if good else b'{"errcode":300005,"errmsg":"token pl4nted-bad is not exist"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    server = HTTPServer(("127.0.0.1", 0), Vendor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}/robot/send?access_token=pl4nted"
    (tmp_path / "monitord.toml").write_text(
        "\n".join(
            f'[[notify.dingtalk]]\nname = "{name}"\nurl = "{at}-{name}"\nallow_networks = ["127.0.0.0/8"]'
            for name in ("good", "bad")
        )
        + f'\n[[notify.tdx]]\nname = "marks"\nblock = "{tmp_path}/M.blk"\n'
    )
    yield tmp_path / "monitord.toml"
    server.shutdown()
    server.server_close()


def test_a_receiver_that_takes_the_message_is_good(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notify", "test", "good", "marks", "--config", str(config)]) == GOOD
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("good   dingtalk    taken · code 0")
    assert "1 marked" in lines[1]
    assert (config.parent / "M.blk").read_bytes() == b"1000001\r\n"


def test_one_that_refuses_is_told_with_code_and_reason_and_without_its_secret(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["notify", "test", "--all", "--config", str(config)]) == FINDINGS
    output = capsys.readouterr()
    bad = next(line for line in output.out.splitlines() if line.startswith("bad"))
    assert "refused · code 300005" in bad
    assert "no such access_token" in bad
    assert "pl4nted" not in output.out + output.err
    assert len(output.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "complaint"), [([], "--all"), (["nobody"], "'nobody'"), (["good", "--all"], "there are good, bad, marks")]
)
def test_names_that_are_none_are_refused(
    words: list[str], complaint: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["notify", "test", *words, "--config", str(config)]) == UNUSABLE
    assert complaint in capsys.readouterr().err


def test_without_receivers_it_says_where_to_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "monitord.toml").write_text("")
    assert main(["notify", "test", "--all", "--config", str(tmp_path / "monitord.toml")]) == UNUSABLE
    assert "docs/receivers.md" in capsys.readouterr().err
