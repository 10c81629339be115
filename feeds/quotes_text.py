"""The text formats of the public quote pages, Tencent's and Sina's: an answer's bytes → quotes as ticks.

Both answer one record a line in GBK, `v_sh600519="1~name~600519~price~…";` and `var hq_str_sh600519="name,open,…";`. A
record is found in the bytes, before anything is decoded, so a garbled one costs the others nothing; fields are split
behind the decoding, because GBK has `~` as a second byte of characters.

The vendors publish no description; places and units are those of recorded answers (2008 to 2026). Tencent's volume is
in lots, that of STAR in shares; Sina's is in shares, that of Shanghai's indices in lots. No vendor is believed:
units.py proves each board's unit on its first ticks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal, TypeAlias

from feeds.errors import FeedError
from feeds.instruments import Board, board_of
from feeds.sessions import unix_ms
from feeds.tick import LEVELS

VolumeUnit: TypeAlias = Literal["lots", "shares"]

SUSPENDED: Final = 1
TEMPORARY_HALT: Final = 17
"""Status codes as the vendor's terminal has them (feeds/tick.py); 0 = unknown, the clock tells the phase."""

NO_LIMIT: Final = 10_000.0
"""A price limit from here on means that there is none."""

_RECORD: Final = re.compile(rb'(?:var hq_str_|v_)((?:sh|sz|bj)[0-9]{6})="([^"]*)"')
_NONE_KNOWN: Final = b'v_pv_none_match="1"'
_BREAK: Final = re.compile(rb"[;\r\n]+")
_REPLACED: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class Quote:
    """One record, read.

    tick: the fields of a vendor's tick as feeds/decode.py takes them, but `volume` in the unit of the page; a field
    that is no number is left as its text. limits: up, down in yuan, NaN = none. book: gives the fields of its book,
    which take as long to read as all the others and are wanted later, if at all.
    """

    symbol: str
    name: str | None
    tick: dict[str, Any]
    limits: tuple[float, float]
    book: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of an answer by symbol, undecoded; `garbled`: pieces that are none. `empty`: nothing came at all."""

    records: Mapping[str, bytes]
    unknown: frozenset[str]
    garbled: int
    empty: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One vendor's page: its address, what it wants to see in a request, and how a record reads.

    volume_unit: what a board's volume is believed to be in until it is proven.
    """

    name: str
    url: str
    headers: Mapping[str, str]
    read: Callable[[str, list[str]], Quote | None]
    separator: str
    volume_unit: Callable[[str], VolumeUnit]

    def quote(self, symbol: str, record: bytes) -> Quote | None:
        """Read a record; None if it is not of this page's form. A name that is no GBK is None, the numbers are used."""
        try:
            text = record.decode("gb18030")
        except UnicodeDecodeError:
            text = record.decode("gb18030", errors="replace")
        return self.read(symbol, text.split(self.separator))


def code_of(symbol: str) -> str:
    """Return how the pages write ``600519.SH``: sh600519."""
    return symbol[7:].lower() + symbol[:6]


def symbol_of(code: str) -> str:
    """Return the symbol of a code such as sh600519."""
    return f"{code[2:]}.{code[:2].upper()}"


def split(body: bytes) -> Answer:
    """Return the records of an answer, of a code that comes twice the later one; an unknown code's is empty."""
    records: dict[str, bytes] = {}
    unknown: set[str] = set()
    garbled = 0
    pieces = [piece for piece in _BREAK.split(body) if piece.strip()]
    for piece in pieces:
        found = _RECORD.fullmatch(piece.strip())
        if found is None:
            garbled += piece.strip() != _NONE_KNOWN
            continue
        symbol = symbol_of(found[1].decode())
        if found[2]:
            records[symbol] = found[2]
        else:
            unknown.add(symbol)
    return Answer(records, frozenset(unknown), garbled, empty=not pieces)


# ── Tencent ───────────────────────────────────────────────────────────────────────────────────────────────────────

_TENCENT_LEAST: Final = 38
_TENCENT_STATUS: Final = {"S": SUSPENDED, "D": SUSPENDED, "U": SUSPENDED, "Z": SUSPENDED}


def _tencent(symbol: str, fields: list[str]) -> Quote | None:
    if len(fields) < _TENCENT_LEAST or fields[2] != symbol[:6]:
        return None
    status = _TENCENT_STATUS.get(fields[40], 0) if len(fields) > 40 else 0
    tick = {
        "time": _time_ms(fields[30][:8], fields[30][8:]),
        "lastPrice": 0.0 if status else _number(fields[3]),
        "open": _number(fields[5]),
        "high": _number(fields[33]),
        "low": _number(fields[34]),
        "lastClose": _number(fields[4]),
        "amount": _tencent_amount(fields),
        "volume": _number(fields[6]),
        "openInt": float(status),
    }
    book = partial(_book, fields[9:29], first_price=0, scale=1.0)
    limits = (_limit(fields[47]), _limit(fields[48])) if len(fields) > 48 else (float("nan"), float("nan"))
    return Quote(symbol, _name(fields[1]), tick, limits, book)


