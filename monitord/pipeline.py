"""`Pipeline`: feed → journal → engine → store, with recovery at the start and checkpoints on the way.

All engine state belongs to one dedicated thread (engineroom.py); the loop only hands inputs over and commits what comes
back. For every input the order is: journal (synced where events follow), engine, one store transaction, and only then
the pump is told. What no event waits for comes after that: the quotes, and the book of a batch that no rule has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import structlog

from feeds.errors import FeedError
from feeds.exrights import NO_EXRIGHTS
from feeds.feed import Feed
from feeds.history import Bars
from feeds.inputs import Control, ControlKind, FeedInput, Input, Mark, MarkKind
from feeds.journal import Journal
from feeds.known import Known
from feeds.sessions import date_text
from feeds.tick import TickBatch
from monitord.checkpoint import Checkpoint, CheckpointFolder
from monitord.engineroom import STATE_FORMAT, EngineRoom, Outcome, stamps_of
from monitord.errors import CheckpointError, EngineError, Stopping, StoreError
from monitord.keeping import Keeping
from monitord.pastsearch import PastSearch
from monitord.positions import Listed, PositionSources
from monitord.today import InstrumentSource, Today
from monitord.warmup import Progress, Warmup
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleError
from rules.explain import Explanation, explain
from rules.needs import Readiness
from rules.positions import Position
from rules.rule import RuleSet

log = structlog.get_logger(__name__)
T = TypeVar("T")

OFFSET_EVERY_S: Final = 1.0
"""How often the input offset is committed when there are no events."""
QUIET_AFTER_S: Final = 0.05
"""How long after a batch what can wait is done, because by then everyone is told: the book that no rule has read is
journaled, whose decoding holds up the loop as well, for 20 ms a market."""
QUIET_WITHIN_S: Final = 5.0
"""How long a checkpoint waits for the moment behind a batch at which everyone is told: begun just before the next one,
it would hold that one's events up for as long as the state takes to copy."""


class StartingSource(InstrumentSource, Protocol):
    """Where the pipeline has the instruments from (`Reference`); without one it asks its feed."""

    async def start(self) -> None:
        """Learn what there is, behind the opening of the feed and before its first tick."""

    async def hear(self, told: Known) -> bool:
        """Take what came among a feed's ticks; True if it is news."""


class Record(Protocol):
    """What takes inputs to be recorded (`Recording.take`)."""

    async def __call__(self, value: Input, offset: int = -1, *, behind: int = -1) -> None:
        """Take an input and its offset; behind: of a record without one, the offset it follows."""


class Outbox(Protocol):
    """What the pipeline needs of the store."""

    async def commit(
        self, alerts: Sequence[Alert], *, offset: int, source_id: str, records: Sequence[bytes] | None = None
    ) -> int:
        """Store events and the input offset at once; return how many were new.

        records: the events' JSON, if it is made already.
        """

    async def offset(self, *, source_id: str) -> int:
        """Return the last committed input offset of this source, -1 if there is none."""

    async def episodes(self, *, since_date: str) -> Mapping[tuple[str, str, str, str], int]:
        """Return (rule, leg or "", symbol or "", trade date) → greatest episode, of dates from `since_date` on."""


