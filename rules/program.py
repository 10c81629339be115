"""Rules compiled for the engine: slots grouped by when they are evaluated, each group one pass over the graph.

A slot is one leg of one rule; a group is all slots of one period (on ticks: also of one choice of sessions), evaluation
and mode. A group's `sample` takes one sample of all of them for some symbols: graph → gates → arming or phases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from feeds.scan import span
from feeds.sessions import Session, day_ms, in_session, session_clock_ms, spans_of
from feeds.tick import BoolArray, IntArray
from rules.books import BOOK_WORDS, word_of
from rules.graph import Graph
from rules.holding import Moves, StateBits
from rules.imprint import Imprint
from rules.language.tree import Expr, Formula
from rules.lifecycle import EdgeBits, SlotKey
from rules.logic import BitRows, Circuit, byte_width
from rules.meaning import measured, renamed, renamed_expr
from rules.node import ALL, Node, Selection
from rules.plan import Plan
from rules.rule import Aggregate, Evaluation, Leg, Mode, OnStart, Rule, RuleSet
from rules.rulefile import value_exprs
from rules.selector import Coverage


@dataclass(frozen=True, slots=True)
class Slot:
    """One leg of one rule with its nodes; `order` is its place over all rule files."""

    rule: Rule
    leg: Leg
    order: int
    condition: Node
    rearm: Node | None
    values: Mapping[str, Node]
    """What an event of this slot reports: upper-case expression or output name → node."""
    imprint: Imprint

    @property
    def key(self) -> SlotKey:
        return self.rule.id, self.rule.rev, self.leg.name or ""

    @property
    def nodes(self) -> Iterable[Node]:
        yield self.condition
        if self.rearm is not None:
            yield self.rearm
        yield from self.values.values()


class Fire(NamedTuple):
    """A slot fires for the symbol of this row; `late`: it was true already at its first sample."""

    slot: Slot
    row: int
    late: bool


DENSE: Final = 4
"""From 1/DENSE of the universe on, a pass over whole columns costs less than one that gathers."""
TOGETHER: Final = 256
"""Up to so many nodes are evaluated for some symbols in less time than it takes to call for those of several slots."""
Sessions: TypeAlias = tuple[Session, ...]
Values: TypeAlias = dict[str, float | None]
"""What an event reports: expression or output name → value, unknown is None."""
Overlap: TypeAlias = Callable[[IntArray, Sessions], BoolArray | bool]
"""(times, sessions) → which of the samples are in session; for ticks by their time, for bars by any overlap."""


class Sample:
    """Which symbols are sampled, and when: one time per symbol, the tick's or the bar's end (Unix ms)."""

    __slots__ = ("_inside", "_places", "at", "n_symbols", "overlap", "times_ms")

    def __init__(self, at: Selection, n_symbols: int, times_ms: IntArray, overlap: Overlap) -> None:
        self.at = at
        self.n_symbols = n_symbols
        self.times_ms = times_ms
        self.overlap = overlap
        self._inside: dict[Sessions, BoolArray | bool] = {}
        self._places: list[IntArray] = []

    def place(self, row: int) -> int:
        """Return where the symbol of this row, which must be sampled, stands among the samples."""
        return row if isinstance(self.at, slice) else int(self.places(np.array([row]))[0])

    def places(self, rows: IntArray) -> IntArray:
        """Return where the symbols of these rows, which must be sampled, stand among the samples."""
        if isinstance(self.at, slice):
            return rows
        if not self._places:  # made at the first fire: most samples have none
            places = np.zeros(self.n_symbols, np.int64)
            places[self.at] = np.arange(len(self.at))
            self._places.append(places)
        return self._places[0].take(rows)

    def inside(self, sessions: Sessions) -> BoolArray | bool:
        """Tell which samples are in these sessions; one bool where all agree."""
        found = self._inside.get(sessions)
        if found is None:
            found = self._inside[sessions] = self.overlap(self.times_ms, sessions)
        return found


class Group:
    """All slots of one period, evaluation and mode, sampled together; its subclasses are the modes."""

    bits: EdgeBits | StateBits

    def __init__(self, slots: Sequence[Slot], graph: Graph) -> None:
        self.slots = list(slots)
        self.period = slots[0].rule.period
        self.evaluation = slots[0].rule.evaluation
        rearms = [slot.rearm for slot in slots if slot.rearm is not None]
        self._circuit = Circuit([slot.condition for slot in slots] + rearms)
        self._plan = graph.plan(self._circuit.leaves)
        reporting = graph.plan(dict.fromkeys(node for slot in slots for node in slot.values.values()))
        self.reporting: Plan | None = reporting if len(reporting.nodes) <= TOGETHER else None
        """The pass for what all slots report, where one for all costs less than one for each that fires."""
        self._scope = self._watched = np.zeros((len(slots), 0), np.uint8)
        self._scope_n = 0
        self._sessions = sorted({slot.rule.session for slot in slots})
        self.sessions = tuple(sorted({session for sessions in self._sessions for session in sessions}))
        self._session_of = np.array([self._sessions.index(slot.rule.session) for slot in slots])

    def cover(self, coverage: Coverage, *, expired: set[str]) -> None:
        """Work out which symbols each slot watches; an expired rule watches none."""
        scope = np.zeros((len(self.slots), len(coverage)), np.bool_)
        for row, slot in enumerate(self.slots):
            if slot.rule.id not in expired:
                scope[row] = coverage.of(slot.rule.select)
        self.watch(scope)

    def watch(self, scope: BoolArray) -> None:
        """Watch what is set in (slots, n) `scope`."""
        self._scope = self._watched = np.packbits(scope, axis=1)
        self._scope_n = scope.shape[1]
        self.bits.grow(scope.shape[1])

    def admit(self, now: BoolArray) -> None:
        """Evaluate, until told otherwise, only what is set in (slots, n) `now` of what is watched."""
        self._scope = self._watched & np.packbits(now, axis=1)

    def covers(self, slot_row: int, row: int) -> bool:
        """Tell whether this slot watches the symbol of this row."""
        return bool(self._scope[slot_row, row >> 3] & (128 >> (row & 7)))

    def watched(self, slot_row: int) -> BoolArray:
        """Return (n,) which symbols this slot watches."""
        return np.unpackbits(self._watched[slot_row])[: self._scope_n].astype(np.bool_)

    def holds(self, slot: Slot, rows: IntArray, *, n_symbols: int) -> BoolArray:
        """Tell for which of these symbols the slot's condition is true now; changes nothing."""
        self._plan.peek(rows)
        self._circuit.run(rows, n_symbols=n_symbols)
        true = np.unpackbits(self._circuit.t[self._circuit.rows[self.slots.index(slot)]])
        return true[rows] > 0

    def _evaluate(self, sample: Sample) -> tuple[BitRows, BitRows, BitRows]:
        """Run the gates; return what is known true, known false, and enabled, (slots, bytes) each."""
        enabled, rows = self._run(sample), self._circuit.rows[: len(self.slots)]
        return self._circuit.t.take(rows, axis=0), self._circuit.f.take(rows, axis=0), enabled

    def _run(self, sample: Sample) -> BitRows:
        """Evaluate the conditions and run their gates; return what is enabled, (slots, bytes)."""
        at = sample.at
        if not isinstance(at, slice) and at.size * DENSE >= sample.n_symbols:
            at = ALL  # peeking changes nothing, and who is not sampled is not enabled below
        self._plan.peek(at)
        self._circuit.run(at, n_symbols=sample.n_symbols)
        return self._enabled(sample)

    def _enabled(self, sample: Sample) -> BitRows:
        """Return what is watched, sampled and in session."""
        if isinstance(sample.at, slice) and all(sample.inside(sessions) is True for sessions in self._sessions):
            return self._scope
        return self._scope & self._session_bits(sample)

    def _session_bits(self, sample: Sample) -> BitRows:
        """Return who is sampled in session, (slots, bytes); one row where it is that of all slots."""
        table = np.zeros((len(self._sessions), byte_width(sample.n_symbols)), np.uint8)
        for row, sessions in enumerate(self._sessions):
            inside = sample.inside(sessions)
            if isinstance(inside, bool) and isinstance(sample.at, slice):
                table[row] = 255 * inside
                continue
            mask = np.zeros(sample.n_symbols, np.bool_)
            mask[sample.at] = inside
            table[row] = np.packbits(mask)
        return table if len(table) == 1 else table.take(self._session_of, axis=0)


