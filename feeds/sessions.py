"""The trading calendar and the trading clock: pure functions of a time, in arrays and scalars.

All times are int ms of the Unix epoch (UTC); the exchange is Asia/Shanghai, UTC+8 without daylight saving since 1991.
"""

from __future__ import annotations

from enum import StrEnum


class Session(StrEnum):
    """A part of the trading day that a rule may be limited to."""

    CONTINUOUS = "continuous"
    OPEN_AUCTION = "open_auction"
    CLOSE_AUCTION = "close_auction"
    AFTER_HOURS = "after_hours"
    ALL_TRADING = "all_trading"