class Pipeline:
    """Runs one feed through one engine. `recover` once, then `run`; the other methods may be called from other tasks.

    on_alerts, on_ticks, on_step: called on the loop with events after their commit, with every batch after that, and
    with what each input gave. on_rest: called on the engine's thread in the quiet behind a batch. record: called last
    with each input and its offset, or with what it is behind.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        journal: Journal,
        store: Outbox,
        checkpoints: CheckpointFolder,
        load_rules: Callable[[], RuleSet],
        positions: PositionSources | None = None,
        load_sectors: Callable[[], Mapping[str, Sequence[str]]] = dict,
        load_exrights: Callable[[], str] = lambda: NO_EXRIGHTS,
        reference: StartingSource | None = None,
        on_alerts: Callable[[Sequence[Alert]], None],
        on_ticks: Callable[[TickBatch], None] = lambda batch: None,
        on_step: Callable[[Outcome], None] = lambda outcome: None,
        on_rest: Callable[[], None] = lambda: None,
        record: Record | None = None,
        window: int = 250,
        checkpoint_s: float = 60.0,
        history: Warmup | None = None,
        keeping: Keeping | None = None,
    ) -> None:
        self._feed = feed
        self._store = store
        self._checkpoints = checkpoints
        self._reference = reference
        self._today = Today(
            reference or feed, load_rules=load_rules, positions=positions, load_sectors=load_sectors,
            load_exrights=load_exrights,
        )  # fmt: skip
        self._on_alerts = on_alerts
        self._on_ticks = on_ticks
        self._on_step = on_step
        self._record = record
        self._checkpoint_s = checkpoint_s
        self._keeping = keeping
        self._past = None if history is None else PastSearch(self, history, keep_today=self._keep_today)
        self._room = EngineRoom(
            journal, source_id=feed.source_id, has_offsets=feed.has_offsets, checkpoints=checkpoints, window=window,
            keeping=keeping, records=record is not None, on_rest=on_rest,
        )  # fmt: skip
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self.turn = asyncio.Lock()
        self._rules_turn = asyncio.Lock()
        """Held from reading rules until they are in force: what is read later must not be overtaken."""
        self._writing = asyncio.Lock()
        """Held while a checkpoint is written: a stop may come while the periodic one is under way."""
        self._closed = False
        self._settled_at = -1
        self._settled = False
        self._offset_due = 0.0
        self.caught_up = asyncio.Event()
        """Set once recovery is over and today's rules are in force."""

    @property
    def engine(self) -> Engine:
        """The engine, for counters that are safe to read from any thread (numbers only)."""
        return self._room.engine

    def counters(self) -> Mapping[str, int]:
        """Return counts since the start: inputs passed over because the engine fails at them, days of ex-rights that
        were told and are not believed; any thread."""
        doubts = len(self.engine.market.exrights.unbelieved)
        return {"passed_over": self._room.failures.passed_over, "exrights_not_believed": doubts}

    # ── recovery ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def recover(self) -> None:
        """Put the newest checkpoint back, run the journal to its end, and open the feed behind it.

        Raises FeedError, RuleFileError (today's rules are unusable), StoreError or EngineError.
        """
        rules = await self._today.rules()
        source = self._feed.source_id
        await self.in_engine(lambda: self._room.restore(rules))
        stored = await self._store.offset(source_id=source)
        if self._feed.has_offsets:
            await self.in_engine(self._room.queue_controls)
            self._settled_at = max(stored, self._room.journal.newest_follows)
        else:
            while not await self._run_journal():
                # The engine is in the middle of the input that failed.
                await self.in_engine(lambda: self._room.restore(rules))
        await self._feed.open(after=self.engine.offset)
        if not self._feed.has_offsets:
            await self._record_again()
        if not self._feed.has_offsets or self.engine.offset >= self._settled_at:
            await self._settle(rules)
        log.info("recovered", source=source, offset=self.engine.offset, run_again_to=self._settled_at)

    async def _run_journal(self) -> bool:
        """Run every journaled input again; events that come out again have the ids the store already holds.

        Returns False where the engine failed at one, which is noted.
        """

        records = self._room.to_run_again()
        more = True
        while more:
            try:
                alerts, more = await self.in_engine(lambda: self._room.run_some(records))
            except EngineError as error:
                if error.__cause__ is None:
                    raise
                return False
            await self._commit(alerts, self.engine.offset)
        self._room.journal_read = self._room.journal.end
        return True

    async def _record_again(self) -> None:
        """Hand on what the journal holds, as the engine took it: the recording lags behind by what a kill costs it."""
        if self._record is None:
            return
        for offset, value in self._room.journal.read(after=-1):
            await self._record(self._room.taken_instead.get(offset, value), offset)
        self._room.taken_instead.clear()

    async def _record_queued(self) -> None:
        """Hand on the records that were run again before this input."""
        while self._room.to_record and self._record is not None:
            follows, control = self._room.to_record.popleft()
            await self._record(control, behind=follows)

    async def _settle(self, rules: RuleSet) -> None:
        """End recovery: number episodes above what the store holds, then put today's instruments and rules in force.

        First the control records that come behind the last input there is to run again: today's go on from them.
        """
        if self._room.controls:
            with self._room.remembering():
                alerts = await self.in_engine(self._room.take_queued)
                await self._commit(alerts, self.engine.offset)
        date_ms = self.engine.market.clock_ms
        counts = await self._store.episodes(since_date=date_text(date_ms) if date_ms else "")
        await self.in_engine(lambda: self.engine.raise_episodes(counts))
        if self._reference is not None:
            await self._reference.start()
        await self._today.learn()
        await self._take_over(*await self._today.market(), await self._today.held())
        if rules.source != self.engine.rules.source:
            self.engine.expect(rules)  # it was just read
            await self._control(Control(ControlKind.RULES, rules.source))
        if not self._feed.has_offsets and self.engine.market.clock_ms:
            # What the vendor sent while we were away is missing, and every rule that spans the hole should know.
            await self._take(FeedInput(-1, Mark(MarkKind.GAP, self.engine.market.clock_ms, "restart")))
        self._settled = True
        self.caught_up.set()

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Evaluate inputs until the feed ends or is closed. Cancelling it between inputs loses nothing.

        Cancelled within one, or after any error, the engine may be ahead of the store; it then takes no further input
        (StoreError), and a new process decides that one again.
        """
        async for given in self._feed:
            async with self.turn:
                if not self._settled and given.offset > self._settled_at:
                    await self._settle(await self._today.rules())
                if self._past is not None and self._settled and isinstance(given.value, TickBatch):
                    await self._past.meet(given.value, known=self._today.instruments)
                if given.known is not None:
                    await self._hear(given.known)
                await self._take(given)

    async def _hear(self, told: Known) -> None:
        """Let what a feed tells of its market take effect behind the inputs before it, if it is news; with a bad file
        beside it what is in force stays.

        What is run again stands in the journal as control records already.
        """
        if self._reference is None or not await self._reference.hear(told) or not self._settled:
            return
        await self._today.learn()
        try:
            controls = await self._today.market()
        except (RuleError, OSError, UnicodeDecodeError) as error:
            log.error("instruments_rejected", why=str(error))
            return
        await self._take_over(*controls)
        log.info("instruments_taken", instruments=len(self._today.instruments))

    async def run_checkpoints(self) -> None:
        """Write a checkpoint every `checkpoint_s`, between two inputs, if possible in the quiet behind a batch."""
        await self.caught_up.wait()
        while True:
            await asyncio.sleep(self._checkpoint_s)
            self._quiet.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET_WITHIN_S):
                    await self._quiet.wait()
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Write a checkpoint of the state after the last committed input; nothing once closed or ahead of the store.

        Raises CheckpointError or FeedError where the disk refuses; the older checkpoints and their journal then stay.
        """
        async with self._writing:
            if self._closed:
                return
            async with self.turn:
                state = await self.in_engine(self._room.snapshot)
                journal_end = self._room.journal_read
            if state is None:
                return
            arrays, header = state
            meta = {"engine": header, "journal": journal_end}
            checkpoint = Checkpoint(self._feed.source_id, header["offset"], STATE_FORMAT, meta, arrays)
            await asyncio.to_thread(self._checkpoints.write, checkpoint)
            # The older of the two checkpoints kept still needs its journal.
            trim_before, self._room.trim_before = self._room.trim_before, journal_end + 1
            await self.in_engine(lambda: self._room.journal.trim(before=trim_before))

    async def reload(self) -> None:
        """Read the files of rules, positions, sectors and ex-rights again and swap atomically.

        Raises RuleError, OSError, UnicodeDecodeError or StoreError, and changes nothing, if any of them is bad.
        """
        await self.caught_up.wait()
        async with self._rules_turn:
            rules = await self._today.rules()
            async with self.turn:
                await self._take_over(*await self._today.market(), await self._today.held())
                await self._take_rules(rules)

    async def change_rules(self, decide: Callable[[], Awaitable[RuleSet]]) -> None:
        """Let the rules that `decide` returns take effect; meanwhile no others do. Raises what it raises."""
        await self.caught_up.wait()
        async with self._rules_turn:
            rules = await decide()
            async with self.turn:
                await self._take_rules(rules)

    async def _take_rules(self, rules: RuleSet) -> None:
        """Let rules take effect where they are others than those in force; the turn is the caller's."""
        if rules.source != self.engine.rules.source:
            self.engine.expect(rules)  # it was read in a thread of its own, beside the ticks
            await self._control(Control(ControlKind.RULES, rules.source))
        if self._past is not None:
            self._past.look_again()
        log.info("rules_loaded", rules=len(rules.rules))

    async def renew_instruments(self) -> None:
        """Take what is known of instruments and trading days now, where it is news; rules and positions stay.

        Raises RuleError, OSError, FeedError or StoreError, and changes nothing, if a file beside them is bad.
        """
        await self.caught_up.wait()
        async with self.turn:
            await self._today.learn()
            await self._take_over(*await self._today.market())
        log.info("instruments_taken", instruments=len(self._today.instruments))

    async def positions(self) -> Sequence[Listed]:
        """Return the positions of files and API as they are now; raises as `PositionSources.source` does."""
        return await self._today.positions()

    async def hold(self, held: Sequence[Position]) -> None:
        """Keep these positions as the API's and let them take effect; raises as `PositionSources.replace` does."""
        await self.caught_up.wait()
        async with self.turn:
            await self._today.hold(held)
            await self._take_over(await self._today.held())
        log.info("positions_taken", positions=len(held))

    async def _take_over(self, *controls: Control) -> None:
        """Journal each control record that says something new, and let it take effect."""
        market = self.engine.market
        for control in controls:
            known = {
                ControlKind.INSTRUMENTS: market.instruments_source,
                ControlKind.EXRIGHTS: market.exrights.source,
                ControlKind.POSITIONS: market.books.source,
            }
            if control.text != known[control.kind]:
                await self._control(control)

    def rules(self) -> RuleSet:
        """Return the rules in force."""
        return self.engine.rules

    async def indicators(self, symbol: str) -> Mapping[str, Mapping[str, float | None]]:
        """Return, per rule that watches the symbol, what it would report now; None = unknown."""
        return await self.ask(lambda engine: engine.values(symbol))

    async def explain(self, rule: str, symbol: str) -> Explanation:
        """Return why a rule fires for a symbol or not; raises RuleError if there is no such rule."""
        return await self.ask(lambda engine: explain(engine, rule, symbol))

    async def ask(self, question: Callable[[Engine], T]) -> T:
        """Answer a question about the engine's state between two inputs."""
        async with self.turn:
            return await self.in_engine(lambda: question(self.engine))

    async def close(self) -> None:
        """Write a last checkpoint, commit its offset and close the journal; call it after `run` has ended.

        Questions are answered until `end`, for the gateway goes last; what would change something raises Stopping.
        """
        if self.caught_up.is_set():
            try:
                await self.checkpoint()
                await self._commit_last()
            except (CheckpointError, FeedError, StoreError) as error:
                # The older one and the journal lead to the same state.
                log.error("checkpoint_failed", why=str(error))
        async with self._writing:
            self._closed = True
        if self.engine.market.date:
            await self._keep_today()
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        await self.in_engine(self._room.log.close)

    def end(self) -> None:
        """End the engine's thread, once nobody asks any more."""
        self._thread.shutdown()

    async def _commit_last(self) -> None:
        """Commit the offset of the last input, unless its events are missing in the store."""
        async with self.turn:
            offset = await self.in_engine(lambda: None if self._room.is_ahead else self.engine.offset)
            if offset is None:
                log.warning("checkpoint_withheld", why=self._room.broken_off)
            else:
                await self._store.commit((), offset=offset, source_id=self._feed.source_id)

    # ── the past ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def warming(self) -> Progress | None:
        """How far the search for bars of the past is; None while nothing is searched."""
        return None if self._past is None else self._past.progress

    async def readiness(self) -> Mapping[str, Readiness]:
        """Return by rule how many of its symbols have their first value."""
        return await self.ask(lambda engine: engine.readiness())

    async def run_history(self) -> None:
        """Look for the past of what has come, whenever something has, while ticks go on."""
        if self._past is not None:
            await self._past.run()

    async def take_bars(self, bars: Bars, packed: bytes) -> None:
        """Journal sound bars of the past and let them take effect; packed: encoded. The turn is the caller's."""
        await self._control(bars, packed)

    async def run_keeping(self) -> None:
        """Write our own bars of each day into the cache."""
        if self._keeping is not None:
            await self._keeping.run()

    async def _keep_today(self) -> None:
        """Write what there is of today's bars into the cache, if there is one."""
        keeping = self._keeping
        if keeping is None:
            return
        async with self.turn:
            await self.in_engine(lambda: keeping.read_today(self.engine))
        await keeping.write()

    # ── one input ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, given: FeedInput) -> None:
        if self._quiet_timer is not None and isinstance(given.value, TickBatch):
            self._quiet_timer.cancel()  # a heartbeat's turn is short, and no other quiet may come before the next batch
        with self._room.remembering():
            outcome = await self.in_engine(lambda: self._room.evaluate(given))
            self._on_step(outcome)
            await self._commit(outcome.alerts, outcome.offset, records=outcome.records)
        if isinstance(given.value, TickBatch):
            await asyncio.sleep(0)  # the pump was woken, and its way is the longer one
            self._on_ticks(given.value)
            self._quiet_timer = asyncio.get_running_loop().call_later(QUIET_AFTER_S, self._on_quiet)
        if self._record is not None:
            await self._record_queued()
            await self._record(self._room.taken_instead.pop(outcome.offset, given.value), outcome.offset)

    def _on_quiet(self) -> None:
        """Let the engine thread complete the newest batch, and a checkpoint begin; on the loop."""
        self._quiet_timer = None
        if not self._closed:
            self._thread.submit(self._room.rest)
            self._quiet.set()

    async def _control(self, control: Control | Bars, packed: bytes | None = None) -> None:
        """Journal a control record behind the last input, sync it, and let it take effect."""
        if self._closed:
            raise Stopping("the daemon is stopping; try again when it is back")
        with self._room.remembering():
            alerts = await self.in_engine(lambda: self._room.take_control(control, packed))
            stamps = stamps_of(control)
            records = [alert.to_json(**stamps) for alert in alerts]
            await self._commit(alerts, self.engine.offset, records=records)
        if self._record is not None:
            await self._record_queued()
            own, offset, behind = self._feed.has_offsets, self._room.journal_read, self.engine.offset
            await self._record(control, -1 if own else offset, behind=behind if own else -1)

    async def _commit(self, alerts: Sequence[Alert], offset: int, *, records: Sequence[bytes] | None = None) -> None:
        now = asyncio.get_running_loop().time()
        if alerts or now >= self._offset_due:
            self._offset_due = now + OFFSET_EVERY_S
            await self._store.commit(alerts, offset=offset, source_id=self._feed.source_id, records=records)
        self._room.is_ahead = False
        if alerts:
            self._on_alerts(alerts)

    async def in_engine(self, work: Callable[[], T]) -> T:
        """Run this on the engine's thread; the turn is the caller's."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
