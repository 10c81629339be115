"""`Rulebook`: rule files, and what was made by API, as one rule set.

A change by API goes with the files as they were read last, so that a file somebody is at work on neither stops it nor
slips in with it. Order: checked, kept in the store, in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import structlog

from monitord.errors import DaemonError
from monitord.ruletext import RuleText
from monitord.taskids import reserved
from rules.errors import RuleFileError
from rules.rule import RuleSet

log = structlog.get_logger(__name__)

Change: TypeAlias = Callable[[Callable[[], Awaitable[RuleSet]]], Awaitable[None]]
"""Lets the rule set that a function returns take effect, with no reload between (`Pipeline.change_rules`)."""
Parse: TypeAlias = Callable[[Mapping[str, str]], RuleSet]
"""Reads rule files given as name → text; raises RuleFileError with the findings of all."""
SHARED: Final = "this daemon takes a share of the rules (engine.share); rules and tasks by API need one that takes all"


class RefusedRules(DaemonError):
    """Rules by API that cannot be used. findings: each with the field of the user's that it is about, if it is one."""

    def __init__(self, error: RuleFileError, text: RuleText) -> None:
        super().__init__(str(error))
        self.findings = tuple((finding, text.field_of(finding)) for finding in error.findings)


class NotHereError(DaemonError):
    """This daemon takes no rules by API."""


class Rulebook:
    """The rules of one daemon. `load` runs in a worker thread, everything else on the event loop.

    refused: names of what was made by API and cannot be used with today's files → why; it is not in force.
    """

    def __init__(
        self, read_files: Callable[[], Mapping[str, str]], *, parse: Parse, change: Change, shared: bool = False
    ) -> None:
        """shared: another daemon takes some of the rules, so nothing can be made here."""
        self._read_files, self._parse, self._change, self._shared = read_files, parse, change, shared
        self._files: Mapping[str, str] = {}
        self._made: dict[str, RuleText] = {}
        self._left_out: dict[str, RuleText] = {}
        self.running = True
        self.refused: dict[str, str] = {}

    async def open(self, made: Iterable[RuleText], *, running: bool) -> None:
        """Take what is kept of earlier runs; what today's files do not go with is left out and logged.

        Raises what reading and checking the files alone raises.
        """
        self.running = running
        self._files = await asyncio.to_thread(self._read_files)
        texts = {text.name: text for text in made}
        if not texts:
            return
        try:
            await asyncio.to_thread(self._read, self._files, texts)
            self._made = texts
        except RuleFileError:
            await asyncio.to_thread(self._read, self._files, {})
            await self._admit(list(texts.values()))

    async def _admit(self, texts: Sequence[RuleText]) -> None:
        """Take these behind those that were taken, without the bad ones.

        By halves: a task takes 12 ms to read, so that 200 tried one by one would hold up a start for four minutes.
        """
        tried = {**self._made, **{text.name: text for text in texts}}
        try:
            await asyncio.to_thread(self._read, self._files, tried)
            self._made = tried
        except RuleFileError as error:
            if len(texts) > 1:
                await self._admit(texts[: len(texts) // 2])
                await self._admit(texts[len(texts) // 2 :])
                return
            self._left_out[texts[0].name] = texts[0]
            self.refused[texts[0].name] = error.findings[0].message
            log.error("rule_by_api_left_out", name=texts[0].name, why=str(error))

    def load(self) -> RuleSet:
        """Read the files again; return the rule set that is to be in force, an empty one while nothing runs.

        What was left out at the start comes in where the files now go with it. Raises RuleFileError, OSError or
        UnicodeDecodeError, and changes nothing. Blocks: for a worker thread.
        """
        files = self._read_files()
        rules = self._read(files, self._made)
        for text in tuple(self._left_out.values()):
            tried = {**self._made, text.name: text}
            with suppress(RuleFileError):
                rules = self._read(files, tried)
                self._made = tried
                self._forgive(text.name)
        self._files = files
        return rules if self.running else self._parse({})

    async def check(self, text: RuleText) -> None:
        """Raise as `put` does where this text could not be added, and change nothing."""
        self._refuse_share()
        try:
            await asyncio.to_thread(self._read, self._files, {**self._made, text.name: text})
        except RuleFileError as error:
            raise RefusedRules(error, text) from None

    async def put(self, text: RuleText, *, keep: Callable[[], Awaitable[None]]) -> None:
        """Add a text, or let it take the place of the one of its name; `keep` makes that durable.

        Raises RefusedRules for a bad one, NotHereError, and what `keep` raises; then nothing is changed.
        """
        self._refuse_share()
        try:
            await self._alter(lambda: {**self._made, text.name: text}, keep=keep)
        except RuleFileError as error:
            raise RefusedRules(error, text) from None
        self._forgive(text.name)

    async def drop(self, name: str, *, keep: Callable[[], Awaitable[None]]) -> None:
        """Take a text out; `keep` makes that durable. Of one that is not there only `keep` is done."""
        await self._alter(lambda: {key: text for key, text in self._made.items() if key != name}, keep=keep)
        self._forgive(name)

    def _forgive(self, name: str) -> None:
        self._left_out.pop(name, None)
        self.refused.pop(name, None)

    async def run(self, running: bool, *, keep: Callable[[], Awaitable[None]]) -> None:
        """Evaluate rules from now on, or none of them; `keep` makes that durable."""

        async def decide() -> RuleSet:
            rules = await asyncio.to_thread(self._read, self._files, self._made)
            await keep()
            self.running = running
            return rules if running else self._parse({})

        await self._change(decide)

    async def _alter(self, altered: Callable[[], dict[str, RuleText]], *, keep: Callable[[], Awaitable[None]]) -> None:
        async def decide() -> RuleSet:
            made = altered()
            rules = await asyncio.to_thread(self._read, self._files, made)
            await keep()
            self._made = made
            return rules if self.running else self._parse({})

        await self._change(decide)

    def _read(self, files: Mapping[str, str], made: Mapping[str, RuleText]) -> RuleSet:
        rules = self._parse({**files, **{name: text.text for name, text in made.items()}})
        if strange := reserved(rules.rules):
            raise RuleFileError(strange)
        return rules

    def _refuse_share(self) -> None:
        if self._shared:
            raise NotHereError(SHARED)
