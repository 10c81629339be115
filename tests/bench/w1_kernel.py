"""W1 kernel: columns in, events' masks out, beside TA-Lib `stream.peek` and the others, with forming bars."""

from __future__ import annotations

from tests.bench.kernel import Kernel
from tests.bench.peers import AkQuant, TaLib, Talipp, mytt_recompute, pandas_recompute, some
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import Contender, race
from tests.bench.w1 import MARKET, Snapshots, make_market


def run(*, quick: bool) -> Report:
    """Measure with inputs in the CPU's caches, as columns are while a market trades."""
    market = make_market(MARKET // 10 if quick else MARKET)
    kernel = Kernel(market.history)
    batch = market.next()
    kernel.put(*(batch.column(name) for name in ("last", "high", "low")))
    timings = race(
        [Contender("monitord", lambda _: kernel.sample()), *peers(market, quick=quick)], repeats=6 if quick else 60
    )
    ours, talib = timings["monitord"], timings[TaLib.name]
    lines = [Line(f"vs {TaLib.name}", times_faster(talib, ours), least=60)]
    lines += [
        Line(f"vs {name}", times_faster(timing, ours))
        for name, timing in timings.items()
        if name not in ("monitord", TaLib.name)
    ]
    return Report("W1 kernel", lines, timings, notes=["akquant has no provisional value: it commits each snapshot"])


def peers(market: Snapshots, *, quick: bool) -> list[Contender]:
    """Return the peers over prices as lists; those too slow for the whole market take a part of it, scaled up."""
    prices = list(market.prices())
    talib, akquant = TaLib(market.history), AkQuant(market.history)
    found = [
        Contender(talib.name, lambda _: talib.snapshot(prices)),
        Contender(akquant.name, lambda _: akquant.snapshot(prices)),
    ]
    for make, symbols, every in ((Talipp, 500, 6), (pandas_recompute, 50, 10), (mytt_recompute, 50, 10)):
        symbols = min(symbols // 10 if quick else symbols, len(prices))
        peer = make(some(market.history, symbols))
        part = prices[:symbols]
        scale = len(prices) / symbols
        found.append(Contender(peer.name, lambda _, p=peer, x=part: p.snapshot(x), every=every, scale=scale))
    return found
