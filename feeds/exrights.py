"""Ex-rights days: on which dates a price starts from another reference than the last close, and by how much.

On such a date a cash dividend, bonus shares or a rights issue leave the price, so yesterday's prices are compared with
today's only once they are multiplied by a factor below 1. The records travel as canonical JSON in a control record,
together with the weekdays on which the exchange is closed: with them the engine knows which day was the trading day
before, and never takes a close of two days ago for yesterday's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Final

import orjson

from feeds.errors import FeedError
from feeds.sessions import DAY_MS, SHANGHAI_MS, Calendar, day_number, trade_date, unix_ms
from feeds.universe import is_symbol

SOURCE_VERSION: Final = 1
NO_EXRIGHTS: Final = '{"v":1,"closed":[],"exrights":[]}'
"""The canonical JSON of nothing known."""
HOLIDAYS_SINCE: Final = 20100101
"""From when on a control record tells holidays: further back than recordings reach."""
LEAST, MOST = 0.01, 100.0
"""Bounds of a factor, of a day's as of several days' product: outside lies a slip of the pen, or of a feed."""


@dataclass(frozen=True, slots=True, order=True)
class ExRight:
    """One symbol's ex-rights day: `date` is the first trade date (yyyymmdd) at the new reference price.

    Either `factor` is given, new price over old, or it follows from the close before: cash_cny per share, `bonus` new
    shares per share for nothing, `rights` new shares per share at rights_cny each. Shares multiply by 1 + bonus.
    """

    symbol: str
    date: int
    factor: float | None = None
    cash_cny: float = 0.0
    bonus: float = 0.0
    rights: float = 0.0
    rights_cny: float = 0.0

    def fault(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        if not is_symbol(self.symbol):
            return f"{self.symbol!r} is no symbol such as 600519.SH"
        if not _is_date(self.date):
            return f"{self.date} is no date"
        if self.factor is not None and not LEAST <= self.factor <= MOST:
            return f"factor must be from {LEAST:g} to {MOST:g}, not {self.factor:g}"
        parts = {
            "cash": self.cash_cny,
            "bonus": self.bonus,
            "rights": self.rights,
            "the price of rights": self.rights_cny,
        }
        for name, part in parts.items():
            if not 0 <= part < 1e6:
                return f"{name} must be a number of 0 or more and below 1000000, not {part:g}"
        if 1.0 + self.bonus + self.rights > MOST:
            name = "bonus" if self.bonus >= self.rights else "rights"
            told = f"{name} is {parts[name]:g}: one share cannot become more than {MOST:g}"
            return f"{told}; write new shares per share held, 0.5 where 10 shares give 5"
        if self.factor is None and not (self.cash_cny or self.bonus or self.rights):
            return "it needs a factor, or cash, bonus or rights"
        return None

    @property
    def shares(self) -> float:
        """Return the new shares that an old one has become, those bought in a rights issue not counted."""
        return 1.0 + self.bonus

    def price_factor(self, close_cny: float) -> float:
        """Return new price over old, given the close before; NaN where that is needed and unknown, or out of bounds."""
        if self.factor is not None:
            return self.factor
        if not close_cny > 0:
            return float("nan")
        left = close_cny - self.cash_cny + self.rights * self.rights_cny
        factor = left / (1.0 + self.bonus + self.rights) / close_cny
        return factor if is_factor(factor) else float("nan")


@dataclass(frozen=True, slots=True)
class Factors:
    """What all ex-rights days of a stretch come to: of prices, and of shares; both NaN where that is not believed."""

    price: float
    shares: float


class ExRightTable:
    """All known ex-rights days, by symbol, and the exchange's closed weekdays; immutable."""

    def __init__(self, exrights: Iterable[ExRight] = (), *, closed: Iterable[int] = ()) -> None:
        """Take the days in any order; `closed` are weekdays (yyyymmdd) without trading."""
        self.days: Mapping[str, tuple[ExRight, ...]] = _by_symbol(sorted(exrights))
        self.closed = frozenset(_number_of(date) for date in closed)

    def between(self, symbol: str, after: int, until: int) -> tuple[ExRight, ...]:
        """Return a symbol's ex-rights days with after < date ≤ until, oldest first."""
        return tuple(one for one in self.days.get(symbol, ()) if after < one.date <= until)

    def previous(self, date: int) -> int:
        """Return the trading day before this date."""
        number = _number_of(date) - 1
        while (number + 3) % 7 >= 5 or number in self.closed:  # 1970-01-01 was a Thursday
            number -= 1
        return _date_of(number)


