"""The feed against the vendor's own Python code, running over a stand-in of its native client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from importlib.metadata import files
from typing import Any

import numpy as np
import pytest

from feeds.errors import FeedError
from feeds.feed import load_feed
from feeds.inputs import FeedInput, Heartbeat, MarkKind
from feeds.instruments import Board
from feeds.tick import TickBatch
from feeds.xt import XtFeed
from tests.feeds.vendor_terminal import TEN, Terminal, load_vendor, on_terminal_thread, running_terminal, tick, until


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with running_terminal() as one:
        yield one


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    feeds: list[XtFeed] = []

    async def opening(**settings: Any) -> XtFeed:
        feed = XtFeed(**{"now": lambda: TEN / 1000 + 1, "pulse": ()} | settings)
        feeds.append(feed)
        await feed.open()
        return feed

    yield opening
    for feed in feeds:
        await feed.close()


async def rest_of(feed: XtFeed) -> list[Any]:
    """Close the feed and return what it still yields."""
    await feed.close()
    return [one.value async for one in feed]


def codes(n: int) -> list[str]:
    return [f"{600000 + place}.SH" for place in range(n)]


# ── opening and closing ───────────────────────────────────────────────────────────────────────────────────────────


async def test_the_whole_market_is_one_whole_quote_subscription(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    assert ("subscribe_whole_quote", ["SH", "SZ", "BJ"], 1) in terminal.calls
    assert not feed.has_offsets
    assert feed.paced


async def test_few_symbols_are_subscribed_one_by_one_and_many_as_a_whole(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    await opened(symbols=codes(3))
    assert [call[:2] for call in terminal.calls if call[0] == "subscribe_quote"] == [
        ("subscribe_quote", code) for code in codes(3)
    ]
    await opened(symbols=codes(51))
    assert [call[1] for call in terminal.calls if call[0] == "subscribe_whole_quote"] == [codes(51)]


async def test_close_unsubscribes_disconnects_and_is_idempotent(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened(symbols=codes(2))
    await feed.close()
    await feed.close()
    assert terminal.subscriptions == {}
    assert terminal.calls[-3:] == [("unsubscribe_quote", 1), ("unsubscribe_quote", 2), ("shutdown",)]
    assert not any(client.connected for client in terminal.clients)


async def test_close_of_a_lost_connection_does_not_connect_again(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    feed = await opened()
    terminal.drop_connection()
    await feed.close()
    assert len(terminal.clients) == 1
    assert not any(call[0] == "unsubscribe_quote" for call in terminal.calls)


async def test_close_before_open_is_nothing() -> None:
    feed = XtFeed()
    await feed.close()
    await feed.close()
    assert not any(feed.counters().values())


async def test_the_iteration_ends_behind_what_had_arrived(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    terminal.push({"600000.SH": tick()})
    values = await rest_of(feed)
    assert [value.symbols for value in values] == [("600000.SH",)]


async def test_ticks_after_close_are_counted_as_late(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    kept = terminal.subscriptions[1]
    await feed.close()
    terminal.subscriptions = {9: kept}
    terminal.push({"600000.SH": tick()})
    assert feed.counters()["inbox_late"] == 1


async def test_no_terminal_is_one_clear_error(terminal: Terminal) -> None:
    terminal.running = False
    feed = XtFeed(port=58610)
    with pytest.raises(FeedError, match=r"connecting failed: 无法连接xtquant服务.*Start miniQMT"):
        await feed.open()
    await feed.close()


async def test_a_refused_subscription_is_an_error_and_leaves_none_behind(terminal: Terminal) -> None:
    terminal.grants = [1, 2, -1]
    with pytest.raises(FeedError, match=r"subscription refused for 600002\.SH .answer -1.: .* no right"):
        await XtFeed(symbols=codes(3)).open()
    assert terminal.subscriptions == {}
    assert not any(client.connected for client in terminal.clients)


async def test_a_call_that_hangs_is_given_up_and_undone_when_it_comes_back(terminal: Terminal) -> None:
    terminal.hanging = {"subscribe_whole_quote"}
    feed = XtFeed(timeout_s=0.05)
    with pytest.raises(FeedError, match=r"connecting took over 0\.05 s"):
        await feed.open()
    terminal.release.set()
    await until(lambda: ("unsubscribe_quote", 1) in terminal.calls or not terminal.live())
    assert terminal.live() == []


async def test_without_the_vendors_package_the_error_names_the_other_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xtquant.xtdata", None)
    with pytest.raises(FeedError, match=r"runs on Windows.*monitord\[qmt\].*bridge.*quotes_http.*simulated and replay"):
        await XtFeed().open()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"symbols": ["600519"]}, "'600519' is no code"),
        ({"symbols": ["SZ"]}, "'SZ' is no code"),
        ({"symbols": []}, "no symbols: name codes"),
        ({"markets": ["HK"]}, "'HK' is none of the markets SH, SZ, BJ"),
        ({"symbols": ["600519.SH"], "markets": ["SZ"]}, "name markets or symbols, not both"),
        ({"silent_s": 90.0}, "silent_s 90 must not be more than renew_s 60"),
        ({"reconnect_first_s": 9.0}, "backoff from 9 s to 5 s"),
    ],
)
def test_what_cannot_be_watched_is_refused_at_once(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(FeedError, match=f"^xt: {why}"):
        XtFeed(**settings)


async def test_iterating_before_open_is_an_error() -> None:
    with pytest.raises(FeedError, match="call open"):
        async for _ in XtFeed():
            pass


def test_the_registry_loads_it_by_name() -> None:
    assert load_feed("xt") is XtFeed


# ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_whole_market_pushed_as_bson_comes_out_as_one_batch(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    feed = await opened()
    feed._beat_timer.cancel()  # no heartbeat, however long the market takes
    market = [f"{600000 + place}.SH" for place in range(5000)] + [f"{place:06d}.SZ" for place in range(1, 501)]
    waiting = asyncio.ensure_future(anext(aiter(feed)))
    await asyncio.to_thread(terminal.push, {code: tick(volume=758_613 + place) for place, code in enumerate(market)})
    one = await asyncio.wait_for(waiting, 10)
    assert isinstance(one, FeedInput)
    assert one.offset == -1
    assert isinstance(one.value, TickBatch)
    assert one.value.symbols == tuple(market)
    assert np.array_equal(one.value.column("volume_lots"), np.arange(5500) + 758_613)
    assert (one.value.column("bid_price_3") == 11.37).all()
    assert one.value.recv_ms[0] == TEN + 1000
    assert feed.counters()["ticks"] == 5500
    assert feed.counters()["inbox_wakes"] == 1


async def test_lists_of_single_subscriptions_are_understood(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened(symbols=codes(2))
    terminal.push({"600000.SH": [tick(), tick(time=TEN + 3000)]}, number=1)
    (batch,) = await rest_of(feed)
    assert batch.ts_event_ms.tolist() == [TEN, TEN + 3000]


async def test_a_bad_symbol_and_a_bad_tick_do_not_lose_the_others(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    feed = await opened()
    terminal.push({"600000.SH": tick(), "": tick(), "600001.SH": None, "IF2306.IF": tick(), "600002.SH": tick()})
    (batch,) = await rest_of(feed)
    assert batch.symbols == ("600000.SH", "600002.SH")
    counts = feed.counters()
    assert (counts["ticks"], counts["bad_symbol"], counts["not_a_tick"]) == (2, 2, 1)


async def test_of_a_market_only_the_watched_boards_are_kept(terminal: Terminal, opened: Callable[..., Any]) -> None:
    payload = {"600000.SH": tick(), "510300.SH": tick(), "204001.SH": tick(), "000001.SH": tick()}
    for boards, kept in ((None, ("600000.SH", "000001.SH")), ([Board.ETF], ("510300.SH",))):
        feed = await opened(boards=boards)
        terminal.push(payload)
        assert (await rest_of(feed))[-1].symbols == kept


async def test_a_named_fund_is_kept(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened(symbols=["510300.SH"])
    terminal.push({"510300.SH": [tick()]})
    assert (await rest_of(feed))[0].symbols == ("510300.SH",)


async def test_an_exception_in_the_callback_is_counted_and_the_next_push_is_used(
    terminal: Terminal, opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    feed = await opened()

    see_time, faults = feed._pushes._see_time, [RuntimeError("a fault of ours")]

    def see_time_or_fail(batch: TickBatch) -> bool:
        if faults:
            raise faults.pop()
        return see_time(batch)

    feed._pushes._see_time = see_time_or_fail
    terminal.push({"600000.SH": tick()})
    terminal.push({"600000.SH": tick()})
    assert [value.symbols for value in await rest_of(feed)] == [("600000.SH",)]
    assert feed.counters()["callback_errors"] == 1
    assert "subscribe callback error" not in capsys.readouterr().out  # what the vendor prints of what escapes


async def test_bytes_that_are_no_bson_reach_nobody(
    terminal: Terminal, opened: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    feed = await opened()
    terminal.push(b"\x05\x00\x00\x00junk")
    terminal.push({"600000.SH": tick()})
    assert len(await rest_of(feed)) == 1
    assert "subscribe callback error" in capsys.readouterr().out  # the vendor's own decoding failed and was swallowed


async def test_callbacks_on_several_threads_lose_nothing(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened(inbox_batches=1000)
    callback, start = partial(feed._pushes.on_push, 1), threading.Barrier(4)

    def deliver(code: str) -> None:
        start.wait()
        for number in range(100):
            callback({code: tick(time=TEN + number)})

    threads = [threading.Thread(target=deliver, args=(code,)) for code in codes(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen: dict[str, list[int]] = {code: [] for code in codes(4)}
    for batch in await rest_of(feed):
        seen[batch.symbols[0]].append(int(batch.ts_event_ms[0]) - TEN)
    assert all(times == list(range(100)) for times in seen.values())


async def test_a_consumer_that_is_too_slow_gets_a_gap(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened(inbox_batches=2)
    for number in range(4):
        terminal.push({"600000.SH": tick(time=TEN + number)})
    gap, *batches = await rest_of(feed)
    assert (gap.kind, [int(batch.ts_event_ms[0]) - TEN for batch in batches]) == (MarkKind.GAP, [2, 3])
    assert feed.counters()["inbox_dropped_batches"] == 2


async def test_wrong_units_end_the_feed_with_an_error_that_says_which(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    feed = await opened()
    terminal.push({code: tick(volume=75_861_284) for code in codes(20)})
    terminal.push({code: tick() for code in codes(20)})
    with pytest.raises(FeedError, match=r"20 of 20 ticks of board main .*0\.01 times the price.*not in lots"):
        await anext(aiter(feed))


async def test_proven_units_are_enforced_tick_by_tick(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    terminal.push({code: tick() for code in codes(20)})
    terminal.push({"600000.SH": tick(volume=75_861_284), "600001.SH": tick()})
    assert [len(batch) for batch in await rest_of(feed)] == [20, 1]
    assert feed.counters()["wrong_units"] == 1


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_without_a_frame_gives_a_heartbeat_three_seconds_behind(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    clock = Clock()
    feed = await opened(monotonic=clock)
    feed._pushes.beat()  # nothing is known of the time yet
    terminal.push({"600000.SH": tick()})
    for at_s in (100.5, 101.0, 105.0, 104.0, 106.0):
        clock.now_s = at_s
        feed._pushes.beat()
        await asyncio.sleep(0)
    assert [value.ts_ms - TEN for value in await rest_of(feed) if isinstance(value, Heartbeat)] == [3000]


async def test_heartbeats_never_go_back_and_wait_for_the_frame_that_overtook_them(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    clock = Clock()
    feed = await opened(monotonic=clock)
    beats: list[int] = []
    inputs = aiter(feed)

    async def beat(at_s: float) -> None:
        clock.now_s = at_s
        before = len(feed._inbox._queue)
        feed._pushes.beat()
        if len(feed._inbox._queue) > before:
            beats.append((await anext(inputs)).value.ts_ms - TEN)

    async def frame(at_s: float, time_ms: int) -> None:
        clock.now_s = at_s
        terminal.push({"600000.SH": tick(time=TEN + time_ms)})
        await anext(inputs)

    await frame(100, 0)
    for at_s in (100.9, 101, 102, 110):
        await beat(at_s)
    await frame(
        111, 500
    )  # an old tick, while the clock has been at 7 s: it stands until that tick's time has caught up
    for at_s in (112, 118, 122):
        await beat(at_s)
    assert beats == [-2000, -1000, 7000, 8500]


async def test_a_tick_from_the_future_does_not_move_the_clock(terminal: Terminal, opened: Callable[..., Any]) -> None:
    clock = Clock()
    feed = await opened(monotonic=clock)
    terminal.push({"600000.SH": tick(), "600001.SH": tick(time=TEN + 3_600_000)})
    clock.now_s += 4
    feed._pushes.beat()
    values = await rest_of(feed)
    assert [value.ts_ms for value in values if isinstance(value, Heartbeat)] == [TEN + 1000]


async def test_the_loops_timer_beats_and_stops_with_the_feed(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    beats = []
    feed._pushes.beat = lambda: beats.append(1)
    timer = feed._beat_timer
    feed._on_second()
    assert beats == [1]
    assert feed._beat_timer is not timer
    await feed.close()
    assert feed._beat_timer.cancelled()
    timer.cancel()


# ── the connection ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_status_of_no_known_form_is_nothing(terminal: Terminal, opened: Callable[..., Any]) -> None:
    feed = await opened()
    on_terminal_thread(lambda: feed._on_status(None))
    on_terminal_thread(lambda: feed._on_status({"status": 5}))
    await asyncio.sleep(0)
    assert feed.counters()["disconnects"] == 0


# ── what we rely on ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("connect", ["ip", "port"]),
        ("disconnect", []),
        ("watch_xtquant_status", ["callback"]),
        ("subscribe_whole_quote", ["code_list", "callback"]),
        ("subscribe_quote", ["stock_code", "period", "callback"]),
        ("reconnect", ["ip", "port"]),
        ("get_client", []),
        ("get_stock_list_in_sector", ["sector_name"]),
        ("get_sector_list", []),
        ("download_sector_data", []),
        ("get_instrument_detail", ["stock_code"]),
        ("get_trading_dates", ["market"]),
        ("get_trading_calendar", ["market"]),
    ],
)
def test_the_vendor_has_each_function_with_the_parameters_we_pass(function: str, parameters: list[str]) -> None:
    signature = inspect.signature(getattr(load_vendor(), function))
    assert set(parameters) <= set(signature.parameters)
    by_place = [name for name in parameters if name not in ("period", "callback") or "watch" in function]
    required = [name for name, one in signature.parameters.items() if one.default is one.empty]
    assert set(required) <= set(parameters)
    assert list(signature.parameters)[: len(by_place)] == by_place


def test_the_vendor_has_the_switch_for_its_banner() -> None:
    assert isinstance(load_vendor().enable_hello, bool)


def test_the_vendors_files_are_as_they_were_published() -> None:
    python = [file for file in files("xtquant") or () if file.suffix == ".py" and file.hash is not None]
    assert any(file.name == "xtdata.py" for file in python)
    for file in python:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file


def test_importing_everything_of_ours_never_imports_the_vendor() -> None:
    program = """
import importlib, pkgutil, sys
for name in ("config", "feeds", "rules", "notifiers", "monitord"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
assert "feeds.xt" in sys.modules
sys.exit(any(name.split(".")[0] == "xtquant" for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
