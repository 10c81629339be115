"""Instruments: board, name, tick size, lot and date-effective price limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Board(StrEnum):
    """What a code is; decides lot, tick size and price limit."""

    MAIN = "main"
    CHINEXT = "chinext"
    STAR = "star"
    BSE = "bse"
    B_SHARE = "b_share"
    ETF = "etf"
    BOND = "bond"
    INDEX = "index"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listed instrument; None = unknown.

    list_date: yyyymmdd of the first trading day. tick: yuan. lot: shares per lot of the volume columns.
    """

    symbol: str
    name: str | None = None
    board: Board = Board.UNKNOWN
    tick: float = 0.01
    lot: int = 100
    list_date: int | None = None
    sectors: tuple[str, ...] = ()
