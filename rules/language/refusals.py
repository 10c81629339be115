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
UNAVAILABLE: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("WINNER", "LWINNER", "PWINNER", "COST", "COSTEX", "PPART"), "needs the cost distribution of holders"
    ),
    **dict.fromkeys(("FINANCE", "FINVALUE", "FINONE", "FINPER", "GPJYVALUE", "GPONEDAT"), "needs company reports"),
    **dict.fromkeys(("CAPITAL", "TOTALCAPITAL", "HSL"), "needs the number of shares"),
    **dict.fromkeys(("L2_AMO", "L2_VOL", "L2_VOLNUM", "LARGEINTRDVOL", "BIGVOL"), "needs Level-2 orders"),
    **dict.fromkeys(
        ("INBLOCK", "HORCALC", "EXTERNVALUE", "EXTDATA_USER", "SIGNALS_SYS"), "needs the vendor's own tables"
    ),
}

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
        return Refusal(f"{name} is unavailable: it {UNAVAILABLE.get(name, 'needs Level-2 orders')}", "leave it out")
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
