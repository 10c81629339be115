"""Positions: what is held, book by book, as frozen records, canonical JSON, and the YAML and CSV files people write.

Pure: files come as texts by name. A *book* is a named set of positions; a symbol is in a book once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feeds.universe import is_symbol
from rules import fields
from rules.cells import rows_of_cells
from rules.document import Document, Scalar, Table, Value, read
from rules.errors import RuleError, RuleFileError
from rules.language.syntax import did_you_mean

SOURCE_VERSION: Final = 1
NO_POSITIONS: Final = '{"v":1,"positions":[]}'
"""The canonical JSON of no positions at all."""
MOST: Final = 1e12
"""Prices and quantities from here on are none."""
_COLUMNS: Final = ("book", "symbol", "entry", "quantity")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,15}\.?[0-9]*|\.[0-9]+)")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Shares held: entry is the price paid in yuan per share, quantity the number of shares; both are positive."""

    book: str
    symbol: str
    entry: float
    quantity: float

    def fault(self) -> str | None:
        """Say what is wrong with it, None if nothing is."""
        if not fields.is_id(self.book):
            return f"{self.book!r} is no name of a book: letters, digits, '.', '_' and '-', at most 64"
        if not is_symbol(self.symbol):
            return f"{self.symbol!r} is no symbol such as 600519.SH"
        for name, number in (("entry", self.entry), ("quantity", self.quantity)):
            if not 0 < number < MOST:
                return f"{name} must be above 0, not {number:g}"
        return None


# ── canonical JSON: what a control record carries ─────────────────────────────────────────────────────────────────────


def encode(positions: Iterable[Position]) -> str:
    """Return positions as canonical JSON, sorted, so that equal sets are equal text.

    Raises RuleError for a bad position, or a symbol that is twice in a book.
    """
    ordered = sorted(positions)
    _refuse_faults(ordered)
    records = [[one.book, one.symbol, float(one.entry), float(one.quantity)] for one in ordered]
    return orjson.dumps({"v": SOURCE_VERSION, "positions": records}).decode()


def decode(source: str) -> tuple[Position, ...]:
    """Return the positions of a text made by `encode`; raises RuleError if it is none."""
    try:
        record = orjson.loads(source)
        version, rows = record["v"], [Position(*row) for row in record["positions"]]
        whole = all(isinstance(one.entry, float) and isinstance(one.quantity, float) for one in rows)
        named = all(isinstance(text, str) for one in rows for text in (one.book, one.symbol))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RuleError(f"not the text of positions: {error}") from None
    if version != SOURCE_VERSION:
        raise RuleError(f"positions version {version!r}, this program reads {SOURCE_VERSION}")
    if not whole or not named:
        raise RuleError("not the text of positions: a position is [book, symbol, entry, quantity]")
    _refuse_faults(rows)
    return tuple(rows)


def _refuse_faults(positions: Iterable[Position]) -> None:
    seen: set[tuple[str, str]] = set()
    for one in positions:
        fault = one.fault()
        if fault is None and (one.book, one.symbol) in seen:
            fault = f"book {one.book} holds it twice; add the quantities up"
        if fault is not None:
            raise RuleError(f"position {one.symbol}: {fault}")
        seen.add((one.book, one.symbol))


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def load(texts: Mapping[str, str]) -> tuple[Position, ...]:
    """Read position files given as name → text; a name that ends in .csv is CSV, any other YAML.

    YAML is `{version: 1, books: {main: [{symbol: 600519.SH, entry: 1500, quantity: 100}]}}`; CSV has a header with the
    columns book, symbol, entry and quantity in any order, and other columns are passed over.
    Raises RuleFileError with the findings of all files, each at its place.
    """
    found: dict[tuple[str, str], tuple[Position, str]] = {}
    documents: list[Document] = []
    for file, text in texts.items():
        document = Document(text.removeprefix("\ufeff"), file)
        documents.append(document)
        rows = _csv_rows(document) if file.lower().endswith(".csv") else _yaml_rows(document)
        for place, position in rows:
            key = position.book, position.symbol
            if key in found:
                message = f"{position.symbol} is twice in book {position.book}"
                document.errors += document.refuse(place, message, hint=f"it is already in {found[key][1]}").findings
            else:
                found[key] = position, f"{file}:{document.line(place.start)}"
    errors = [finding for one in documents for finding in sorted(one.errors, key=lambda f: (f.line, f.column))]
    if errors:
        raise RuleFileError(errors)
    return tuple(sorted(position for position, _ in found.values()))


