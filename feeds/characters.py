"""Text from foreign programs and people may hold half a character, which neither JSON nor SQLite takes."""

from __future__ import annotations

import re
from typing import Final

HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
"""A lone surrogate: YAML's escapes can write one, and Python makes them of bytes that are no UTF-8."""


def whole(text: str) -> str:
    """Return the text with U+FFFD in the place of each half character."""
    return HALF_CHARACTER.sub("\ufffd", text)
