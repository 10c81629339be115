"""`XtHistory`: bars of the past from the vendor's terminal.

What is not on the terminal's disk must be downloaded first, a call that may hang; so all of this runs in a thread of
its own, which a hanging call costs, while the thread that subscribes goes on. Bars are asked for as they were traded,
and the vendor's table of ex-rights days comes with them: then they are adjusted as the engine adjusts its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import structlog

from feeds.errors import FeedError
from feeds.history import COLUMNS, BarTable, HistoryRequest, PastBars, table_of
from feeds.sessions import DAY_MS, SHANGHAI_MS, trade_date
from feeds.xtlane import VendorLane

FIELDS: Final = ("time", "open", "high", "low", "close", "volume", "amount", "suspendFlag")
CHUNK: Final = 50
"""Symbols a call is made for: 50 times 250 bars are some 100 ms of the terminal's time."""
_NAMES: Final = {"volume_lots": "volume", "amount_cny": "amount"}
_MINUTES: Final = {"1m": 1, "5m": 5, "1d": 240}
_SHARES_PER_LOT: Final = 100

log = structlog.get_logger(__name__)
T = TypeVar("T")


class XtHistory:
    """Asks the vendor's module; one question at a time, on the event loop. `close` gives up a call that hangs."""

    def __init__(self, *, timeout_s: float = 30.0, download_s: float = 60.0) -> None:
        """Say how long a question, and a download before it, may take."""
        self._timeout_s, self._download_s = timeout_s, download_s
        self._lane: VendorLane | None = None
        self._downloads = True
        self._turn = asyncio.Lock()

    async def ask(self, xtdata: Any, request: HistoryRequest) -> PastBars:
        """Return what the terminal has of the bars asked for, downloaded first where it lets us.

        Raises FeedError where it fails or is too slow, for periods that it does not keep, and for units that are not
        lots and yuan. A download that hangs is not tried again.
        """
        if request.period not in _MINUTES:
            raise FeedError(f"xt: bars of {request.period} are made from others; ask for {', '.join(_MINUTES)}")
        tables: list[list[tuple[str, dict[str, Any]]]] = []
        factors: dict[int, dict[str, tuple[float, float]]] = {}
        async with self._turn:
            for start in range(0, len(request.symbols), CHUNK):
                some = request.symbols[start : start + CHUNK]
                await self._download(xtdata, request, some)
                tables.append(await self._call(partial(_read, xtdata, request, some), self._timeout_s))
                found = await self._call(partial(_factors, xtdata, request, some), self._timeout_s)
                for date, symbol, pair in found:
                    factors.setdefault(date, {})[symbol] = pair
        return PastBars(_one(request, tables), factors)

    def close(self) -> None:
        """End the thread; one that hangs in the vendor's code is left behind, and the process does not wait for it."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()

    async def _download(self, xtdata: Any, request: HistoryRequest, symbols: Sequence[str]) -> None:
        """Let the terminal fetch what it lacks; where it fails, what it has will do."""
        if not self._downloads:
            return
        start = _stamp(_since_ms(request), "%Y%m%d")
        try:
            await self._call(
                lambda: xtdata.download_history_data2(list(symbols), request.period, start_time=start, end_time=""),
                self._download_s,
            )
        except FeedError as error:
            log.warning("xt_download_failed", why=str(error), period=request.period, first=symbols[0])

    async def _call(self, call: Callable[[], T], timeout_s: float) -> T:
        if self._lane is None:
            self._lane = VendorLane("xthistory")
        try:
            return await self._lane.ask(call, timeout_s=timeout_s)
        except FeedError:
            raise
        except TimeoutError:
            self._downloads = False
            raise FeedError(f"xt: a call for history took over {timeout_s:g} s; restart the terminal") from None
        except Exception as error:  # the vendor raises bare Exception
            raise FeedError(f"xt: a call for history failed: {error}") from error


def _read(xtdata: Any, request: HistoryRequest, symbols: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return (symbol, columns) of each that has bars, as traded; on the history's thread."""
    found = xtdata.get_market_data_ex(
        field_list=list(FIELDS),
        stock_list=list(symbols),
        period=request.period,
        start_time=_stamp(_since_ms(request), "%Y%m%d"),
        end_time=_stamp(request.until_ms, "%Y%m%d%H%M%S"),
        count=-1,
        dividend_type="none",
        fill_data=False,  # a day without trading is no bar
    )
    return [(symbol, columns) for symbol in symbols if (columns := _columns(found.get(symbol))) is not None]


