"""`QuoteReader`: a page's answers → ticks of the quotes that are new, in lots and yuan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from feeds.decode import Decoder
from feeds.instruments import Instrument, instrument_of
from feeds.quotes_text import Answer, Page, Quote
from feeds.sessions import day_number
from feeds.tick import BOOK, CORE, LIMITS, FloatArray, TickBatch
from feeds.units import Units

FUTURE_MS: Final = 10_000
"""A quote further ahead of our clock than this says nothing about the time."""
_ROUNDING_LOTS: Final = 1.0
_ROUNDING_CNY: Final = 10_000.0
"""What rounding may take back of a day's volume and amount: the coarsest field counts 10,000 yuan."""


class QuoteReader:
    """Knows what every symbol showed last; one thread at a time, `counters` from any."""

    def __init__(self, page: Page, *, apart: Iterable[str] = ()) -> None:
        """Read answers of this page; `apart`: symbols that are looked at for their time alone, and give no tick."""
        self._apart = frozenset(apart)
        self._counts: Counter[str] = Counter()
        self._names: dict[str, str | None] = {}
        self._seen: dict[str, tuple[int, float, float]] = {}
        """Symbol → time, lots and yuan of its newest tick."""
        self.turn_to(page)

    def turn_to(self, page: Page) -> None:
        """Go on with another vendor's page: its records and units are its own, the times and volumes seen stay."""
        self._page = page
        self._records: dict[str, bytes] = {}
        self._units = Units(page.name, believed=lambda symbol: page.volume_unit(symbol) == "shares")
        self._decoder = Decoder()
        self.newest_ms = 0
        """The newest time of any quote of this page, unless it is ahead of our clock."""
        self.ahead_ms = 0
        """How far the last quote that was ahead of our clock was so."""

    def read(self, answer: Answer, *, recv_ms: int) -> TickBatch:
        """Return the ticks of the quotes that changed; raises FeedError when a board's units are proven wrong."""
        self._counts["garbled"] += answer.garbled
        quotes = [quote for quote in self._changed(answer.records) if self._goes_on(quote, recv_ms)]
        self._units.learn((quote.symbol, quote.tick) for quote in quotes)
        batch = self._decoded(quotes, recv_ms)
        if len(batch):
            self._units.prove(batch)
            self._decoder.trust(self._units.proven)
        self._remember(batch)
        return batch

    def instruments(self) -> Sequence[Instrument]:
        """Return every symbol that was answered, with its name."""
        return [instrument_of(symbol, name=name) for symbol, name in self._names.items()]

    def counters(self) -> Mapping[str, int]:
        """Return ticks used, quotes and ticks dropped by reason, records that say nothing new (`unchanged`)."""
        return {**self._counts, **self._decoder.counters(), "ticks": self._counts["ticks"]}

    def _changed(self, records: Mapping[str, bytes]) -> list[Quote]:
        quotes = []
        for symbol, record in records.items():
            if self._records.get(symbol) == record:
                self._counts["unchanged"] += 1
                continue
            quote = self._page.quote(symbol, record)
            if quote is None:
                self._counts["garbled"] += 1
                continue
            self._records[symbol] = record
            if symbol not in self._apart and (quote.name is not None or symbol not in self._names):
                self._names[symbol] = quote.name
            quotes.append(quote)
        return quotes

    def _goes_on(self, quote: Quote, recv_ms: int) -> bool:
        """Tell whether the quote is a tick to hand on: not from the future, and not older than the one before."""
        time_ms = quote.tick["time"]
        if time_ms > recv_ms + FUTURE_MS:
            self._counts["ahead"] += 1
            self.ahead_ms = int(time_ms) - recv_ms
            self._records.pop(quote.symbol, None)  # it is news once the clock has come so far
            return False
        self.newest_ms = max(self.newest_ms, int(time_ms))
        if quote.symbol in self._apart:
            return False
        seen = self._seen.get(quote.symbol)
        if seen is not None and time_ms < seen[0]:
            self._counts["stale"] += 1
            return False
        return True

    def _decoded(self, quotes: Sequence[Quote], recv_ms: int) -> TickBatch:
        """Return the ticks the decoder finds good, with their limits."""
        ticks = {quote.symbol: self._in_lots(quote) for quote in quotes}
        batch = self._decoder.decode(ticks, recv_ms=recv_ms)
        limits = {quote.symbol: quote.limits for quote in quotes}
        up_down = np.array([limits[symbol] for symbol in batch.symbols], np.float64).reshape(-1, 2).T
        columns = {name: batch.column(name) for name in CORE}
        if not np.isnan(up_down).all():
            columns |= dict(zip(LIMITS, np.ascontiguousarray(up_down), strict=True))

        def book() -> Mapping[str, FloatArray]:
            for quote in quotes:
                ticks[quote.symbol].update(quote.book())
            return {name: batch.column(name) for name in BOOK}

        return TickBatch(
            batch.symbols,
            batch.ts_event_ms,
            columns=columns,
            recv_ms=batch.recv_ms,
            status=batch.status,
            load=book,
        )

    def _in_lots(self, quote: Quote) -> dict[str, Any]:
        """Return the tick with its volume in lots; volume and amount of a day never fall.

        One page rounds to lots where the other knows the odd shares, so a change of pages would take some back.
        """
        tick, seen = quote.tick, self._seen.get(quote.symbol)
        volume, amount = tick["volume"], tick["amount"]
        if not isinstance(volume, float) or not isinstance(amount, float):
            return tick
        volume = self._units.lots(quote.symbol, volume)
        if seen is not None and day_number(seen[0]) == day_number(int(tick["time"])):
            volume = seen[1] if 0 < seen[1] - volume <= _ROUNDING_LOTS else volume
            amount = seen[2] if 0 < seen[2] - amount <= _ROUNDING_CNY else amount
        return tick | {"volume": volume, "amount": amount}

    def _remember(self, batch: TickBatch) -> None:
        self._counts["ticks"] += len(batch)
        columns = (batch.ts_event_ms, batch.column("volume_lots"), batch.column("amount_cny"))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self._seen.update(zip(batch.symbols, rows, strict=True))
