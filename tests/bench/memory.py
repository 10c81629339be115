"""State of the engine for W1, per symbol and period; the rings of 250 bars, that any rule may look into, aside."""

from __future__ import annotations

from tests.bench.report import Line, Report
from tests.bench.w1 import CONDITIONS, MARKET, NAMES, make_market, rule_text, warm_engine

WINDOW = 250


def run(*, quick: bool) -> Report:
    """Count the bytes a checkpoint holds of the period, of a warm engine that runs W1's rules."""
    market = make_market(MARKET // 10 if quick else MARKET, bars=20)
    arrays, _ = warm_engine(market, rule_text(CONDITIONS, period="1d", names=NAMES)).checkpoint()
    period = {name: array.nbytes for name, array in arrays.items() if "1d/" in name and not name.startswith("now/")}
    rings = sum(size for name, size in period.items() if name.endswith(f"/ring{WINDOW}"))
    n = len(market.symbols)
    state = sum(period.values()) - rings
    assert rings == 7 * WINDOW * 8 * n, "the rings of the six bar fields, and of when each bar ended"
    lines = [
        Line("state of W1 per symbol and period", state / n, "bytes", most=1024),
        Line(f"rings of {WINDOW} bars per symbol and period", rings / n, "bytes"),
        Line("everything, whole market", sum(array.nbytes for array in arrays.values()) / 1e6, "MB"),
    ]
    return Report("memory", lines)