class EdgeGroup(Group):
    """Slots of `mode: edge`: a sample gives fires."""

    def __init__(self, slots: Sequence[Slot], graph: Graph) -> None:
        super().__init__(slots, graph)
        self._rearm_rows = self._wire_rearms()
        self.bits: EdgeBits = EdgeBits([slot.key for slot in slots])
        self._fire_on_start = np.array([[255 * (s.rule.on_start is OnStart.FIRE)] for s in slots], np.uint8)

    def adopt(self, old: Group) -> None:
        """Take over the arming of slots that are unchanged."""
        if isinstance(old, EdgeGroup):
            self.bits.adopt(old.bits)

    def sample(self, sample: Sample) -> list[Fire]:
        """Evaluate all slots for the selected symbols and return the fires, by slot, then row."""
        enabled = self._run(sample)
        fires = self.bits.take(
            self._circuit, rearm_rows=self._rearm_rows, enabled=enabled, fire_on_start=self._fire_on_start
        )
        slots = self.slots
        return [Fire(slots[slot_row], row, late) for slot_row, row, late in fires]

    def _wire_rearms(self) -> IntArray:
        """Return each slot's row of re-arming in [t; f] stacked: its own rearm true, else its condition false."""
        total, rearm = len(self._circuit.t), len(self.slots)
        rows: list[int] = []
        for row, slot in enumerate(self.slots):
            if slot.rearm is None:
                rows.append(total + int(self._circuit.rows[row]))
            else:
                rows.append(int(self._circuit.rows[rearm]))
                rearm += 1
        return np.array(rows, np.int64)


