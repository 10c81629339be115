"""`Loaded`: the rules in force: their set, its slots in groups, whom each watches, and when their time is over.

A new set, new positions and a rule's expiry change it; what is not touched by them goes on with its state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rules import rulefile
from rules.adjuster import Adjuster
from rules.books import rows_of
from rules.breadth import Breadth
from rules.episodes import Episodes
from rules.graph import Graph
from rules.lifecycle import SlotKey
from rules.market import Market
from rules.node import is_tick
from rules.program import EdgeGroup, GroupKey, Slot, StateGroup, compile_slots, group_slots, layer_of
from rules.reported import Reported
from rules.reporter import Reporter
from rules.rule import Rule, RuleSet
from rules.selector import Coverage

NEVER_MS: Final = 1 << 60
"""A time that does not come."""


class Loaded:
    """The rule set and what is made of it. The engine owns it; all others read it.

    slots    of all rules, in file order
    groups   those of rules over symbols, as they are sampled; the ones over groups are in `Breadth`
    expired  ids of rules whose time is over
    next_expiry_ms, shortest_timer_ms  when the next rule expires, and how soon a timer may ring; NEVER_MS: not at all
    """

    def __init__(
        self,
        market: Market,
        graph: Graph,
        *,
        breadth: Breadth,
        reporter: Reporter,
        reported: Reported,
        adjuster: Adjuster,
        episodes: Episodes,
    ) -> None:
        self._market = market
        self._graph = graph
        self._breadth = breadth
        self._reporter = reporter
        self._reported = reported
        self._adjuster = adjuster
        self._episodes = episodes
        self.rules = rulefile.load({})  # with a source that a checkpoint or a note of a failure can be read from again
        self.slots: list[Slot] = []
        self.groups: dict[GroupKey, EdgeGroup | StateGroup] = {}
        self.expired: set[str] = set()
        self.next_expiry_ms = NEVER_MS
        self.shortest_timer_ms = NEVER_MS

    def slot(self, key: SlotKey) -> Slot | None:
        """Return the slot of this key, None if it is gone."""
        return next((slot for slot in self.slots if slot.key == key), None)

    def group(self, slot: Slot) -> EdgeGroup | StateGroup:
        """Return the group in which a slot over symbols is sampled."""
        return self.groups[layer_of(slot.rule), slot.rule.evaluation, slot.rule.mode]

    def load(self, rules: RuleSet) -> None:
        """Swap the rule set; slots whose rule id and rev are unchanged keep their arming, nodes in use their state."""
        slots = compile_slots(rules, self._graph, groups=self._breadth.graph, known=self.slots)
        of_symbols = [slot for slot in slots if slot.rule.over is None]
        for slot in slots:
            if slot.rule.period != "tick":
                self._market.period(slot.rule.period)
        groups = group_slots(of_symbols, self._graph)
        self._breadth.load([slot for slot in slots if slot.rule.over is not None], self._graph)
        for group in groups.values():
            group.bits.grow(self._market.state.n)
            for old in self.groups.values():
                group.adopt(old)
        every = (*groups.values(), *self._breadth.groups.values())
        self._episodes.adopt([group for group in every if isinstance(group, StateGroup)])
        self.rules, self.slots, self.groups = rules, slots, groups
        self._reported.forget()
        self._market.gaps.watch(layer for layer, _, _ in groups if is_tick(layer))
        self._adjuster.follow(of_symbols)
        self._reporter.absolute = self._adjuster.absolute
        self._graph.remove_unused([*(node for slot in of_symbols for node in slot.nodes), *self._breadth.nodes])
        self._market.books.keep({rule.select.book for rule in rules.rules if rule.select.book is not None})
        for period in self._market.bars:
            self._graph.warm(period)
        self._reporter.ledger.forget({slot.key for slot in slots})
        # A rule given more time may expire, and say so, again.
        self.expired = {rule.id for rule in rules.rules if rule.id in self.expired and self._is_over(rule)}
        self._plan_expiry()
        timers_ms = [ms for rule in rules.rules for ms in (rule.for_ms, rule.keep_firing_ms) if ms]
        self.shortest_timer_ms = min(timers_ms, default=NEVER_MS)
        self.cover()

    def cover(self) -> None:
        """Let the scopes of rules follow the universe and the instruments."""
        self._breadth.cover(expired=self.expired)
        market = self._market
        coverage = Coverage(market.universe.symbols, market.instruments, held=market.books.held)
        for group in self.groups.values():
            group.cover(coverage, expired=self.expired)

    def hold(self, source: str) -> None:
        """Take a whole new set of positions; what is new or has another ENTRY begins anew, all else goes on."""
        renewed = self._market.books.take(source, self._market.universe.row)
        self.cover()
        for group in self.groups.values():
            for slot_row, slot in enumerate(group.slots):
                symbols = renewed.get(slot.rule.select.book or "", frozenset())
                rows = rows_of(symbols, self._market.universe.row)
                if isinstance(group, StateGroup):
                    self._episodes.renew(group, slot_row, rows)
                group.bits.renew(slot_row, rows)
                self._reporter.ledger.renew(slot.key, symbols)

    def expire(self) -> bool:
        """Note once that the time of rules is over; they are not evaluated any more. Tells whether there are any."""
        if self._market.clock_ms < self.next_expiry_ms:
            return False
        over = [rule for rule in self.rules.rules if self._is_over(rule) and rule.id not in self.expired]
        for rule in over:
            self.expired.add(rule.id)
            self._reporter.note_expiry(rule, order=next(s.order for s in self.slots if s.rule is rule))
        self._plan_expiry()
        if over:
            self.cover()
            self._episodes.leave()
        return bool(over)

    def put_back(self, expired: Iterable[str]) -> None:
        """Take up which rules had expired, after the set was loaded."""
        self.expired = set(expired)
        self._plan_expiry()

    def _plan_expiry(self) -> None:
        """Note when the next rule expires."""
        living = [rule for rule in self.rules.rules if rule.id not in self.expired]
        self.next_expiry_ms = min((rule.expires_ms or NEVER_MS for rule in living), default=NEVER_MS)

    def _is_over(self, rule: Rule) -> bool:
        return rule.expires_ms is not None and rule.expires_ms <= self._market.clock_ms
