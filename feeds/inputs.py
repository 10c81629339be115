"""The ordered inputs of the engine: tick frames, heartbeats, feed marks, control records and bars of the past.

The engine's whole state is a function of one sequence of these. Whoever writes the sequence down (feeds/journal.py) can
make the engine anew, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from feeds.history import Bars
from feeds.known import Known
from feeds.tick import TickBatch


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The market clock has reached `ts_ms` although no tick said so (Unix ms)."""

    ts_ms: int


class MarkKind(StrEnum):
    """What a feed knows about itself and the engine cannot infer from ticks."""

    SILENT = "silent"
    """Nothing comes though the market trades: freeze."""
    GAP = "gap"
    """Ticks are known to be missing before the next one."""
    ALIVE = "alive"
    """Ticks flow again after `silent`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A feed mark at `ts_ms` (Unix ms); `reason` is for people."""

    kind: MarkKind
    ts_ms: int
    reason: str = ""


class ControlKind(StrEnum):
    """What a control record replaces, always as a whole."""

    RULES = "rules"
    INSTRUMENTS = "instruments"
    POSITIONS = "positions"
    EXRIGHTS = "exrights"
    FAILED = "failed"
    """Replaces nothing: the engine failed at an input, says whoever runs it. The engine takes no notice."""


@dataclass(frozen=True, slots=True)
class Control:
    """A whole new rule set, table of instruments or ex-rights days, or set of positions.

    `text` is canonical JSON, never a path.
    """

    kind: ControlKind
    text: str


Input: TypeAlias = TickBatch | Heartbeat | Mark | Control | Bars


@dataclass(frozen=True, slots=True)
class FeedInput:
    """One input as a feed yields it.

    offset: the feed's own, strictly growing from 0, where it can be opened again after it (replay, simulated, Redis);
    -1 from a live callback feed, whose inputs get their offset from the journal.
    known: from a feed that is `Telling` (feeds/feed.py), instruments and days as they are from here on; the value is a
    heartbeat that says nothing new then.
    """

    offset: int
    value: TickBatch | Heartbeat | Mark
    known: Known | None = None
