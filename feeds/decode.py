"""`Decoder`: the vendor's dicts of ticks → one `TickBatch`.

A whole market comes as 5,500 dicts, and taking numbers out of dicts costs more than all indicators together. So only
the nine core fields are taken at once, all symbols in one pass of C code; the book waits in the kept payload until
somebody asks for it. If a single tick is irregular, that pass fails as a whole, and the payload is read again tick by
tick, so that the bad one is counted and the others are used.

Prices carry the vendor's float noise (11.370000000000001) and are rounded to 0.001 yuan, the finest tick of any board:
what was 11.37 is the float 11.37 again. A price of 0 means none and becomes NaN.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import compress
from math import isfinite, nan
from sys import float_info
from threading import Lock
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from feeds.instruments import Board, board_of, lot_of, tick_of
from feeds.scan import all_fit, misfits
from feeds.sessions import SHANGHAI_MS
from feeds.tick import LEVELS, BoolArray, FloatArray, TickBatch
from feeds.unbox import Field, on_grid, unbox, values_of
from feeds.universe import is_symbol

Payload: TypeAlias = Mapping[str, Any]
"""{symbol: tick} of a whole-quote push, or {symbol: [tick, …]} of single subscriptions; a tick is a dict."""

PRICE_GRID: Final = 1000.0
"""Prices are rounded to 1/PRICE_GRID yuan."""

REASONS: Final = (
    "bad_payload",  # a push that is no dict
    "bad_symbol",  # a key that is no code of SH, SZ or BJ
    "other_board",  # well-formed, of a board that is not watched
    "not_a_tick",  # a value that is no dict
    "missing_field",
    "not_a_number",
    "nonfinite",  # NaN or infinite
    "bad_time",  # outside of 2000..2099
    "negative",
    "out_of_range",  # a number no market has
    "wrong_units",  # amount / volume is over ten times off the day's prices
    "bad_book",  # the tick is used, without its book
)
"""Why a tick, its book or a whole push is not used; each tick is counted under one of them at most."""

_FIELDS: Final = ("time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "openInt")
_SPELLINGS: Final = {"time": "timetag", "lastClose": "lastLose"}
"""Field → how some builds of the vendor's terminal spell it."""
_AMOUNT, _VOLUME, _STATUS = 6, 7, 8
_PRICES: Final = slice(1, 6)
_HIGH, _LOW = 3, 4

_FIRST_MS: Final = 946_684_800_000 - SHANGHAI_MS
_END_MS: Final = 4_102_444_800_000 - SHANGHAI_MS
_LEAST: Final = (_FIRST_MS, *[0.0] * 8)
_MOST: Final = (_END_MS - 1, *[1e7] * 5, 1e17, 1e13, 32767.0)
_GRIDS: Final = (0.0, *[PRICE_GRID] * 5, 0.0, 0.0, 0.0)
_TIME_TEXT: Final = re.compile(r"[0-9]{8} [0-9]{2}:[0-9]{2}:[0-9]{2}")

_BOOK: Final = {"bidPrice": "bid_price", "bidVol": "bid_lots", "askPrice": "ask_price", "askVol": "ask_lots"}
_BOOK_FIELDS: Final = tuple(
    Field(field, LEVELS, 0.0, _MOST[_VOLUME], PRICE_GRID if name.endswith("price") else 0.0)
    for field, name in _BOOK.items()
)
_TRADES: Final = (Field("transactionNum", 1, 0.0, 1e13, 0.0),)
_BOOK_COLUMNS: Final = tuple(f"{name}_{level}" for name in _BOOK.values() for level in range(1, LEVELS + 1))
_NO_LEVELS: Final = (0.0,) * LEVELS
_UNITS_FACTOR: Final = 10.0

_NONE: Final[BoolArray] = np.zeros(0, np.bool_)
_BAD_SYMBOL: Final = -2.0
_OTHER_BOARD: Final = -1.0
_KNOWN_SYMBOLS: Final = 200_000
_REMEMBERED: Final = 4
_PART: Final = 64
"""Ticks that are read again one by one when one of them is bad."""


class _BadTick(Exception):
    """One tick cannot be used; its text is one of REASONS."""


class _Plan(NamedTuple):
    """What is known of a list of symbols before looking at its ticks.

    symbols: those that are watched. watched: which of the list, None = all. shares_per_lot: (n watched,) float64, NaN =
    not proven. dropped: how many are not watched, by reason.
    """

    symbols: tuple[str, ...]
    watched: list[bool] | None
    shares_per_lot: FloatArray
    dropped: Mapping[str, int]


