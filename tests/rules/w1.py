"""W1: the whole-market snapshot that speed is measured on, as trees, and a source of columns for tests."""

from __future__ import annotations

import numpy as np

from rules.language.tree import Binary, Call, Compare, Expr, Logic, Name, Not, Number
from rules.state import Column, StateTable

FIELDS = ("O", "H", "L", "C", "V", "AMO")


class Columns:
    """A FieldSource over plain arrays: every word is NaN until it is set."""

    def __init__(self, state: StateTable) -> None:
        self._state = state
        self.by_word: dict[tuple[str, str], Column] = {}

    def column(self, period: str, word: str) -> Column:
        if word in ("END", "TICK_MS"):
            return self._column((period if word == "END" else "", word), dtype=np.int64, fill=0)
        return self._column((period if word in FIELDS else "", word))

    def _column(self, place: tuple[str, str], **claim: object) -> Column:
        if place not in self.by_word:
            self.by_word[place] = self._state.claim(f"source/{place[0]}/{place[1]}", **claim)
        return self.by_word[place]

    def row(self, symbol: str) -> int | None:
        """The symbol of row i is 00000i.SH."""
        row = int(symbol[:6])
        return row if row < self._state.n else None

    def set(self, period: str, at: object, **values: object) -> None:
        for word, value in values.items():
            self.column(period, word).array[at] = value


def call(name: str, *args: Expr | float) -> Call:
    return Call(name, tuple(Number(float(arg)) if isinstance(arg, (int, float)) else arg for arg in args))


def _op(op: str, left: Expr | float, right: Expr | float) -> Binary:
    return Binary(op, *(Number(float(x)) if isinstance(x, (int, float)) else x for x in (left, right)))


C, H, L = Name("C"), Name("H"), Name("L")
MA5, MA10, MA20, MA60 = (call("MA", C, n) for n in (5, 10, 20, 60))
DIF = _op("-", call("EMA", C, 12), call("EMA", C, 26))
DEA = call("EMA", DIF, 9)
MACD = _op("*", _op("-", DIF, DEA), 2)
CHANGE = _op("-", C, call("REF", C, 1))
RSI = _op("*", _op("/", call("SMA", call("MAX", CHANGE, 0), 14, 1), call("SMA", call("ABS", CHANGE), 14, 1)), 100)
WIDTH = _op("*", call("STD", C, 20), 2)
UPPER, LOWER = _op("+", MA20, WIDTH), _op("-", MA20, WIDTH)
LOW9, HIGH9 = call("LLV", L, 9), call("HHV", H, 9)
RSV = _op("*", _op("/", _op("-", C, LOW9), _op("-", HIGH9, LOW9)), 100)
K = call("SMA", RSV, 3, 1)
D = call("SMA", K, 3, 1)
J = _op("-", _op("*", K, 3), _op("*", D, 2))


def more(left: Expr, right: Expr | float) -> Compare:
    return Compare(">", left, Number(float(right)) if isinstance(right, (int, float)) else right)


def less(left: Expr, right: Expr | float) -> Compare:
    return Compare("<", left, Number(float(right)) if isinstance(right, (int, float)) else right)


INDICATORS: dict[str, Expr] = {
    "MA5": MA5, "MA10": MA10, "MA20": MA20, "MA60": MA60, "DIF": DIF, "DEA": DEA, "MACD": MACD, "RSI": RSI,
    "UPPER": UPPER, "LOWER": LOWER, "K": K, "D": D, "J": J,
}  # fmt: skip
CONDITIONS: tuple[Expr, ...] = (
    Logic("AND", (call("CROSS", MA5, MA10), more(C, MA60))),
    call("CROSS", MA10, MA5),
    Logic("AND", (call("CROSS", DIF, DEA), less(DIF, 0))),
    call("CROSS", DEA, DIF),
    less(RSI, 20),
    more(RSI, 80),
    call("CROSS", C, UPPER),
    call("CROSS", LOWER, C),
    Logic("AND", (call("CROSS", K, D), less(J, 20))),
    Logic("AND", (more(MA5, MA10), more(MA10, MA20), Not(less(MA20, MA60)))),
)


def walk(n_symbols: int, n_bars: int, *, seed: int) -> dict[str, np.ndarray]:
    """Return random bars on the 0.01 grid, (n_bars, n_symbols) per field."""
    rng = np.random.default_rng(seed)
    close = np.round(np.exp(np.cumsum(rng.normal(0, 0.01, (n_bars, n_symbols)), axis=0)) * 20, 2)
    high = np.round(close + np.abs(rng.normal(0, 0.1, close.shape)), 2)
    low = np.round(close - np.abs(rng.normal(0, 0.1, close.shape)), 2)
    volume = np.round(rng.uniform(1, 1e4, close.shape))
    return {"O": close, "H": high, "L": low, "C": close, "V": volume, "AMO": volume * close * 100}
