"""The catalog's predicates reckoned by hand: one symbol at a time, tick by tick, in plain loops over plain numbers.

Nothing here knows the rule language or the engine. A predicate gets a tick and the one before it in the same session,
and says True, False, or None where it can't be known. `sessions_by_hand` walks edges and makes bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from tests.rules import sessions_by_hand as hand
from tests.rules.sessions_by_hand import Sample

Level = tuple[float | None, float]


@dataclass(frozen=True, slots=True)
class Tick:
    """One row of a session; prices in yuan, None = none; bids and asks best first."""

    ts_ms: int
    last: float | None
    open: float | None
    high: float | None
    low: float | None
    prev_close: float | None
    lots: float
    amount_cny: float
    status: int
    limit_up: float | None
    limit_down: float | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    @property
    def clock(self) -> int:
        """HHMMSS."""
        seconds = hand.day_ms(self.ts_ms) // 1000
        return seconds // 3600 * 10_000 + seconds // 60 % 60 * 100 + seconds % 60

    @property
    def sealed_up(self) -> bool | None:
        return _sealed(self.last, self.limit_up, self.bids[0], self.asks[0])

    @property
    def sealed_down(self) -> bool | None:
        return _sealed(self.last, self.limit_down, self.asks[0], self.bids[0])

    @property
    def sealed(self) -> bool | None:
        up, down = self.sealed_up, self.sealed_down
        return True if up or down else None if up is None or down is None else False


Predicate = Callable[[Tick, Tick | None], bool | None]


def same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))


def least(a: float, b: float) -> bool:
    """Tell whether a >= b, a tie within 1e-9 being one."""
    return a > b or same(a, b)


def more(a: float, b: float) -> bool:
    return a > b and not same(a, b)


def less(a: float, b: float) -> bool:
    return more(b, a)


def _sealed(last: float | None, limit: float | None, own: Level, other: Level) -> bool | None:
    if own[1] <= 0 or other[1] > 0:
        return False
    if last is None or limit is None or own[0] is None:
        return None
    return same(last, limit) and same(own[0], limit)


# ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def ticks(frame: pd.DataFrame, limits: Mapping[str, tuple[float, float]] | None = None) -> dict[str, list[Tick]]:
    """Return each symbol's ticks of a session; `limits` (up, down) stand for those the feed has not."""
    found: dict[str, list[Tick]] = {}
    for symbol, part in frame.groupby("symbol", sort=False):
        part = part[~_repeated(part)]
        given = (limits or {}).get(str(symbol))
        found[str(symbol)] = _ticks(part, given)
    return found


def arrivals(frame: pd.DataFrame) -> list[str]:
    """Return the symbols of all rows that `ticks` returns, in order of arrival."""
    repeated = frame.groupby("symbol", sort=False, group_keys=False)[list(frame.columns)].apply(_repeated)
    return [str(symbol) for symbol in frame.symbol[~repeated.reindex(frame.index)]]


def _repeated(part: pd.DataFrame) -> pd.Series:
    """Tell which rows of one symbol are the very row before again."""
    before = part.shift()
    return ((part == before) | (part.isna() & before.isna())).all(axis=1)


def _ticks(part: pd.DataFrame, limits: tuple[float, float] | None) -> list[Tick]:
    times = part.ts_event.tolist()
    early = [hand.day_ms(ts_ms) < hand.OPEN - 5 * hand.MINUTE for ts_ms in times]
    day = (
        [None if too_early else price for too_early, price in zip(early, _prices(part, name), strict=True)]
        for name in ("last", "open", "high", "low")
    )
    plain = (part[name].tolist() for name in ("volume_lots", "amount_cny", "status"))
    known = [[_price(limit)] * len(times) for limit in limits] if limits else None
    up, down = known or (_prices(part, name) for name in ("limit_up", "limit_down"))
    columns = times, *day, _prices(part, "prev_close"), *plain, up, down, _book(part, "bid"), _book(part, "ask")
    return [Tick(*row) for row in zip(*columns, strict=True)]


def _book(part: pd.DataFrame, side: str) -> Iterator[tuple[Level, ...]]:
    """Yield each row's five levels of one side."""
    levels = (
        zip(_prices(part, f"{side}_price_{k}"), part[f"{side}_lots_{k}"].tolist(), strict=True) for k in range(1, 6)
    )
    return zip(*levels, strict=True)


