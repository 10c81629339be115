"""The vendor's errors in plain words."""

from __future__ import annotations

import re
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

from feeds.errors import FeedError
from feeds.xtlink import import_vendor
from feeds.xtmessages import MESSAGES, REFUSED, explain

DOCUMENT = Path(__file__).parents[2] / "docs" / "feeds.md"
OURS = {
    REFUSED,
    "DLL load failed",
    "cannot import name 'datacenter'",
    "No module named 'xtquant",
    "function not realize",
}
"""What is not written in the package: our own words, Python's and Windows', and the terminal's."""


def vendor_text() -> str:
    names = ("xtdata.py", "xtdatacenter.py", "xtconn.py")
    texts = [file.read_text() for file in files("xtquant") or () if file.name in names and len(file.parts) == 2]
    assert len(texts) == len(names)
    return "\n".join(texts)


@pytest.mark.parametrize("message", MESSAGES, ids=[message.text for message in MESSAGES])
def test_each_message_is_one_the_vendor_still_has_and_is_documented(message: object) -> None:
    text, means = message  # type: ignore[misc]
    if text not in OURS and text != "exceptions must derive from BaseException":
        assert text in vendor_text()
    assert f"`{text}`" in DOCUMENT.read_text(encoding="utf-8")
    assert explain(f"Exception: {text}, and more") == means


def test_every_exception_of_the_calls_we_make_is_explained() -> None:
    raised = re.findall(r"raise (?:Exception|ConnectionError|OSError)\(f?[\"']([^\"'{]{4,})", vendor_text())
    ours = [
        text for text in raised if not text.startswith(("不能同时", "not find formula", "wait formula", "end_time("))
    ]
    assert len(ours) >= 12
    assert [text for text in ours if not explain(text)] == []


def test_the_vendor_raises_a_text_where_its_configuration_is_missing() -> None:
    assert "raise f'load config failed" in vendor_text()
    assert "xtdata.ini" in explain("exceptions must derive from BaseException")


def test_the_most_telling_part_of_a_message_wins() -> None:
    whole = "行情连接初始化异常, 未获取到市场权限, 当前连接状态:{'1.2.3.4:55300': '登录失败'}"
    assert "token" in explain(whole)
    assert explain("行情连接初始化异常 SH, 1.2.3.4:55300 timeout").startswith("the quote servers cannot be reached")


@pytest.mark.parametrize("error", ["", "something else", "连接"])
def test_what_is_not_known_is_not_explained(error: str) -> None:
    assert explain(error) == ""


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'xtquant'"),
        ImportError("cannot import name 'datacenter' from 'xtquant' (/opt/xtquant/__init__.py)"),
        ImportError("DLL load failed while importing datacenter: %1 is not a valid Win32 application."),
    ],
)
def test_a_package_that_cannot_be_used_is_one_message_that_names_bridge_and_http(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> None:
        raise error

    monkeypatch.setattr("feeds.xtlink.import_module", failing)
    with pytest.raises(FeedError) as told:
        import_vendor("xtdata")
    assert str(told.value).count("monitord bridge") == str(told.value).count("'quotes_http'") == 1
    assert str(error) in str(told.value)


@pytest.mark.skipif(sys.platform == "win32", reason="the vendor's binaries exist there")
def test_here_the_package_without_its_stand_in_says_the_same() -> None:
    import subprocess

    program = (
        "from feeds.xtlink import import_vendor\nimport sys; sys.modules['requests'] = None\nimport_vendor('xtdata')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "FeedError: xt: the package xtquant cannot be used here (cannot import name 'datacenter'" in done.stderr
    assert "monitord bridge" in done.stderr
