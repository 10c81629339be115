"""Rule tests on the engine itself: a case is played through a new engine, and its events are compared with `expect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from feeds.exrights import ExRight, encode_exrights
from feeds.inputs import Control, ControlKind
from feeds.instruments import encode_table, instrument_of
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleError
from rules.expectation import Step, compare, diff
from rules.positions import encode
from rules.rule import RuleSet
from rules.testcase import Case, Reload, Restart
from rules.testfeed import FileReader, lay_out

DEFAULT_WINDOW = 250


@dataclass(frozen=True, slots=True)
class Result:
    """How a case came out. notes: what may explain a failure, in words."""

    case: Case
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(step.expected is not None and step.got is not None for step in self.steps)

    def text(self) -> str:
        """Return the diff and the notes; "" where the case passed."""
        return "" if self.passed else "\n".join([*diff(self.steps, self.case), *(f"  note: {n}" for n in self.notes)])


def run(
    case: Case,
    rules: RuleSet,
    *,
    read: FileReader,
    others: Mapping[tuple[str, ...], RuleSet] | None = None,
    window: int = DEFAULT_WINDOW,
    exrights: Sequence[ExRight] = (),
) -> Result:
    """Play a case. others: the rule sets that `reload_at` names by their files; exrights: days besides the case's own.

    Raises RuleError where the case names a rule that is not there, FeedError for a file that cannot be played.
    """
    known = {rule.id for one in (rules, *(others or {}).values()) for rule in one.rules} | {"feed"}
    for name in case.rules:
        if name not in known:
            raise RuleError(f"test {case.name!r}: there is no rule {name!r} in {', '.join(case.rule_files)}")
    events = _played(case, rules, _begun(case, exrights, window), read=read, others=others or {})
    wanted = [event for event in events if not case.rules or event.rule in case.rules]
    steps = compare(case, wanted)
    return Result(case, steps, tuple(_notes(case, rules, wanted)))


def _begun(case: Case, exrights: Sequence[ExRight], window: int) -> Engine:
    """Return a new engine that knows what the case says of the market."""
    engine = Engine(window=window)
    if case.instruments:
        engine.step(Control(ControlKind.INSTRUMENTS, encode_table(case.instruments.values())))
    if case.positions:
        engine.step(Control(ControlKind.POSITIONS, encode(case.positions)))
    own = [one for directive in case.exrights for one in directive.days()]
    days = [*own, *(one for one in exrights if (one.symbol, one.date) not in {(a.symbol, a.date) for a in own})]
    if days:
        engine.step(Control(ControlKind.EXRIGHTS, encode_exrights(days)))
    return engine


def _played(
    case: Case, rules: RuleSet, engine: Engine, *, read: FileReader, others: Mapping[tuple[str, ...], RuleSet]
) -> list[Alert]:
    """Return every event of the case, of all rules."""
    events: list[Alert] = []
    events += engine.step(Control(ControlKind.RULES, rules.source))
    for happening in lay_out(case, read=read):
        if isinstance(happening, Restart):
            engine = _restarted(engine)
        elif isinstance(happening, Reload):
            new = rules if happening.rule_files is None else others[happening.rule_files]
            events += engine.step(Control(ControlKind.RULES, new.source))
        else:
            events += engine.step(happening)
    return events


def _restarted(engine: Engine) -> Engine:
    """Return the engine as its checkpoint brings it back; the header takes the way through JSON, as in a file."""
    arrays, header = engine.checkpoint()
    return Engine.restore(arrays, orjson.loads(orjson.dumps(header)))


def _notes(case: Case, rules: RuleSet, events: Sequence[Alert]) -> list[str]:
    """Say which rules cannot have had events: they do not watch the symbols of the case."""
    if events or not case.symbols:
        return []
    held: dict[str, list[str]] = {}
    for position in case.positions:
        held.setdefault(position.book, []).append(position.symbol)
    known = [case.instruments.get(symbol) or instrument_of(symbol) for symbol in case.symbols]
    return [
        f"rule {rule.id} does not watch {', '.join(case.symbols)}; name and sectors come from instruments:"
        for rule in rules.rules
        if rule.id in case.rules and not any(rule.select.covers(instrument, held) for instrument in known)
    ]
