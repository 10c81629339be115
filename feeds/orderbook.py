"""The five-level order books of the simulated market: all rows at once, made from prices when somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feeds.tick import LEVELS, FloatArray, IntArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LARGE_ORDER_ODDS = 0.004
_LARGE_ORDER = 25.0
_QUEUE = 40.0


@dataclass(frozen=True, slots=True)
class Quotes:
    """What books of n rows are made from; prices are whole ticks in float64.

    price      (n,) last price, or the virtual price of an auction; NaN = none, the book is empty
    is_ask     (n,) bool, the last trade was at ask 1 (False: at bid 1)
    sealed     (n,) int8, 1 = held at limit_up with no ask, -1 = held at limit_down with no bid
    excess     (n,) ticks by which the pressure behind a seal is beyond the limit; the longer, the longer its queue
    limit_up, limit_down, per_yuan  (n,); no limit is infinity or 0
    depth      (n,) lots at a usual level
    keys       (n,) int64, makes the lots of a row differ from other rows'
    moment     changes lots from time to time
    """

    price: FloatArray
    is_ask: NDArray[np.bool_]
    sealed: NDArray[np.int8]
    excess: FloatArray
    limit_up: FloatArray
    limit_down: FloatArray
    per_yuan: FloatArray
    depth: FloatArray
    keys: IntArray
    moment: int


def continuous(quotes: Quotes) -> Mapping[str, FloatArray]:
    """Return the book columns of continuous trading: best prices around the last, no level beyond a limit."""
    price, up, down = quotes.price, quotes.limit_up, quotes.limit_down
    step = np.maximum(1.0, np.rint(price * (1e-4 + 2e-4 * _random(quotes.keys, np.zeros_like(price), 0))))
    is_ask = (quotes.is_ask & (price > down)) | (price >= up)
    ask = np.where(is_ask, price, np.minimum(price + step, up))
    bid = np.where(is_ask, np.maximum(price - step, down), price)
    # A sealed side is all there is: its best price is the limit, the other side is empty.
    bid = np.where(quotes.sealed > 0, up, np.where(quotes.sealed < 0, np.nan, bid))
    ask = np.where(quotes.sealed < 0, down, np.where(quotes.sealed > 0, np.nan, ask))
    # All ten levels at once: small markets spend their time in calls, not in arithmetic.
    away = np.arange(LEVELS)[:, None] * step
    at = np.concatenate([bid - away, ask + away])
    at = np.where((at >= down) & (at <= up) & (at >= 1), at, np.nan)
    lots = _lots(quotes, at)
    for best, side in ((0, 1), (LEVELS, -1)):
        queue = np.ceil(lots[best] + quotes.depth * (_QUEUE + quotes.excess))
        lots[best] = np.where(quotes.sealed == side, queue, lots[best])
    at /= quotes.per_yuan
    columns: dict[str, FloatArray] = {}
    for level in range(LEVELS):
        columns[f"bid_price_{level + 1}"], columns[f"bid_lots_{level + 1}"] = at[level], lots[level]
        columns[f"ask_price_{level + 1}"], columns[f"ask_lots_{level + 1}"] = at[LEVELS + level], lots[LEVELS + level]
    return columns


def auction(quotes: Quotes, matched_share: float) -> Mapping[str, FloatArray]:
    """Return the book columns of a call auction.

    Bid 1 and ask 1 are the virtual price with the lots matched so far; level 2 has no price and the lots left over on
    one side.
    """
    matched = np.where(np.isnan(quotes.price), 0.0, np.ceil(quotes.depth * 20 * matched_share) + 1)
    left = _lots(quotes, quotes.price)
    price = quotes.price / quotes.per_yuan
    columns = {f"{side}_price_1": price for side in ("bid", "ask")}
    columns |= {f"{side}_lots_1": matched for side in ("bid", "ask")}
    columns["bid_lots_2"] = np.where(quotes.is_ask, left, 0.0)
    columns["ask_lots_2"] = np.where(quotes.is_ask, 0.0, left)
    return columns


def _lots(quotes: Quotes, price: FloatArray) -> FloatArray:
    """Return the lots that stand at these prices, 0 at NaN; few change from one moment to the next."""
    known = ~np.isnan(price)
    at = np.where(known, price, 0.0)
    # Each level is renewed at a moment of its own within ten, not all levels of all stocks at once.
    turn = (quotes.moment + (_random(quotes.keys, at, 1) * 10).astype(np.int64)) // 10
    size = _random(quotes.keys, at, 2 + turn)
    is_large = _random(quotes.keys, at, 3 - turn) < _LARGE_ORDER_ODDS
    lots = np.ceil(quotes.depth * np.where(is_large, _LARGE_ORDER, 1.0) * -np.log1p(-size)) + 1
    return np.where(known, lots, 0.0)


def _random(keys: IntArray, price: FloatArray, salt: int | IntArray) -> FloatArray:
    """Return numbers in [0, 1) that depend on nothing but the arguments, no price NaN (splitmix64's finaliser)."""
    mixed = keys.astype(np.uint64) * _GOLDEN + price.astype(np.int64).astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _MIX + np.asarray(salt, np.int64).astype(np.uint64) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)
