"""Bars of the past through the vendor's own Python layer, over a stand-in of its terminal."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from feeds.errors import FeedError
from feeds.history import HistoryRequest
from feeds.sessions import unix_ms
from feeds.xthistory import FIELDS, XtHistory
from tests.feeds.vendor_terminal import Terminal, load_vendor, running_terminal

A, B = "600519.SH", "000333.SZ"
UNTIL = unix_ms(20230201, 10 * 3_600_000 + 41 * 60_000 + 5_000)


def k_lines(times: list[int], *, price: float = 10.0, suspended: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    n = len(times)
    flag = np.zeros(n, np.int32)
    flag[list(suspended)] = 1
    prices = {name: np.full(n, price) for name in ("open", "high", "low", "close")}
    return {
        "time": np.array(times, np.int64), **prices, "volume": np.full(n, 100.0), "amount": np.full(n, 1e4 * price),
        "suspendFlag": flag,
    }  # fmt: skip


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with running_terminal() as terminal:
        yield terminal


async def ask(request: HistoryRequest, **options: float) -> object:
    history = XtHistory(**options)  # type: ignore[arg-type]
    try:
        return await history.ask(load_vendor(), request)
    finally:
        history.close()


def request(period: str = "1d", bars: int = 5) -> HistoryRequest:
    return HistoryRequest(period, (A, B), bars, UNTIL)


async def test_bars_come_as_traded_without_suspended_days(terminal: Terminal) -> None:
    days = [unix_ms(date) for date in (20230130, 20230131, 20230201)]
    terminal.bars[A, "1d"] = k_lines(days, suspended=(1,))
    found = await ask(request())
    assert found.table.symbols == (A, B)
    assert found.table.counts().tolist() == [2, 0]
    assert found.table.ends_ms.tolist() == [days[0], days[2]]
    assert found.table.volume_lots.tolist() == [100.0, 100.0]
    call = next(call for call in terminal.calls if call[0] == "get_market_data3")
    assert call[6:] == ("none", False)
    assert call[4] == "20230201104105"


async def test_what_is_not_on_the_disk_is_downloaded_first(terminal: Terminal) -> None:
    await ask(request("1m", 240))
    names = [call[0] for call in terminal.calls]
    assert names.index("supply_history_data2") < names.index("get_market_data3")


async def test_ex_rights_days_come_with_the_bars(terminal: Terminal) -> None:
    terminal.bars[A, "1d"] = k_lines([unix_ms(20230131)])
    terminal.dividends[A] = {"20230131": {"interest": 0.0, "stockBonus": 0.0, "stockGift": 1.0, "dr": 2.0}}
    found = await ask(request())
    assert found.factors == {20230131: {A: (0.5, 2.0)}}


async def test_a_hanging_download_costs_its_time_once(terminal: Terminal) -> None:
    terminal.hangs.set()
    terminal.bars[A, "1d"] = k_lines([unix_ms(20230131)])
    history = XtHistory(download_s=0.05)
    found = await history.ask(load_vendor(), request())
    assert found.table.counts().tolist() == [1, 0], "what the terminal has will do"
    await history.ask(load_vendor(), request())
    assert [call[0] for call in terminal.calls].count("supply_history_data2") == 1
    hanging = [thread for thread in threading.enumerate() if thread.name == "xthistory"]
    assert hanging
    assert all(thread.daemon for thread in hanging), "the process would not end before it"
    history.close()
    terminal.hangs.clear()


async def test_a_failing_call_is_an_error_that_says_so(terminal: Terminal) -> None:
    terminal.bars[A, "1d"] = {"time": np.array([unix_ms(20230131)]), "open": np.array([1.0])}
    with pytest.raises(FeedError, match="without high, low, close"):
        await ask(request())


async def test_shares_for_lots_are_refused(terminal: Terminal) -> None:
    lines = k_lines([unix_ms(20230131)])
    lines["volume"] *= 100
    terminal.bars[A, "1d"] = lines
    with pytest.raises(FeedError, match="not in lots"):
        await ask(request())


async def test_many_symbols_are_asked_for_some_at_a_time(terminal: Terminal) -> None:
    symbols = tuple(f"60{number:04}.SH" for number in range(120))
    await ask(HistoryRequest("1d", symbols, 5, UNTIL))
    sizes = [len(call[1]) for call in terminal.calls if call[0] == "get_market_data3"]
    assert sizes == [50, 50, 20]


async def test_the_loop_goes_on_while_the_vendor_thinks(terminal: Terminal) -> None:
    terminal.hangs.set()
    history = XtHistory(download_s=0.2)
    asking = asyncio.ensure_future(history.ask(load_vendor(), request()))
    await asyncio.sleep(0)
    assert not asking.done()
    await asking
    history.close()
    terminal.hangs.clear()


def test_the_vendors_functions_take_what_we_pass() -> None:
    xtdata = load_vendor()
    ours = {
        "get_market_data_ex": {
            "field_list", "stock_list", "period", "start_time", "end_time", "count", "dividend_type", "fill_data"
        },
        "download_history_data2": {"stock_list", "period", "start_time", "end_time"},
        "get_divid_factors": {"stock_code", "start_time", "end_time"},
    }  # fmt: skip
    for name, parameters in ours.items():
        assert parameters <= set(inspect.signature(getattr(xtdata, name)).parameters), name
    assert "time" in FIELDS
