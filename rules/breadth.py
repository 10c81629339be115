"""`Breadth`: rules over groups of symbols. Groups are to their conditions what symbols are to all others.

Once a second in which something changed, every aggregate of every rule is worked out for its groups and laid into a
column over the groups; a second graph, on a state table of its own, evaluates the conditions over those columns.
A group too few of whose members have known values is not evaluated: no data is not "0 limit-ups".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.instruments import Board, Instrument, board_of
from feeds.sessions import in_session
from feeds.tick import FloatArray, IntArray
from feeds.universe import Universe
from rules.graph import Graph
from rules.market import Market
from rules.node import ALL, Node, Truth, is_tick
from rules.program import (
    EdgeGroup,
    GroupKey,
    Sample,
    Sessions,
    Slot,
    StateGroup,
    aggregate_key,
    group_slots,
    market_layer,
    ticks_in_session,
)
from rules.rule import Aggregate, By, Measure, Rule
from rules.selector import Selector
from rules.state import Column, StateTable

SECOND_MS: Final = 1000
_SHOWN: Final = 3
"""Entries of a choice that the name of its one group shows."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in which group of one choice of members.

    sizes   (n_groups,) members of each group, also those that never ticked; 0 = not a group of this choice
    rows    (k,) universe rows of those that have ticked, group by group, each by symbol: sums have one order
    groups  the groups that have such members, and `starts` where in `rows` theirs begin
    """

    sizes: IntArray
    rows: IntArray
    groups: IntArray
    starts: IntArray


@dataclass(frozen=True, slots=True)
class _Scope:
    """A choice of members and what they are grouped by."""

    select: Selector
    by: By


@dataclass(frozen=True, slots=True)
class _Total:
    """One aggregate of one scope, shared by all rules that have it.

    scope: its place among the scopes. column: its value by group, NaN = unknown; known: share of members with a known
    value, -1 where that is not enough.
    """

    aggregate: Aggregate
    scope: int
    min_valid: float
    node: Node
    column: Column
    known: Column


class Breadth:
    """All rules over groups. The engine owns it, tells it what changed, and reports what comes of a sample.

    names   the groups in order of their first appearance, append-only like the universe
    changed whether something has changed since the last sample
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self.state = StateTable()
        self.names = Universe()
        self.graph = Graph(self.state, self)
        self.groups: dict[GroupKey, EdgeGroup | StateGroup] = {}
        self.nodes: list[Node] = []
        self.changed = False
        self.on_bars = False
        self._totals: dict[str, _Total] = {}
        self._of_rule: dict[str, list[_Total]] = {}
        self._short: dict[str, Column] = {}
        """Rule id and rev → 1 for groups that are short of data."""
        self._lacking: dict[str, NDArray[np.bool_]] = {}
        """Rule id → which groups are short of data as of the latest measure."""
        self._scopes: dict[_Scope, int] = {}
        self._members: list[Members] | None = None
        self._first: list[Slot] = []
        """The first slot of each rule, in order."""
        self._expired: set[str] = set()

    @property
    def is_watching(self) -> bool:
        """Whether there is any rule over groups."""
        return bool(self.groups)

    # ── the graph's source ────────────────────────────────────────────────────────────────────────────────────────

    def column(self, period: str, word: str) -> Column:
        """Return the column of an aggregate by its key (FieldSource)."""
        return self._claim(f"agg/{word}")

    def row(self, symbol: str) -> int | None:
        """Know no symbols: conditions over groups have none (FieldSource)."""
        return None

    def _claim(self, name: str, fill: float = np.nan) -> Column:
        return self.state.columns(name).get(name) or self.state.claim(name, fill=fill)

    # ── rules and members ─────────────────────────────────────────────────────────────────────────────────────────

    def load(self, slots: Sequence[Slot], graph: Graph) -> None:
        """Take these slots, all over groups; `graph` is the market's. Unchanged rules keep arming and phases."""
        rules = {slot.rule.id: slot.rule for slot in slots}
        self._first = list({slot.rule.id: slot for slot in reversed(slots)}.values())[::-1]
        self._totals, self._of_rule, self._short, self._scopes = {}, {}, {}, {}
        for rule in rules.values():
            assert rule.over is not None
            self._of_rule[rule.id] = [self._total(rule, one, graph) for one in rule.over.aggregates]
            self._short[rule.id] = self._claim(f"short/{rule.id}/{rule.rev}", fill=0.0)
        self.nodes = [total.node for total in self._totals.values()]
        self._plan = graph.plan(self.nodes)
        self.on_bars = any(not is_tick(node.period) for node in self.nodes)
        groups = group_slots(slots, self.graph)
        for group in groups.values():
            group.bits.grow(self.state.n)
            for old in self.groups.values():
                group.adopt(old)
        self.groups = groups
        self.graph.remove_unused([node for slot in slots for node in slot.nodes])
        self._keep_columns()
        self._members = None

    def _total(self, rule: Rule, aggregate: Aggregate, graph: Graph) -> _Total:
        assert rule.over is not None
        key = aggregate_key(rule, aggregate)
        if key not in self._totals:
            period = market_layer(rule)
            if aggregate.measure in (Measure.COUNT, Measure.SHARE):
                node, _ = graph.add_formula(aggregate.of, period=period)
            else:
                node = graph.add(aggregate.of.statements[0].expr, period=period)
            scope = self._scopes.setdefault(_Scope(rule.select, rule.over.by), len(self._scopes))
            columns = self._claim(f"agg/{key}"), self._claim(f"known/{key}", fill=0.0)
            self._totals[key] = _Total(aggregate, scope, rule.over.min_valid, node, *columns)
        return self._totals[key]

    def _keep_columns(self) -> None:
        """Drop the columns of rules that are gone."""
        kept = {id(column) for total in self._totals.values() for column in (total.column, total.known)}
        kept |= {id(column) for column in self._short.values()}
        for prefix in ("agg/", "known/", "short/"):
            for name, column in self.state.columns(prefix).items():
                if id(column) not in kept:
                    self.state.release_one(name)

    def cover(self, *, expired: set[str]) -> None:
        """Let members follow universe and instruments, at the next sample; an expired rule has no groups."""
        self._members, self._expired = None, set(expired)

    def _gather(self) -> list[Members]:
        """Work out who is in which group; groups that are new get their row."""
        market = self._market
        known = {symbol: Instrument(symbol, board=board_of(symbol)) for symbol in market.universe.symbols}
        known |= market.instruments
        found = [_grouped(scope, (known[symbol] for symbol in sorted(known))) for scope in self._scopes]
        self.names.rows(tuple(name for groups in found for name in groups))
        self.state.grow(len(self.names))
        members = [self._laid_out(groups) for groups in found]
        for group in self.groups.values():
            scope_rows = np.zeros((len(group.slots), len(self.names)), np.bool_)
            for place, slot in enumerate(group.slots):
                scope = self._of_rule[slot.rule.id][0].scope
                scope_rows[place] = (members[scope].sizes > 0) & (slot.rule.id not in self._expired)
            group.watch(scope_rows)
        return members

    def _laid_out(self, groups: Mapping[str, Sequence[str]]) -> Members:
        sizes = np.zeros(len(self.names), np.int64)
        rows: list[int] = []
        present: list[int] = []
        starts: list[int] = []
        for name, symbols in groups.items():
            group = self.names.row(name)
            assert group is not None
            sizes[group] = len(symbols)
            ticked = [row for row in map(self._market.universe.row, symbols) if row is not None]
            if ticked:
                present.append(group)
                starts.append(len(rows))
                rows += ticked
        return Members(sizes, *(np.array(some, np.int64) for some in (rows, present, starts)))

    # ── samples ───────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self) -> None:
        """Work out every aggregate as things are now."""
        self.changed = False
        if self._members is None:
            self._members = self._gather()
        self._plan.peek(ALL)
        tallies: dict[tuple[int, int, Measure], FloatArray] = {}
        known: dict[tuple[int, int], FloatArray] = {}
        for total in self._totals.values():
            members = self._members[total.scope]
            place = id(total.node), total.scope
            if place not in known:
                known[place] = _known(total.node, members)
            made = (*place, total.aggregate.measure)
            if made not in tallies:
                tallies[made] = _measure(total.aggregate.measure, total.node, members, known[place])
            share = known[place] / np.maximum(members.sizes, 1)
            enough = (share >= total.min_valid - 1e-12) & (known[place] > 0)
            value = np.where(enough, tallies[made], np.nan)
            total.column.array[...] = _ranked(value) if total.aggregate.ranked else value
            total.known.array[...] = np.where(enough, share, -1.0)
        self._lacking = {rule: self._short_of_data(totals) for rule, totals in self._of_rule.items()}

    def samples(self, second_ms: int) -> Iterable[tuple[EdgeGroup | StateGroup, Sample]]:
        """Yield what is to be sampled when second `second_ms` begins; it tells of the second before.

        Groups short of data are left out: their state stays as it was.
        """
        if not len(self.names):
            return
        times_ms = np.full(len(self.names), second_ms, np.int64)
        for group in self.groups.values():
            group.admit(np.array([~self._lacking[slot.rule.id] for slot in group.slots]))
            yield group, Sample(ALL, len(self.names), times_ms, _in_session)

    def commit(self, second_ms: int) -> None:
        """Let the sample just taken be the previous one of the next, in the sessions it was in."""
        rows = np.arange(len(self.names))
        if not len(rows):
            return
        for layer, sessions in {key[0]: group.sessions for key, group in self.groups.items()}.items():
            if in_session(second_ms - SECOND_MS, sessions):
                self.graph.commit(layer, rows)

    def run_short(self, second_ms: int) -> list[tuple[Slot, int]]:
        """Return the first slot of each rule, and each group, that is now short of data and was not before."""
        found: list[tuple[Slot, int]] = []
        inside: dict[Sessions, bool] = {}
        for slot in self._first:
            rule = slot.rule
            if rule.session not in inside:
                inside[rule.session] = in_session(second_ms - SECOND_MS, rule.session)
            if rule.id in self._expired or not inside[rule.session]:
                continue
            short, before = self._lacking[rule.id], self._short[rule.id].array
            found += [(slot, row) for row in np.flatnonzero(short & (before == 0)).tolist()]
            before[...] = short
        return found

    def _short_of_data(self, totals: Sequence[_Total]) -> NDArray[np.bool_]:
        """Tell which groups of a rule have too few members with known values, for any of its aggregates."""
        assert self._members is not None
        lacking = self._members[totals[0].scope].sizes > 0
        least = totals[0].known.array
        for total in totals[1:]:
            least = np.minimum(least, total.known.array)
        return np.asarray(lacking & (least < 0))

    # ── checkpoint ────────────────────────────────────────────────────────────────────────────────────────────────

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all state as (arrays by name, JSON header); the arrays themselves, not copies."""
        arrays = {f"groups/{name}": array for name, array in self.state.dump().items()}
        for key, group in self.groups.items():
            arrays |= {f"groups/{'/'.join(key)}/{name}": bits for name, bits in group.bits.dump().items()}
        return arrays, {"names": list(self.names.symbols), "changed": self.changed}

    def prepare(self, header: Mapping[str, Any]) -> None:
        """Claim the groups of a checkpoint, before rules are loaded."""
        self.names.rows(tuple(header["names"]))
        self.state.grow(len(self.names))

    def put_back(self, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint, after the rules."""
        prefix = "groups/"
        mine = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        self.state.load(mine)
        for key, group in self.groups.items():
            group.bits.load({name: np.array(mine[f"{'/'.join(key)}/{name}"]) for name in group.bits.dump()})
        self.changed = header["changed"]


