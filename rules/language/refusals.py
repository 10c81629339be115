"""What the language knows and refuses, each with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

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
UNAVAILABLE_DYNAINFO: Final[dict[int, str]] = {
    37: "turnover needs the number of shares, which is unavailable",
}

_LEVEL_2 = re.compile(r"L2_\w+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a function is refused, and what to do about it."""

    message: str
    hint: str


def function_refusal(name: str) -> Refusal | None:
    """Return why a call of this function is refused, None if it is not refused."""
    if name in FUTURE:
        return Refusal(f"{name} {_CHANGES}", "use what is known when the bar closes, such as HHV, LLV, REF or BARSLAST")
    if name in UNAVAILABLE or _LEVEL_2.fullmatch(name):
        return Refusal(f"{name} is unavailable: it {UNAVAILABLE.get(name, 'needs Level-2 orders')}", "leave it out")
    return None