class _Scales(dict[Any, float]):
    """Symbol → shares per lot (NaN = not proven), or why it is not watched; asks once per symbol."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[object], float]) -> None:
        self._ask = ask

    def __missing__(self, symbol: object) -> float:
        scale = self._ask(symbol)
        if len(self) < _KNOWN_SYMBOLS:  # a vendor gone mad must not fill the memory with symbols
            self[symbol] = scale
        return scale


class Decoder:
    """Decodes payloads and counts what cannot be used.

    `decode` and `trust` belong to one thread at a time; `counters` and the lazy columns of a batch to any.
    """

    __slots__ = ("_boards", "_counts", "_lock", "_plans", "_proven", "_scales")

    def __init__(self, *, boards: Collection[Board] | None = None, proven: Collection[Board] = ()) -> None:
        """Watch only these boards (None = every code); `proven` boards are held to their units from the start."""
        self._boards = None if boards is None else frozenset(boards)
        self._proven = frozenset(proven)
        self._counts: Counter[str] = Counter()
        self._lock = Lock()
        self._scales = _Scales(self._scale_of)
        self._plans: deque[tuple[tuple[str, ...], _Plan]] = deque(maxlen=_REMEMBERED)

    def decode(self, payload: Payload, *, recv_ms: int) -> TickBatch:
        """Return the usable ticks in the payload's order, every other one counted by its reason; it never raises.

        Keeps the payload's dicts until the batch is gone or its book was read: nobody may change them meanwhile.
        """
        if not isinstance(payload, Mapping):
            self._count("bad_payload")
            return _batch((), [], np.empty((len(_FIELDS), 0)), recv_ms, self._count)
        plan, ticks = self._known(payload) or (None, list(payload.values()))
        if isinstance(next((tick for tick in ticks if isinstance(tick, (dict, list))), None), list):
            symbols, ticks = _flat(payload)
            plan = self._plan(symbols)
        elif plan is None:
            plan = self._plan(tuple(payload))
        for reason, count in plan.dropped.items():
            self._count(reason, count)
        watched = ticks if plan.watched is None else list(compress(ticks, plan.watched))
        block, usable = self._read(watched, plan.shares_per_lot)
        symbols = plan.symbols
        if usable is not None:
            symbols, watched = tuple(compress(symbols, usable)), list(compress(watched, usable))
        self._count("ticks", len(symbols))
        return _batch(symbols, watched, block, recv_ms, self._count)

    def trust(self, boards: Iterable[Board]) -> None:
        """Hold these boards to their units from now on: `prove_units` has shown what they are."""
        self._proven |= frozenset(boards)
        self._scales.clear()
        self._plans.clear()

    def counters(self) -> Mapping[str, int]:
        """Return `ticks` (used) and the count of each reason that occurred."""
        with self._lock:
            return dict(self._counts)

    def _count(self, reason: str, count: int = 1) -> None:
        with self._lock:  # the vendor's thread decodes while the engine's reads books
            self._counts[reason] += count

    def _scale_of(self, symbol: object) -> float:
        if not is_symbol(symbol):
            return _BAD_SYMBOL
        board = board_of(symbol)
        if self._boards is not None and board not in self._boards:
            return _OTHER_BOARD
        return float(lot_of(board)) if board in self._proven else nan

    def _known(self, payload: Payload) -> tuple[_Plan, list[Any]] | None:
        """Return the plan of a payload whose keys are those of a recent one, and its values."""
        for known, plan in self._plans:
            ticks = values_of(payload, known)
            if ticks is not None:
                return plan, ticks
        return None

    def _plan(self, symbols: tuple[str, ...]) -> _Plan:
        for known, plan in self._plans:
            if known == symbols:
                return plan
        scales = np.fromiter(map(self._scales.__getitem__, symbols), np.float64, count=len(symbols))
        dropped = {"bad_symbol": int((scales == _BAD_SYMBOL).sum()), "other_board": int((scales == _OTHER_BOARD).sum())}
        dropped = {reason: count for reason, count in dropped.items() if count}
        plan = _Plan(symbols, None, scales, dropped)
        if dropped:
            watched = (~(scales < 0)).tolist()
            plan = _Plan(tuple(compress(symbols, watched)), watched, scales[~(scales < 0)], dropped)
        self._plans.appendleft((symbols, plan))
        return plan

    def _read(self, ticks: list[Any], shares_per_lot: FloatArray) -> tuple[FloatArray, list[bool] | None]:
        """Return the (9, n usable) block of core fields and which ticks are usable (None = all)."""
        block = _read_at_once(ticks)
        usable: BoolArray | None = None
        if block is None:
            block, usable = self._read_in_parts(ticks)
            shares_per_lot = shares_per_lot[usable]
        wrong = _wrong_units(block, shares_per_lot) if self._proven else _NONE
        if wrong.any():
            self._count("wrong_units", int(wrong.sum()))
            usable = np.ones(len(ticks), np.bool_) if usable is None else usable
            usable[np.flatnonzero(usable)[wrong]] = False
            block = block[:, ~wrong]
        return block, None if usable is None else usable.tolist()

    def _read_in_parts(self, ticks: list[Any]) -> tuple[FloatArray, BoolArray]:
        """Read tick by tick where it must be; a market with one bad tick costs twice a good one, not ten times."""
        blocks, usable = [], np.ones(len(ticks), np.bool_)
        for start in range(0, len(ticks), _PART):
            part = ticks[start : start + _PART]
            block = _read_at_once(part)
            if block is None:
                rows = [self._row_or_none(tick) for tick in part]
                usable[start : start + _PART] = [row is not None for row in rows]
                good = [row for row in rows if row is not None]
                block = np.array(good, np.float64).reshape(-1, len(_FIELDS)).T
                on_grid(block[_PRICES], PRICE_GRID)
            blocks.append(block)
        return np.concatenate(blocks, axis=1), usable

    def _row_or_none(self, tick: Any) -> list[float] | None:
        try:
            return _row(tick)
        except _BadTick as bad:
            self._count(str(bad))
            return None


def _flat(payload: Payload) -> tuple[tuple[str, ...], list[Any]]:
    """Return symbols and ticks side by side; a list of ticks of one symbol becomes that many of both."""
    flat = [
        (symbol, tick)
        for symbol, of_one in payload.items()
        for tick in (of_one if isinstance(of_one, list) else [of_one])
    ]
    return tuple(symbol for symbol, _ in flat), [tick for _, tick in flat]


def _read_at_once(ticks: list[Any]) -> FloatArray | None:
    """Return the (9, n) block of core fields in one pass, prices on the grid; None if any tick is irregular."""
    return unbox(ticks, _core_fields(_spelled(ticks[0]) if ticks else _FIELDS))


@lru_cache(maxsize=8)
def _core_fields(names: tuple[str, ...]) -> tuple[Field, ...]:
    return tuple(Field(name, 1, *bounds) for name, *bounds in zip(names, _LEAST, _MOST, _GRIDS, strict=True))


def _spelled(tick: Any) -> tuple[str, ...]:
    """Return the names of the core fields as this tick spells them."""
    if not isinstance(tick, Mapping):
        return _FIELDS
    return tuple(_SPELLINGS[name] if name not in tick and _SPELLINGS.get(name) in tick else name for name in _FIELDS)


def _row(tick: Any) -> list[float]:
    """Return the core fields of one tick; raises _BadTick with the reason."""
    if not isinstance(tick, Mapping):
        raise _BadTick("not_a_tick")
    names = _spelled(tick)
    if not all(name in tick for name in names):
        raise _BadTick("missing_field")
    row = [_time_ms(tick[names[0]]), *(_number(tick[name]) for name in names[1:])]
    if not all(map(isfinite, row)):
        raise _BadTick("nonfinite")
    if not _FIRST_MS <= row[0] < _END_MS:
        raise _BadTick("bad_time")
    if min(row) < 0:
        raise _BadTick("negative")
    if any(value > most for value, most in zip(row, _MOST, strict=True)):
        raise _BadTick("out_of_range")
    return row


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _BadTick("not_a_number") from None


def _time_ms(value: Any) -> float:
    """Return the Unix ms of a tick's time: a number, or Shanghai text such as ``20230201 09:30:00``."""
    if not (isinstance(value, str) and _TIME_TEXT.fullmatch(value)):
        return _number(value)
    try:
        return datetime.strptime(value + "+0800", "%Y%m%d %H:%M:%S%z").timestamp() * 1000
    except ValueError:
        raise _BadTick("bad_time") from None