def _yaml_rows(document: Document) -> Iterator[tuple[Value, Position]]:
    """Yield each good position with the place of its symbol."""
    root = read(document)
    if root is None:
        return
    try:
        top = fields.table(document, root, "a position file")
        _refuse_unknown(document, top, ("version", "books"), "a position file")
        fields.version(document, top)
        books = top.get("books")
        if books is None:
            hint = "write books: {main: [{symbol: …, entry: …, quantity: …}]}"
            raise RuleFileError([document.finding(top.start, top.start + 1, "books is missing", hint=hint)])
        pairs = fields.table(document, books, "books").pairs
    except RuleFileError as error:
        document.errors += error.findings
        return
    for key, rows in pairs:
        yield from _yaml_book(document, key, rows)


def read_books(document: Document, value: Value) -> tuple[Position, ...]:
    """Read a table of books as a position file has it under `books`; what is wrong inside goes to the document."""
    pairs = fields.table(document, value, "books").pairs
    return tuple(position for key, rows in pairs for _, position in _yaml_book(document, key, rows))


def _yaml_book(document: Document, key: Scalar, rows: Value) -> Iterator[tuple[Value, Position]]:
    try:
        book = book_name(document, key)
        listed = () if getattr(rows, "entries", None) == () else fields.entries(document, rows)
    except RuleFileError as error:
        document.errors += error.findings
        return
    for row in listed:
        try:
            found = fields.table(document, row, "a position")
            _refuse_unknown(document, found, _COLUMNS[1:], "a position")
            cells = {name: _needed(document, found, name) for name in _COLUMNS[1:]}
            yield cells["symbol"], _position(document, book, cells)
        except RuleFileError as error:
            document.errors += error.findings


def _refuse_unknown(document: Document, found: Table, known: tuple[str, ...], what: str) -> None:
    for key, _ in found.pairs:
        if key.text not in known:
            hint = did_you_mean(key.text, known) or f"it has {', '.join(known)}"
            raise document.refuse(key, f"{what} has no key {key.text!r}", hint=hint)


def _needed(document: Document, found: Table, name: str) -> Value:
    value = found.get(name)
    if value is None:
        message = f"{name} is missing"
        raise RuleFileError(
            [document.finding(found.start, found.start + 1, message, hint=f"a position has {', '.join(_COLUMNS[1:])}")]
        )
    return value


def _csv_rows(document: Document) -> Iterator[tuple[Value, Position]]:
    """Yield each good position with the place of its symbol."""
    for row in rows_of_cells(document, _COLUMNS):
        try:
            yield row["symbol"], _position(document, book_name(document, row["book"]), row)
        except RuleFileError as error:
            document.errors += error.findings


def book_name(document: Document, value: Value) -> str:
    """Read the name of a book, which is written like a rule's id."""
    found = fields.text(document, value)
    if not fields.is_id(found):
        hint = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
        raise document.refuse(value, f"{found[:40]!r} is no name of a book", hint=hint)
    return found


def _position(document: Document, book: str, cells: Mapping[str, Value]) -> Position:
    """Read the cells of one position. Raises RuleFileError with all that is wrong with them."""
    errors: list[Any] = []
    read_cells: dict[str, Any] = {}
    for name, reader in (("symbol", fields.symbol), ("entry", _amount), ("quantity", _amount)):
        try:
            read_cells[name] = reader(document, cells[name])
        except RuleFileError as error:
            errors += error.findings
    if errors:
        raise RuleFileError(errors)
    return Position(book, **read_cells)


def _amount(document: Document, value: Value) -> float:
    """Read a price or a number of shares."""
    written = value.text if isinstance(value, Scalar) and not value.style else ""
    if not _NUMBER.fullmatch(written):
        shown = written or "this"
        hint = "write 1500.25" if not re.search(r"[0-9],[0-9]", written) else "write it without commas"
        raise document.refuse(value, f"a number is needed here, not {shown[:40]}", hint=hint)
    number = float(written)
    if not (0 < number < MOST and math.isfinite(number)):
        hint = "remove the position if nothing is held" if number == 0 else "only what is bought and held is a position"
        raise document.refuse(value, f"a number above 0 is needed here, not {written[:40]}", hint=hint)
    return number
