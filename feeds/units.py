"""`Units`: in what a source counts volume, board by board, shown by its first ticks and proven on the next ones.

Amount / volume is about the price where volume counts shares, and a hundred times that (ten times for bonds) where it
counts lots. So the ticks themselves tell which of the two it is; if they say neither, the source is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite, sqrt
from statistics import median
from typing import Any, Final

import structlog

from feeds.decode import UnitProof, prove_units
from feeds.errors import FeedError
from feeds.instruments import Board, board_of, lot_of
from feeds.tick import TickBatch

_LEAST_LOTS: Final = 10
_UNJUDGED: Final = frozenset((Board.INDEX, Board.UNKNOWN))

log = structlog.get_logger(__name__)


class Units:
    """Turns a source's volume into lots; one per source, one thread at a time.

    believed: symbol → whether its volume is taken to count shares until ticks have told.
    """

    __slots__ = ("_believed", "_counts_shares", "_proofs", "_source")

    def __init__(self, source: str, *, believed: Callable[[str], bool]) -> None:
        self._source = source
        self._believed = believed
        self._counts_shares: dict[Board, bool] = {}
        self._proofs: dict[Board, UnitProof] = {}

    @property
    def proven(self) -> frozenset[Board]:
        """The boards whose ticks have proven the unit."""
        return frozenset(board for board, proof in self._proofs.items() if proof.holds)

    def learn(self, ticks: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Look at ticks as they came, of boards of which nothing is known yet."""
        found: dict[Board, list[float]] = {}
        believed: dict[Board, bool] = {}
        for symbol, tick in ticks:
            board = board_of(symbol)
            if board in self._counts_shares or board in _UNJUDGED:
                continue
            ratio = _yuan_per_unit(tick, lot_of(board))
            if ratio is not None:
                found.setdefault(board, []).append(ratio)
                believed[board] = self._believed(symbol)
        for board, ratios in found.items():
            # Between 1 (shares) and the lot (lots) the geometric middle divides: 10, or 3.2 for bonds.
            self._counts_shares[board] = median(ratios) < sqrt(lot_of(board))
            if self._counts_shares[board] is not believed[board]:
                unit = "shares" if self._counts_shares[board] else "lots"
                log.warning("volume_unit_differs", source=self._source, board=str(board), counted_in=unit)

    def lots(self, symbol: str, volume: float) -> float:
        """Return the lots of a volume as the source counts it."""
        board = board_of(symbol)
        if self._counts_shares.get(board, self._believed(symbol)):
            return volume / lot_of(board)
        return volume

    def prove(self, batch: TickBatch) -> None:
        """Hold ticks in lots against their day's prices; raises FeedError once a board's are proven wrong."""
        for board, more in prove_units(batch, without=self.proven).items():
            proof = self._proofs[board] = self._proofs.get(board, UnitProof()).with_more(more)
            if proof.holds is False:
                raise FeedError(
                    f"{self._source}: {proof.disagree} of {proof.agree + proof.disagree} ticks of board {board} have "
                    f"an average price of the day outside of their low..high (about {proof.ratio:.3g} times the "
                    "price): volume is neither in lots nor in shares, or amount not in yuan. The page's format has "
                    "changed; use another provider"
                )


def _yuan_per_unit(tick: Mapping[str, Any], lot: int) -> float | None:
    """Return amount / (volume x price) of a tick that has traded enough to tell; about 1 = shares, the lot = lots."""
    numbers = [tick[name] for name in ("amount", "volume", "high", "low")]
    if not all(isinstance(number, float) and isfinite(number) and number > 0 for number in numbers):
        return None
    amount, volume, high, low = numbers
    if amount < _LEAST_LOTS * lot * low:
        return None
    return float(amount / (volume * (high + low) / 2))