def _tencent_amount(fields: list[str]) -> Any:
    """Return yuan: exact out of price/volume/amount, else from the field in 10,000 yuan."""
    parts = fields[35].split("/")
    exact = _number(parts[2]) if len(parts) == 3 and parts[2] else None
    if isinstance(exact, float):
        return exact
    rounded = _number(fields[37])
    return rounded * 10_000 if isinstance(rounded, float) else rounded


def _tencent_unit(symbol: str) -> VolumeUnit:
    return "shares" if board_of(symbol) is Board.STAR else "lots"


# ── Sina ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_SINA_LEAST: Final = 32
_SINA_STATUS: Final = dict.fromkeys(("02", "03", "05", "07", "-2", "-3"), SUSPENDED) | dict.fromkeys(
    ("01", "04"), TEMPORARY_HALT
)


def _sina(symbol: str, fields: list[str]) -> Quote | None:
    if len(fields) < _SINA_LEAST:
        return None
    status = _SINA_STATUS.get(fields[32], 0) if len(fields) > 32 else 0
    tick = {
        "time": _time_ms(fields[30].replace("-", ""), fields[31].replace(":", "")),
        "lastPrice": 0.0 if status == SUSPENDED else _number(fields[3]),
        "open": _number(fields[1]),
        "high": _number(fields[4]),
        "low": _number(fields[5]),
        "lastClose": _number(fields[2]),
        "amount": _number(fields[9]),
        "volume": _number(fields[8]),
        "openInt": float(status),
    }
    book = partial(_book, fields[10:30], first_price=1, scale=0.01)
    return Quote(symbol, _name(fields[0]), tick, (float("nan"), float("nan")), book)


def _sina_unit(symbol: str) -> VolumeUnit:
    return "lots" if symbol.endswith(".SH") and board_of(symbol) is Board.INDEX else "shares"


_AGENT: Final = {"User-Agent": "Mozilla/5.0 (compatible; monitord)"}

PAGES: Final[Mapping[str, Page]] = {
    "tencent": Page("tencent", "https://qt.gtimg.cn/q=", _AGENT, _tencent, "~", _tencent_unit),
    "sina": Page(
        "sina",
        "https://hq.sinajs.cn/list=",
        {**_AGENT, "Referer": "https://finance.sina.com.cn/"},  # without it the answer is 403
        _sina,
        ",",
        _sina_unit,
    ),
}


# ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _number(text: str) -> Any:
    """Return a float, 0 for nothing, and text that is no number as it stands: the decoder counts it."""
    try:
        return float(text or 0)
    except ValueError:
        return text


def _limit(text: str) -> float:
    value = _number(text)
    return value if isinstance(value, float) and 0 < value < NO_LIMIT else float("nan")


def _name(text: str) -> str | None:
    plain = "".join(text.split())
    return plain if plain and _REPLACED not in plain else None


def _book(fields: list[str], *, first_price: int, scale: float) -> dict[str, Any]:
    """Return the four sides of ten levels as price and volume in turn, five bids first.

    A side that cannot be read is text, so that the decoder counts a bad book. scale: what turns a volume into lots.
    """
    prices, volumes = fields[first_price::2], fields[1 - first_price :: 2]
    return {
        "bidPrice": _side(prices[:LEVELS], 1.0),
        "askPrice": _side(prices[LEVELS:], 1.0),
        "bidVol": _side(volumes[:LEVELS], scale),
        "askVol": _side(volumes[LEVELS:], scale),
    }


def _side(texts: Iterable[str], factor: float) -> Any:
    try:
        levels = [float(text or 0) for text in texts]
    except ValueError:
        return ["?"]
    return levels if factor == 1.0 else [level * factor for level in levels]


def _time_ms(day: str, clock: str) -> float:
    """Return the Unix ms of yyyymmdd, HHMMSS in Shanghai; 0, which the decoder refuses, where that is no time."""
    midnight = _midnight_ms(day)
    if midnight is None or not _is_digits(clock, 6):
        return 0.0
    hour, minute, second = int(clock[:2]), int(clock[2:4]), int(clock[4:])
    if hour > 23 or minute > 59 or second > 59:
        return 0.0
    return midnight + 1000.0 * ((hour * 60 + minute) * 60 + second)


@lru_cache(maxsize=64)
def _midnight_ms(day: str) -> int | None:
    if not _is_digits(day, 8):
        return None
    try:
        return unix_ms(int(day))
    except FeedError:
        return None


def _is_digits(text: str, length: int) -> bool:
    """Tell whether a text is so many of 0 to 9: `isdigit` alone takes ① and ², which `int` refuses."""
    return len(text) == length and text.isascii() and text.isdecimal()
