"""`Failures`: inputs at which the engine failed. The journal tells which are passed over, so that every run does alike.

A failure is journaled, and the process ends, for the engine is somewhere in the middle of the input. The next process
runs it again: what failed by chance goes on, what fails a second time would fail for ever and is passed over.
"""

from __future__ import annotations

import shutil
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import structlog

from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.journal import Journal
from monitord.errors import EngineError

OFTEN: Final = 2
"""Failures from which on an input is passed over."""
MOST: Final = 10
"""Inputs that one recovery passes over at most: where more fail, it is the program that is broken."""
KEPT: Final = 20
"""Failed inputs that stay on the disk, the newest."""
PASSED_OVER: Final = "input passed over"
"""Reason of the gap that stands for such an input."""

log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """Which input: that of an offset, or (`record`) the control record of an offset of the journal."""

    record: bool
    offset: int

    def __str__(self) -> str:
        return f"{'control record' if self.record else 'input'} {self.offset}"


class Failures:
    """The failures of one source. Blocking; the engine's thread.

    folder: where failed inputs are kept for a bug report, each a journal of the rules in force and the input itself,
    beside the error's text. passed_over: inputs passed over since the start of the process.
    """

    def __init__(self, folder: Path, *, source_id: str) -> None:
        self.passed_over = 0
        self._folder, self._source_id = folder, source_id
        self._counts: Counter[Place] = Counter()
        self._told: set[Place] = set()

    def read(self, controls: Iterable[Control]) -> None:
        """Begin with the failures that a journal tells of."""
        found = [orjson.loads(control.text) for control in controls if control.kind is ControlKind.FAILED]
        self._counts = Counter(Place(one["record"], one["offset"]) for one in found)

    def note(self, place: Place, value: Input, error: Exception, *, rules: str) -> Control:
        """Keep a failed input, and return the record that tells of it, to be journaled."""
        self._counts[place] += 1
        try:
            self._keep(place, value, error, rules)
        except Exception:  # a batch that cannot be decoded may be why; that there is no bug report stops nothing
            log.exception("failed_input_not_kept", input=str(place), folder=str(self._folder))
        why = f"{type(error).__name__}: {error}"[:500]
        log.error(
            "engine_failed", input=str(place), why=why, times=self._counts[place],
            kept=str(self._folder / self._name(place)),
            hint="please report it with the files kept; failing once more, the input is passed over",
        )  # fmt: skip
        record = {"record": place.record, "offset": place.offset, "why": why}
        return Control(ControlKind.FAILED, orjson.dumps(record).decode())

    def passes_over(self, place: Place) -> bool:
        """Tell whether this input has failed too often."""
        return self._counts[place] >= OFTEN

    def instead(self, place: Place, value: Input, *, clock_ms: int) -> Input:
        """Return what the engine takes instead of an input that is passed over: a gap, if ticks are missing by it.

        Raises EngineError where too many inputs fail to go on.
        """
        if place not in self._told:
            self._told.add(place)
            self.passed_over += 1
            log.error("input_passed_over", input=str(place), kept=str(self._folder / self._name(place)))
        if len(self._told) > MOST:
            raise EngineError(
                f"the engine has failed at {len(self._told)} inputs, {place} the last: this is the program's fault; "
                f"install another version, or move the journal beside {self._folder} away to start without history"
            )
        if isinstance(value, Control) or not clock_ms:
            return Heartbeat(clock_ms)
        return Mark(MarkKind.GAP, clock_ms, PASSED_OVER)

    def _name(self, place: Place) -> str:
        return f"{'record' if place.record else 'input'}-{place.offset:020d}"

    def _keep(self, place: Place, value: Input, error: Exception, rules: str) -> None:
        folder = self._folder / self._name(place)
        if folder.exists():
            return
        folder.mkdir(parents=True)
        (folder / "why.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        journal = Journal(folder, source_id=self._source_id)
        try:
            journal.append(Control(ControlKind.RULES, rules))
            journal.append(value)
        finally:
            journal.close()
        for old in sorted(self._folder.iterdir(), key=lambda one: one.stat().st_mtime_ns)[:-KEPT]:
            shutil.rmtree(old)
