"""The simulated market's instruments: codes, names, boards and sectors, and what kind of stock each one is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feeds.errors import FeedError
from feeds.instruments import Board, Instrument, instrument_of
from feeds.sessions import Calendar
from feeds.tick import BoolArray, FloatArray, IntArray

ALL_A: Final = "沪深A股"
"""The sector that holds every stock of Shanghai and Shenzhen, as the vendor calls it."""

SECTORS: Final = {
    "银行": "银行",
    "证券": "证券",
    "保险": "保险",
    "半导体": "微电 芯片 半导",
    "白酒": "酒业",
    "医药": "药业 制药 生物",
    "医疗器械": "医疗",
    "软件": "软件 信息 数据",
    "通信": "通信 光电",
    "电力": "电力 能源",
    "光伏": "光能 光伏",
    "电池": "锂能 电池",
    "汽车": "汽车 汽配",
    "房地产": "地产 置业",
    "钢铁": "钢铁 特钢",
    "有色金属": "有色 铜业 铝业",
    "煤炭": "煤业",
    "化工": "化工 化学 新材",
    "机械": "机械 重工 智能",
    "军工": "航空 航天",
    "食品": "食品 乳业",
    "家电": "电器",
    "纺织": "纺织 服饰",
    "物流": "物流 港口",
    "传媒": "传媒 文化",
    "农业": "农业 种业",
    "建筑": "建设 建工",
    "环保": "环保 水务",
}
"""Sector → the words that end its companies' names."""
_FIRST: Final = "华东金海天国新长中北南江宏瑞盛泰恒安嘉通"
_SECOND: Final = "信达润源成创科远汇丰峰光明辉阳宇腾兴旺益"


@dataclass(frozen=True, slots=True)
class _Group:
    """Stocks that are alike: share of the market, codes, usual price and size of a day's move, and a leader.

    The leader is always there: its code, name, sector and price in yuan.
    """

    board: Board
    exchange: str
    share: float
    codes: tuple[range, ...]
    price_cny: float
    daily_move: float
    leader: tuple[int, str, str, float]


_GROUPS: Final = (
    _Group(
        Board.MAIN,
        "SH",
        0.305,
        (range(600000, 602000), range(603000, 604000), range(605000, 605600)),
        11.0,
        0.020,
        (600519, "贵州茅台", "白酒", 1500.0),
    ),
    _Group(
        Board.MAIN,
        "SZ",
        0.265,
        (range(1, 1000), range(1201, 1400), range(2001, 3044)),
        10.0,
        0.022,
        (1, "平安银行", "银行", 11.5),
    ),
    _Group(Board.CHINEXT, "SZ", 0.25, (range(300001, 302000),), 19.0, 0.028, (300750, "宁德时代", "电池", 250.0)),
    _Group(Board.STAR, "SH", 0.105, (range(688001, 689000),), 33.0, 0.028, (688981, "中芯国际", "半导体", 90.0)),
    _Group(Board.BSE, "BJ", 0.05, (range(920001, 921000),), 16.0, 0.030, (920002, "万达轴承", "机械", 60.0)),
    _Group(
        Board.ETF,
        "SH",
        0.025,
        (range(510010, 511000), range(512010, 513000), range(515010, 516000)),
        1.2,
        0.010,
        (510300, "沪深300ETF", "沪深300", 4.0),
    ),
)

MOST: Final = 7500
"""As many instruments as the smallest group has codes for."""
_TREATMENTS: Final = ("ST", "*ST", *[""] * 78)
"""One name in forty carries a mark of special treatment."""
_MEDIAN_DAY_CNY: Final = 1.2e8
_FRAMES_A_DAY: Final = 4800


@dataclass(frozen=True, slots=True)
class Listing:
    """The instruments of a simulated market; every column has their order, prices are counted in ticks.

    per_yuan      (n,) float64, ticks to the yuan: 100 or 1000
    base_ticks    (n,) float64, price before the first day
    daily_move    (n,) float64, usual size of a day's return
    trade_lots    (n,) float64, lots of an average trade
    frame_trades  (n,) float64, trades in an average 3 s
    sector        (n,) int64, number of the sector
    third         (n,) int64 1..3, in which third of an interval its ticks are stamped, counted from the end
    is_sh         (n,) bool, listed in Shanghai
    has_odd_lots  (n,) bool, its trades need not be whole lots
    """

    instruments: tuple[Instrument, ...]
    per_yuan: FloatArray
    base_ticks: FloatArray
    daily_move: FloatArray
    trade_lots: FloatArray
    frame_trades: FloatArray
    sector: IntArray
    third: IntArray
    is_sh: BoolArray
    has_odd_lots: BoolArray

    def __len__(self) -> int:
        return len(self.instruments)


def make_listing(count: int, *, seed: int, first_date: int, calendar: Calendar) -> Listing:
    """Make up the instruments of a market, the same for the same arguments.

    The groups' leaders come with any count that has room for them; from 100 instruments on, one has its first day on
    `first_date`. Raises FeedError for a count outside 1..MOST.
    """
    if not 1 <= count <= MOST:
        raise FeedError(f"symbols = {count}: a simulated market has 1 to {MOST} instruments")
    rng = np.random.Generator(np.random.SFC64([seed, 0]))
    sizes = _sizes(count)
    groups = [group for group, size in zip(_GROUPS, sizes, strict=True) for _ in range(size)]
    codes = [code for group, size in zip(_GROUPS, sizes, strict=True) for code in _codes(group, size, rng)]
    ages = _ages(groups, codes, rng)
    names = _Names(rng)
    instruments = tuple(
        _instrument(group, code, _list_date(age, first_date, calendar, rng), age, names)
        for group, code, age in zip(groups, codes, ages, strict=True)
    )
    return _with_character(instruments, groups, codes, rng)


