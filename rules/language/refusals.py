"""What the language knows and refuses, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rules.functions.function import Function
from rules.language.syntax import did_you_mean
from rules.language.words import PERIOD_NAMES, PERIODS, SPELLINGS, Scope, Word, is_upward

_CHANGES: Final = "looks into the future: its value on a bar changes after the bar has closed"

FUTURE: Final = frozenset(
    {
        "ZIG", "ZIGA", "PEAK", "PEAKA", "PEAKBARS", "PEAKBARSA", "TROUGH", "TROUGHA", "TROUGHBARS", "TROUGHBARSA",
        "BACKSET", "BACKSETX", "REFX", "REFXV", "FILTERX", "BARSNEXT", "XMA", "ISLASTBAR", "CURRBARSCOUNT",
        "TOTALBARSCOUNT", "FLATZIG", "FLATZIGA", "DRAWLAST", "CONST",
    }
)  # fmt: skip
_SCOPE: Final = "say it in select: {glob: ['60*.SH'], name: ['*ST*'], sector: [银行], board: [main], exclude: {…}}"
_REPORTS: Final = (
    "needs company reports",
    "drop the condition, and choose the stocks by a sector file (instruments.sectors)",
)
_SHARES: Final = "needs the number of shares", "compare volumes instead: V/REF(MA(V,5),1), VRATIO(5), or DYNAINFO(17)"
_HOLDERS: Final = "needs the cost distribution of holders", "drop the condition"
_ORDERS: Final = "needs Level-2 orders", "on ticks BIGTICK(1e6) finds big trades; BIDV1..5 and ASKV1..5 are the book"
_TABLES: Final = (
    "needs the vendor's own tables",
    "drop the condition, or make a list of stocks a sector (instruments.sectors)",
)
UNAVAILABLE: Final[dict[str, tuple[str, str]]] = {
    **dict.fromkeys(("WINNER", "LWINNER", "PWINNER", "COST", "COSTEX", "PPART"), _HOLDERS),
    **dict.fromkeys(("FINANCE", "FINVALUE", "FINONE", "FINPER", "GPJYVALUE", "GPONEDAT"), _REPORTS),
    **dict.fromkeys(("CAPITAL", "TOTALCAPITAL", "HSL"), _SHARES),
    **dict.fromkeys(("L2_AMO", "L2_VOL", "L2_VOLNUM", "LARGEINTRDVOL", "BIGVOL"), _ORDERS),
    **dict.fromkeys(("HORCALC", "EXTERNVALUE", "EXTERNSTR", "EXTDATA_USER", "SIGNALS_SYS", "SIGNALS_USER"), _TABLES),
}
"""What would be needed, and what to do without it."""
ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    **dict.fromkeys(
        ("CODELIKE", "NAMELIKE", "NAMEINCLUDE", "INBLOCK", "CODE", "STKNAME", "STKLABEL", "SETCODE", "ISST"),
        ("is about which stocks are watched", _SCOPE),
    ),
    **dict.fromkeys(
        ("STRFIND", "STRCAT", "STRCMP", "STRSPACE", "CON2STR", "VAR2STR", "SUBSTR"),
        ("is about texts", "write the text in message:"),
    ),
    **dict.fromkeys(("PERIOD", "DATATYPE"), ("is for a chart of any period", "the rule says it: period: 5m")),
    **dict.fromkeys(("BARSTATUS", "CURRENTDATE"), ("is for a chart", "a rule is about the newest bar by itself")),
    **dict.fromkeys(
        ("INDEXC", "INDEXO", "INDEXH", "INDEXL", "INDEXV", "INDEXA"),
        ("is the index", 'write "SH000001$CLOSE", and likewise $OPEN, $HIGH, $LOW, $VOL, $AMOUNT'),
    ),
    **dict.fromkeys(
        ("ADVANCE", "DECLINE", "INDEXADV", "INDEXDEC"),
        ("counts the market", "make a rule over groups: over: all, agg: {up: count(PCT > 0)}, when: up > 1000"),
    ),
    **dict.fromkeys(
        ("DATE", "YEAR", "MONTH", "DAY", "WEEKDAY", "WEEK", "HOUR", "MINUTE", "TIME2", "DAYSTOTODAY"),
        ("is of the calendar", "of the clock there are TIME (HHMMSS) and FROMOPEN (minutes); a rule ends by expires:"),
    ),
    **dict.fromkeys(("ZTPRICE", "DTPRICE"), ("is a price limit", "write LIMITUP or LIMITDOWN")),
    "TFILTER": ("pairs a way in with a way out", "write the first as when: and the second as rearm:"),
    "SUMBARS": ("looks back until a sum is reached", "use SUM over a window that is long enough"),
    **dict.fromkeys(
        ("TOPRANGE", "HOD"), ("ranks a value in its past", "a high of N bars is X>=HHV(X,N); its age is HHVBARS(X,N)")
    ),
    **dict.fromkeys(
        ("LOWRANGE", "LOD"), ("ranks a value in its past", "a low of N bars is X<=LLV(X,N); its age is LLVBARS(X,N)")
    ),
    **dict.fromkeys(("FINDHIGH", "FINDHIGHBARS"), ("looks for an earlier high", "write HHV(REF(X,M),N)")),
    **dict.fromkeys(("FINDLOW", "FINDLOWBARS"), ("looks for an earlier low", "write LLV(REF(X,M),N)")),
    "EXISTR": ("looks at bars A to B ago", "write REF(EXIST(X,A-B+1),B)"),
    "TMA": ("smooths by two weights", "write DMA(X,A), or SMA(X,N,M)"),
    **dict.fromkeys(("SARTURN",), ("is where SAR turns", "write CROSS(C,SAR(10,2,20)), or CROSS(SAR(10,2,20),C)")),
    **dict.fromkeys(("ROUND", "ROUND2"), ("rounds for show", "compare with a tolerance, or round in message: {C:.2f}")),
    "REVERSE": ("is the number negated", "write -X"),
    **dict.fromkeys(("SIN", "COS", "TAN", "ASIN", "ACOS", "ATAN"), ("is trigonometry", "a slope is SLOPE(X,N)")),
    **dict.fromkeys(
        ("BUY", "SELL", "BUYSHORT", "SELLSHORT", "ENTERLONG", "EXITLONG", "ENTERSHORT", "EXITSHORT", "ALERT", "SOUND"),
        ("orders or alerts by itself", "end with the condition alone; what is told, and to whom, the rule says"),
    ),
    "INPUT": ("asks for parameters", "write them as params: {n: 5}, or N:=5;"),
    "DRAWNULL": ("is no value to draw", "write the condition itself, or 0 where there is nothing"),
}
"""What a chart has and a rule says in another place: why, and where."""

_LEVEL_2 = re.compile(r"L2_\w+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is refused, and what to do about it."""

    message: str
    hint: str


