"""Instruments: board, name, tick size, lot and date-effective price limits.

A limit is a rule of a board and a date, so both are tables here. The prices of a limit are reckoned in whole ticks:
binary rounding of `prev_close * 1.1` is a tick off on about 0.6 % of days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from math import isnan, nan
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from feeds.characters import HALF_CHARACTER, whole
from feeds.errors import FeedError
from feeds.sessions import Calendar, sessions_since
from feeds.tick import BoolArray, FloatArray, IntArray


class Board(StrEnum):
    """What a code is; decides lot, tick size and price limit."""

    MAIN = "main"
    CHINEXT = "chinext"
    STAR = "star"
    BSE = "bse"
    B_SHARE = "b_share"
    ETF = "etf"
    BOND = "bond"
    INDEX = "index"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Limits:
    """A day's price limits as the source tells them, in yuan; 0 = there is none that day.

    They hold on a day whose previous close is `prev_close_cny`, and if the source dated them (yyyymmdd), on that day.
    """

    up_cny: float
    down_cny: float
    prev_close_cny: float
    date: int | None = None

    def hold(self, *, prev_close_cny: float, date: int) -> bool:
        """Tell whether these are the limits of a day (yyyymmdd) with this previous close."""
        return self.date in (None, date) and abs(prev_close_cny - self.prev_close_cny) < 1e-6


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listed instrument; None = unknown.

    list_date: yyyymmdd of the first trading day. tick: yuan. lot: shares per lot of the volume columns. limits: of one
    day; where they don't hold, those of the board do (`price_limits`).
    """

    symbol: str
    name: str | None = None
    board: Board = Board.UNKNOWN
    tick: float = 0.01
    lot: int = 100
    list_date: int | None = None
    sectors: tuple[str, ...] = ()
    limits: Limits | None = None

    def __post_init__(self) -> None:
        """Replace half a character in a name or a sector: they are a foreign program's, and nothing can encode it."""
        if HALF_CHARACTER.search("".join((self.name or "", *self.sectors))):
            object.__setattr__(self, "name", self.name and whole(self.name))
            object.__setattr__(self, "sectors", tuple(map(whole, self.sectors)))


_FIELDS: Final = tuple(field.name for field in fields(Instrument))


# ── what a code tells ─────────────────────────────────────────────────────────────────────────────────────────────

_BOARDS: Final[dict[str, tuple[tuple[Board, tuple[str, ...]], ...]]] = {
    "SH": (
        (Board.MAIN, ("60",)),
        (Board.STAR, ("68",)),
        (Board.INDEX, ("000",)),
        (Board.B_SHARE, ("900",)),
        (Board.ETF, ("50", "51", "52", "53", "55", "56", "58")),
        (Board.BOND, ("110", "111", "113", "118")),
    ),
    "SZ": (
        (Board.MAIN, ("00",)),
        (Board.CHINEXT, ("30",)),
        (Board.INDEX, ("399",)),
        (Board.B_SHARE, ("200", "201")),
        (Board.ETF, ("15", "16", "18")),
        (Board.BOND, ("123", "127", "128")),
    ),
    "BJ": (
        (Board.INDEX, ("899",)),
        (Board.BSE, ("4", "8", "92")),
    ),
}
"""Exchange → board → first digits of its codes, the first that fits. ETF is any listed fund, BOND a convertible."""

_TICKS: Final = {Board.B_SHARE: 0.001, Board.ETF: 0.001, Board.BOND: 0.001, Board.INDEX: 0.001}
_LOTS: Final = {Board.BOND: 10}


@lru_cache(maxsize=65536)
def board_of(symbol: str) -> Board:
    """Return the board of a code such as ``600519.SH``; UNKNOWN for a code of none of them."""
    code, _, exchange = symbol.partition(".")
    for board, beginnings in _BOARDS.get(exchange, ()):
        if code.startswith(beginnings):
            return board
    return Board.UNKNOWN


def tick_of(board: Board) -> float:
    """Return the smallest price step of a board; Shenzhen B shares differ from Shanghai's, see `instrument_of`."""
    return _TICKS.get(board, 0.01)


def lot_of(board: Board) -> int:
    """Return how many shares (bonds) one lot of the volume columns is."""
    return _LOTS.get(board, 100)


def instrument_of(
    symbol: str, *, name: str | None = None, list_date: int | None = None, sectors: tuple[str, ...] = ()
) -> Instrument:
    """Return the instrument of a code, with what the code itself tells filled in."""
    board = board_of(symbol)
    tick = 0.01 if board is Board.B_SHARE and symbol.endswith(".SZ") else tick_of(board)
    return Instrument(symbol, name, board, tick, lot_of(board), list_date, sectors)


# ── what a name tells ─────────────────────────────────────────────────────────────────────────────────────────────

