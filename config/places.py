"""Where a value of a list of tables stands in a TOML text, which tomllib does not tell."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextPlace:
    """line and column from 1; source: the line; width: characters under the carets."""

    line: int
    column: int
    source: str
    width: int


def place_in_table(
    text: str, table: str, number: int, *, key: str | None = None, value: str | None = None
) -> TextPlace:
    """Find a value of a key in the `number`th (from 0) `[[table]]`: the value, else its key, else the table's head.

    Where the tables are written otherwise (inline, with comments between key and list), what is found of them.
    """
    name = r"\s*\.\s*".join(map(re.escape, table.split(".")))
    heads = list(re.finditer(rf"^[ \t]*(\[\[\s*{name}\s*\]\])", text, re.M))
    if number >= len(heads):
        inline = re.search(rf"^[ \t]*([\w.]*{re.escape(table.split('.')[-1])})\s*=", text, re.M)
        start, end = inline.span(1) if inline else (0, 1)
        return _place(text, start, end)
    start, end = heads[number].span(1)
    after = re.compile(r"^[ \t]*\[[\[\w]", re.M).search(text, end)
    stop = after.start() if after else len(text)
    found = re.compile(rf"^[ \t]*(\"?{re.escape(key)}\"?)\s*=", re.M).search(text, end, stop) if key else None
    if found is None:
        return _place(text, start, end)
    quoted = re.compile(rf"[\"']({re.escape(value)})[\"']").search(text, found.end(), stop) if value else None
    return _place(text, *(quoted or found).span(1))


def _place(text: str, start: int, end: int) -> TextPlace:
    line_start = text.rfind("\n", 0, start) + 1
    source = text[line_start:].split("\n", 1)[0].rstrip("\r")
    return TextPlace(text.count("\n", 0, start) + 1, start - line_start + 1, source, max(1, end - start))
