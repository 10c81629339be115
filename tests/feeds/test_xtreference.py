"""Instruments, limits, sectors and trading days as the terminal has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from feeds.instruments import Board, Instrument, Limits
from feeds.sessions import unix_ms
from feeds.xt import XtFeed
from tests.feeds.vendor_terminal import TEN, Terminal, load_vendor, running_terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with running_terminal() as one:
        yield one


@pytest.fixture
async def opened(terminal: Terminal) -> AsyncIterator[Callable[..., Any]]:
    feeds: list[XtFeed] = []

    async def opening(**settings: Any) -> XtFeed:
        feeds.append(XtFeed(**{"now": lambda: TEN / 1000, "pulse": (), "timeout_s": 0.2} | settings))
        await feeds[-1].open()
        return feeds[-1]

    yield opening
    terminal.release.set()
    for feed in feeds:
        await feed.close()


def detail(name: str, listed: Any = 0, **more: Any) -> dict[str, Any]:
    return {"InstrumentName": name, "OpenDate": listed, "PriceTick": 0.01} | more


def limits(up: float, down: float, before: float, day: Any = None) -> dict[str, Any]:
    return {"UpStopPrice": up, "DownStopPrice": down, "PreClose": before, "TradingDay": day}


async def test_instruments_come_with_names_and_listing_dates(terminal: Terminal, opened: Callable[..., Any]) -> None:
    terminal.sectors = {"沪深A股": ["600000.SH", "000001.SZ"], "京市A股": ["920081.BJ", "nonsense"]}
    terminal.details = {"600000.SH": detail("浦发银行", "19991110"), "920081.BJ": detail("N欧伦", 99999999)}
    feed = await opened(sectors=["京市A股"])
    assert await feed.instruments() == (
        Instrument("000001.SZ", None, Board.MAIN),
        Instrument("600000.SH", "浦发银行", Board.MAIN, 0.01, 100, 19991110),
        Instrument("920081.BJ", "N欧伦", Board.BSE, sectors=("京市A股",)),
    )


async def test_instruments_of_named_symbols_are_theirs_alone(terminal: Terminal, opened: Callable[..., Any]) -> None:
    terminal.details = {"600000.SH": detail("浦发银行"), "600001.SH": detail("邯郸钢铁", 19980122)}
    feed = await opened(symbols=["600000.SH"])
    assert [(one.symbol, one.list_date) for one in await feed.instruments()] == [("600000.SH", None)]


async def test_funds_are_asked_for_where_they_are_watched(terminal: Terminal, opened: Callable[..., Any]) -> None:
    terminal.sectors = {"沪深ETF": ["510300.SH"], "沪深A股": ["600000.SH"]}
    terminal.details = {"510300.SH": detail("沪深300ETF", PriceTick=0.001), "600000.SH": detail("浦发银行")}
    feed = await opened(boards=["etf"])
    assert [(one.symbol, one.tick) for one in await feed.instruments()] == [("510300.SH", 0.001)]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (limits(11.550000000000001, 9.45, 10.5, "20230201"), Limits(11.55, 9.45, 10.5, 20230201)),
        (limits(11.55, 9.45, 10.5), Limits(11.55, 9.45, 10.5)),
        (limits(0.0, 0.0, 10.5, "0"), Limits(0.0, 0.0, 10.5)),
        (limits(99999.0, 10_000.0, 10.5), Limits(0.0, 0.0, 10.5)),
        (limits(11.55, 9.45, 0.0), None),
        (limits(float("nan"), 9.45, 10.5), None),
        (limits(-1.0, 9.45, 10.5), None),
        ({"PreClose": 10.5}, None),
    ],
)
async def test_limits_of_0_or_10000_say_that_there_are_none(
    told: dict[str, Any], known: Limits | None, terminal: Terminal, opened: Callable[..., Any]
) -> None:
    terminal.details = {"600000.SH": detail("浦发银行", **told)}
    feed = await opened(symbols=["600000.SH"])
    (one,) = await feed.instruments()
    assert one.limits == known


async def test_a_market_without_limits_is_one_that_is_not_loaded(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    codes = [f"{600000 + number}.SH" for number in range(20)]
    terminal.details = {code: detail("x", **limits(0.0, 0.0, 10.5)) for code in codes}
    terminal.details[codes[0]] = detail("y", **limits(11.55, 9.45, 10.5))
    feed = await opened(symbols=codes)
    assert [one.limits for one in await feed.instruments()] == [Limits(11.55, 9.45, 10.5)] + [None] * 19


async def test_sectors_are_those_whose_names_fit_but_no_expired_ones(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    terminal.details = {code: detail("x") for code in ("600000.SH", "600001.SH")}
    terminal.sectors = {
        "SW1银行": ["600000.SH", "601398.SH"],
        "GN上海": ["600000.SH", "600001.SH"],
        "过期沪深A股": ["600001.SH"],
        "1000SW1银行": ["600000.SH"],
        "沪深A股": ["600000.SH", "600001.SH"],
    }
    feed = await opened(symbols=["600000.SH", "600001.SH"])
    assert [one.sectors for one in await feed.instruments()] == [
        ("SW1银行", "GN上海", "沪深A股"),
        ("GN上海", "沪深A股"),
    ]
    assert terminal.calls.index(("supply_history_data2", [])) < terminal.calls.index(("get_sector_list",))


async def test_a_download_of_sectors_that_hangs_costs_the_sectors_newest_state_only(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    terminal.details = {"600000.SH": detail("浦发银行")}
    terminal.sectors = {"SW1银行": ["600000.SH"]}
    terminal.hanging = {"supply_history_data2"}
    feed = await opened(symbols=["600000.SH"])
    (one,) = await feed.instruments()
    assert (one.name, one.sectors) == ("浦发银行", ("SW1银行",))
    assert feed.counters()["calls_abandoned"] == 1


async def test_one_code_that_the_vendor_stumbles_over_is_not_known_and_the_others_are(
    terminal: Terminal, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    xtdata, asked = load_vendor(), load_vendor().get_instrument_detail

    def stumbling(code: str) -> Any:
        if code == "600001.SH":
            raise KeyError("InstrumentName")
        return asked(code)

    terminal.details = {code: detail(code) for code in ("600000.SH", "600001.SH", "600002.SH")}
    monkeypatch.setattr(xtdata, "get_instrument_detail", stumbling)
    feed = await opened(symbols=list(terminal.details))
    assert [one.name for one in await feed.instruments()] == ["600000.SH", None, "600002.SH"]


@pytest.mark.parametrize("hanging", ["get_instrument_detail", "get_stock_list_in_sector"])
async def test_a_terminal_that_does_not_answer_knows_nothing_and_ticks_flow_on(
    hanging: str, terminal: Terminal, opened: Callable[..., Any]
) -> None:
    terminal.sectors = {"沪深A股": ["600000.SH"]}
    terminal.hanging = {hanging}
    feed = await opened()
    assert await feed.instruments() == ()
    await feed.close()
    assert await feed.instruments() == ()
    assert await feed.trading_dates() == ()


async def test_a_terminal_that_fails_knows_nothing(
    terminal: Terminal, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise Exception("no answer")

    feed = await opened()
    monkeypatch.setattr(load_vendor(), "get_stock_list_in_sector", failing)
    monkeypatch.setattr(load_vendor(), "get_trading_dates", failing)
    assert await feed.instruments() == ()
    assert await feed.trading_dates() == ()


async def test_trading_days_are_those_of_shanghai_wherever_the_machine_is(
    terminal: Terminal, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.trading_days = [20230131, 20230201]
    feed = await opened()
    for zone in ("America/New_York", "Asia/Shanghai"):
        monkeypatch.setenv("TZ", zone)
        assert await feed.trading_dates() == (20230131, 20230201)
    assert unix_ms(20230131) == 1675094400000


async def test_coming_days_are_taken_where_holidays_are_known(
    terminal: Terminal, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    terminal.trading_days = [20231227, 20231228]
    terminal.holidays = [20231231]
    feed = await opened()
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert await feed.trading_dates() == (20231227, 20231228, 20231229)
        monkeypatch.setenv("TZ", "America/New_York")  # the vendor's own reckoning is a day off there
        time.tzset()
        assert await feed.trading_dates() == (20231227, 20231228)
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_holiday_download_that_hangs_leaves_the_days_that_were(
    terminal: Terminal, opened: Callable[..., Any]
) -> None:
    terminal.trading_days = [20230131, 20230201]
    terminal.hanging = {"downloadholidaydata"}
    feed = await opened()
    assert await asyncio.wait_for(feed.trading_dates(), 5) == (20230131, 20230201)
