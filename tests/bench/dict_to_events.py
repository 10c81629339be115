"""W1 from the vendor's dicts to events: decode, bars, indicators, conditions, alerts; payload cold in the CPU's caches.

Peers take their three prices straight from each dict and keep events as (row, condition); ours are whole alerts with
identity, values and message. The ingest floor is the cost of getting numbers out of dicts, by the decoder alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from feeds.decode import Decoder
from rules.alert import Alert
from tests.bench.peers import AkQuant, Prices, TaLib, Talipp, mytt_recompute, pandas_recompute, some
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import Contender, race
from tests.bench.w1 import MARKET, Snapshots, make_market, rule_text, warm_engine

Payload = dict[str, dict[str, Any]]
_prices_of = itemgetter("lastPrice", "high", "low")


def run(*, quick: bool) -> Report:
    """Time whole passes, and the decoder's share of ours."""
    market = make_market(MARKET // 10 if quick else MARKET)
    engine, decoder = warm_engine(market, rule_text()), Decoder()
    events = 0

    def ours(arrived: tuple[Payload, int]) -> list[Alert]:
        nonlocal events
        alerts = engine.step(decoder.decode(arrived[0], recv_ms=arrived[1]))
        events += len(alerts)
        return alerts

    def ingest(arrived: tuple[Payload, int]) -> object:
        return decoder.decode(arrived[0], recv_ms=arrived[1])

    contenders = [
        Contender("monitord", ours, market.payload),
        Contender("monitord, decoding alone", ingest, market.again().payload),
        *peers(market, quick=quick),
    ]
    repeats = 6 if quick else 40
    timings = race(contenders, repeats=repeats, cold=True)
    mine, floor = timings["monitord"], timings["monitord, decoding alone"]
    asked = {TaLib.name: 8.0, AkQuant.name: 6.0, "pandas recompute": 2_500.0}
    lines = [
        Line(f"vs {name}", times_faster(timing, mine), least=asked.get(name))
        for name, timing in timings.items()
        if not name.startswith("monitord")
    ]
    lines.append(Line("share of the engine", 100 * (1 - floor.median_ms / mine.median_ms), "%"))
    return Report("dict → events, cold", lines, timings, notes=[f"{events / (repeats + 2):.1f} alerts a snapshot"])


def peers(market: Snapshots, *, quick: bool) -> list[Contender]:
    """Return the peers over fresh payloads."""
    found = []
    sizes = {TaLib: (MARKET, 1), AkQuant: (MARKET, 1), Talipp: (500, 5)}
    for make, (symbols, every) in {**sizes, pandas_recompute: (50, 8), mytt_recompute: (50, 8)}.items():
        count = min(max(symbols // 10, 5) if quick else symbols, len(market.symbols))
        peer = make(some(market.history, count))
        scale = len(market.symbols) / count
        found.append(Contender(peer.name, _over_payload(peer), _part(market.again(), count), every=every, scale=scale))
    return found


def _over_payload(peer: Any) -> Any:
    return lambda arrived: peer.snapshot(prices(arrived[0]))


def _part(market: Snapshots, count: int) -> Any:
    def fresh() -> tuple[Payload, int]:
        payload, recv_ms = market.payload()
        return dict(list(payload.items())[:count]), recv_ms

    return fresh


def prices(payload: Payload) -> Prices:
    """Return what a peer reads of a payload."""
    ticks: Iterable[dict[str, Any]] = payload.values()
    return map(_prices_of, ticks)
