"""Why a rule says what it says of a symbol, and why not: scope, session, arming, counts, and its condition's parts.

Reads an engine between two inputs and changes nothing. On period tick the latest tick has been sampled already, so the
values are those of that tick coming once more: a CROSS that has just happened shows as 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from feeds.instruments import Board, Instrument, board_of, instrument_of
from feeds.sessions import in_session
from rules.alert import shanghai_iso
from rules.engine import Engine, Parts
from rules.errors import RuleError
from rules.evaluate import as_floats
from rules.expectation import clock_text
from rules.graph import reach
from rules.language.text import normal
from rules.language.tree import Expr, Formula, Name, Number, Text, children
from rules.lifecycle import Record
from rules.meaning import renamed, renamed_expr
from rules.message import UNKNOWN, number_text
from rules.node import Node, Truth, is_tick
from rules.program import EdgeGroup, Slot, layer_of, local_names, names_given
from rules.rule import Rule
from rules.selector import Selector
from rules.timers import advance


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-expression and its value now: a number, a truth, None = unknown. `depth` of indentation, from 0."""

    text: str
    value: float | bool | None
    depth: int
    known: bool = True
    """False: the graph evaluates it within a larger expression only."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """Bars of a period that the condition needs before its first value, and how many the symbol has."""

    period: str
    needed: int
    there: int


@dataclass(frozen=True, slots=True)
class LegExplanation:
    """One leg of a rule for one symbol.

    phase: not started, armed or disarmed; idle, pending, firing or muted. holds_back: why a fire now would not be sent.
    timer: what runs, and when it ends if nothing stands still. sent_today, held_back: fires since the day began, and
    since the last one sent.
    """

    leg: str | None
    condition: tuple[Part, ...]
    rearm: tuple[Part, ...]
    warmup: tuple[Warmup, ...]
    phase: str
    timer: str | None
    holds_back: str | None
    sent_today: int
    held_back: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule and a symbol at `clock` (Shanghai time). not_watched, not_sampled: why not, None where it is.

    last: the latest events of the rule for the symbol as their records, newest first.
    """

    rule: str
    symbol: str
    name: str | None
    clock: str | None
    not_watched: str | None
    not_sampled: str | None
    tick: Mapping[str, float | int | None] | None
    legs: tuple[LegExplanation, ...]
    last: tuple[Mapping[str, Any], ...] = ()

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Explanation:
        """Build from what `record` returned; raises TypeError or KeyError for anything else."""
        legs = tuple(
            LegExplanation(
                **{
                    **leg,
                    "condition": tuple(Part(**part) for part in leg["condition"]),
                    "rearm": tuple(Part(**part) for part in leg["rearm"]),
                    "warmup": tuple(Warmup(**need) for need in leg["warmup"]),
                }
            )
            for leg in record["legs"]
        )
        return cls(**{**record, "legs": legs, "last": tuple(record["last"])})


def explain(engine: Engine, rule_id: str, symbol: str, *, last: Sequence[Mapping[str, Any]] = ()) -> Explanation:
    """Explain a rule for a symbol; raises RuleError if there is no such rule."""
    rule = next((rule for rule in engine.rules.rules if rule.id == rule_id), None)
    if rule is None:
        raise RuleError(f"there is no rule {rule_id!r}")
    market, parts = engine.market, engine.parts()
    row = market.universe.row(symbol)
    instrument = market.instruments.get(symbol) or instrument_of(symbol)
    unwatched = why_not_watched(rule.select, instrument, market.books.held)
    slots = [slot for slot in parts.slots if slot.rule.id == rule_id and rule.over is None]
    legs = () if row is None else tuple(_leg(engine, parts, slot, row, symbol) for slot in slots)
    return Explanation(
        rule=rule_id, symbol=symbol, name=instrument.name,
        clock=shanghai_iso(market.clock_ms)[:19].replace("T", " ") if market.clock_ms else None,
        not_watched=unwatched, not_sampled=_why_not_sampled(engine, parts, rule, row),
        tick=None if row is None else market.quote(row), legs=legs, last=tuple(last),
    )  # fmt: skip


# ── scope and session ─────────────────────────────────────────────────────────────────────────────────────────────


def why_not_watched(select: Selector, instrument: Instrument, held: Mapping[str, Any]) -> str | None:
    """Say why a selector does not cover an instrument, None if it does."""
    if select.covers(instrument, held):
        return None
    if select.book is not None:
        return f"the book {select.book} does not hold it"
    for wanted, matches in _kinds(select, instrument):
        if not matches:
            return f"select wants {wanted}"
    return "select excludes it"


