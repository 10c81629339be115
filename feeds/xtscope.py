"""`Scope`: what of the market the terminal is asked for, and what of its pushes is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from feeds.decode import Decoder
from feeds.errors import FeedError
from feeds.instruments import Board, board_of
from feeds.universe import is_symbol
from feeds.xtlink import Wanted
from feeds.xtpushes import pulse_outside

MARKETS: Final = ("SH", "SZ", "BJ")
WATCHED_BOARDS: Final = (Board.MAIN, Board.CHINEXT, Board.STAR, Board.BSE, Board.INDEX)
"""What of a whole market is kept: its push also holds funds, bonds, warrants and repos, five times as many codes."""
PULSE: Final = (
    "000001.SH", "600519.SH", "601318.SH", "600036.SH", "600030.SH", "601899.SH",
    "000001.SZ", "300750.SZ", "000858.SZ", "300059.SZ", "002594.SZ",
)  # fmt: skip
"""The Shanghai index and ten stocks that trade every few seconds: one of them ticks whenever the market does."""


@dataclass(frozen=True, slots=True)
class Scope:
    """codes: markets if `by_market`, else symbols, which are kept whatever they are. boards: what is kept of markets.

    pulse: symbols whose silence is the feed's.
    """

    codes: tuple[str, ...]
    by_market: bool
    boards: tuple[Board, ...]
    pulse: tuple[str, ...]

    @classmethod
    def of(
        cls,
        symbols: Sequence[str] | None,
        *,
        markets: Sequence[str] | None,
        boards: Sequence[Board | str] | None,
        pulse: Sequence[str] | None,
    ) -> Scope:
        """Take the settings, None = all that is usual; raises FeedError for what cannot be."""
        _check_codes(symbols, markets)
        codes = tuple(dict.fromkeys(symbols or markets or MARKETS))
        kept = tuple(WATCHED_BOARDS if boards is None else map(Board, boards))
        return cls(codes, not symbols, kept, PULSE if pulse is None else tuple(pulse))

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """The symbols that were named one by one; None for markets."""
        return None if self.by_market else self.codes

    def decoder(self) -> Decoder:
        """Make what keeps of a push what is wanted."""
        return Decoder(boards=self.boards if self.by_market else None)

    def boards_seen(self) -> set[Board]:
        """Return the boards of which ticks may come."""
        return set(self.boards if self.by_market else map(board_of, self.codes))

    def wanted(self) -> Wanted:
        """Return what is to be subscribed."""
        return Wanted(self.codes, self.by_market, pulse_outside(self.codes, self.pulse, by_market=self.by_market))


def _check_codes(symbols: Sequence[str] | None, markets: Sequence[str] | None) -> None:
    if symbols is not None and not symbols:
        raise FeedError("xt: no symbols: name codes such as 600519.SH, or leave them out for the whole market")
    if symbols and markets:
        raise FeedError("xt: name markets or symbols, not both: a market's push holds its symbols already")
    wrong = [code for code in symbols or () if not is_symbol(code)]
    if wrong:
        raise FeedError(f"xt: {wrong[0]!r} is no code such as 600519.SH")
    wrong = [code for code in markets or () if code not in MARKETS]
    if wrong:
        raise FeedError(f"xt: {wrong[0]!r} is none of the markets {', '.join(MARKETS)}")
