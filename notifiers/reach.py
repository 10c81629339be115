"""Warnings about who is told: rules that reach no receiver, filters and routes that no rule can reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from feeds.instruments import Instrument
from notifiers.filters import AlertFilter, AlertSource
from notifiers.matching import Reach
from notifiers.routing import DELIVERY_RULE, NO_ROUTING, Route, Routing
from rules.alert import Event
from rules.errors import Finding
from rules.language.syntax import did_you_mean
from rules.places import places_of
from rules.reporter import FEED_RULE
from rules.rule import Rule, RuleSet, events_of

_NO_NEWS: Final = frozenset({Event.SUPPRESSED, Event.NODATA, Event.FLAPPING, Event.EXPIRED})
"""Events that don't say what the rule watches for: who gets these alone is not told of it."""
_OF_FEED: Final = AlertSource(
    rule=FEED_RULE, severity="warning", events=(Event.NODATA, Event.RESOLVE), concerns=lambda symbol: False,
    has_symbols=False,
)  # fmt: skip
_OF_RECEIVERS: Final = replace(_OF_FEED, rule=DELIVERY_RULE, events=(Event.FIRE, Event.RESOLVE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreached:
    """A receiver that asks in vain. field, value: the filter that does, None where only all of them together do."""

    receiver: str
    field: str | None = None
    value: str | None = None
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A route that no alert takes; number: of the outermost route around it, from 0."""

    route: str
    number: int
    message: str
    hint: str


def unheard(
    rules: RuleSet,
    filters: Mapping[str, AlertFilter],
    *,
    routing: Routing = NO_ROUTING,
    instruments: Sequence[Instrument] = (),
) -> list[Finding]:
    """Return a warning for each rule of which no receiver (name → filter) is told; none where there is no receiver.

    instruments: those there are, () = not known; a name or sector nobody knows may be any.
    """
    known = {instrument.symbol: instrument for instrument in instruments}
    deaf = [rule for rule in rules.rules if not _is_heard(_source(rule, known), filters, routing)] if filters else []
    places = places_of(rules) if deaf else {}
    or_route = " or a route" if routing.routes else ""
    through = "no route and no receiver's filters let" if routing.routes else "no receiver's filters let"
    return [
        places[rule.id].warning(
            "id", f"{through} its alerts through",
            hint=f"loosen a filter of {', '.join(filters)}{or_route}; clients of the gateway are told all the same",
        )
        for rule in deaf
    ]  # fmt: skip


def unreached(
    rules: Sequence[Rule], filters: Mapping[str, AlertFilter], *, instruments: Sequence[Instrument] = ()
) -> list[Unreached]:
    """Return what is wrong with the receivers' filters, given all the rules that run."""
    known = {instrument.symbol: instrument for instrument in instruments}
    sources = [_OF_FEED, _OF_RECEIVERS, *(_source(rule, known) for rule in rules)]
    return [found for name, one in filters.items() for found in _of_receiver(name, one, sources)]


def unreachable(
    rules: Sequence[Rule], routing: Routing, *, instruments: Sequence[Instrument] = ()
) -> list[Unreachable]:
    """Return the routes that no alert of these rules, of the feed or of receivers can take, the outermost only."""
    known = {instrument.symbol: instrument for instrument in instruments}
    sources = [_OF_FEED, _OF_RECEIVERS, *(_source(rule, known) for rule in rules)]
    moments = [(source, event) for source in sources for event in source.events]
    reached = {id(route) for source, event in moments for route in reachable(routing.routes, source, event)[0]}
    return [
        found for number, route in enumerate(routing.routes) for found in _unreachable(route, number, moments, reached)
    ]


def reachable(routes: Sequence[Route], source: AlertSource, event: Event) -> tuple[list[Route], bool]:
    """Return the routes by which such an event may go, and whether one of these routes surely matches it."""
    found: list[Route] = []
    surely = False
    for route in routes:
        reach = route.matcher.reach(source, event)
        if reach is Reach.NEVER:
            continue
        inside, taken_inside = reachable(route.routes, source, event)
        found += inside if taken_inside else [*inside, route]
        if reach is Reach.ALWAYS:
            surely = True
            if not route.goes_on:
                break
    return found, surely


def _unreachable(
    route: Route, number: int, moments: Sequence[tuple[AlertSource, Event]], reached: set[int]
) -> Iterator[Unreachable]:
    """Yield what is wrong; moments: the events that get as far as the route around it."""
    matching = [(source, event) for source, event in moments if route.matcher.reach(source, event) is not Reach.NEVER]
    if _is_reached(route, reached):
        for one in route.routes:
            yield from _unreachable(one, number, matching, reached)
        return
    if matching:
        message = "routes before it take all of its alerts"
        hint = "put it before them, or let them say continue = true"
    else:
        message, hint = "no rule has alerts that match it", "loosen what it asks for, or remove it"
    yield Unreachable(route=route.name, number=number, message=message, hint=hint)


def _is_reached(route: Route, reached: set[int]) -> bool:
    return id(route) in reached or any(_is_reached(one, reached) for one in route.routes)


def _source(rule: Rule, known: Mapping[str, Instrument]) -> AlertSource:
    return AlertSource(
        rule=rule.id, severity=rule.severity, events=events_of(rule), concerns=partial(_may_watch, rule, known),
        labels=dict(rule.labels), has_symbols=rule.over is None,
    )  # fmt: skip


def _may_watch(rule: Rule, known: Mapping[str, Instrument], symbol: str) -> bool:
    if rule.over is not None:
        return False
    select, instrument = rule.select, known.get(symbol)
    if instrument is None or (select.names and instrument.name is None) or (select.sectors and not instrument.sectors):
        return select.may_cover(symbol)
    return select.book is not None or select.covers(instrument)


def _is_heard(source: AlertSource, filters: Mapping[str, AlertFilter], routing: Routing) -> bool:
    return any(
        filters[name].may_pass(replace(source, events=(event,)))
        for event in source.events
        if event not in _NO_NEWS
        for name in _led_to(source, event, filters, routing)
    )


def _led_to(source: AlertSource, event: Event, filters: Mapping[str, AlertFilter], routing: Routing) -> Iterator[str]:
    """Yield the receivers that routes may lead to, and those that none names."""
    named = routing.named
    led = {name for route in reachable(routing.routes, source, event)[0] for name in route.receivers}
    yield from (name for name in filters if name not in named or name in led)


def _of_receiver(name: str, wanted: AlertFilter, sources: Sequence[AlertSource]) -> Iterator[Unreached]:
    """Yield each value that asks in vain by itself; where none does, that they do so together."""
    alone = [*_rules(name, wanted, sources), *_symbols(name, wanted, sources), *_severities(name, wanted, sources)]
    yield from alone
    if not alone and not any(wanted.may_pass(source) for source in sources):
        yield Unreached(
            receiver=name, message="no rule gets through all of its filters",
            hint="loosen events, rules, symbols or severities",
        )  # fmt: skip


def _rules(name: str, wanted: AlertFilter, sources: Sequence[AlertSource]) -> Iterator[Unreached]:
    known = [source.rule for source in sources]
    for rule in wanted.rules:
        if rule not in known:
            hint = did_you_mean(rule, known) or "`monitord check` without files checks those the settings name"
            yield Unreached(receiver=name, field="rules", value=rule, message=f"there is no rule {rule!r}", hint=hint)


def _symbols(name: str, wanted: AlertFilter, sources: Sequence[AlertSource]) -> Iterator[Unreached]:
    for symbol in wanted.symbols:
        if not any(source.concerns(symbol) for source in sources):
            message = f"no rule watches {symbol}"
            yield Unreached(
                receiver=name, field="symbols", value=symbol, message=message, hint="select it in a rule, or remove it"
            )


def _severities(name: str, wanted: AlertFilter, sources: Sequence[AlertSource]) -> Iterator[Unreached]:
    known = sorted({source.severity for source in sources})
    for severity in wanted.severities:
        if severity not in known:
            yield Unreached(
                receiver=name, field="severities", value=severity, message=f"no rule has the severity {severity!r}",
                hint=f"there are {', '.join(known)}",
            )  # fmt: skip