def _wrong_units(block: FloatArray, shares_per_lot: FloatArray) -> BoolArray:
    """Tell which ticks have an average price of the day that is over ten times off its range; empty: none."""
    traded = block[_VOLUME], shares_per_lot, block[_AMOUNT], block[_LOW], block[_HIGH]
    return _NONE if all_fit(traded, _UNITS_FACTOR) else misfits(traded, _UNITS_FACTOR)


def _batch(
    symbols: tuple[str, ...],
    ticks: list[Any],
    block: FloatArray,
    recv_ms: int,
    count: Callable[[str, int], None],
) -> TickBatch:
    block.flags.writeable = False  # nobody writes to a batch's columns, and so they can be shown to others as they are
    columns = dict(zip(("last", "open", "high", "low", "prev_close"), block[_PRICES], strict=True))
    columns["volume_lots"], columns["amount_cny"] = block[_VOLUME], block[_AMOUNT]
    return TickBatch(
        symbols,
        block[0].astype(np.int64),
        columns=columns,
        recv_ms=np.full(len(symbols), recv_ms, np.int64),
        status=block[_STATUS].astype(np.int16),
        load=lambda: _rest(ticks, count),
    )


# ── the book, read when asked for ─────────────────────────────────────────────────────────────────────────────────


def _rest(ticks: list[Any], count: Callable[[str, int], None]) -> Mapping[str, FloatArray]:
    """Return the columns of the book and the number of trades; a tick with a bad book has none and is counted."""
    book = unbox(ticks, _BOOK_FIELDS)
    if book is None:
        books = [_book_of(tick) for tick in ticks]
        bad = sum(levels is None for levels in books)
        if bad:
            count("bad_book", bad)
        sides = np.array([[_NO_LEVELS] * len(_BOOK) if one is None else one for one in books], np.float64)
        book = sides.reshape(-1, len(_BOOK) * LEVELS).T.copy()
        for row, name in enumerate(_BOOK_COLUMNS):
            if "_price_" in name:
                on_grid(book[row], PRICE_GRID)
    columns = dict(zip(_BOOK_COLUMNS, book, strict=True))
    trades = unbox(ticks, _TRADES)
    columns["trades"] = trades[0] if trades is not None else np.array([*map(_trades_of, ticks)], np.float64)
    return columns


