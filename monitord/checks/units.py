"""Is volume in lots and amount in yuan, board by board, on the feed's first ticks?"""

from __future__ import annotations

from typing import Final

from feeds.decode import UnitProof, prove_units
from feeds.instruments import Board
from monitord.checks import Examined, Finding, Verdict

DEADLINE_S: Final = 5.0


async def check(examined: Examined) -> Finding:
    """Hold the ticks that the feed check has taken against their day's prices."""
    if not examined.batches:
        return Finding(Verdict.SKIP, "no ticks to judge")
    proofs: dict[Board, UnitProof] = {}
    for batch in examined.batches:
        for board, more in prove_units(batch).items():
            proofs[board] = proofs.get(board, UnitProof()).with_more(more)
    wrong = [f"{board} ({proof.ratio:.3g} times the price)" for board, proof in proofs.items() if proof.holds is False]
    if wrong:
        todo = "do not trust volumes and amounts of this feed; compare its version with docs/feeds.md"
        return Finding(Verdict.FAIL, f"amount / volume is not a price: {', '.join(wrong)}", todo)
    proven = [str(board) for board, proof in proofs.items() if proof.holds]
    if not proven:
        return Finding(Verdict.WARN, "too little has traded to tell", "ask again while the market trades")
    return Finding(Verdict.OK, f"lots and yuan, proven for {', '.join(proven)}")
