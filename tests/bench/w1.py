"""W1: one snapshot of a whole market and ten rules over it, as the product takes them: rule file, ticks, payloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from feeds.inputs import Control, ControlKind
from feeds.sessions import DAY_MS, unix_ms
from feeds.tick import FloatArray, TickBatch
from rules import rulefile
from rules.engine import Engine
from tests.bench.peers import History, Prices, triples
from tests.rules.w1 import walk
from tests.vendor_payload import vendor_payload

MARKET: Final = 5_500
"""Stocks of the whole market."""
WARM_BARS: Final = 120

NAMES: Final = """\
      MA5 := MA(C,5); MA10 := MA(C,10); MA20 := MA(C,20); MA60 := MA(C,60);
      DIF := EMA(C,12) - EMA(C,26); DEA := EMA(DIF,9); MACD := (DIF-DEA)*2;
      LC := REF(C,1); RSI := SMA(MAX(C-LC,0),14,1) / SMA(ABS(C-LC),14,1) * 100;
      UPPER := MA20 + 2*STD(C,20); LOWER := MA20 - 2*STD(C,20);
      RSV := (C-LLV(L,9)) / (HHV(H,9)-LLV(L,9)) * 100; K := SMA(RSV,3,1); D := SMA(K,3,1); J := 3*K-2*D;
"""
CONDITIONS: Final = (
    "CROSS(MA5,MA10) AND C>MA60", "CROSS(MA10,MA5)", "CROSS(DIF,DEA) AND DIF<0", "CROSS(DEA,DIF)", "RSI<20", "RSI>80",
    "CROSS(C,UPPER)", "CROSS(LOWER,C)", "CROSS(K,D) AND J<20", "MA5>MA10 AND MA10>MA20 AND NOT MA20<MA60",
)  # fmt: skip
_FIRST_DAY_MS: Final = unix_ms(20240102)
_AUCTION_MS: Final = (9 * 60 + 26) * 60_000
"""Daily bars are made from one tick at this time: outside of the rules' session, so that nothing fires."""
_SNAPSHOT_MS: Final = 10 * 3_600_000
_INTERVAL_MS: Final = 3_000
_MOVES: Final = (-1, *[0] * 8, 1)
"""Ticks a price moves by in 3 s: so many that ten rules tell about six alerts, a tenth of 20 a second for 100 rules."""


def rule_text(conditions: tuple[str, ...] = CONDITIONS, *, period: str = "1d", names: str = NAMES) -> str:
    """Return a rule file with one rule per condition over the whole market."""
    head = "version: 1\ngroups:\n- name: w1\n  rules:\n"
    rules = [
        f"  - id: w1_{number}\n    select: all\n    period: {period}\n    freq: always\n"
        f"    when: |\n{names}      {condition}\n"
        for number, condition in enumerate(conditions)
    ]
    return head + "".join(rules)


def control(text: str) -> Control:
    """Return the control record that loads this rule file."""
    return Control(ControlKind.RULES, rulefile.load({"bench.yaml": text}).source)


class Snapshots:
    """An endless walk of a market's prices from its last bars on, a tick a step, each one snapshot of all symbols."""

    def __init__(self, symbols: tuple[str, ...], history: History, *, seed: int) -> None:
        self.symbols = symbols
        self.history = history
        self.close = history.close[-1].copy()
        self.high, self.low, self.open = self.close.copy(), self.close.copy(), self.close.copy()
        self.volume = np.zeros(len(symbols))
        self.step = 0
        self._rng = np.random.default_rng(seed)

    def again(self) -> Snapshots:
        """Return another walk from the same history, for another contender: each sees the market step by step."""
        return Snapshots(self.symbols, self.history, seed=1)

    def next(self) -> TickBatch:
        """Return the next snapshot: every symbol, three seconds later."""
        moved = self._rng.choice(_MOVES, len(self.close))
        self.close = np.maximum(np.round(self.close + moved * 0.01, 2), 0.5)
        np.maximum(self.high, self.close, out=self.high)
        np.minimum(self.low, self.close, out=self.low)
        self.volume += self._rng.integers(0, 200, len(self.close))
        ts_ms = _FIRST_DAY_MS + len(self.history.close) * DAY_MS + _SNAPSHOT_MS + self.step * _INTERVAL_MS
        self.step += 1
        return _batch(
            self.symbols, ts_ms, last=self.close.copy(), open_=self.open, high=self.high.copy(), low=self.low.copy(),
            prev=self.history.close[-1], volume=self.volume.copy(),
        )  # fmt: skip

    def payload(self) -> tuple[dict[str, dict[str, Any]], int]:
        """Return the next snapshot as the vendor's dicts, made anew, and its time of arrival."""
        batch = self.next()
        return vendor_payload(batch), int(batch.recv_ms[0])

    def prices(self) -> Prices:
        """Return the next snapshot as what peers take."""
        batch = self.next()
        return triples([batch.column(name) for name in ("last", "high", "low")])


def symbols_of(count: int) -> tuple[str, ...]:
    """Return this many codes of the two main boards."""
    return tuple(f"{600_000 + i}.SH" if i < 4_000 else f"{i - 4_000:06d}.SZ" for i in range(1, count + 1))


def make_market(count: int = MARKET, *, bars: int = WARM_BARS, seed: int = 1) -> Snapshots:
    """Return a market with this history, its next day about to trade."""
    walked = walk(count, bars, seed=seed)
    history = History(walked["C"], walked["H"], walked["L"])
    return Snapshots(symbols_of(count), history, seed=seed)


def daily_ticks(market: Snapshots) -> Iterator[TickBatch]:
    """Give one whole-market tick for each day of the history: its daily bar."""
    history = market.history
    for day in range(history.close.shape[0]):
        before = history.close[max(day - 1, 0)]
        close, high, low = history.close[day], history.high[day], history.low[day]
        ts_ms = _FIRST_DAY_MS + day * DAY_MS + _AUCTION_MS
        volume = np.full(history.symbols, 1e5)
        yield _batch(
            market.symbols, ts_ms, last=close, open_=close, high=high, low=low, prev=before, volume=volume
        )  # fmt: skip


def warm_engine(market: Snapshots, text: str) -> Engine:
    """Return an engine that runs this rule file and has lived through the market's history."""
    engine = Engine()
    engine.step(control(text))
    for batch in daily_ticks(market):
        engine.step(batch)
    engine.step(market.next())
    return engine


def _batch(
    symbols: tuple[str, ...], ts_ms: int, *, last: FloatArray, open_: FloatArray, high: FloatArray, low: FloatArray,
    prev: FloatArray, volume: FloatArray,
) -> TickBatch:  # fmt: skip
    n = len(symbols)
    columns = {
        "last": last, "open": open_, "high": high, "low": low, "prev_close": prev, "volume_lots": volume,
        "amount_cny": volume * last * 100,
    }  # fmt: skip
    return TickBatch(symbols, np.full(n, ts_ms, np.int64), columns=columns, status=np.full(n, 13, np.int16))
