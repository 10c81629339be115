"""What a rule test is: a feed written down, what else happens meanwhile, and the complete list of events it must give.

Times are Unix ms. The files a case names are read by whoever runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from feeds import exrights
from feeds.instruments import Instrument
from feeds.sessions import trade_date
from feeds.tick import LEVELS
from rules.bars import PERIOD_MINUTES
from rules.document import Scalar, Value
from rules.positions import Position

Series: TypeAlias = tuple[float | None, ...]
"""Samples of a word, NaN = the word is unknown then; None = `_`: of LAST no tick, of another word as it was."""

TICK_COLUMNS: Final[Mapping[str, str]] = {
    "LAST": "last", "PRECLOSE": "prev_close", "DAYOPEN": "open", "DAYHIGH": "high", "DAYLOW": "low",
    "VOLDAY": "volume_lots", "AMTDAY": "amount_cny", "LIMITUP": "limit_up", "LIMITDOWN": "limit_down",
    **{
        f"{side.upper()}{letter}{level}": f"{side}_{what}_{level}"
        for side in ("bid", "ask")
        for letter, what in (("P", "price"), ("V", "lots"))
        for level in range(1, LEVELS + 1)
    },
}  # fmt: skip
"""Words that a feed may set → columns of a tick. STATUS, the vendor's phase code, is set beside them."""
STATUS: Final = "STATUS"
BAR_WORDS: Final = ("O", "H", "L", "C", "V", "AMO")
INLINE_PERIODS: Final = tuple(period for period in PERIOD_MINUTES if period.endswith("m") or period == "1d")
TEXT_KEYS: Final = ("rule", "leg", "symbol", "group", "name", "severity", "why", "gap", "message", "date")
NUMBER_KEYS: Final = ("episode", "suppressed")
TRUTH_KEYS: Final = ("late", "provisional")
EVENT_KEYS: Final = ("at", "event", *TEXT_KEYS, *NUMBER_KEYS, *TRUTH_KEYS)
"""What `expect` may name of an event besides its values, whose keys are words and expressions."""


@dataclass(frozen=True, slots=True)
class TickSegment:
    """Ticks of some symbols at one step, from `start_ms` (Unix ms) on: n samples of every word."""

    symbols: tuple[str, ...]
    start_ms: int
    step_ms: int
    n: int
    words: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class BarSegment:
    """Bars of some symbols, one after the other from the one that begins at `start_ms`; n samples of each field."""

    symbols: tuple[str, ...]
    period: str
    start_ms: int
    n: int
    words: Mapping[str, Series]


@dataclass(frozen=True, slots=True)
class FileSegment:
    """A file to be played: bars of `period`, or with None a recorded session. No symbols: all that are in it."""

    path: str
    place: Scalar
    period: str | None
    symbols: tuple[str, ...]
    from_ms: int | None
    until_ms: int | None


Segment: TypeAlias = TickSegment | BarSegment | FileSegment


@dataclass(frozen=True, slots=True)
class Gap:
    """A silence that the feed marks from `from_ms` to `until_ms`; None: ticks are missing at `from_ms`, no silence."""

    from_ms: int
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Symbols that are halted from `from_ms` up to, without, `until_ms`."""

    symbols: tuple[str, ...]
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Restart:
    """The engine goes down at `at_ms` and is put back from its checkpoint at `back_ms`; `gap`: with the mark of one."""

    at_ms: int
    back_ms: int
    gap: bool


@dataclass(frozen=True, slots=True)
class Reload:
    """The rules are loaded again at `at_ms`, from the case's files or from others."""

    at_ms: int
    rule_files: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ExRight:
    """From midnight `from_ms` on these symbols start from their last price times `factor`, and the engine knows it."""

    symbols: tuple[str, ...]
    from_ms: int
    factor: float

    def days(self) -> Iterator[exrights.ExRight]:
        """Yield it as the record that the engine is given."""
        for symbol in self.symbols:
            yield exrights.ExRight(symbol, trade_date(self.from_ms), self.factor)


@dataclass(frozen=True, slots=True)
class Expected:
    """One event of `expect`: only what is named is compared. Its place is that of the entry in the file."""

    named: Mapping[str, str | float | bool | None]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test. rules: the ids whose events are compared, none = all; expect_place: where `expect` stands."""

    name: str
    line: int
    rule_files: tuple[str, ...]
    rules: tuple[str, ...]
    symbols: tuple[str, ...]
    date: int
    feed: tuple[Segment, ...]
    gaps: tuple[Gap, ...] = ()
    halts: tuple[Halt, ...] = ()
    restarts: tuple[Restart, ...] = ()
    reloads: tuple[Reload, ...] = ()
    exrights: tuple[ExRight, ...] = ()
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    positions: tuple[Position, ...] = ()
    expect: tuple[Expected, ...]
    expect_place: Value


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one file."""

    file: str
    text: str
    rule_files: tuple[str, ...]
    cases: tuple[Case, ...]
