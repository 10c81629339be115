"""`EngineRoom`: what happens on the engine's thread: the engine, the journal of its inputs, and what it failed at.

For every input the order is: journal (synced where events follow), engine. Whether its events are stored is the
pipeline's to say: until then the engine takes no further one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import structlog

from feeds.errors import FeedError
from feeds.history import Bars
from feeds.inputs import Control, FeedInput, Heartbeat, Input
from feeds.journal import Journal
from feeds.tick import CORE, TickBatch
from monitord.checkpoint import CheckpointFolder
from monitord.errors import EngineError, StoreError
from monitord.failures import Failures, Place
from monitord.inputlog import InputLog
from monitord.keeping import Keeping
from rules.alert import Alert
from rules.engine import CHECKPOINT_VERSION, Engine
from rules.errors import RuleError
from rules.rehearsal import foreseen
from rules.rule import RuleSet

log = structlog.get_logger(__name__)

STATE_FORMAT: Final = CHECKPOINT_VERSION
DOUBTS_AT_ONCE: Final = 20
"""Ex-rights days not believed that are logged of one input."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one turn of the engine thread gave; records: the alerts' JSON, stamped with our own clock."""

    alerts: list[Alert]
    records: list[bytes]
    ticks: int
    offset: int
    seconds: float


class EngineRoom:
    """One engine and its journal: the engine's thread alone, or who has its turn while it rests.

    is_ahead      the engine has stepped and its events are not committed: only a restart decides them again. Set before
                  it steps, taken back by who commits; whatever comes between leaves it set. broken_off: why it is
    controls      journaled records that wait for the input they follow, in a recovery of a feed with its own offsets
    to_record     of those, what has been run again, with what it follows; records: whether anybody takes it from there
    taken_instead what the engine took for inputs that were passed over in this recovery, by offset
    journal_read  the offset of the newest record taken; trim_before: from which on recovery needs the journal
    on_rest       called in the quiet behind a batch
    """

    def __init__(
        self,
        journal: Journal,
        *,
        source_id: str,
        has_offsets: bool,
        checkpoints: CheckpointFolder,
        window: int,
        keeping: Keeping | None,
        records: bool,
        on_rest: Callable[[], None],
    ) -> None:
        self.journal, self.log = journal, InputLog(journal)
        self.failures = Failures(journal.folder.parent / "failed", source_id=source_id)
        self._source_id = source_id
        self._has_offsets = has_offsets
        self._checkpoints = checkpoints
        self._window = window
        self._keeping = keeping
        self._records = records
        self.on_rest = on_rest
        self.engine = Engine(window=window)
        self.is_ahead = False
        self.broken_off = "cancelled before its commit"
        self.controls: deque[tuple[int, Control | Bars]] = deque()
        self.to_record: deque[tuple[int, Control | Bars]] = deque()
        self.taken_instead: dict[int, Input] = {}
        self.journal_read = -1
        self.trim_before = -1
        self._doubts_told = 0

    # ── recovery ──────────────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, expected: RuleSet) -> None:
        """Put the newest checkpoint back that leads on to the journal there is; most often its rules are today's."""
        self.engine, self.journal_read, self._doubts_told = Engine(window=self._window), -1, 0
        for kept in self._checkpoints.usable(self._source_id, state_format=STATE_FORMAT):
            if kept.meta["journal"] > self.journal.end:
                # Somebody took the journal away: its offsets begin anew, and the checkpoints' mean nothing in it.
                log.warning(
                    "checkpoint_skipped", why="the journal it goes on from is gone", journal_end=self.journal.end
                )
                break
            try:
                self.engine = Engine.restore(kept.arrays, kept.meta["engine"], expected=expected)
            except RuleError as error:  # an older program wrote it, which took rules that this one refuses
                log.warning("checkpoint_skipped", offset=kept.offset, why=str(error))
                continue
            self.journal_read = kept.meta["journal"]
            self.trim_before = self.journal_read + 1
            break
        self.failures.read(self.journal.controls(after=self.journal_read))

    def queue_controls(self) -> None:
        """Let what is journaled behind the checkpoint wait for the inputs it follows."""
        for record in self.journal.records(after=self.journal_read):
            assert isinstance(record.value, Control | Bars)
            self.controls.append((record.follows, record.value))

    def run_some(self, records: Iterator[tuple[int, Input]]) -> tuple[list[Alert], bool]:
        """Run journaled inputs again until a thousand events have come, and return these and whether there is more."""
        alerts: list[Alert] = []
        for offset, value in records:
            alerts += self._step(value, Place(False, offset), offset=offset)
            if len(alerts) >= 1000:
                return alerts, True
        return alerts, False

    def to_run_again(self) -> Iterator[tuple[int, Input]]:
        """Yield the journaled inputs behind the engine's last one."""
        return foreseen(self.journal.read(after=self.engine.offset), self, value_of=lambda one: one[1])

    def foresee(self, bars: Bars, following: Iterable[object]) -> None:
        """Let bars be lived through together with those near behind them; without it they take longer, and no more."""
        try:
            self.engine.foresee(bars, following)
        except Exception as error:  # the input fails in the same way, and there it is noted and passed over
            log.warning("rehearsal_failed", why=f"{type(error).__name__}: {error}")

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the engine's state, None where it is ahead of the store.

        The journal that leads to it is on the disk, so that it never ends before it. Race: a cancelled turn is over
        while the engine still takes its input, so only here, behind it, `is_ahead` tells.
        """
        if self.is_ahead:
            return None
        self.log.sync()
        return self.engine.checkpoint()

    # ── one input ───────────────────────────────────────────────────────────────────────────────────────────────────

    def evaluate(self, given: FeedInput) -> Outcome:
        """Take one input; events are on disk as journaled inputs before anyone hears of them."""
        started = time.perf_counter()
        alerts: list[Alert] = []
        self._check_stored()
        offset = given.offset if self._has_offsets else self._append(given.value)
        if self._keeping is not None:
            self._keeping.look(self.engine, given.value)
        alerts += self.take_queued(before=given.offset)
        self.is_ahead = True
        alerts += self._step(given.value, Place(False, offset), offset=offset)
        stamps = stamps_of(given.value)
        # On the thread that made them, whose core has them at hand, and while the disk has the input to write.
        records = [alert.to_json(**stamps) for alert in alerts]
        if alerts and not self._has_offsets:
            self.log.secure()
        self._tell_doubts()
        ticks = len(given.value) if isinstance(given.value, TickBatch) else 0
        return Outcome(alerts, records, ticks, offset, time.perf_counter() - started)

    def take_queued(self, *, before: int | None = None) -> list[Alert]:
        """Take the journaled control records that follow an input older than `before`; None: all there are."""
        alerts: list[Alert] = []
        self.is_ahead = True
        while self.controls and (before is None or self.controls[0][0] < before):
            follows, control = self.controls.popleft()
            if isinstance(control, Bars):
                self.foresee(control, (later for _, later in self.controls))
            self.journal_read += 1
            alerts += self._step(control, Place(True, self.journal_read))
            if self._records:
                self.to_record.append((follows, control))
        return alerts

    def _step(self, value: Input, place: Place, *, offset: int = -1) -> list[Alert]:
        """Let the engine take an input of feed or journal; where it has failed at it too often, a gap instead.

        Raises EngineError where the engine fails, with the error as its cause, after noting it in the journal.
        """
        if self.failures.passes_over(place):
            value = self.failures.instead(place, value, clock_ms=self.engine.market.clock_ms)
            if not place.record:
                self.taken_instead[place.offset] = value
        try:
            return self.engine.step(value, offset=offset)
        except MemoryError:
            raise  # nothing the input is to blame for
        except Exception as error:
            if isinstance(value, Control) and isinstance(error, FeedError | RuleError):
                # A program that read it has journaled it: the state is as before, and today's files come behind it.
                log.error("control_refused", kind=value.kind, record=place.offset, why=str(error))
                return self.engine.step(Heartbeat(self.engine.market.clock_ms), offset=offset)
            self._note_failure(value, place, error)
            raise EngineError(f"the engine failed at {place}: {type(error).__name__}: {error}") from error

    def _tell_doubts(self) -> None:
        """Log each ex-rights day that is not believed, once; of many at once, as a broken feed brings them, some."""
        doubts, told = self.engine.market.exrights.unbelieved, self._doubts_told
        if len(doubts) == told:
            return
        self._doubts_told = len(doubts)
        for (symbol, date), why in islice(doubts.items(), told, told + DOUBTS_AT_ONCE):
            hint = "if it is one, tell by how much: instruments.exrights in the settings"
            log.warning("exright_not_believed", symbol=symbol, date=date, why=why, hint=hint)
        if len(doubts) > told + DOUBTS_AT_ONCE:
            log.warning("exrights_not_believed", more=len(doubts) - told - DOUBTS_AT_ONCE)

    def _note_failure(self, value: Input, place: Place, error: Exception) -> None:
        """Keep the input aside, and journal that the engine failed at it."""
        record = self.failures.note(place, value, error, rules=self.engine.rules.source)
        behind = max(self.engine.offset, self.journal.newest_follows)
        try:
            self.log.append_control(record, follows=behind if self._has_offsets else None)
        except FeedError as refused:
            log.error("failure_not_journaled", input=str(place), why=str(refused))

    def _check_stored(self) -> None:
        if self.is_ahead:
            raise StoreError(
                f"events of an earlier input are not stored ({self.broken_off}); a restart decides them anew"
            )

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep the first error that leaves the engine ahead of the store, for whoever is refused because of it."""
        known = self.is_ahead
        try:
            yield
        except Exception as error:
            if self.is_ahead and not known:
                self.broken_off = str(error) or type(error).__name__
            raise

    def _append(self, value: Input) -> int:
        """Journal an input of a live feed and return its offset.

        Its book may only wait while no rule reads it: killed between the two records, recovery would decide without it.
        """
        unread = set(self.engine.market.latest.columns) <= set(CORE)
        self.journal_read = self.log.append(value, rest_later=unread)
        return self.journal_read

    def rest(self) -> None:
        """Do what can wait until everyone is told; no one waits for the thread now."""
        self.log.finish()
        self.on_rest()

    def take_control(self, control: Control | Bars, packed: bytes | None = None) -> list[Alert]:
        """Journal a control record behind the last input, sync it, and let it take effect; packed: bars, encoded."""
        self._check_stored()
        if isinstance(control, Control):
            self.engine.check(control)  # what is refused is not journaled
        # A trimmed stream may begin behind inputs that records here follow already.
        newest = max(self.engine.offset, self.journal.newest_follows)
        follows = newest if self._has_offsets else None
        self.journal_read = self.log.append_control(control, follows=follows, packed=packed)
        offset = self.journal_read if follows is None else -1
        self.is_ahead = True
        try:
            alerts = self.engine.step(control, offset=offset)
        except (FeedError, RuleError):  # a bad record: the state is as before
            self.is_ahead = False
            raise
        except Exception as error:
            self._note_failure(control, Place(self._has_offsets, self.journal_read), error)
            what = control.kind if isinstance(control, Control) else f"bars of {control.period}"
            raise EngineError(f"the engine failed at new {what}: {type(error).__name__}: {error}") from error
        if alerts and not self._has_offsets:
            self.log.secure()
        return alerts


def stamps_of(value: Input) -> dict[str, int]:
    """Return what our own clock says of an input: when it arrived, and when it was evaluated, which is now."""
    now_ms = time.time_ns() // 1_000_000
    recv_ms = int(value.recv_ms.max()) if isinstance(value, TickBatch) and len(value) else now_ms
    return {"recv_ms": recv_ms, "evaluated_ms": now_ms}
