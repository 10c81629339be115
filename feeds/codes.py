"""The codes a source is asked for: from a file, or every code that shares of the three exchanges are given out of.

No list of shares is shipped: it would be old the next day. A page leaves out a code that does not exist, so the ranges
themselves are the list, and one round over them finds what is listed today.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from feeds.errors import FeedError
from feeds.universe import is_symbol

RANGES: Final = (
    ("SH", 600000, 602000),
    ("SH", 603000, 604000),
    ("SH", 605000, 606000),
    ("SH", 688000, 690000),
    ("SZ", 1, 4000),
    ("SZ", 300000, 303000),
    ("BJ", 920000, 921000),
)
"""Exchange, first code, end: shares in yuan. Beijing's all became 920xxx in 2025."""


def market_codes() -> list[str]:
    """Return every code that a share may have, listed or not: 14,000 of which less than half are."""
    return [f"{number:06}.{exchange}" for exchange, first, end in RANGES for number in range(first, end)]


def read_codes(paths: Iterable[str | Path]) -> list[str]:
    """Return the codes in files, each once, in order: the first word of each line; # begins a comment.

    A table with commas is good too if its first column is the code; a first line without one is its header. Raises
    FeedError naming file and line.
    """
    found: dict[str, None] = {}
    for path in map(Path, paths):
        found.update(dict.fromkeys(_read(path)))
    return list(found)


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise FeedError(f"{path}: codes cannot be read: {reason}") from None
    codes: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        if is_symbol(words[0]):
            codes.append(words[0])
        elif codes or number > 1:
            raise FeedError(f"{path}, line {number}: {words[0]!r} is no code such as 600519.SH")
    if not codes:
        raise FeedError(f"{path}: holds no code; write one such as 600519.SH on each line")
    return codes
