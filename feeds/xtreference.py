"""`XtReference`: instruments, limits, sectors and trading dates as the vendor's terminal has them.

Each of these is thousands of small blocking calls, any of which may hang. They go out in portions on the lane for
queries, so that one that hangs costs its own time only, and what was asked for less is simply not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from math import isfinite
from typing import Any, Final, TypeVar

import structlog

from feeds.errors import FeedError
from feeds.instruments import Board, Instrument, Limits, instrument_of
from feeds.sessions import trade_date
from feeds.universe import is_symbol
from feeds.xtlane import VendorLane

LISTS: Final = {
    Board.MAIN: "沪深A股",
    Board.CHINEXT: "沪深A股",
    Board.STAR: "沪深A股",
    Board.BSE: "京市A股",
    Board.B_SHARE: "沪深B股",
    Board.ETF: "沪深ETF",
    Board.BOND: "沪深转债",
    Board.INDEX: "沪深指数",
}
"""Board → the vendor's list that holds all of its codes."""
SECTORS: Final = ("沪深A股", "SW1*", "GN*")
"""Sectors that are taken unless others are named: all A shares, the industries (申万一级), the concepts."""
EXPIRED: Final = "过期"
"""How the names of sectors begin that hold what is no longer listed."""
PORTION: Final = 200
NO_LIMIT_CNY: Final = 10_000.0
"""From here on a limit says that there is none, as 0 does."""
MOST_WITHOUT: Final = 0.1
"""If more of the shares than this are said to have no limit, the terminal has not loaded them yet."""

log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


class XtReference:
    """Asks the terminal; keeps nothing but its wishes."""

    def __init__(
        self,
        *,
        symbols: Sequence[str] | None,
        boards: Iterable[Board],
        sectors: Sequence[str] | None,
        download_sectors: bool,
        timeout_s: float,
    ) -> None:
        """symbols: None = all of these boards. sectors: names, patterns; None = SECTORS. timeout_s: of one portion."""
        self._symbols = symbols
        self._lists = tuple(dict.fromkeys(LISTS[board] for board in boards if board in LISTS))
        self._patterns = SECTORS if sectors is None else tuple(sectors)
        self._download = download_sectors
        self._timeout_s = timeout_s

    async def instruments(self, lane: VendorLane, xtdata: Any) -> Sequence[Instrument]:
        """Return all instruments, those of which nothing is told with what their code tells; () if nothing answers."""
        try:
            codes = await self._codes(lane, xtdata)
            details: dict[str, Mapping[str, Any]] = {}
            for start in range(0, len(codes), PORTION):
                portion = codes[start : start + PORTION]
                details |= await self._ask(lane, partial(_details, xtdata, portion))
        except Exception as error:  # the vendor raises bare Exception
            log.warning("xt_instruments_unknown", error=str(error) or type(error).__name__)
            return ()
        if not details:
            log.warning("xt_instruments_unknown", error="the terminal knows none of the codes", codes=len(codes))
            return ()
        sectors = await self._sectors(lane, xtdata, frozenset(codes))
        known = [_instrument(code, details.get(code, {}), tuple(sectors.get(code, ()))) for code in codes]
        return _without_unloaded(known)

    async def trading_dates(self, lane: VendorLane, xtdata: Any) -> Sequence[int]:
        """Return trading days as yyyymmdd, oldest first: those that were, and as far as holidays are known, will be."""
        try:
            past = await self._ask(lane, lambda: [trade_date(int(ms)) for ms in xtdata.get_trading_dates("SH")])
        except Exception as error:  # the vendor raises bare Exception
            log.warning("xt_trading_dates_unknown", error=str(error) or type(error).__name__)
            return ()
        try:
            planned = await self._ask(lane, lambda: [int(day) for day in xtdata.get_trading_calendar("SH")])
        except Exception as error:  # no holidays are loaded, or their download hangs: the past is better than nothing
            log.info("xt_coming_dates_unknown", error=str(error) or type(error).__name__)
            planned = []
        # It reckons dates in the machine's own time zone: away from Shanghai they may be a day off, its holidays too.
        is_ours = bool(past) and [day for day in planned if day <= max(past)] == sorted(past)
        coming = [day for day in planned if day > max(past)] if is_ours else []
        return tuple(sorted({*past, *coming}))

    async def _codes(self, lane: VendorLane, xtdata: Any) -> Sequence[str]:
        if self._symbols is not None:
            return sorted(self._symbols)
        found: set[str] = set()
        for name in self._lists:
            found.update(await self._ask(lane, partial(xtdata.get_stock_list_in_sector, name)))
        return sorted(code for code in found if is_symbol(code))

    async def _sectors(self, lane: VendorLane, xtdata: Any, codes: frozenset[str]) -> Mapping[str, Sequence[str]]:
        """Return code → its sectors, in the order of the vendor's list; what does not answer is left out."""
        if not self._patterns:
            return {}
        if self._download:  # returns when done; None says nothing
            await self._try(lane, xtdata.download_sector_data, doing="download_sector_data")
        listed = await self._try(lane, lambda: list(xtdata.get_sector_list()), doing="get_sector_list") or []
        names = [name for name in listed if isinstance(name, str) and self._wants(name)]
        found: dict[str, list[str]] = {}
        for name in names:
            members = await self._try(lane, partial(xtdata.get_stock_list_in_sector, name), doing=name)
            if members is None:
                break  # each further one would wait as long
            for code in codes.intersection(members):
                found.setdefault(code, []).append(name)
        return found

    def _wants(self, name: str) -> bool:
        expired = name.startswith(EXPIRED) and name not in self._patterns
        return not expired and any(fnmatchcase(name, pattern) for pattern in self._patterns)

    async def _try(self, lane: VendorLane, call: Callable[[], _Answer], *, doing: str) -> _Answer | None:
        try:
            return await self._ask(lane, call)
        except Exception as error:  # the vendor raises bare Exception; sectors are a convenience
            log.warning("xt_sectors_incomplete", doing=doing, error=str(error) or type(error).__name__)
            return None

    async def _ask(self, lane: VendorLane, call: Callable[[], _Answer]) -> _Answer:
        try:
            return await lane.ask(call, timeout_s=self._timeout_s)
        except TimeoutError:
            raise FeedError(f"no answer within {self._timeout_s:g} s") from None


