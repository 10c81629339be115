"""`Universe`: which row of every column belongs to which symbol. Append-only, so that a row is a symbol's for good."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Final, TypeGuard

import numpy as np

from feeds.tick import IntArray

_SYMBOL: Final = re.compile(r"[0-9]{6}\.(?:SH|SZ|BJ)")
_REMEMBERED: Final = 4
"""Symbol tuples whose rows are kept: a whole market comes as one list, or as one list per exchange."""


def is_symbol(text: object) -> TypeGuard[str]:
    """Tell whether this is a code such as ``600519.SH``: six digits, a dot, SH, SZ or BJ."""
    return isinstance(text, str) and _SYMBOL.fullmatch(text) is not None


class Universe:
    """The watched symbols in order of their first appearance, and the row of each.

    Whoever owns the columns owns the universe: it is not safe for concurrent use.
    """

    __slots__ = ("_recent", "_row", "_symbols")

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._row: dict[str, int] = {}
        self._symbols: tuple[str, ...] | None = ()
        self._recent: deque[tuple[tuple[str, ...], IntArray]] = deque(maxlen=_REMEMBERED)
        for symbol in symbols:
            self._row.setdefault(symbol, len(self._row))
            self._symbols = None

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._row

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, in the order of its row."""
        if self._symbols is None:
            self._symbols = tuple(self._row)
        return self._symbols

    def row(self, symbol: str) -> int | None:
        """Return the row of a symbol, None if it never came."""
        return self._row.get(symbol)

    def knows(self, symbols: tuple[str, ...]) -> bool:
        """Tell whether none of these symbols would be new."""
        if any(known is symbols or known == symbols for known, _ in self._recent):
            return True
        return all(map(self._row.__contains__, symbols))

    def rows(self, symbols: tuple[str, ...]) -> IntArray:
        """Return the row of each of these symbols, (n,) int64, read-only; unknown ones are appended first.

        The array of a tuple that repeats is remembered: 0.02 ms instead of 0.4 for 5,500 symbols, less where it is the
        very same object (decoders and frames hand out one object for equal lists).
        """
        for known, rows in self._recent:
            if known is symbols:
                return rows
        for known, rows in self._recent:
            if known == symbols:  # stops at the first difference, and at the length before that
                self._recent.appendleft((symbols, rows))
                return rows
        rows = self._look_up(symbols)
        self._recent.appendleft((symbols, rows))
        return rows

    def _look_up(self, symbols: tuple[str, ...]) -> IntArray:
        row = self._row
        for symbol in symbols:
            if symbol not in row:
                row[symbol] = len(row)
                self._symbols = None
        rows = np.fromiter(map(row.__getitem__, symbols), np.int64, count=len(symbols))
        rows.flags.writeable = False
        return rows