def _book_of(tick: Mapping[str, Any]) -> list[list[float]] | None:
    """Return the four sides of one book, five levels each; missing levels are 0; None if a level cannot be read."""
    try:
        sides = [[_number(value) for value in (tick.get(field) or ())][:LEVELS] for field in _BOOK]
    except (_BadTick, TypeError):
        return None
    if not all(0 <= value <= _MOST[_VOLUME] for side in sides for value in side):
        return None
    return [side + [0.0] * (LEVELS - len(side)) for side in sides]


def _trades_of(tick: Mapping[str, Any]) -> float:
    trades = tick.get("transactionNum")
    # float_info: an int of Python's may be larger than any float
    known = isinstance(trades, (int, float)) and 0 <= trades <= float_info.max
    return float(trades) if known and trades is not None else -1.0


# ── proof of units ────────────────────────────────────────────────────────────────────────────────────────────────

_PROOF_LOTS: Final = 10
"""With fewer lots traded, rounding to whole lots hides what the units are."""
_PROOF_TICKS: Final = 5
"""So many ticks of a board are a proof."""


class UnitProof(NamedTuple):
    """How many ticks of a board agree that volume is in lots and amount in yuan; `ratio` is that of the last batch.

    ratio: median of amount / (shares traded x price); near 1 if the units are right, 100 if volume is in 10,000 shares.
    """

    agree: int = 0
    disagree: int = 0
    ratio: float = nan

    @property
    def holds(self) -> bool | None:
        """True: proven; False: a majority disagrees; None: too few ticks to tell."""
        if self.agree + self.disagree < _PROOF_TICKS:
            return None
        return self.disagree <= self.agree

    def with_more(self, more: UnitProof) -> UnitProof:
        """Return the proof of both."""
        return UnitProof(self.agree + more.agree, self.disagree + more.disagree, more.ratio)


def prove_units(batch: TickBatch, *, without: Collection[Board] = ()) -> dict[Board, UnitProof]:
    """Return, for each board with ticks to judge, how many of them have their day's average price within low..high.

    The average price is amount / (volume_lots x shares per lot), with one tick and one lot to spare: volumes are
    rounded to lots. Indices, codes of no board, ticks of under ten lots and boards in `without` are
    not judged.
    """
    unjudged = {Board.INDEX, Board.UNKNOWN, *without}
    boards = np.array([board_of(symbol) for symbol in batch.symbols], object)
    amount, volume = batch.column("amount_cny"), batch.column("volume_lots")
    high, low = batch.column("high"), batch.column("low")
    judged = (volume >= _PROOF_LOTS) & (amount > 0) & (low > 0)
    proofs = {}
    for board in sorted(set(boards[judged]) - unjudged):
        rows = np.flatnonzero(judged & (boards == board))
        lot, tick = lot_of(board), tick_of(board)
        most = (volume[rows] + 1) * lot * (high[rows] + tick)
        least = (volume[rows] - 1) * lot * (low[rows] - tick)
        agree = int(((amount[rows] <= most) & (amount[rows] >= least)).sum())
        ratio = float(np.median(amount[rows] / (volume[rows] * lot * (high[rows] + low[rows]) / 2)))
        proofs[board] = UnitProof(agree, len(rows) - agree, ratio)
    return proofs