def _in_session(ends_ms: IntArray, sessions: Sessions) -> NDArray[np.bool_] | bool:
    """Tell whether the second that ends then is in session."""
    return ticks_in_session(ends_ms - SECOND_MS, sessions)


def _grouped(scope: _Scope, instruments: Iterable[Instrument]) -> dict[str, list[str]]:
    """Return group name → symbols, groups in the order of their names."""
    groups: dict[str, list[str]] = {}
    for one in instruments:
        if scope.select.covers(one):
            for name in _groups_of(scope, one):
                groups.setdefault(name, []).append(one.symbol)
    return dict(sorted(groups.items()))


def _groups_of(scope: _Scope, one: Instrument) -> Iterable[str]:
    if scope.by is By.SECTOR:
        wanted = scope.select.sectors
        return [sector for sector in dict.fromkeys(one.sectors) if not wanted or sector in wanted]
    if scope.by is By.BOARD:
        return [str(board_of(one.symbol) if one.board is Board.UNKNOWN else one.board)]
    return [label(scope.select)]


def label(select: Selector) -> str:
    """Return the name of the one group of all members, such as 沪深A股, main+star or all."""
    entries = [*sorted(select.sectors), *sorted(select.boards), *select.names, *select.globs, *sorted(select.symbols)]
    more = "+…" if len(entries) > _SHOWN else ""
    return "+".join(map(str, entries[:_SHOWN])) + more or "all"