def _details(xtdata: Any, codes: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return what is told of these codes; one that the vendor stumbles over is not known, and the others are."""
    found = {}
    for code in codes:
        try:
            detail = xtdata.get_instrument_detail(code)
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # its own reading of the answer failed
            log.debug("xt_detail_unreadable", symbol=code, error=repr(error))
            continue
        if isinstance(detail, Mapping):
            found[code] = detail
    return found


def _instrument(code: str, detail: Mapping[str, Any], sectors: tuple[str, ...]) -> Instrument:
    name = detail.get("InstrumentName")
    one = instrument_of(
        code, name=str(name) if name else None, list_date=_date(detail.get("OpenDate")), sectors=sectors
    )
    tick = _price(detail.get("PriceTick"))
    return replace(one, tick=tick if tick and tick <= 1 else one.tick, limits=_limits(detail))


def _limits(detail: Mapping[str, Any]) -> Limits | None:
    up, down, prev_close = (_price(detail.get(field)) for field in ("UpStopPrice", "DownStopPrice", "PreClose"))
    if up is None or down is None or not prev_close:
        return None
    return Limits(
        up if up < NO_LIMIT_CNY else 0.0,
        down if down < NO_LIMIT_CNY else 0.0,
        prev_close,
        _date(detail.get("TradingDay")),
    )


def _price(value: Any) -> float | None:
    """Return a price on the finest grid there is, as ticks are; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        return None
    return round(float(value), 3)


def _date(value: Any) -> int | None:
    text = str(value or "")
    return int(text) if len(text) == 8 and text.isdigit() and "19900101" <= text < "21000101" else None


def _without_unloaded(instruments: Sequence[Instrument]) -> Sequence[Instrument]:
    """Return them without the limits of 0, if there are too many to be true: then 0 means not loaded."""
    shares = [one for one in instruments if one.board is not Board.INDEX and one.limits is not None]
    without = [one for one in shares if one.limits is not None and not one.limits.up_cny]
    if len(without) <= max(1, MOST_WITHOUT * len(shares)):
        return tuple(instruments)
    log.warning("xt_limits_not_loaded", without=len(without), of=len(shares))
    dropped = {one.symbol for one in without}
    return tuple(replace(one, limits=None) if one.symbol in dropped else one for one in instruments)