def _kinds(select: Selector, instrument: Instrument) -> Iterator[tuple[str, bool]]:
    """Yield each kind of condition in words, and whether the instrument meets it."""
    board = board_of(instrument.symbol) if instrument.board is Board.UNKNOWN else instrument.board
    if select.symbols:
        yield f"one of {len(select.symbols)} symbols", instrument.symbol in select.symbols
    if select.globs:
        yield f"a symbol like {', '.join(select.globs)}", Selector(globs=select.globs).covers(instrument)
    if select.boards:
        yield f"board {', '.join(sorted(select.boards))}; this is {board}", board in select.boards
    if select.names:
        called = instrument.name or "not known"
        yield (
            f"a name like {', '.join(select.names)}; this is {called}",
            Selector(names=select.names).covers(instrument),
        )
    if select.sectors:
        within = ", ".join(instrument.sectors) or "none known"
        wanted = f"sector {', '.join(sorted(select.sectors))}; this is in {within}"
        yield wanted, not select.sectors.isdisjoint(instrument.sectors)


def _why_not_sampled(engine: Engine, parts: Parts, rule: Rule, row: int | None) -> str | None:
    """Say why the rule is not evaluated for the symbol now, None if it is."""
    market = engine.market
    if rule.over is not None:
        return "the rule is over groups of symbols, and its events name the group"
    if row is None:
        return "no tick of it has come"
    if rule.expires_ms is not None and market.clock_ms >= rule.expires_ms:
        return "the rule has expired"
    if parts.reporter.silent_episode is not None:
        return "the feed is silent"
    if market.latest.halted()[row]:
        return "the symbol is halted"
    if not in_session(market.clock_ms, rule.session):
        return f"the time is outside {', '.join(rule.session)}"
    return None


# ── one leg ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _leg(engine: Engine, parts: Parts, slot: Slot, row: int, symbol: str) -> LegExplanation:
    rule, leg = slot.rule, slot.leg.name
    ledger = parts.reporter.ledger
    record = ledger.record(rule, symbol, leg=leg)
    moment = parts.reporter.moment(slot, row, max(engine.market.clock_ms, 0), None, timed=True)
    tree = _Tree(parts, slot, row)
    return LegExplanation(
        leg=leg,
        condition=tuple(tree.parts(slot.leg.when)),
        rearm=() if slot.leg.rearm is None else tuple(tree.parts(slot.leg.rearm)),
        warmup=tuple(_warmups(parts, slot, row)),
        phase=_phase(parts, slot, row),
        timer=_timer(parts, slot, symbol),
        holds_back=ledger.outlook(rule, symbol, leg=leg, moment=moment),
        sent_today=_sent_today(record, engine.market.day_number),
        held_back=record.held_back,
    )


def _sent_today(record: Record, day: int) -> int:
    return record.sent_that_day if record.sent_day == day else 0


def _phase(parts: Parts, slot: Slot, row: int) -> str:
    for group in parts.groups:
        if slot not in group.slots:
            continue
        place, byte, mask = group.slots.index(slot), row >> 3, 128 >> (row & 7)
        if isinstance(group, EdgeGroup):
            if not group.bits.started[place, byte] & mask:
                return "not started"
            return "armed" if group.bits.armed[place, byte] & mask else "disarmed"
        return group.bits.phase(place, row)
    raise AssertionError("every slot is in a group")


def _timer(parts: Parts, slot: Slot, symbol: str) -> str | None:
    timer = parts.episodes.timers.of((*slot.key, symbol))
    if timer is None:
        return None
    what = "for" if timer.purpose == "for" else "keep_firing"
    end_ms = advance(timer.since_ms, timer.length_ms, slot.rule.session)
    ends = "ends after this day" if end_ms is None else f"ends at {clock_text(end_ms)}"
    return f"{what} {timer.length_ms / 1000:g}s runs since {clock_text(timer.since_ms)}, {ends}"


def _warmups(parts: Parts, slot: Slot, row: int) -> Iterator[Warmup]:
    """Yield the need of each period the condition reads."""
    needed: dict[str, int] = {}
    for node in reach([slot.condition]):
        needed[node.period] = max(needed.get(node.period, 0), node.warmup)
    for period, bars in needed.items():
        if bars:
            yield Warmup("tick" if is_tick(period) else period, bars, parts.graph.bars_seen(period, row))