def function_refusal(name: str) -> Refusal | None:
    """Return why a call of this function is refused, None if it is not refused."""
    if name in FUTURE:
        return Refusal(f"{name} {_CHANGES}", "use what is known when the bar closes, such as HHV, LLV, REF or BARSLAST")
    if name in UNAVAILABLE or _LEVEL_2.fullmatch(name):
        needs, hint = UNAVAILABLE.get(name, _ORDERS)
        return Refusal(f"{name} is unavailable: it {needs}", hint)
    if name in ELSEWHERE:
        why, hint = ELSEWHERE[name]
        return Refusal(f"{name} {why}", hint)
    return None


def name_refusal(name: str, *, functions: Mapping[str, Function], vocabulary: Mapping[str, Word]) -> Refusal | None:
    """Return why a name that the formula does not assign is none of its words; None if nobody knows it."""
    if name in SPELLINGS:
        return _strange_word(name, vocabulary)
    refusal = function_refusal(name)
    if refusal is not None:
        return refusal
    if name.startswith("DRAW"):
        return Refusal(f"{name} draws, and there is nothing to draw here", "leave the statement out")
    if name in functions:
        return Refusal(f"{name} is a function", f"write {functions[name].signature()}")
    return None


def _strange_word(name: str, vocabulary: Mapping[str, Word]) -> Refusal:
    """Refuse a word of the language that has no meaning in this formula."""
    if SPELLINGS[name].scope is Scope.POSITION and "LAST" in vocabulary:
        return Refusal(f"{name} is a word of positions", "write select: {positions: BOOK} to watch what a book holds")
    hint = f"name it in agg: {{x: mean({name})}}; here stand {', '.join(vocabulary) or 'its names'}"
    return Refusal(f"{name} is of one symbol, and this is a condition over groups", hint)


def period_refusal(written: str, here: str) -> Refusal | None:
    """Return why a formula on the period `here` can't look at this one, None if it can."""
    period = PERIODS.get(written)
    if period is None:
        known = "there are no bars of" if written in PERIOD_NAMES else "there is no period"
        return Refusal(f"{known} {written}", did_you_mean(written, PERIODS) or f"one of {', '.join(PERIODS)}")
    if not is_upward(period, here):
        message = f"{written} is shorter than the period {here}: a formula looks at longer periods only"
        return Refusal(message, "set period: to the shortest that the rule looks at")
    return None