def _prices(part: pd.DataFrame, name: str) -> list[float | None]:
    return [_price(price) for price in part[name].tolist()]


def _price(price: float) -> float | None:
    return None if price != price or price == 0 else float(price)


def samples(
    rows: Iterable[Tick],
    predicate: Predicate,
    rearm: Predicate | None = None,
    *,
    session: Callable[[int], bool] = hand.is_continuous,
) -> Iterator[Sample]:
    """Sample a predicate at each tick of the session of a symbol that trades."""
    before: Tick | None = None
    for row in rows:
        if row.status in hand.HALTED or not session(row.ts_ms):
            continue
        true = predicate(row, before)
        again = (None if true is None else not true) if rearm is None else rearm(row, before)
        yield Sample(row.ts_ms, true, again)
        before = row


def same_day(row: Tick, before: Tick | None) -> bool | None:
    """Tell whether the tick before is of the same day, as far as the time of day can say."""
    return None if before is None else row.clock >= before.clock


def new_day(row: Tick, before: Tick | None) -> bool | None:
    return None if before is None else row.clock < before.clock


def every(*parts: bool | None) -> bool | None:
    """Return False if any is false, else None if any is unknown."""
    return False if any(part is False for part in parts) else None if None in parts else True


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def near_limit_up(share: float = 0.01) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        if row.last is None or row.limit_up is None:
            return None
        return least(row.last, row.limit_up * (1 - share)) and more(row.limit_up, row.last)

    return predicate


def below_limit_up(share: float = 0.03) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        return None if row.last is None or row.limit_up is None else more(row.limit_up * (1 - share), row.last)

    return predicate


def near_limit_down(share: float = 0.01) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        if row.last is None or row.limit_down is None:
            return None
        return least(row.limit_down * (1 + share), row.last) and more(row.last, row.limit_down)

    return predicate


def above_limit_down(share: float = 0.03) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        return None if row.last is None or row.limit_down is None else more(row.last, row.limit_down * (1 + share))

    return predicate


def broken(row: Tick, before: Tick | None) -> bool | None:
    was = None if before is None else before.sealed_up
    now = row.sealed_up
    return every(was, None if now is None else not now, same_day(row, before))


def is_sealed_up(row: Tick, before: Tick | None) -> bool | None:
    return row.sealed_up


def queue_falls(drop: float = 0.3, cny: float = 5e6) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        if before is None:
            return every(row.sealed_up, None)
        was, now = before.bids[0][1], row.bids[0][1]
        gone = None if row.last is None else least((was - now) * row.last * 100, cny)
        return every(row.sealed_up, before.sealed_up, least(was * (1 - drop), now), gone, same_day(row, before))

    return predicate


# ── orders ────────────────────────────────────────────────────────────────────────────────────────────────────────


def big_order(side: str, size: float = 5e6, growth: float = 2.5e6) -> Predicate:
    """One price of the visible book holds `size` yuan, `growth` of it new since the tick before; not while sealed."""

    def grown(level: Level, known: tuple[Level, ...] | None) -> bool | None:
        price, lots = level
        if lots <= 0:
            return False
        if price is None:
            return None
        if not least(price * lots * 100, size):
            return False
        if known is None:
            return None
        was = _lots_before(price, lots, known, better=1 if side == "bids" else -1)
        return least(price * (lots - was) * 100, growth)

    def predicate(row: Tick, before: Tick | None) -> bool | None:
        known = None if before is None else getattr(before, side)
        levels = [grown(level, known) for level in getattr(row, side)]
        some = True if True in levels else None if None in levels else False
        return every(some, None if row.sealed is None else not row.sealed, same_day(row, before))

    return predicate


def _lots_before(price: float, now: float, known: tuple[Level, ...], *, better: int) -> float:
    """Return the lots at this price one tick ago; as many as now where it was behind the fifth level."""
    visible = [(there, lots) for there, lots in known if there is not None and lots > 0]
    for there, lots in visible:
        if same(there, price):
            return lots
    in_sight = len(visible) < 5 or more(price * better, visible[-1][0] * better)
    return 0.0 if in_sight else now


def no_big_order(side: str, size: float = 5e6) -> Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        return not any(
            price is not None and lots > 0 and least(price * lots * 100, size) for price, lots in getattr(row, side)
        )

    return predicate