_EX_RIGHTS: Final = re.compile(r"^(?:XD|XR|DR)")
_ST: Final = re.compile(r"^S?\*?ST")
_BARE_S: Final = re.compile(r"^S(?!T)")
_NEW: Final = re.compile(r"^N(?![A-Za-z])")
_RECENT: Final = re.compile(r"^C(?![A-Za-z])")
_TWENTY_PERCENT_FUND: Final = re.compile("科创|创业|双创")


def plain_name(name: str) -> str:
    """Return a name without spaces and without the mark of an ex-rights day (XD, XR, DR)."""
    return _EX_RIGHTS.sub("", "".join(name.split()).replace("＊", "*"))


def is_st(name: str) -> bool:
    """Tell whether the name carries special treatment: ST, *ST, SST, S*ST; a delisting mark (退) alone does not."""
    return _ST.match(plain_name(name)) is not None


# ── price limits ──────────────────────────────────────────────────────────────────────────────────────────────────

Permille: TypeAlias = tuple[int, int]
"""A limit as (up, down) in thousandths of the previous close."""

CHINEXT_REFORM: Final = 20200824
"""ChiNext: 20 % and five days without a limit from here on; 10 % (ST 5 %) before."""
MAIN_REFORM: Final = 20230410
"""Main board: listings from here on have five days without a limit."""
ST_TEN_PERCENT: Final = 20260706
"""Main-board ST: 10 % from here on, 5 % before; a bare S stays at 5 %."""
BOND_LIMITS: Final = 20220801
"""Convertible bonds: no limit before."""

_FIVE: Final = (50, 50)
_TEN: Final = (100, 100)
_TWENTY: Final = (200, 200)
_THIRTY: Final = (300, 300)
_BOND_FIRST_DAY: Final = (573, 433)
_A_YEAR: Final = 240
"""Trading days; no first days are left then."""
_TOO_LARGE: Final = 1e9
"""A previous close from here on is no price."""


def limit_permille(
    board: Board, *, date: int, name: str | None = None, sessions_listed: int | None = None
) -> Permille | None:
    """Return the limit of a board on a date (yyyymmdd), None where there is none or it cannot be known.

    name: as published on that day; ST, a bare S, and N or C (first day, next four) are read from it.
    sessions_listed: which trading day of its life this is, 1 = the first; None = unknown, then the name alone tells.
    """
    plain = "" if name is None else plain_name(name)
    day = _day_of_life(plain, sessions_listed)
    if board is Board.BOND:
        return None if date < BOND_LIMITS else _BOND_FIRST_DAY if day == 1 else _TWENTY
    if board is Board.ETF:
        return _fund_permille(plain)
    if day is not None and day <= _free_days(board, date):
        return None
    return _share_permille(board, plain, date)


def _share_permille(board: Board, plain: str, date: int) -> Permille | None:
    if board is Board.STAR:
        return _TWENTY
    if board is Board.BSE:
        return _THIRTY
    if board is Board.CHINEXT and date >= CHINEXT_REFORM:
        return _TWENTY
    if board not in (Board.MAIN, Board.CHINEXT, Board.B_SHARE):
        return None
    if _BARE_S.match(plain) or (_ST.match(plain) and (date < ST_TEN_PERCENT or plain.startswith("SST"))):
        return _FIVE
    return _TEN


def _fund_permille(plain: str) -> Permille | None:
    """A fund follows its constituents; without its name nobody can tell."""
    if not plain:
        return None
    return _TWENTY if _TWENTY_PERCENT_FUND.search(plain) else _TEN


def _day_of_life(plain: str, sessions_listed: int | None) -> int | None:
    """Return the day of its life, 2 standing for the second to fifth where only the name tells; None = long listed."""
    if sessions_listed is not None and sessions_listed > 0:
        return sessions_listed
    return 1 if _NEW.match(plain) else 2 if _RECENT.match(plain) else None


def _free_days(board: Board, date: int) -> int:
    """Return how many first days have no limit (before a reform: one, whose special limit is not known here)."""
    reformed = board is Board.STAR
    reformed |= board is Board.CHINEXT and date >= CHINEXT_REFORM
    reformed |= board is Board.MAIN and date >= MAIN_REFORM
    return 5 if reformed else 1


