"""W1 from a binary column frame to events: what a second host, the journal and a replay cost."""

from __future__ import annotations

from feeds import frame
from rules.alert import Alert
from tests.bench.peers import TaLib
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import Contender, race
from tests.bench.w1 import MARKET, make_market, rule_text, warm_engine


def run(*, quick: bool) -> Report:
    """Time decoding and the engine over fresh frames; the peer gets its prices as lists, decoded before the clock."""
    market = make_market(MARKET // 10 if quick else MARKET)
    engine, talib = warm_engine(market, rule_text()), TaLib(market.history)

    def ours(encoded: bytes) -> list[Alert]:
        return engine.step(frame.decode(encoded))

    other, third = market.again(), market.again()
    contenders = [
        Contender("monitord", ours, lambda: frame.encode(market.next(), columns="core")),
        Contender("monitord, decoding alone", frame.decode, lambda: frame.encode(other.next(), columns="core")),
        Contender(talib.name, talib.snapshot, lambda: list(third.prices())),
    ]
    timings = race(contenders, repeats=6 if quick else 60)
    lines = [Line(f"vs {talib.name}", times_faster(timings[talib.name], timings["monitord"]), least=30)]
    return Report("frame → events", lines, timings)