def is_factor(number: float) -> bool:
    """Tell whether a factor is within bounds; NaN is not."""
    return LEAST <= number <= MOST


def factors(exrights: Iterable[ExRight], close_cny: float) -> Factors:
    """Return what these ex-rights days, one after the other, do to a price that closed at `close_cny`.

    One that is unknown, or a product on the way that is out of bounds, makes all of them unbelievable.
    """
    price = shares = 1.0
    for one in exrights:
        price *= one.price_factor(close_cny * price)
        shares *= one.shares
        if not (is_factor(price) and is_factor(shares)):
            return Factors(float("nan"), float("nan"))
    return Factors(price, shares)


def closed_weekdays(calendar: Calendar, *, since: int) -> list[int]:
    """Return the weekdays (yyyymmdd) from `since` on, as far as the calendar knows, on which nothing is traded."""
    last = calendar.last_known
    if last is None:
        return []
    numbers = range(_number_of(since), _number_of(last) + 1)
    return [_date_of(day) for day in numbers if (day + 3) % 7 < 5 and not calendar.trades_on(day)]


def _number_of(date: int) -> int:
    return day_number(unix_ms(date))


def _date_of(number: int) -> int:
    return trade_date(number * DAY_MS - SHANGHAI_MS)


def _is_date(date: int) -> bool:
    try:
        return unix_ms(date) != 0
    except FeedError:
        return False


def _by_symbol(ordered: Iterable[ExRight]) -> dict[str, tuple[ExRight, ...]]:
    found: dict[str, list[ExRight]] = {}
    for one in ordered:
        found.setdefault(one.symbol, []).append(one)
    return {symbol: tuple(days) for symbol, days in found.items()}


# ── canonical JSON: what a control record carries ─────────────────────────────────────────────────────────────────────


def encode_exrights(exrights: Iterable[ExRight], *, closed: Iterable[int] = ()) -> str:
    """Return ex-rights days and closed weekdays as canonical JSON; equal sets are equal text.

    Raises FeedError for a bad record, or a day that a symbol has twice.
    """
    ordered = sorted(exrights, key=lambda one: (one.symbol, one.date))
    _refuse_faults(ordered)
    record = {"v": SOURCE_VERSION, "closed": sorted(set(closed)), "exrights": [astuple(one) for one in ordered]}
    return orjson.dumps(record).decode()


def decode_exrights(source: str) -> ExRightTable:
    """Return the table of a text made by `encode_exrights`; raises FeedError if it is none."""
    try:
        record = orjson.loads(source)
        if not isinstance(record["exrights"], list) or not isinstance(record["closed"], list):
            raise TypeError("exrights and closed are lists")
        version, rows = record["v"], [ExRight(*row) for row in record["exrights"]]
        closed = [int(date) for date in record["closed"]]
        numbers = [*chain.from_iterable(astuple(one)[3:] for one in rows)]
        numbers += [one.factor for one in rows if one.factor is not None]
        whole = all(isinstance(number, int | float) for number in numbers)
        named = all(isinstance(one.symbol, str) and isinstance(one.date, int) for one in rows)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FeedError(f"not the text of ex-rights days: {error}") from None
    if version != SOURCE_VERSION:
        raise FeedError(f"ex-rights version {version!r}, this program reads {SOURCE_VERSION}")
    if not whole or not named or not all(map(_is_date, closed)):
        raise FeedError("not the text of ex-rights days: a day is [symbol, date, factor, cash, bonus, rights, price]")
    _refuse_faults(rows)
    return ExRightTable(rows, closed=closed)


def _refuse_faults(exrights: Iterable[ExRight]) -> None:
    seen: set[tuple[str, int]] = set()
    for one in exrights:
        fault = one.fault()
        if fault is None and (one.symbol, one.date) in seen:
            fault = f"it has two records of {one.date}; write them as one"
        if fault is not None:
            raise FeedError(f"ex-rights day of {one.symbol}, {one.date}: {fault}")
        seen.add((one.symbol, one.date))