def price_limits(
    prev_close: float,
    *,
    board: Board,
    date: int,
    name: str | None = None,
    list_date: int | None = None,
    sessions_since_listing: int | None = None,
    calendar: Calendar | None = None,
    tick: float | None = None,
) -> tuple[float, float]:
    """Return (limit_up, limit_down) in yuan; NaN where there is no limit or prev_close, board or name don't tell.

    list_date counts with `calendar`; `sessions_since_listing` (1 on the first day) wins where both are given.
    """
    if sessions_since_listing is None and list_date is not None and calendar is not None:
        sessions_since_listing = sessions_since(list_date, date, calendar=calendar)
    permille = limit_permille(board, date=date, name=name, sessions_listed=sessions_since_listing)
    if permille is None or isnan(prev_close) or not 0 < prev_close < _TOO_LARGE:
        return nan, nan
    up, down = limit_prices(
        np.array([prev_close]),
        np.array([permille]),
        tick=np.array([tick_of(board) if tick is None else tick]),
        inward=np.array([board is Board.BSE]),
    )
    return float(up[0]), float(down[0])


def price_limits_of(
    instruments: Sequence[Instrument], prev_close: FloatArray, *, date: int, calendar: Calendar | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return (limit_up, limit_down), (n,) yuan each, of many instruments on one date; NaN as in `price_limits`.

    prev_close: (n,) yuan, NaN or 0 = unknown. Without a calendar the day of life is read from the names alone.
    """
    permille = np.zeros((len(instruments), 2), np.int64)
    for row, one in enumerate(instruments):
        age = _sessions_listed(one, date, calendar)
        permille[row] = limit_permille(one.board, date=date, name=one.name, sessions_listed=age) or (0, 0)
    return limit_prices(
        prev_close,
        permille,
        tick=np.array([one.tick for one in instruments], np.float64),
        inward=np.array([one.board is Board.BSE for one in instruments], np.bool_),
    )


def _sessions_listed(one: Instrument, date: int, calendar: Calendar | None) -> int | None:
    if one.list_date is None or calendar is None:
        return None
    if date - one.list_date > 10_000:  # over a year: how many days exactly is nobody's question
        return _A_YEAR
    return sessions_since(one.list_date, date, calendar=calendar)


def limit_prices(
    prev_close: FloatArray, permille: IntArray, *, tick: FloatArray, inward: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Reckon (limit_up, limit_down), (n,) yuan, in whole ticks.

    permille: (n, 2) int64, up and down, (0, 0) = no limit, which gives NaN. Rounded half up to the tick; where `inward`
    ((n,) bool, Beijing) never beyond the percentage: 121.76 → up 158.28 and 79.36 → down 55.56, as its closes show. A
    limit less than one tick away is one tick away, but never below one tick.
    """
    known = (prev_close > 0) & (prev_close < _TOO_LARGE) & (permille[:, 0] > 0)
    per_yuan = np.rint(1 / tick)
    ticks = np.rint(np.where(known, prev_close, 0.0) * per_yuan).astype(np.int64)
    up, down = ticks * (1000 + permille[:, 0]), ticks * (1000 - permille[:, 1])
    up = np.where(inward, up // 1000, (2 * up + 1000) // 2000)
    down = np.where(inward, -(-down // 1000), (2 * down + 1000) // 2000)
    up, down = np.maximum(up, ticks + 1), np.maximum(np.minimum(down, ticks - 1), 1)
    return np.where(known, up / per_yuan, nan), np.where(known, down / per_yuan, nan)


# ── the table as text ─────────────────────────────────────────────────────────────────────────────────────────────


def encode_table(instruments: Iterable[Instrument]) -> str:
    """Return the instruments as canonical JSON: sorted by symbol, keys sorted, so that equal tables are equal text.

    Raises FeedError for a symbol that stands twice.
    """
    ordered = sorted(instruments, key=lambda one: one.symbol)
    for one, after in pairwise(ordered):
        if one.symbol == after.symbol:
            raise FeedError(f"{one.symbol} stands twice in the table of instruments")
    return orjson.dumps([_record(one) for one in ordered], option=orjson.OPT_SORT_KEYS).decode()


def _record(one: Instrument) -> dict[str, Any]:
    """Return its fields by name; `asdict`, which copies every value, takes 0.1 s for a whole market."""
    return {name: getattr(one, name) for name in _FIELDS} | {"limits": one.limits and asdict(one.limits)}


@lru_cache(maxsize=1)  # a table is checked before it takes effect, and takes 35 ms to read
def decode_table(text: str) -> tuple[Instrument, ...]:
    """Return the instruments of a table made by `encode_table`; FeedError says which entry cannot be read."""
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FeedError(f"table of instruments is not JSON: {error}") from None
    if not isinstance(entries, list):
        raise FeedError(f"table of instruments is a {type(entries).__name__}, not a list")
    return tuple(_instrument(place, entry) for place, entry in enumerate(entries))


def _instrument(place: int, entry: Any) -> Instrument:
    try:
        limits = None if entry.get("limits") is None else Limits(**entry["limits"])
        told = {"board": Board(entry["board"]), "sectors": tuple(entry["sectors"]), "limits": limits}
        return Instrument(**{**entry, **told})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FeedError(f"entry {place} of the table of instruments cannot be read: {error!r}") from None
