"""The vendor's payload of a simulated batch, read back by the product's own decoder."""

from __future__ import annotations

import numpy as np
import pytest

from feeds.decode import Decoder
from feeds.simulated import Market
from feeds.tick import CORE, LEVELS, TickBatch
from tests.vendor_payload import vendor_payload


@pytest.mark.parametrize("place", [0, 120, 260, 900, 5095, 5102])
def test_a_simulated_batch_survives_the_vendors_form(place: int) -> None:
    market = Market(seed=2, symbols=400, date=20250102, interval_ms=3000, days=1)
    market.skip_to(place)
    batch = market.next(whole=True)
    assert isinstance(batch, TickBatch)
    decoder = Decoder()
    decoded = decoder.decode(vendor_payload(batch), recv_ms=int(batch.recv_ms[0]))
    assert decoded.symbols == batch.symbols
    np.testing.assert_array_equal(decoded.ts_event_ms, batch.ts_event_ms)
    np.testing.assert_array_equal(decoded.status, batch.status)
    for name in CORE:
        expected = np.floor(batch.column(name)) if name == "volume_lots" else batch.column(name)
        np.testing.assert_array_equal(decoded.column(name), expected, name)
    for level in range(1, LEVELS + 1):
        for name in (f"bid_price_{level}", f"ask_price_{level}", f"bid_lots_{level}", f"ask_lots_{level}"):
            np.testing.assert_array_equal(decoded.column(name), batch.column(name), name)
    assert {name: n for name, n in decoder.counters().items() if n and name != "ticks"} == {}
