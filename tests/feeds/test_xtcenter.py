"""The vendor's quote service inside our process, over a stand-in of its native module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from feeds.errors import FeedError
from feeds.xt import XtFeed
from tests.feeds.vendor_terminal import Terminal, running_terminal

TOKEN = "0123456789abcdef"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with running_terminal() as one:
        yield one


async def test_a_token_starts_the_service_and_the_feed_connects_to_it(terminal: Terminal, tmp_path: Path) -> None:
    feed = XtFeed(token=TOKEN, data_home=tmp_path / "xt", servers=["1.2.3.4:55300"], pulse=())
    await feed.open()
    assert terminal.settings["set_token"] == TOKEN
    assert terminal.settings["set_data_home_dir"] == str(tmp_path / "xt")
    assert (tmp_path / "xt").is_dir()
    assert terminal.settings["set_allow_optmize_address"] == ["1.2.3.4:55300"]
    assert terminal.settings["set_watch_market_list"] == ["SH", "SZ", "BJ"]
    assert terminal.settings["listen"] == ("127.0.0.1", 58620, 58650), "nobody else may reach it"
    assert ("address", "127.0.0.1:58620") in terminal.calls
    assert terminal.live() == [["SH", "SZ", "BJ"]]
    await feed.close()
    assert terminal.calls[-2:] == [("shutdown",), ("shutdown_service",)]
    assert TOKEN not in feed.source_id


async def test_the_port_is_the_one_that_is_set_or_the_one_that_was_free(terminal: Terminal) -> None:
    terminal.settings["free_port"] = 58633
    feed = XtFeed(token=TOKEN, pulse=())
    await feed.open()
    assert ("address", "127.0.0.1:58633") in terminal.calls
    await feed.close()
    del terminal.settings["free_port"]
    feed = XtFeed(token=TOKEN, port=50000, pulse=())
    await feed.open()
    assert terminal.settings["listen"] == ("127.0.0.1", 50000, 50000)
    await feed.close()


async def test_a_token_without_rights_is_told_in_plain_words_and_never_shown(terminal: Terminal) -> None:
    terminal.token_error = {
        "loginparam": {"ip": "1.2.3.4", "port": 55300},
        "errorcode": 1,
        "boerror": f"token {TOKEN} 无效",
    }
    feed = XtFeed(token=TOKEN, pulse=())
    with pytest.raises(
        FeedError, match=r"starting the quote service failed: .*未获取到市场权限.*token … 无效.*mistyped"
    ) as told:
        await feed.open()
    assert TOKEN not in str(told.value)
    assert terminal.clients == []


async def test_a_port_that_is_taken_is_told(terminal: Terminal) -> None:
    terminal.settings["free_port"] = 0
    with pytest.raises(FeedError, match=r"监听端口失败.*set another feed\.xt\.port"):
        await XtFeed(token=TOKEN, pulse=()).open()


async def test_a_service_that_never_gets_ready_is_given_up(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's `init` asks every half second, for ever, whether the login is done."""
    monkeypatch.setattr("feeds.xt.TOKEN_TIMEOUT_S", 0.05)
    terminal.hanging = {"get_status"}
    with pytest.raises(FeedError, match=r"starting the quote service took over 0\.05 s; check feed\.xt\.token"):
        await XtFeed(token=TOKEN, pulse=()).open()


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("set_token", ["token"]),
        ("set_data_home_dir", ["data_home_dir"]),
        ("set_allow_optmize_address", ["allow_list"]),
        ("set_init_markets", ["markets"]),
        ("set_wholequote_market_list", ["market_list"]),
        ("init", ["start_local_service"]),
        ("listen", ["ip", "port"]),
        ("shutdown", []),
    ],
)
def test_the_vendor_has_each_function_with_the_parameters_we_pass(
    terminal: Terminal, function: str, parameters: list[str]
) -> None:
    signature = inspect.signature(getattr(import_module("xtquant.xtdatacenter"), function))
    assert list(signature.parameters) == parameters
