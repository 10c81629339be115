"""The words of the market: what a formula may name without defining it.

A bar field is of the rule's own period, forming bar included. A now word is of the latest tick, whatever the period.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rules.language.tree import Kind


class Scope(StrEnum):
    """Where a word's value comes from."""

    BAR = "bar"
    NOW = "now"
    POSITION = "position"


@dataclass(frozen=True, slots=True)
class Word:
    """One word: `name` canonical, `synonyms` other spellings; zh and en are its meaning in a line."""

    name: str
    scope: Scope
    zh: str
    en: str
    kind: Kind = Kind.NUMBER
    synonyms: tuple[str, ...] = ()
    exact: bool = True
    """Prices, lots and counts, which `=` may compare; False for ratios and other computed values."""


def _book() -> Iterator[Word]:
    for side, side_zh, side_en in (("BID", "买", "bid"), ("ASK", "卖", "ask")):
        for letter, what_zh, what_en in (("P", "价", "price in yuan"), ("V", "量（手）", "volume in lots")):
            for level in range(1, 6):
                name = f"{side}{letter}{level}"
                yield Word(name, Scope.NOW, f"{side_zh}{level}{what_zh}", f"{side_en} {level}, {what_en}")


_BAR: Final = (
    Word("C", Scope.BAR, "收盘价", "close of the bar", synonyms=("CLOSE",)),
    Word("O", Scope.BAR, "开盘价", "open of the bar", synonyms=("OPEN",)),
    Word("H", Scope.BAR, "最高价", "high of the bar", synonyms=("HIGH",)),
    Word("L", Scope.BAR, "最低价", "low of the bar", synonyms=("LOW",)),
    Word("V", Scope.BAR, "成交量（手）", "volume of the bar in lots", synonyms=("VOL",)),
    Word("AMO", Scope.BAR, "成交额（元）", "amount of the bar in yuan", synonyms=("AMOUNT",)),
)
_NOW: Final = (
    Word("LAST", Scope.NOW, "最新价", "last price in yuan"),
    Word("PCT", Scope.NOW, "涨跌幅（%）", "change on the previous close in %", exact=False),
    Word("PRECLOSE", Scope.NOW, "昨收价", "previous close in yuan"),
    Word("DAYOPEN", Scope.NOW, "今开", "open of the day in yuan"),
    Word("DAYHIGH", Scope.NOW, "今日最高", "high of the day in yuan"),
    Word("DAYLOW", Scope.NOW, "今日最低", "low of the day in yuan"),
    Word("VOLDAY", Scope.NOW, "今日成交量（手）", "volume of the day in lots"),
    Word("AMTDAY", Scope.NOW, "今日成交额（元）", "amount of the day in yuan"),
    *_book(),
    Word("LIMITUP", Scope.NOW, "涨停价", "upper price limit in yuan"),
    Word("LIMITDOWN", Scope.NOW, "跌停价", "lower price limit in yuan"),
    Word("TIME", Scope.NOW, "时间（时分秒）", "time of the latest tick as HHMMSS"),
    Word("FROMOPEN", Scope.NOW, "开盘以来的分钟数", "trading minutes since the open"),
    Word("AUCP", Scope.NOW, "集合竞价虚拟价", "virtual price of the auction in yuan"),
    Word("FEED_AGE", Scope.NOW, "行情年龄（秒）", "seconds since the symbol's latest tick", exact=False),
    Word("VALID", Scope.NOW, "行情有效", "there is a price and the symbol trades", kind=Kind.TRUTH),
    Word("SEALUP", Scope.NOW, "封涨停", "at the upper limit with no sellers", kind=Kind.TRUTH),
    Word("SEALDOWN", Scope.NOW, "封跌停", "at the lower limit with no buyers", kind=Kind.TRUTH),
    Word("SEALED", Scope.NOW, "封板", "SEALUP or SEALDOWN", kind=Kind.TRUTH),
)
_POSITION: Final = (
    Word("ENTRY", Scope.POSITION, "持仓成本价", "entry price of the position in yuan"),
    Word("QTY", Scope.POSITION, "持仓数量", "quantity of the position in shares"),
    Word("PEAK", Scope.POSITION, "持仓以来最高价", "highest price since entry in yuan"),
    Word("PNL", Scope.POSITION, "持仓盈亏", "profit or loss of the position", exact=False),
)

WORDS: Final[dict[str, Word]] = {word.name: word for word in (*_BAR, *_NOW, *_POSITION)}
"""Every word by its canonical name, in the order of the documentation."""
SPELLINGS: Final[dict[str, Word]] = WORDS | {synonym: word for word in WORDS.values() for synonym in word.synonyms}
"""Every word by every spelling."""
MARKET: Final[dict[str, Word]] = {name: word for name, word in SPELLINGS.items() if word.scope is not Scope.POSITION}
"""What a formula may name that is not about a book of positions, by every spelling."""

PERIODS: Final = {
    "MIN1": "1m", "MIN5": "5m", "MIN15": "15m", "MIN30": "30m", "MIN60": "60m", "DAY": "1d", "WEEK": "1w",
    "MONTH": "1mon",
}  # fmt: skip
"""Periods as formulas write them, in CLOSE#DAY and ON(WEEK,…), and as rules do; shortest first."""
PERIOD_NAMES: Final = (*PERIODS, "SEASON", "YEAR")
"""Periods of the language; of SEASON and YEAR there are no bars."""
_ORDER: Final = tuple(PERIODS.values())


def is_upward(inner: str, outer: str) -> bool:
    """Tell whether a period is as long as the other or longer; ticks are shorter than any."""
    return inner in _ORDER and (outer not in _ORDER or _ORDER.index(inner) >= _ORDER.index(outer))


DYNAINFO: Final[dict[int, str]] = {
    3: "PRECLOSE",
    4: "DAYOPEN",
    5: "DAYHIGH",
    6: "DAYLOW",
    7: "LAST",
    8: "VOLDAY",
    10: "AMTDAY",
    12: "LAST-PRECLOSE",
    13: "(DAYHIGH-DAYLOW)/PRECLOSE",
    14: "(LAST-PRECLOSE)/PRECLOSE",
    17: "VRATIO(5)",
}
"""What DYNAINFO(n) stands for; ratios are fractions."""
