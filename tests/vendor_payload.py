"""A batch as the payload of the vendor's whole-quote callback, for tests and benchmarks of everything behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feeds.tick import LEVELS, FloatArray, TickBatch


def vendor_payload(batch: TickBatch) -> dict[str, dict[str, Any]]:
    """Return ``{code: {...}}`` with the fields, units and zeros of `subscribe_whole_quote`.

    Prices the batch does not have are 0, and all carry the float noise of a 32-bit sum as the vendor's do. A code that
    stands twice in the batch keeps its later tick, as in the vendor's dict.
    """
    prices = {field: _noisy(batch.column(name)) for field, name in _PRICES.items()}
    books = {field: _levels(batch, name) for field, name in _BOOKS.items()}
    columns: dict[str, list[Any]] = {
        "time": batch.ts_event_ms.tolist(),
        **{field: array.tolist() for field, array in prices.items()},
        "amount": batch.column("amount_cny").tolist(),
        "volume": np.floor(batch.column("volume_lots")).astype(np.int64).tolist(),
        "pvolume": np.rint(batch.column("volume_lots") * 100).astype(np.int64).tolist(),
        "openInt": batch.status.tolist(),
        "transactionNum": np.maximum(batch.column("trades"), 0).astype(np.int64).tolist(),
        **{field: array.tolist() for field, array in books.items()},
        **{field: [0.0] * len(batch) for field in ("settlementPrice", "lastSettlementPrice", "pe", "volRatio")},
        "stockStatus": [0] * len(batch),
    }
    rows = zip(*columns.values(), strict=True)
    return {code: dict(zip(columns, row, strict=True)) for code, row in zip(batch.symbols, rows, strict=True)}


_PRICES = {"lastPrice": "last", "open": "open", "high": "high", "low": "low", "lastClose": "prev_close"}
_BOOKS = {"askPrice": "ask_price", "bidPrice": "bid_price", "askVol": "ask_lots", "bidVol": "bid_lots"}


def _noisy(price: FloatArray) -> FloatArray:
    """Return prices with 0 for none, off by what ``10.0 + 1.37`` is off: far less than a tick."""
    return np.nan_to_num(price) * (1 + 2e-16)


def _levels(batch: TickBatch, name: str) -> NDArray[Any]:
    """Return one side's prices or lots as (n, 5)."""
    levels = [np.nan_to_num(batch.column(f"{name}_{level}")) for level in range(1, LEVELS + 1)]
    stacked = np.stack(levels, axis=1)
    return stacked.astype(np.int64) if name.endswith("lots") else stacked
