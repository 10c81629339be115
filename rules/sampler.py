"""`Sampler`: words of single symbols, laid out for all symbols, as of the end of the last clock second.

A formula may compare each symbol with an index: "SH000001$CLOSE". Whether that index's tick stands before or after a
symbol's own in a batch must not matter, so its value is taken over once a second, before the second's ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rules.state import Column, StateTable


class SymbolSource(Protocol):
    """Where the sampler finds symbols and their words."""

    def column(self, period: str, word: str) -> Column:
        """Return the (n,) float64 column of a canonical word."""

    def row(self, symbol: str) -> int | None:
        """Return the row of a symbol, None if it is not in the universe."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """One word of one symbol: where it is read, and the column that shows it to every symbol."""

    symbol: str
    source: Column
    shown: Column


class Sampler:
    """The samples in use, by the period and key of the node that shows them."""

    def __init__(self, source: SymbolSource) -> None:
        self._source = source
        self._samples: dict[tuple[str, str], _Sample] = {}

    def claim(self, state: StateTable, period: str, *, symbol: str, word: str, key: str) -> Column:
        """Return a new column that shows a word of a symbol, taken over now and at every `take`."""
        sample = _Sample(symbol, self._source.column(period, word), state.claim(f"{period}/{key}/sample"))
        self._samples[period, key] = sample
        self._take(sample)
        return sample.shown

    def __bool__(self) -> bool:
        """Tell whether anything is sampled."""
        return bool(self._samples)

    def keep(self, nodes: set[tuple[str, str]]) -> None:
        """Forget the samples of nodes that are not among these (period, key)."""
        self._samples = {place: sample for place, sample in self._samples.items() if place in nodes}

    def take(self) -> None:
        """Take every word over as it stands now; a symbol that is not in the universe is NaN."""
        for sample in self._samples.values():
            self._take(sample)

    def _take(self, sample: _Sample) -> None:
        row = self._source.row(sample.symbol)
        sample.shown.array[...] = np.nan if row is None else sample.source.array[row]