def _known(node: Node, members: Members) -> FloatArray:
    """Return how many members of each group have a known value."""
    value = node.value
    known = value.t | value.f if isinstance(value, Truth) else ~np.isnan(value)
    return _spread(members, _added(known, members))


def _added(mask: NDArray[np.bool_], members: Members) -> IntArray:
    """Count the members that are set, for each group that has any."""
    if not len(members.starts):
        return np.zeros(0, np.int64)
    taken = mask.take(members.rows)
    if len(members.starts) == 1:
        return np.array([np.count_nonzero(taken)])
    return np.add.reduceat(taken, members.starts, dtype=np.int64)


def _measure(measure: Measure, node: Node, members: Members, known: FloatArray) -> FloatArray:
    """Return a measure for every group, NaN where no member is known."""
    value = node.value
    if measure in (Measure.COUNT, Measure.SHARE):
        assert isinstance(value, Truth)
        count = _spread(members, _added(value.t, members))
        return count if measure is Measure.COUNT else _divided(count, known)
    if isinstance(value, Truth):
        value = np.where(value.t, 1.0, np.where(value.f, 0.0, np.nan))
    if not len(members.starts):
        return np.full(len(members.sizes), np.nan)
    taken = value.take(members.rows)
    if measure in (Measure.MIN, Measure.MAX):
        extreme = np.fmin if measure is Measure.MIN else np.fmax
        return _spread(members, extreme.reduceat(taken, members.starts), missing=np.nan)
    total = _spread(members, np.add.reduceat(np.where(np.isnan(taken), 0.0, taken), members.starts))
    return _divided(total, known) if measure is Measure.MEAN else total


def _divided(total: FloatArray, known: FloatArray) -> FloatArray:
    return np.where(known > 0, total / np.maximum(known, 1.0), np.nan)


def _spread(members: Members, found: FloatArray | IntArray, *, missing: float = 0.0) -> FloatArray:
    """Lay what was found for the groups that have members with rows over all groups."""
    every = np.full(len(members.sizes), missing)
    every[members.groups] = found
    return every


def _ranked(value: FloatArray) -> FloatArray:
    """Return each group's place among those that have a value, 1 = the largest; ties share the better place."""
    there = np.sort(value[~np.isnan(value)])
    tied = value + 1e-9 * np.maximum(1.0, np.abs(value))  # as in every comparison
    place = 1.0 + len(there) - np.searchsorted(there, tied, side="right")
    return np.where(np.isnan(value), np.nan, place)
