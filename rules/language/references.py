"""What stands between double quotes: another symbol's word, or the output of a shipped formula."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rules.errors import RuleError
from rules.language.words import SPELLINGS

SYMBOL_WORDS: Final = ("C", "O", "H", "L", "V", "AMO", "LAST", "PCT")
"""Words that may be asked of another symbol."""
_SYMBOL = re.compile(r"(SH|SZ|BJ)([0-9]{6})\$(\w+)")
_FORMULA = re.compile(r"([^\W\d]\w*)(?:\.([^\W\d]\w*))?(?:#(\w+))?")


@dataclass(frozen=True, slots=True)
class SymbolReference:
    """ "SH000001$CLOSE": `symbol` as 000001.SH, `word` canonical."""

    symbol: str
    word: str


@dataclass(frozen=True, slots=True)
class FormulaReference:
    """ "KDJ.K#WEEK": output "" is the only one; period as written, "" is the formula's own."""

    name: str
    output: str
    period: str


def read_reference(target: str) -> SymbolReference | FormulaReference:
    """Read the upper-case text between the quotes; raises RuleError for what is neither."""
    symbol = _SYMBOL.fullmatch(target)
    if symbol is not None:
        exchange, code, written = symbol.groups()
        word = SPELLINGS.get(written)
        if word is None or word.name not in SYMBOL_WORDS:
            raise RuleError(f"of another symbol {', '.join(SYMBOL_WORDS)} are known, not {written}")
        return SymbolReference(f"{code}.{exchange}", word.name)
    formula = _FORMULA.fullmatch(target)
    if formula is None or "$" in target:
        raise RuleError("is neither another symbol's word nor a shipped formula's output")
    return FormulaReference(formula[1], formula[2] or "", formula[3] or "")