def _columns(frame: Any) -> dict[str, Any] | None:
    if frame is None or not len(frame):
        return None
    missing = [name for name in FIELDS[:-1] if name not in frame]
    if missing:
        raise FeedError(f"xt: bars without {', '.join(missing)}; this feed was written for version 250807")
    traded = np.ones(len(frame), np.bool_)
    if "suspendFlag" in frame:
        traded = frame["suspendFlag"].to_numpy() != 1
    columns = {name: frame[_NAMES.get(name, name)].to_numpy(np.float64)[traded] for name in COLUMNS}
    return {"time": frame["time"].to_numpy(np.int64)[traded], **columns}


def _factors(
    xtdata: Any, request: HistoryRequest, symbols: Sequence[str]
) -> list[tuple[int, str, tuple[float, float]]]:
    """Return (date, symbol, (price, shares)) of ex-rights days among the bars and up to now, as the vendor has them."""
    found = []
    start, end = _stamp(_since_ms(request), "%Y%m%d"), _stamp(request.until_ms, "%Y%m%d")
    for symbol in symbols:
        frame = xtdata.get_divid_factors(symbol, start, end)
        if frame is None or not len(frame) or "dr" not in frame:
            continue
        for key, row in frame.iterrows():
            ratio = float(row["dr"])
            shares = 1.0 + float(row.get("stockBonus", 0.0)) + float(row.get("stockGift", 0.0))
            if ratio > 0:
                found.append((_date(row.get("time", key)), symbol, (1.0 / ratio, shares)))
    return found


def _date(told: Any) -> int:
    """Return the trade date of ms since 1970, or of a text such as 20230630."""
    number = int(float(told))
    return number if 19_000_000 < number < 30_000_000 else trade_date(number)


def _one(request: HistoryRequest, parts: Sequence[list[tuple[str, dict[str, Any]]]]) -> BarTable:
    rows = [one for part in parts for one in part]
    if not rows:
        nothing = np.zeros(0)
        table = table_of(
            request.period, np.zeros(0, "U1"), nothing.astype(np.int64), columns=dict.fromkeys(COLUMNS, nothing)
        )
        return table.of(request.symbols)
    symbols = np.concatenate([np.full(len(columns["time"]), symbol) for symbol, columns in rows])
    ends_ms = np.concatenate([columns["time"] for _, columns in rows])
    columns = {name: np.concatenate([columns[name] for _, columns in rows]) for name in COLUMNS}
    table = table_of(request.period, symbols, ends_ms, columns=columns)
    _prove_units(table)
    return table.newest(request.bars).of(request.symbols)


def _prove_units(table: BarTable) -> None:
    """Raise FeedError where most bars have an average price nowhere near their close: other units."""
    with np.errstate(all="ignore"):
        ratio = table.amount_cny / (table.volume_lots * _SHARES_PER_LOT) / table.close
    stocks = np.array([not symbol.startswith(("000001.SH", "399")) for symbol in table.symbols])[table.code]
    known = ratio[stocks & np.isfinite(ratio)]
    if known.size and not 0.5 < float(np.median(known)) < 2.0:
        raise FeedError(
            f"xt: the average price of bars of {table.period} is about {float(np.median(known)):.3g} times the close: "
            "volume is not in lots or amount not in yuan. Compare the terminal's version with 250807"
        )


def _since_ms(request: HistoryRequest) -> int:
    """Return a time before the oldest bar asked for: trading days with weekends, holidays and some suspensions."""
    days = -(-request.bars * _MINUTES[request.period] // 240)
    return request.until_ms - (days * 8 // 5 + 20) * DAY_MS


def _stamp(time_ms: int, form: str) -> str:
    return datetime.fromtimestamp((time_ms + SHANGHAI_MS) / 1000, UTC).strftime(form)
