"""`Books`: the positions in force as columns over the universe, one set of columns per book.

ENTRY yuan per share, QTY shares, PEAK the highest LAST since the position was entered or its ENTRY changed, PNL the
change of LAST on ENTRY in %. All are NaN where the book holds nothing; PEAK and PNL also before the first price.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.language.words import WORDS, Scope
from rules.latest import Latest
from rules.node import Selection
from rules.positions import NO_POSITIONS, Position, decode
from rules.state import Column, StateTable

RowOf: TypeAlias = Callable[[str], int | None]
"""Symbol → row of the universe, None before its first tick."""
BOOK_WORDS: Final = tuple(word.name for word in WORDS.values() if word.scope is Scope.POSITION)


def word_of(word: str, book: str) -> str:
    """Return what the graph calls a position word of one book: no formula can write it, so it never meets a name."""
    return f"{word}@{book}"


class _Book:
    """The columns of one book."""

    def __init__(self, book: str, state: StateTable, latest: Latest) -> None:
        self.columns = {word: state.claim(f"book/{book}/{word}") for word in BOOK_WORDS}
        self.last = latest.column("LAST")
        # LAST first: a fire on the tick that makes a new peak sees that peak.
        latest.follow(self.columns["PEAK"], self._peak)
        latest.follow(self.columns["PNL"], self._profit)

    def lay(self, positions: Iterable[Position], row: RowOf) -> None:
        """Write entry and quantity of what is held; symbols that never ticked have no row yet."""
        entry, quantity = self.columns["ENTRY"].array, self.columns["QTY"].array
        entry[...] = quantity[...] = np.nan
        for one in positions:
            at = row(one.symbol)
            if at is not None:
                entry[at], quantity[at] = one.entry, one.quantity

    def refresh(self) -> None:
        """Bring what follows LAST up to date for all symbols."""
        self.columns["PEAK"].array[...] = self._peak(slice(None))
        self.columns["PNL"].array[...] = self._profit(slice(None))

    def leave(self, latest: Latest) -> None:
        """Let nothing follow LAST any more."""
        for word in ("PEAK", "PNL"):
            latest.leave(self.columns[word])

    def _peak(self, at: Selection) -> FloatArray:
        higher = np.fmax(self.columns["PEAK"].array[at], self.last.array[at])
        return np.where(np.isnan(self.columns["ENTRY"].array[at]), np.nan, higher)

    def _profit(self, at: Selection) -> FloatArray:
        return np.asarray((self.last.array[at] / self.columns["ENTRY"].array[at] - 1.0) * 100.0)


class Books:
    """Every book, and which symbols it holds; part of the market's state, so PEAK outlives a restart.

    source: the canonical JSON in force. held: book → symbols.
    """

    def __init__(self, state: StateTable, latest: Latest) -> None:
        self.source = NO_POSITIONS
        self.held: Mapping[str, frozenset[str]] = {}
        self._state, self._latest = state, latest
        self._books: dict[str, _Book] = {}
        self._named: Collection[str] = ()
        """Books that rules name."""
        self._positions: dict[tuple[str, str], Position] = {}

    def column(self, word: str) -> Column:
        """Return the column of a word as `word_of` names it; a book that nobody has is all unknown."""
        name, _, book = word.partition("@")
        return self._book(book).columns[name]

    def take(self, source: str, row: RowOf) -> dict[str, frozenset[str]]:
        """Let these positions take the place of all; return book → symbols whose position is new, gone or re-entered.

        Raises RuleError for a text that is none; then nothing has changed.
        """
        after = {(one.book, one.symbol): one for one in decode(source)}
        before, self._positions, self.source = self._positions, after, source
        renewed = {key for key in before | after if _entry(before, key) != _entry(after, key)}
        self.held = _symbols_by_book(after)
        for book in _symbols_by_book(after):
            self._book(book)
        changed = _symbols_by_book(renewed)
        for book, symbols in changed.items():
            self._book(book).columns["PEAK"].array[rows_of(symbols, row)] = np.nan
        self.lay(row)
        self._tidy()
        for one in self._books.values():
            one.refresh()
        return changed

    def keep(self, named: Collection[str]) -> None:
        """Drop the columns of books that no rule names and that hold nothing: each costs every tick something."""
        self._named = named
        self._tidy()

    def lay(self, row: RowOf) -> None:
        """Write entries and quantities anew: positions or the universe have changed."""
        for name, book in self._books.items():
            book.lay((one for (owner, _), one in self._positions.items() if owner == name), row)

    def adjust(self, rows: IntArray, factors: FloatArray) -> None:
        """Multiply the peaks of these symbols, (k,) each: prices of before an ex-rights day. ENTRY is what was paid."""
        for book in self._books.values():
            book.columns["PEAK"].array[rows] *= factors

    def restore(self, source: str, names: Iterable[str], row: RowOf) -> None:
        """Take the positions and books of a checkpoint, before the columns' values are put back."""
        for name in names:
            self._book(name)
        self.take(source, row)

    @property
    def names(self) -> tuple[str, ...]:
        """Every book that has columns, for a checkpoint."""
        return tuple(self._books)

    def _tidy(self) -> None:
        for name in [one for one in self._books if one not in self._named and one not in self.held]:
            self._books.pop(name).leave(self._latest)
            self._state.release(f"book/{name}/")

    def _book(self, name: str) -> _Book:
        if name not in self._books:
            self._books[name] = _Book(name, self._state, self._latest)
        return self._books[name]


def _entry(positions: Mapping[tuple[str, str], Position], key: tuple[str, str]) -> float | None:
    found = positions.get(key)
    return None if found is None else found.entry


def _symbols_by_book(keys: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    symbols: dict[str, set[str]] = {}
    for book, symbol in sorted(keys):
        symbols.setdefault(book, set()).add(symbol)
    return {book: frozenset(found) for book, found in symbols.items()}


def rows_of(symbols: Iterable[str], row: RowOf) -> IntArray:
    """Return the rows of those symbols that have one, in order."""
    found = (row(symbol) for symbol in symbols)
    return np.array(sorted(at for at in found if at is not None), np.int64)
