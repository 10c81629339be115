"""`Today`: what files, API and feed say now of rules, instruments, ex-rights days and positions.

Each is read as a whole, as the text of a control record. Nothing here has taken effect: that is the pipeline's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from feeds.exrights import NO_EXRIGHTS
from feeds.inputs import Control, ControlKind
from feeds.instruments import Instrument, encode_table
from monitord.positions import Listed, PositionSources
from rules.errors import RuleError
from rules.positions import NO_POSITIONS, Position
from rules.rule import RuleSet
from rules.sectors import merge


class InstrumentSource(Protocol):
    """Where the instruments are from: the feed, or `Reference`, which keeps what it told."""

    async def instruments(self) -> Sequence[Instrument]:
        """Return the instruments as they are known now."""


class Today:
    """Reads the sources of one daemon. Event loop only; what blocks runs in threads.

    instruments: those known since `learn`, without the files' sectors.
    """

    def __init__(
        self,
        source: InstrumentSource,
        *,
        load_rules: Callable[[], RuleSet],
        positions: PositionSources | None = None,
        load_sectors: Callable[[], Mapping[str, Sequence[str]]] = dict,
        load_exrights: Callable[[], str] = lambda: NO_EXRIGHTS,
    ) -> None:
        self.instruments: Sequence[Instrument] = ()
        self._source = source
        self._load_rules = load_rules
        self._positions = positions
        self._load_sectors = load_sectors
        self._load_exrights = load_exrights

    async def rules(self) -> RuleSet:
        """Read the rule files; raises RuleError, OSError or UnicodeDecodeError."""
        return await asyncio.to_thread(self._load_rules)

    async def learn(self) -> None:
        """Ask for the instruments; raises what their source raises."""
        self.instruments = await self._source.instruments()

    async def market(self) -> list[Control]:
        """Return instruments with their sectors, and ex-rights days.

        Raises RuleError, OSError or UnicodeDecodeError for a bad file.
        """
        sectors = await asyncio.to_thread(self._load_sectors)
        table = encode_table(merge(self.instruments, sectors))
        exrights = await asyncio.to_thread(self._load_exrights)
        return [Control(ControlKind.INSTRUMENTS, table), Control(ControlKind.EXRIGHTS, exrights)]

    async def held(self) -> Control:
        """Return the positions of files and API; raises as `PositionSources.source` does."""
        text = NO_POSITIONS if self._positions is None else await self._positions.source()
        return Control(ControlKind.POSITIONS, text)

    async def positions(self) -> Sequence[Listed]:
        """Return the positions of files and API, each with its origin; raises as `PositionSources.source` does."""
        return () if self._positions is None else await self._positions.listing()

    async def hold(self, held: Sequence[Position]) -> None:
        """Keep these positions as the API's; raises as `PositionSources.replace` does."""
        if self._positions is None:
            raise RuleError("this daemon keeps no positions")
        await self._positions.replace(held)