class StateGroup(Group):
    """Slots of `mode: state`: a sample moves episodes from phase to phase."""

    def __init__(self, slots: Sequence[Slot], graph: Graph) -> None:
        super().__init__(slots, graph)
        self.bits: StateBits = StateBits([slot.key for slot in slots])

    def adopt(self, old: Group) -> None:
        """Take over the phases of slots that are unchanged."""
        if isinstance(old, StateGroup):
            self.bits.adopt(old.bits)

    def sample(self, sample: Sample) -> Moves:
        """Evaluate all slots for the selected symbols and return what moved."""
        true, false, enabled = self._evaluate(sample)
        return self.bits.sample(true, false, enabled=enabled)


def ticks_in_session(
    times_ms: IntArray, sessions: Sessions, *, span_ms: tuple[int, int] | None = None
) -> BoolArray | bool:
    """Tell which tick times are in any of these sessions; one bool where all agree (nearly always).

    span_ms: the earliest and the latest time, if they are known.
    """
    first, last = span(times_ms) if span_ms is None else span_ms
    first_ms = day_ms(first)
    if any(one.first_ms <= first_ms <= first_ms + last - first <= one.last_ms for one in spans_of(sessions)):
        return True
    inside = in_session(first, sessions)
    elapsed = session_clock_ms(last, sessions) - session_clock_ms(first, sessions)
    if inside == in_session(last, sessions) and elapsed == (last - first if inside else 0):
        return bool(inside)
    return np.asarray(in_session(times_ms, sessions))