def _sizes(count: int) -> list[int]:
    """Return how many instruments each group gets; at least one each as long as there are enough."""
    if count < len(_GROUPS):
        return [int(place < count) for place in range(len(_GROUPS))]
    sizes = [max(1, int(count * group.share)) for group in _GROUPS]
    sizes[0] += count - sum(sizes)
    return sizes


def _codes(group: _Group, size: int, rng: np.random.Generator) -> list[int]:
    """Return `size` codes of the group in order, its leader among them."""
    leader = group.leader[0]
    others = [code for codes in group.codes for code in codes if code != leader]
    if not size:
        return []
    return sorted([leader, *(others[place] for place in rng.choice(len(others), size - 1, replace=False))])


def _ages(groups: list[_Group], codes: list[int], rng: np.random.Generator) -> list[int]:
    """Return how many trading days each instrument has been listed, -1 for those listed long ago (nearly all)."""
    may_be_new = [
        group.board in (Board.MAIN, Board.CHINEXT, Board.STAR) and code != group.leader[0]
        for group, code in zip(groups, codes, strict=True)
    ]
    ages = np.where((rng.random(len(codes)) < 0.002) & may_be_new, rng.integers(0, 5, len(codes)), -1)
    if len(codes) >= 100:
        ages[np.flatnonzero(may_be_new)[len(codes) // 3]] = 0
    return [int(age) for age in ages]


def _list_date(age: int, first_date: int, calendar: Calendar, rng: np.random.Generator) -> int:
    long_ago = int(rng.integers(1996, 2023)) * 10_000 + int(rng.integers(1, 13)) * 100 + int(rng.integers(1, 29))
    if age < 0:
        return long_ago
    date = first_date
    for _ in range(age):
        date = calendar.previous(date)
    return date


class _Names:
    """Makes up company names that are all different."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._taken = {group.leader[1] for group in _GROUPS}

    def one_of(self, choices: Sequence[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]

    def company(self, mark: str, sector: str) -> str:
        """Return a new name of two characters and a word of the sector."""
        words = SECTORS[sector].split()
        return self._new(lambda: f"{mark}{self.one_of(_FIRST)}{self.one_of(_SECOND)}{self.one_of(words)}")

    def treated(self, mark: str) -> str:
        """Return a new name under special treatment, where the mark takes the room of the sector's word."""
        return self._new(lambda: f"{mark}{self.one_of(_FIRST)}{self.one_of(_SECOND)}{self.one_of(['', *_SECOND])}")

    def fund(self, sector: str) -> str:
        """Return a new name of a fund that follows a sector."""
        return self._new(lambda: f"{sector}ETF{self.one_of(_FIRST)}{self.one_of(_SECOND)}")

    def _new(self, make: Callable[[], str]) -> str:
        while (name := make()) in self._taken:
            pass
        self._taken.add(name)
        return name


def _instrument(group: _Group, code: int, list_date: int, age: int, names: _Names) -> Instrument:
    symbol = f"{code:06d}.{group.exchange}"
    leader, name, sector, _ = group.leader
    if code != leader:
        sector = names.one_of(list(SECTORS))
        name = _name(group, age, sector, names)
    whole = (ALL_A,) if group.board not in (Board.BSE, Board.ETF) else ()
    return instrument_of(symbol, name=name, list_date=list_date, sectors=(sector, *whole))


def _name(group: _Group, age: int, sector: str, names: _Names) -> str:
    if group.board is Board.ETF:
        return names.fund(sector)
    if age >= 0:
        return names.company("N" if age == 0 else "C", sector)
    treatment = names.one_of(_TREATMENTS)
    return names.treated(treatment) if treatment else names.company("", sector)


def _with_character(
    instruments: tuple[Instrument, ...], groups: list[_Group], codes: list[int], rng: np.random.Generator
) -> Listing:
    """Give every instrument a price, a liveliness and a turnover."""
    n = len(instruments)
    leads = np.array([code == group.leader[0] for group, code in zip(groups, codes, strict=True)])
    is_st = np.array(["ST" in (one.name or "") for one in instruments])
    per_yuan = np.rint(1 / np.array([one.tick for one in instruments]))
    price = np.array([group.price_cny for group in groups]) * np.exp(0.75 * np.clip(rng.standard_normal(n), -3, 3))
    price = np.where(leads, [group.leader[3] for group in groups], np.where(is_st, 1.2 + price / 5, price))
    turnover = _MEDIAN_DAY_CNY * np.exp(1.1 * rng.standard_normal(n)) * np.where(leads, 30, 1)
    trades = np.clip((turnover / _MEDIAN_DAY_CNY) ** 0.6, 0.05, 8.0)
    sectors = list(dict.fromkeys(one.sectors[0] for one in instruments))
    return Listing(
        instruments,
        per_yuan,
        base_ticks=np.maximum(np.rint(price * per_yuan), 20.0),
        daily_move=np.array([group.daily_move for group in groups]) * np.exp(0.35 * rng.standard_normal(n)),
        trade_lots=turnover / (price * 100 * _FRAMES_A_DAY * trades),
        frame_trades=trades,
        sector=np.array([sectors.index(one.sectors[0]) for one in instruments]),
        third=rng.integers(1, 4, n),
        is_sh=np.array([one.symbol.endswith("SH") for one in instruments]),
        has_odd_lots=np.array([group.board is Board.STAR for group in groups]),
    )
