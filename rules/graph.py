"""`Graph`: all formulas as one graph of columnar nodes, per period, over all symbols.

Equal sub-expressions are one node, so cost grows with distinct sub-expressions, not with rules. A node's key is its
expression in one spelling: names inlined, synonyms resolved, every operation in parentheses, commutative operands in
one order, six comparisons as two. Nodes are kept in the order they were made, which puts arguments first.

All state (rings, bar counts, what nodes carry) lies in the `StateTable`: its dump is a whole checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.compiler import Compiler, Reading, names_used
from rules.errors import RuleError
from rules.functions import arithmetic, comparing, truths
from rules.functions.across import BarEnd
from rules.functions.function import Value, number_key
from rules.functions.values import Constant, Field, NumberNode, TruthField, TruthNode
from rules.functions.varying import DEFAULT_CAP
from rules.language.tree import Binding, Expr, Formula, Kind
from rules.language.words import PERIODS, SPELLINGS
from rules.node import ALL, Node, Selection
from rules.pastlife import PastLife
from rules.plan import Plan
from rules.rings import Ring, Rings
from rules.sampler import Sampler
from rules.slots import SLOT_LAYER, next_slot_ms, slots_passed, stretch_begins_ms
from rules.state import Column, StateTable

BAR_FIELDS: Final = ("C", "O", "H", "L", "V", "AMO")
END: Final = "END"
"""The word for a bar's end, Unix ms as float64: kept beside the fields, so that a kept bar can be placed in time."""
_BAR_PERIODS: Final = frozenset(PERIODS.values())
LONGEST_KEY: Final = 400
"""Characters from which on a key is replaced by its hash: names that use names twice double a key at each step."""


class FieldSource(Protocol):
    """Where the graph finds the market's columns."""

    def column(self, period: str, word: str) -> Column:
        """Return the (n,) float64 column of a canonical word.

        C O H L V AMO are the forming bar of `period` (on "tick" C is LAST); now words are the same for every period;
        truth words hold 1, 0 or NaN. END is the end of the forming bar of `period` and TICK_MS the time of the latest
        tick, both (n,) int64 Unix ms, 0 = none.
        Raises RuleError for a word it does not know.
        """

    def row(self, symbol: str) -> int | None:
        """Return the row of a symbol, None if it is not in the universe (yet)."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What is done for some nodes of a layer when a bar closes.

    every     gives each of them the closed bar's value, and what they read of other periods
    carrying  gives it to what the state is made from alone: of most rules' terms nothing is
    stateful  who makes the bar part of his state
    rings     what takes a value
    """

    every: Plan
    carrying: Plan
    stateful: tuple[Node, ...]
    rings: tuple[Ring, ...]


