"""The life of state-mode alerts as bits over (slot, symbol): idle → pending → firing → resolved.

A sample moves whole rows of bits at once; what is decided one by one (is this fire sent?) is left to episodes.py,
which puts its answer back with `settle`. A *muted* episode is one whose fire was held back: it lives like a firing one,
but nothing of it is ever told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feeds.tick import IntArray
from rules.lifecycle import SlotKey
from rules.logic import BitRows, byte_width

FIELDS = ("started", "pending", "firing", "muted", "keeping")


@dataclass(frozen=True, slots=True)
class Moves:
    """What one sample did, as (slots, bytes) bits.

    begin  idle ones whose condition is true: they go pending or fire; `late` are those of them in their first sample
    lapse  pending ones whose condition is false: they end silently
    back   held ones (keep_firing runs) whose condition is true again
    fall   firing or muted ones whose condition has become false
    """

    begin: BitRows
    late: BitRows
    lapse: BitRows
    back: BitRows
    fall: BitRows

    def any(self) -> bool:
        """Tell whether anything moved at all."""
        return bool((self.begin | self.lapse | self.back | self.fall).any())


class StateBits:
    """Phases of some state-mode slots for every symbol; of pending, firing and muted at most one is set.

    started  the symbol has had a valid sample of this slot since the start or the day's begin
    keeping  the condition of a firing or muted episode is false, and `keep_firing` runs
    """

    def __init__(self, keys: Sequence[SlotKey]) -> None:
        self.keys = list(keys)
        self.bits: dict[str, BitRows] = {name: np.zeros((len(self.keys), 0), np.uint8) for name in FIELDS}

    def grow(self, n_symbols: int) -> None:
        """Make room for more symbols, which are idle and unstarted."""
        extra = byte_width(n_symbols) - self.bits["started"].shape[1]
        if extra > 0:
            pad = np.zeros((len(self.keys), extra), np.uint8)
            self.bits = {name: np.hstack([rows, pad]) for name, rows in self.bits.items()}

    def dump(self) -> dict[str, BitRows]:
        """Return the bits by name."""
        return self.bits

    def load(self, bits: Mapping[str, BitRows]) -> None:
        """Take up what `dump` returned."""
        self.bits = dict(bits)

    def renew(self, slot_row: int, rows: IntArray) -> None:
        """Let these symbols of a slot begin anew: idle and unstarted."""
        bits = np.uint8(128) >> (rows & 7).astype(np.uint8)
        for table in self.bits.values():
            np.bitwise_and.at(table[slot_row], rows >> 3, ~bits)

    def adopt(self, old: StateBits) -> None:
        """Take over the phases of slots that `old` has under the same key."""
        rows = {key: row for row, key in enumerate(old.keys)}
        for row, key in enumerate(self.keys):
            if key in rows:
                for name, bits in self.bits.items():
                    bits[row] = old.bits[name][rows[key]]

    def sample(self, true: BitRows, false: BitRows, *, enabled: BitRows) -> Moves:
        """Take one sample; an unknown or disabled one changes nothing.

        Lapsed, returned and fallen ones are moved here; those in `begin` stay idle until `settle` says what they
        became, and fallen ones stay firing or muted, and keeping, until `clear`.
        """
        bits = self.bits
        valid = (true | false) & enabled
        held = bits["firing"] | bits["muted"]
        begin = valid & true & ~(bits["pending"] | held)
        late = begin & ~bits["started"]
        lapse = valid & false & bits["pending"]
        back = valid & true & bits["keeping"]
        fall = valid & false & held & ~bits["keeping"]
        bits["started"] |= valid
        bits["pending"] &= ~lapse
        bits["keeping"] = (bits["keeping"] & ~back) | fall
        return Moves(begin, late, lapse, back, fall)

    def settle(self, slot_row: int, row: int, phase: str) -> None:
        """Put one (slot, symbol) into the phase "pending", "firing" or "muted"."""
        self.clear(slot_row, row)
        self.bits[phase][slot_row, row >> 3] |= np.uint8(128 >> (row & 7))

    def clear(self, slot_row: int, row: int) -> None:
        """Make one (slot, symbol) idle."""
        keep = np.uint8(~(128 >> (row & 7)) & 255)
        for name in ("pending", "firing", "muted", "keeping"):
            self.bits[name][slot_row, row >> 3] &= keep

    def phase(self, slot_row: int, row: int) -> str:
        """Return "idle", "pending", "firing" or "muted"."""
        mask = 128 >> (row & 7)
        for name in ("pending", "firing", "muted"):
            if self.bits[name][slot_row, row >> 3] & mask:
                return name
        return "idle"

    def members(self, name: str, slot_row: int) -> list[int]:
        """Return the rows of the symbols whose bit of this field is set."""
        return each(self.bits[name], slot_row)

    def restart(self) -> None:
        """Make everything idle and unstarted (a new day counts as a start)."""
        for bits in self.bits.values():
            bits[...] = 0


def each(bits: BitRows, slot_row: int) -> list[int]:
    """Return the positions of the set bits of one row."""
    found: list[int] = np.flatnonzero(np.unpackbits(bits[slot_row])).tolist()
    return found


def members(bits: BitRows) -> Iterator[tuple[int, int]]:
    """Yield (slot row, symbol row) of every set bit."""
    for slot_row in np.flatnonzero(bits.any(axis=1)).tolist():
        for row in each(bits, slot_row):
            yield slot_row, row