def compile_slots(
    rules: RuleSet, market: Graph, *, groups: Graph | None = None, known: Sequence[Slot] = ()
) -> list[Slot]:
    """Put every leg of every rule into its graph; equal sub-expressions of all rules become one node.

    market: of symbols; groups: of groups of them, None where no rule is about any. known: slots that stand in these
    graphs; rules that stay as they are keep theirs, for a change among a thousand rules comes while ticks do.
    """
    slots: list[Slot] = []
    compiled: dict[str, list[Slot]] = {}
    for slot in known:
        compiled.setdefault(slot.rule.id, []).append(slot)
    for rule in rules.rules:
        stays = compiled.get(rule.id, [])
        if stays and _is_same(stays[0].rule, rule):
            slots += (replace(slot, rule=rule, order=order) for order, slot in enumerate(stays, len(slots)))
            continue
        graph = market if rule.over is None or groups is None else groups
        slots += (_compiled(rule, leg, order, graph) for order, leg in enumerate(rule.legs, len(slots)))
    return slots


def _is_same(one: Rule, other: Rule) -> bool:
    """Tell whether two rules are equal but for where they stand."""
    return one.rev == other.rev and replace(one, file=other.file, line=other.line) == other


def _compiled(rule: Rule, leg: Leg, order: int, graph: Graph) -> Slot:
    """Put one leg into the graph."""
    period, closed = layer_of(rule), rule.evaluation is Evaluation.BAR_CLOSE
    given = names_given(rule)
    when = renamed(leg.when, given)
    reading = partial(graph.add_formula, period=period, cap=rule.cap, closed=closed)
    condition, _ = reading(when)
    rearm = None if leg.rearm is None else reading(renamed(leg.rearm, given))[0]
    names = local_names(when)
    free = {name: column for name, column in given.items() if name not in names}
    values = {
        text: graph.add(renamed_expr(expr, free), period=period, names=names, cap=rule.cap, closed=closed)
        for text, expr in value_exprs(rule, leg).items()
    }
    return Slot(rule, leg, order, condition, rearm, values, Imprint.of(rule, leg.name))


def layer_of(rule: Rule) -> str:
    """Return the graph's period for a rule: its own, and on ticks only those of its sessions are bars.

    Otherwise the auction's ticks would stand between the night and the first tick on which the rule is evaluated, and
    no price could ever cross over night.
    """
    # To a group each of its samples is like a tick.
    return market_layer(rule) if rule.over is None else layer_name(rule.session)


def market_layer(rule: Rule) -> str:
    """Return the period of what a rule reads of symbols."""
    return layer_name(rule.session) if rule.period == "tick" else rule.period


@lru_cache(maxsize=64)
def layer_name(sessions: Sessions) -> str:
    """Return the graph's period for the ticks of these sessions."""
    return f"tick@{'+'.join(sorted(sessions))}"


def names_given(rule: Rule) -> dict[str, str]:
    """Return what the graph calls the words whose meaning depends on the rule: aggregates, and those of its book."""
    if rule.over is not None:
        return {one.name: aggregate_key(rule, one) for one in rule.over.aggregates}
    book = rule.select.book
    return {} if book is None else {word: word_of(word, book) for word in BOOK_WORDS}


def aggregate_key(rule: Rule, aggregate: Aggregate) -> str:
    """Return what the graph over groups calls an aggregate: equal ones of equal scopes are one column."""
    assert rule.over is not None
    scope = f"{rule.select.text()}|{rule.over.by}|{rule.over.min_valid!r}|{market_layer(rule)}"
    return f"{measured(aggregate)}@{scope}"


def local_names(formula: Formula) -> dict[str, Expr]:
    """Return the formula's own names with their expressions."""
    return {statement.name: statement.expr for statement in formula.statements if statement.name}


GroupKey: TypeAlias = tuple[str, Evaluation, Mode]
"""(the graph's period, evaluation, mode)"""


def group_slots(slots: Sequence[Slot], graph: Graph) -> dict[GroupKey, EdgeGroup | StateGroup]:
    """Return the groups, slots in file order."""
    members: dict[GroupKey, list[Slot]] = {}
    for slot in slots:
        members.setdefault((layer_of(slot.rule), slot.rule.evaluation, slot.rule.mode), []).append(slot)
    return {key: (EdgeGroup if key[2] is Mode.EDGE else StateGroup)(some, graph) for key, some in members.items()}