class Layer:
    """The nodes and rings of one period; what a function's `build` sees of the graph."""

    def __init__(self, state: StateTable, source: FieldSource, period: str, *, window: int) -> None:
        self.period = period
        self.nodes: dict[str, Value] = {}
        self.rings = Rings(state, period)
        self._state = state
        self._source = source
        self.broken_ms = state.claim(f"{period}/bars/broken_ms", dtype=np.int64, fill=0)
        self.edition = 0
        """Grows with each change of nodes and rings: what lived with others knows too little."""
        self.alone = False
        """While old bars run through (pastlife.py): what other periods were then is not known."""
        self.sealed = False
        """While a node is only looked for: nothing may be made."""
        self._passes: dict[bool, Passes] = {}
        """Those of all nodes, by `alone`."""
        self._late: set[str] = set()
        self.history: dict[str, Ring] = {}
        if period in _BAR_PERIODS:
            self.history = {word: self.rings.make(self.word(word), window) for word in BAR_FIELDS}
            end = self.share(BarEnd(END, source.column(period, END), period=period))
            self.history[END] = self.rings.make(end, window)

    def share(self, node: Value) -> Value:
        """Return the node of the same key if there is one, else take this one in and open it."""
        if len(node.key) > LONGEST_KEY:
            node.key = f"#{hashlib.blake2b(node.key.encode(), digest_size=12).hexdigest()}"
        known = self.nodes.get(node.key)
        if known is not None:
            return known
        if self.sealed:
            raise RuleError(f"{node.key} is not among the nodes")
        node.open(self._state)
        self.nodes[node.key] = node
        self._change()
        if self.rings.counts.array.any():
            self._late.update(self._state.columns(f"{self.period}/{node.key}/"))
        return node

    def word(self, word: str) -> Value:
        """Return the node of a word of the market, in any of its spellings."""
        known = SPELLINGS.get(word)
        name = word if known is None else known.name
        if name in self.nodes:
            return self.nodes[name]
        make = TruthField if known is not None and known.kind is Kind.TRUTH else Field
        return self.share(make(name, self._source.column(self.period, name), period=self.period))

    def ring(self, node: Value, depth: int) -> Ring:
        if self.sealed and not any(ring.node is node and ring.depth >= depth for ring in self.rings):
            raise RuleError(f"{node.key} is not kept for {depth} bars")
        before = self.rings.names()
        ring = self.rings.of(node, depth)
        if ring.name not in before:
            self._change()
            if self.rings.counts.array.any():
                self._late.add(ring.name)
        return ring

    def source_column(self, word: str) -> Column:
        return self._source.column(self.period, word)

    def counts(self, period: str) -> Column:
        return self.rings.counts

    def number(self, node: Value) -> NumberNode:
        return node if isinstance(node, NumberNode) else truths.as_number(self, node)

    def truth(self, node: Value) -> TruthNode:
        return node if isinstance(node, TruthNode) else truths.as_truth(self, node)

    def constant(self, value: float, period: str) -> Constant:
        made = Constant(number_key(value), value, period=period)
        if self.sealed:  # one that only a window was made of is not kept, and is no state
            made.open(self._state)
            return made
        node = self.share(made)
        assert isinstance(node, Constant)
        return node

    def arithmetic(self, op: str, left: Value, right: Value) -> Value:
        return arithmetic.arithmetic(self, op, left, right)

    def compare(self, op: str, left: Value, right: Value) -> TruthNode:
        return comparing.compare(self, op, left, right)

    def commit(self, at: IntArray, *, values: bool = True, passes: Passes | None = None) -> None:
        """Close the bar of symbols `at`.

        values: afterwards every node's value is that of the closed bar; without, only what carries state is evaluated.
        passes: those of some nodes, for whom alone the bar closes.
        """
        if passes is None:
            passes = self._settled()
        plan = passes.every if values else passes.carrying
        whole = at.size == self._state.n and bool((at == np.arange(at.size)).all())
        plan.peek(ALL if whole else at)
        self.rings.close(at, passes.rings, whole=whole)
        with np.errstate(all="ignore"):
            for node in passes.stateful:
                node.commit(at)
        self.rings.done()

    def commit_all(self) -> None:
        """Close the bar of every symbol; one that came to the universe later counts as many bars, all unknown."""
        counts = self.rings.counts.array
        if counts.size:
            counts[:] = counts.max()
            self.commit(np.arange(counts.size))

    def break_off(self, from_ms: int | IntArray, at: Selection = ALL) -> None:
        """Let these symbols know nothing of their bars before this time, as if there had been none with a value."""
        for name, column in self._state.columns(f"{self.period}/").items():
            if not name.startswith(f"{self.period}/bars/"):
                column.array[..., at] = column.fill
        self.broken_ms.array[at] = from_ms

    def warm(self, bars: Mapping[str, FloatArray]) -> None:
        """Give nodes made since bars were committed the state they would have, had they seen these bars.

        The bars run from an empty state through the new nodes and what these read, for that may be old ones; then
        everything but the state of the new nodes is put back.
        """
        late, self._late = self._late, set()
        self.live_again(bars, made=late)

    @property
    def is_late(self) -> bool:
        """Whether nodes were made since bars were committed."""
        return bool(self._late)

    def live_again(self, bars: Mapping[str, FloatArray], *, made: Collection[str], at: Selection = ALL) -> None:
        """Make these state arrays anew for symbols `at` from bars (k, n) as `warm` has them; leave all else alone."""
        if not made:
            return
        there = ~np.isnan(bars["C"][:, at])
        before = self.rings.counts.array[at] - there.sum(axis=0)
        life = PastLife(self, counts=before, sees_ends=END in bars, nodes=self._owners(made), made=made)
        bars = {word: bars[word][:, at] for word in life.words if word in bars}
        with life.shown():
            for number in np.flatnonzero(there.any(axis=1)):
                closing = np.flatnonzero(there[number])
                life.close({word: column[number, closing] for word, column in bars.items()}, closing)
        self.take_over(life, at, made=made)

    def take_over(self, life: PastLife, at: Selection, *, made: Collection[str] | None = None) -> None:
        """Let symbols `at` hold what came of a life; made: the state arrays, None = all."""
        columns = self.columns()
        for name, array in life.lived():
            if made is None or name in made:
                columns[name].array[..., at] = array

    def _owners(self, made: Collection[str]) -> tuple[Value, ...]:
        """Return the nodes that these state arrays belong to, and what they read here, arguments first."""
        keys = set(map(self.key_of, made))
        reached = reach(self.nodes[key] for key in keys if key in self.nodes)
        return tuple(node for node in self.nodes.values() if node in reached)

    @property
    def state_table(self) -> StateTable:
        """The table in which the state of all layers lies."""
        return self._state

    def columns(self) -> dict[str, Column]:
        """Return every state array of this layer by name."""
        return self._state.columns(f"{self.period}/")

    def key_of(self, name: str) -> str:
        """Return the key of the node that a state array belongs to; "bars" for those of the layer itself."""
        return name.removeprefix(f"{self.period}/").rpartition("/")[0]

    def state(self) -> dict[str, dict[str, Column]]:
        """Return the columns that nodes carry, rings among them, by the node's key and their own name."""
        found: dict[str, dict[str, Column]] = {}
        for name, column in self.columns().items():
            key, _, own = name.removeprefix(f"{self.period}/").rpartition("/")
            if key in self.nodes:
                found.setdefault(key, {})[own] = column
        return found

    def keep(self, nodes: set[Node]) -> None:
        """Drop every node but these, their state and their rings; the history of bar fields stays."""
        for key, node in list(self.nodes.items()):
            if node not in nodes:
                del self.nodes[key]
                self._state.release(f"{self.period}/{key}/")
        used = {ring for node in self.nodes.values() for ring in node.rings()}
        self.rings.keep(used | set(self.history.values()))
        self._late &= set(self._state.names())
        self._change()

    def _change(self) -> None:
        """Take note that nodes or rings have come or gone."""
        self.edition += 1
        self._passes.clear()

    def _settled(self) -> Passes:
        """Return the passes of all nodes."""
        if self.alone not in self._passes:
            self._passes[self.alone] = self.passes(tuple(self.nodes.values()), self.rings, alone=self.alone)
        return self._passes[self.alone]

    def passes(self, nodes: Sequence[Node], rings: Iterable[Ring], *, alone: bool) -> Passes:
        """Return the passes of some nodes, arguments first; alone: with nothing of other periods."""
        rings = tuple(rings)
        reached = nodes if alone else tuple(reach(nodes))
        every = Plan(reached, self._state, results=reached)
        stateful = tuple(node for node in nodes if type(node).commit is not Node.commit)
        carried = reach([*stateful, *(ring.node for ring in rings)])
        needed = [node for node in every.nodes if node in carried]
        return Passes(every, Plan(needed, self._state, results=needed), stateful, rings)


