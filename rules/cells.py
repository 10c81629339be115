"""CSV as rows of cells that know their place, so that a complaint about a cell points at it in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rules.document import Document, Scalar
from rules.errors import RuleFileError

_CELL = re.compile(r'[ \t]*(?:"((?:[^"]|"")*)"|([^,"]*?))[ \t]*(,|$)')


def rows_of_cells(document: Document, wanted: Sequence[str]) -> Iterator[dict[str, Scalar]]:
    """Yield each row as column → cell; the header has to have the `wanted` columns, in any order and case.

    Empty lines and lines that begin with # are passed over. Errors go to the document; a row with one is left out.
    """
    columns: list[str] | None = None
    start = 0
    for line in document.text.split("\n"):
        begin, start = start, start + len(line) + 1
        line = line.rstrip("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cells = _cells(document, line, begin)
            if columns is None:
                columns = _header(document, cells, wanted)
                continue
            row = _row(document, columns, cells)
        except RuleFileError as error:
            document.errors += error.findings
            if columns is None:
                return
            continue
        yield row
    if columns is None:
        hint = f"begin with the line {','.join(wanted)}"
        document.errors.append(document.finding(0, 1, "the file is empty", hint=hint))


def _row(document: Document, columns: list[str], cells: list[Scalar]) -> dict[str, Scalar]:
    if len(cells) != len(columns):
        message = f"{len(cells)} cells, and the header has {len(columns)} columns"
        hint = "one cell for each column of the header"
        raise RuleFileError([document.finding(cells[0].start, cells[-1].end, message, hint=hint)])
    return dict(zip(columns, cells, strict=True))


def _cells(document: Document, line: str, begin: int) -> list[Scalar]:
    """Cut a line at its commas; cells keep their place, and lose quotes and the blanks around them."""
    cells: list[Scalar] = []
    at = 0
    while True:
        match = _CELL.match(line, at)
        if match is None:
            hint = 'quote the whole cell, and write "" for a quote in it'
            raise RuleFileError([document.finding(begin + at, begin + len(line), "a quote within a cell", hint=hint)])
        group = 2 if match[1] is None else 1
        first, last = match.span(group)
        # A file of cells has no YAML style: a quoted number is a number too.
        cells.append(Scalar(match[group].replace('""', '"'), "", begin + first, begin + max(last, first + 1)))
        at = match.end()
        if not match[3]:
            return cells


def _header(document: Document, cells: list[Scalar], wanted: Sequence[str]) -> list[str]:
    names = [cell.text.strip().lower() for cell in cells]
    for name in wanted:
        if names.count(name) == 1:
            continue
        what = f"the header has no column {name}" if name not in names else f"the header has column {name} twice"
        hint = f"the columns are {', '.join(wanted)}, in any order"
        raise RuleFileError([document.finding(cells[0].start, cells[-1].end, what, hint=hint)])
    return names
