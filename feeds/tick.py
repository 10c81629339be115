"""`TickBatch`: the ticks of one callback, as columns.

A tick is one Level-1 snapshot of one symbol. Every source decodes into this one form; nothing behind a feed ever sees a
vendor's dict. Prices are yuan rounded to the instrument's tick, volumes are cumulative lots, amounts cumulative yuan,
times are int64 milliseconds of the Unix epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feeds.scan import span

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

LEVELS: Final = 5
CORE: Final = ("last", "open", "high", "low", "prev_close", "volume_lots", "amount_cny")
LIMITS: Final = ("limit_up", "limit_down")
BOOK: Final = tuple(
    f"{side}_{what}_{level}" for side in ("bid", "ask") for what in ("price", "lots") for level in range(1, LEVELS + 1)
)
REST: Final = (*LIMITS, *BOOK, "trades")
"""Columns that are decoded only when somebody asks: price limits, the five-level book, the number of trades."""

ABSENT: Final[Mapping[str, float]] = {
    name: 0.0 if "_lots_" in name else -1.0 if name == "trades" else np.nan for name in (*CORE, *REST)
}
"""What a column holds where its source has none: no lots, -1 trades (unknown), NaN for every price and amount."""


class TickBatch:
    """Ticks of one callback in arrival order; immutable once built.

    symbols      n codes such as ``600519.SH``; one code may appear twice (the later row is the newer tick)
    ts_event_ms  (n,) int64, exchange time
    recv_ms      (n,) int64, our time of arrival; equal to ts_event_ms where a recording has none
    status       (n,) int16, the vendor's phase code (openInt): 13 continuous, 1 suspended, 15 closed, 0 unknown …
    column(name) (n,) float64; CORE columns are there at once, REST is decoded by `load` on the first request, which may
                 come from any thread.
                 Prices: NaN = none (a vendor's 0 is NaN here). A missing book level: price NaN, lots 0.
    """

    __slots__ = (
        "_columns", "_load", "_loading", "_part_of", "_recv_ms", "_span_ms", "_status", "_symbols", "ts_event_ms",
    )  # fmt: skip

    def __init__(
        self,
        symbols: tuple[str, ...],
        ts_event_ms: IntArray,
        *,
        columns: Mapping[str, FloatArray],
        recv_ms: IntArray | None = None,
        status: NDArray[np.int16] | None = None,
        load: Callable[[], Mapping[str, FloatArray]] | None = None,
    ) -> None:
        """Keep the given arrays without copying; `load` returns REST columns and is called at most once."""
        self._symbols: tuple[str, ...] | None = symbols
        self.ts_event_ms = ts_event_ms
        self._recv_ms: IntArray | None = ts_event_ms if recv_ms is None else recv_ms
        self._status: NDArray[np.int16] | None = np.zeros(len(symbols), np.int16) if status is None else status
        self._columns = dict(columns)
        self._load = load
        self._loading = Lock()
        self._span_ms: tuple[int, int] | None = None
        self._part_of: tuple[TickBatch, IntArray | slice] | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        if self._symbols is None:
            whole, positions = self._source()
            if isinstance(positions, slice):
                self._symbols = whole.symbols[positions]
            else:
                self._symbols = tuple(map(whole.symbols.__getitem__, positions.tolist()))
        return self._symbols

    @property
    def recv_ms(self) -> IntArray:
        if self._recv_ms is None:
            whole, positions = self._source()
            self._recv_ms = whole.recv_ms[positions]
        return self._recv_ms

    @property
    def status(self) -> NDArray[np.int16]:
        if self._status is None:
            whole, positions = self._source()
            self._status = whole.status[positions]
        return self._status

    @property
    def span_ms(self) -> tuple[int, int]:
        """The earliest and the latest time of event; a batch without ticks has none (ValueError)."""
        if self._span_ms is None:
            self._span_ms = span(self.ts_event_ms)
        return self._span_ms

    def __len__(self) -> int:
        return len(self.ts_event_ms)

    def column(self, name: str) -> FloatArray:
        """Return a column by its name; a column the source does not have is filled as ABSENT says.

        Raises KeyError for a name that is no column of a tick.
        """
        found = self._columns.get(name)
        if found is None and self._part_of is not None:
            whole, positions = self._part_of
            found = self._columns[name] = whole.column(name)[positions]
        if found is None and name in REST:
            self._load_rest()
            found = self._columns.get(name)
        # What is made up is not kept: `has`, and so what a journal holds, must not depend on who has asked before.
        return np.full(len(self), ABSENT[name]) if found is None else found

    def has(self, name: str) -> bool:
        """Tell whether the source itself brings this column (after loading the lazy ones if need be)."""
        if self._part_of is not None:
            return self._part_of[0].has(name)
        if name not in self._columns and name in REST:
            self._load_rest()
        return name in self._columns

    @property
    def rest_waits(self) -> bool:
        """Whether the lazy columns have not been decoded yet."""
        return self._load is not None if self._part_of is None else self._part_of[0].rest_waits

    def _load_rest(self) -> None:
        """Decode the lazy columns, once.

        Race: the engine's thread writes the book into the journal while the loop's may ask for a quote with it.
        """
        with self._loading:
            if self._load is not None:
                self._columns.update(self._load())
                self._load = None  # only now: who finds it None looks for the columns

    def take(self, positions: IntArray | slice) -> TickBatch:
        """Return the ticks at these positions, in that order.

        Only their times are copied at once; all else is looked up here when somebody asks, and lazy columns stay lazy.
        To copy all of nearly a whole market would take 0.6 ms, and most of it nobody reads. So a part keeps the whole
        batch in memory: who holds on to it takes `alone`.
        """
        part = TickBatch((), self.ts_event_ms[positions], columns={})
        part._part_of = self, positions
        part._symbols = part._recv_ms = part._status = None
        return part

    def keep(self, mask: BoolArray) -> TickBatch:
        """Return the ticks whose element of (n,) `mask` is true, as `take` does."""
        return self.take(np.flatnonzero(mask))

    def alone(self) -> TickBatch:
        """Return the same ticks in memory of their own; decodes the lazy columns."""
        return TickBatch(
            self.symbols,
            self.ts_event_ms.copy(),
            columns={name: self.column(name).copy() for name in (*CORE, *REST) if self.has(name)},
            recv_ms=self.recv_ms.copy(),
            status=self.status.copy(),
        )

    def _source(self) -> tuple[TickBatch, IntArray | slice]:
        """Return the batch that this one is a part of, and which."""
        assert self._part_of is not None
        return self._part_of

    def __eq__(self, other: Any) -> bool:
        """Compare every column bit for bit (NaN equals NaN); loads the lazy ones. For tests and the journal's proof."""
        if not isinstance(other, TickBatch) or self.symbols != other.symbols:
            return NotImplemented if not isinstance(other, TickBatch) else False
        same = np.array_equal(self.ts_event_ms, other.ts_event_ms) and np.array_equal(self.recv_ms, other.recv_ms)
        same = same and np.array_equal(self.status, other.status)
        return same and all(
            np.array_equal(self.column(name), other.column(name), equal_nan=True) for name in (*CORE, *REST)
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays
