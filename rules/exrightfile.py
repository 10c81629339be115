"""Ex-rights files: on which day which symbol starts from a new reference price, for feeds that do not show it.

CSV has columns symbol and date, and of factor, cash, bonus, rights and rights_price those that are needed; YAML is
`{version: 1, exrights: [{symbol: 600519.SH, date: 2023-06-30, cash: 25.911}]}`. All amounts are per share held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from feeds.exrights import ExRight
from rules import fields
from rules.cells import rows_of_cells
from rules.document import Document, Scalar, Value, read
from rules.errors import RuleFileError
from rules.language.syntax import did_you_mean
from rules.testfields import read_date

_NEEDED: Final = ("symbol", "date")
_AMOUNTS: Final = {
    "factor": "factor", "cash": "cash_cny", "bonus": "bonus", "rights": "rights", "rights_price": "rights_cny",
}  # fmt: skip
"""Column or key → the record's field."""
_NUMBER = re.compile(r"[0-9]{1,9}\.?[0-9]*|\.[0-9]+")


def load(texts: Mapping[str, str]) -> tuple[ExRight, ...]:
    """Read ex-rights files given as name → text; a name that ends in .csv is CSV, any other YAML.

    Raises RuleFileError with the findings of all files, each at its place.
    """
    found: dict[tuple[str, int], tuple[ExRight, str]] = {}
    documents: list[Document] = []
    for file, text in texts.items():
        document = Document(text.removeprefix("\ufeff"), file)
        documents.append(document)
        for place, one in _csv_days(document) if file.lower().endswith(".csv") else _yaml_days(document):
            key = one.symbol, one.date
            if key in found:
                message = f"{one.symbol} has two records of {one.date}"
                document.errors += document.refuse(place, message, hint=f"the other is {found[key][1]}").findings
            else:
                found[key] = one, f"{file}:{document.line(place.start)}"
    errors = [finding for one in documents for finding in sorted(one.errors, key=lambda f: (f.line, f.column))]
    if errors:
        raise RuleFileError(errors)
    return tuple(sorted((one for one, _ in found.values()), key=lambda one: (one.symbol, one.date)))


def _csv_days(document: Document) -> Iterator[tuple[Value, ExRight]]:
    """Yield each good record with the place of its symbol."""
    for row in rows_of_cells(document, _NEEDED):
        cells = {name: cell for name, cell in row.items() if name in _NEEDED or cell.text}
        try:
            yield row["symbol"], _record(document, row["symbol"], cells)
        except RuleFileError as error:
            document.errors += error.findings


def _yaml_days(document: Document) -> Iterator[tuple[Value, ExRight]]:
    """Yield each good record with the place of its symbol."""
    root = read(document)
    if root is None:
        return
    try:
        top = fields.table(document, root, "an ex-rights file")
        fields.version(document, top)
        listed = top.get("exrights")
        if listed is None or len(top.pairs) > 2:
            hint = "write exrights: [{symbol: …, date: …, cash: …}] beside version: 1, and nothing else"
            raise RuleFileError([document.finding(top.start, top.start + 1, "it has version and exrights", hint=hint)])
        entries = () if getattr(listed, "entries", None) == () else fields.entries(document, listed)
    except RuleFileError as error:
        document.errors += error.findings
        return
    for entry in entries:
        try:
            pairs = fields.table(document, entry, "an ex-rights day").pairs
            cells = {key.text: value for key, value in pairs}
            for key, _ in pairs:
                _refuse_unknown(document, key)
            for name in _NEEDED:
                if name not in cells:
                    message, hint = f"{name} is missing", "write {symbol: 600519.SH, date: 2023-06-30, cash: 25.911}"
                    raise document.refuse(entry, message, hint=hint)
            yield cells["symbol"], _record(document, entry, cells)
        except RuleFileError as error:
            document.errors += error.findings


def _refuse_unknown(document: Document, key: Scalar) -> None:
    known = (*_NEEDED, *_AMOUNTS)
    if key.text not in known:
        hint = did_you_mean(key.text, known) or f"it has {', '.join(known)}"
        raise document.refuse(key, f"an ex-rights day has no key {key.text!r}", hint=hint)


def _record(document: Document, place: Value, cells: Mapping[str, Value]) -> ExRight:
    """Read the cells of one day. Raises RuleFileError for the first that is wrong, or if together they mean nothing."""
    amounts = {field: _number(document, cells[name]) for name, field in _AMOUNTS.items() if name in cells}
    one = ExRight(fields.symbol(document, cells["symbol"]), read_date(document, cells["date"]), **amounts)
    fault = one.fault()
    if fault is not None:
        raise document.refuse(place, fault, hint="factor: 0.5, or per share cash: 0.5, bonus: 1, rights: 0.3")
    return one


def _number(document: Document, value: Value) -> float:
    written = value.text if isinstance(value, Scalar) else ""
    if not _NUMBER.fullmatch(written):
        raise document.refuse(value, f"a number is needed here, not {written[:40]!r}", hint="write 0.5")
    return float(written)
