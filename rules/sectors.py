"""Sector files: which symbols are in which sector, for markets whose feed does not tell.

YAML is `{version: 1, sectors: {银行: [600000.SH, 601398.SH]}}`; CSV has columns symbol and sector, a row for each pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from feeds.instruments import Instrument, instrument_of
from rules import fields
from rules.cells import rows_of_cells
from rules.document import Document, read
from rules.errors import RuleFileError


def load(texts: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Read sector files given as name → text; a name that ends in .csv is CSV, any other YAML. Return symbol → sectors.

    Raises RuleFileError with the findings of all files, each at its place.
    """
    found: dict[str, dict[str, None]] = {}
    documents: list[Document] = []
    for file, text in texts.items():
        document = Document(text.removeprefix("\ufeff"), file)
        documents.append(document)
        for symbol, sector in _csv_pairs(document) if file.lower().endswith(".csv") else _yaml_pairs(document):
            found.setdefault(symbol, {})[sector] = None
    errors = [finding for one in documents for finding in sorted(one.errors, key=lambda f: (f.line, f.column))]
    if errors:
        raise RuleFileError(errors)
    return {symbol: tuple(sectors) for symbol, sectors in found.items()}


def merge(instruments: Iterable[Instrument], sectors: Mapping[str, Sequence[str]]) -> list[Instrument]:
    """Return the instruments with these sectors added to their own; unknown ones with what their code tells."""
    known = {one.symbol: one for one in instruments}
    for symbol, more in sectors.items():
        one = known.get(symbol) or instrument_of(symbol)
        known[symbol] = replace(one, sectors=tuple(dict.fromkeys((*one.sectors, *more))))
    return list(known.values())


def _csv_pairs(document: Document) -> Iterator[tuple[str, str]]:
    for row in rows_of_cells(document, ("symbol", "sector")):
        try:
            yield fields.symbol(document, row["symbol"]), fields.text(document, row["sector"])
        except RuleFileError as error:
            document.errors += error.findings


def _yaml_pairs(document: Document) -> Iterator[tuple[str, str]]:
    root = read(document)
    if root is None:
        return
    try:
        top = fields.table(document, root, "a sector file")
        fields.version(document, top)
        sectors = top.get("sectors")
        if sectors is None or len(top.pairs) > 2:
            hint = "write sectors: {银行: [600000.SH, …]} beside version: 1, and nothing else"
            raise RuleFileError([document.finding(top.start, top.start + 1, "it has version and sectors", hint=hint)])
        pairs = fields.table(document, sectors, "sectors").pairs
    except RuleFileError as error:
        document.errors += error.findings
        return
    for key, members in pairs:
        try:
            sector = fields.key_name(document, key)
            yield from ((symbol, sector) for symbol in sorted(fields.symbols(document, members)))
        except RuleFileError as error:
            document.errors += error.findings