class _Tree:
    """A leg's formulas as indented parts, each with the value of its node."""

    def __init__(self, parts: Parts, slot: Slot, row: int) -> None:
        self._graph = parts.graph
        self._slot = slot
        self._row = np.array([row])

    def parts(self, formula: Formula) -> Iterator[Part]:
        """Yield the condition and what is in it, outermost first; a name's own expression below it, once."""
        given = names_given(self._slot.rule)
        names = local_names(renamed(formula, given))
        free = {name: column for name, column in given.items() if name not in names}
        own = local_names(formula)
        found: list[tuple[str, Expr, int, Node | None]] = []
        self._collect(formula.statements[formula.condition].expr, 0, own, set(), found)
        period = layer_of(self._slot.rule)
        nodes = [self._graph.find(renamed_expr(expr, free), period=period, names=names) for _, expr, _, _ in found]
        self._graph.plan([node for node in nodes if node is not None]).peek(self._row)
        for (text, _, depth, _), node in zip(found, nodes, strict=True):
            yield Part(text, None if node is None else _value(node), depth, node is not None)

    def _collect(
        self,
        expr: Expr,
        depth: int,
        own: Mapping[str, Expr],
        shown: set[str],
        found: list[tuple[str, Expr, int, Node | None]],
    ) -> None:
        if isinstance(expr, Number | Text):
            return
        text = normal(expr)
        below: tuple[Expr, ...] = children(expr)
        if isinstance(expr, Name) and expr.name in own:
            if expr.name not in shown and not isinstance(own[expr.name], Number):
                text = f"{text} = {normal(own[expr.name])}"
                below = children(own[expr.name])
            shown.add(expr.name)
        found.append((text, expr, depth, None))
        for child in below:
            self._collect(child, depth + 1, own, shown, found)


def _value(node: Node) -> float | bool | None:
    number = float(as_floats(node)[0])
    if np.isnan(number):
        return None
    return bool(number) if isinstance(node.value, Truth) else number


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────


def render(explanation: Explanation) -> str:
    """Return the explanation as text."""
    it = explanation
    lines = [f"rule {it.rule}, {it.symbol}" + (f" {it.name}" if it.name else "") + f", at {it.clock or 'the start'}"]
    lines.append(f"  watched: {'yes' if it.not_watched is None else f'no, {it.not_watched}'}")
    lines.append(f"  sampled: {'yes' if it.not_sampled is None else f'no, {it.not_sampled}'}")
    if it.tick is not None:
        shown = (f"{name} {_shown(it.tick[name])}" for name in ("last", "prev_close", "volume_lots", "amount_cny"))
        lines.append(f"  latest tick: {', '.join(shown)}")
    for leg in it.legs:
        lines += _leg_lines(leg)
    lines += [f"  {_event_line(record)}" for record in it.last]
    return "\n".join(lines)


def _leg_lines(leg: LegExplanation) -> Iterator[str]:
    yield "  condition" if leg.leg is None else f"  leg {leg.leg}: condition"
    yield from _tree_lines(leg.condition)
    if leg.rearm:
        yield "  rearm"
        yield from _tree_lines(leg.rearm)
    for need in leg.warmup:
        state = "warm" if need.there >= need.needed else "warming"
        yield f"  {state}: {need.there} of {need.needed} bars of {need.period}"
    yield f"  phase: {leg.phase}" + ("" if leg.timer is None else f"; {leg.timer}")
    outlook = "would be sent" if leg.holds_back is None else f"would be held back, {leg.holds_back}"
    yield f"  fires today: {leg.sent_today}, held back since: {leg.held_back}; one now {outlook}"


def _tree_lines(parts: Sequence[Part]) -> Iterator[str]:
    texts = ["  " * part.depth + part.text for part in parts]
    width = min(60, max(map(len, texts), default=0))
    for part, text in zip(parts, texts, strict=True):
        yield f"    {text:<{width}}  {_shown(part.value) if part.known else '(part of the above)'}"


def _shown(value: float | bool | None) -> str:
    if value is None:
        return f"{UNKNOWN} unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value)


def _event_line(record: Mapping[str, Any]) -> str:
    why = f" ({record['why']})" if record.get("why") else ""
    when = str(record["event_ts"])[:19].replace("T", " ")
    return f"{when} {record['event']}{why} {record.get('message') or ''}".rstrip()