class Graph:
    """Every formula's nodes. Not safe for concurrent use: one thread owns it.

    window: how many bars of the raw fields C O H L V AMO each bar period keeps, for windows over them and for `warm`.
    """

    def __init__(self, state: StateTable, source: FieldSource, *, window: int = 250) -> None:
        self._state = state
        self._source = source
        self._window = window
        self._layers: dict[str, Layer] = {}
        self._sampler = Sampler(source)

    def add(
        self,
        expr: Expr,
        *,
        period: str,
        names: Mapping[str, Expr] | None = None,
        cap: int = DEFAULT_CAP,
        closed: bool = False,
    ) -> Node:
        """Compile an expression to its node, sharing what is there.

        names: the local names it may use, in the order of their statements, each using earlier ones alone; cap: the
        longest window of series length, in bars; closed: values of longer periods are those of the last closed bar
        (rules of eval: bar_close), not those with the forming bar.

        Raises RuleError for what can't be compiled.
        """
        compiler = Compiler(self, period, Reading(cap, closed))
        for name in names_used(expr, names or {}):
            compiler.name(name, (names or {})[name])
        return compiler.node(expr)

    def add_formula(
        self, formula: Formula, *, period: str, cap: int = DEFAULT_CAP, closed: bool = False
    ) -> tuple[Node, dict[str, Node]]:
        """Compile a formula: its condition as a TRUTH node, and its named outputs by the name as written.

        cap and closed are those of `add`.
        """
        layer = self.layer(period)
        compiler = Compiler(self, period, Reading(cap, closed))
        values = [compiler.name(statement.name, statement.expr) for statement in formula.statements]
        outputs: dict[str, Node] = {
            statement.written: value
            for statement, value in zip(formula.statements, values, strict=True)
            if statement.binding is Binding.OUTPUT
        }
        return layer.truth(values[formula.condition]), outputs

    def find(
        self,
        expr: Expr,
        *,
        period: str,
        names: Mapping[str, Expr] | None = None,
        cap: int = DEFAULT_CAP,
        closed: bool = False,
    ) -> Node | None:
        """Return the node of an expression if it is there, None if it would have to be made; see `add`."""
        layers = tuple(self._layers.values())
        for layer in layers:
            layer.sealed = True
        try:
            return self.add(expr, period=period, names=names, cap=cap, closed=closed)
        except RuleError:
            return None
        finally:
            for layer in layers:
                layer.sealed = False

    def plan(self, nodes: Iterable[Node]) -> Plan:
        """Return the pass that evaluates these nodes and what they need, of whatever periods that is."""
        results = tuple(nodes)
        return Plan(tuple(reach(results)), self._state, results=results)

    def commit(self, period: str, at: IntArray, *, values: bool = True) -> None:
        """Close the bar of `period` for symbols `at`, each at most once, with the forming columns as its final values.

        values: until the next pass each node's `value` is that of the closed bar; without, that is not so.
        """
        layer = self._layers.get(period)
        if layer is not None and at.size:
            layer.commit(at, values=values)

    def remove_unused(self, keep: Iterable[Node]) -> None:
        """Drop the nodes that none of these reads; the others keep their state."""
        kept = reach(keep)
        for layer in self._layers.values():
            layer.keep(set(kept) | {ring.node for ring in layer.history.values()})
        self._sampler.keep({(period, key) for period, layer in self._layers.items() for key in layer.nodes})

    def pass_time(self, before_ms: int, now_ms: int, *, halted: BoolArray) -> None:
        """Let the market clock go from one second to another: slots of RISE, HIGHS and LOWS end.

        Called at each new clock second, before its ticks, with the clock as it was. halted: (n,) which symbols do not
        trade; to them the time is a gap.
        """
        layer = self._layers.get(SLOT_LAYER)
        if layer is None or not layer.nodes:
            return
        passed = slots_passed(before_ms, now_ms)
        if passed is None:
            begins_ms = stretch_begins_ms(before_ms, now_ms)
            # A gap that was marked on the way here is one still.
            layer.break_off(np.clip(layer.broken_ms.array, begins_ms, next_slot_ms(now_ms)))
        for _ in range(passed or 0):
            layer.commit_all()
        if passed != 0 and halted.any():
            layer.break_off(next_slot_ms(now_ms), np.flatnonzero(halted))

    def break_off(self, now_ms: int) -> None:
        """Forget what RISE, HIGHS and LOWS know: ticks before this time are missing (a feed's gap, a silence's end)."""
        layer = self._layers.get(SLOT_LAYER)
        if layer is not None:
            layer.break_off(next_slot_ms(now_ms))

    @property
    def wants_seconds(self) -> bool:
        """Whether a node depends on the clock's seconds: `pass_time` and `sample_others` must see every one."""
        layer = self._layers.get(SLOT_LAYER)
        return bool(self._sampler) or (layer is not None and bool(layer.nodes))

    def sample_others(self) -> None:
        """Take over the words of other symbols: at each new clock second, after bars have closed, before its ticks."""
        self._sampler.take()

    def bars_seen(self, period: str, row: int) -> int:
        """Return how many bars of a period the symbol of this row has committed."""
        layer = self._layers.get(period)
        return 0 if layer is None else int(layer.rings.counts.array[row])

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Return the layer of each period there is."""
        return self._layers

    def warmup(self, node: Node) -> int:
        """Return the committed bars needed before the first valid value of this node."""
        return node.warmup

    def nodes(self, period: str) -> tuple[Node, ...]:
        """Return the nodes of a period, arguments first."""
        layer = self._layers.get(period)
        return () if layer is None else tuple(layer.nodes.values())

    def warm(self, period: str, bars: Mapping[str, FloatArray] | None = None) -> None:
        """Catch up nodes that were added while `period` already had bars; call it before the next commit.

        bars: C O H L V AMO, each (k, n) oldest first, the newest row being each symbol's last committed bars, NaN in C
        where a symbol has no such bar. None: the bars kept here (`history`). Older nodes keep their state.
        """
        layer = self._layers.get(period)
        if layer is not None and layer.is_late:
            layer.warm(bars if bars is not None else self.history(period) if layer.history else {})

    def history(self, period: str) -> Mapping[str, FloatArray]:
        """Return the kept bars of a period by field and END, each (window, n) oldest first, NaN where is none."""
        return _KeptBars(self._layers[period].history)

    def layer(self, period: str) -> Layer:
        """Return the layer of a period, made if there is none."""
        if period not in self._layers:
            if any(layer.sealed for layer in self._layers.values()):
                raise RuleError(f"there are no nodes of period {period}")
            self._layers[period] = Layer(self._state, self._source, period, window=self._window)
        return self._layers[period]

    def sampled(self, period: str, symbol: str, word: str) -> Value:
        """Return the node of another symbol's word, as of the last second."""
        layer, key = self.layer(period), f'"{symbol}${word}"'
        if key in layer.nodes:
            return layer.nodes[key]
        if layer.sealed:
            raise RuleError(f"{key} is not among the nodes")
        sample = self._sampler.claim(self._state, period, symbol=symbol, word=word, key=key)
        return layer.share(Field(key, sample, period=period))


class _KeptBars(Mapping[str, FloatArray]):
    """What rings hold, put in order when it is asked for: 10 MB a word, and few are."""

    def __init__(self, rings: Mapping[str, Ring]) -> None:
        self._rings = rings

    def __getitem__(self, word: str) -> FloatArray:
        ring = self._rings[word]
        return np.stack(list(ring.rows(ALL, ring.depth)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rings)

    def __len__(self) -> int:
        return len(self._rings)


def reach(nodes: Iterable[Node]) -> dict[Node, None]:
    """Return these nodes and all they read, each behind its arguments and as near to its reader as may be."""
    found: dict[Node, None] = {}
    stack = [(node, False) for node in reversed(tuple(nodes))]
    while stack:
        node, ready = stack.pop()
        if node in found:
            continue
        if ready:
            found[node] = None
        else:
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
    return found
