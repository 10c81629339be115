"""Routes and inhibitions of the settings, as notifiers/routing.py takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from config.notify import InhibitSection, Match, NotifySection, RouteSection
from feeds.instruments import Board
from feeds.sessions import Calendar
from notifiers.errors import DeliveryError
from notifiers.inhibition import Inhibition
from notifiers.matching import Matcher
from notifiers.quiet import Quiet, QuietThen, windows_of
from notifiers.routing import Grouping, Route, Routing, all_routes
from rules.alert import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What a route has from those around it."""

    receivers: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    group_wait_s: float = 1.0
    group_interval_s: float = 30.0
    active: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    quiet_then: str = "digest"

    def within(self, section: RouteSection) -> _Around:
        """Return what holds inside of this route."""
        said = {name: getattr(section, name) for name in self.__dataclass_fields__}
        return replace(self, **{name: value for name, value in said.items() if value is not None})


def build_routing(section: NotifySection, calendar: Calendar | None = None) -> Routing:
    """Make the routing; raises DeliveryError that names the route or inhibition for what it cannot have.

    calendar: of the exchange, None = read it where a route has quiet hours, which takes about 1 s.
    """
    routes = tuple(
        _route(one, _Around(), place=str(number), calendar=calendar) for number, one in enumerate(section.routes, 1)
    )
    names = [route.name for route in all_routes(routes)]
    for name in names:
        if names.count(name) > 1:
            raise DeliveryError(f"notify.routes: two routes are named {name!r}; give each its own name")
    return Routing(routes=routes, inhibitions=tuple(_inhibition(one) for one in section.inhibits))


def matcher_of(section: Match) -> Matcher:
    """Make a matcher; raises ValueError for a board there is not."""
    return Matcher(
        rules=section.rules, symbols=section.symbols, boards=tuple(map(Board, section.boards)),
        sectors=section.sectors, severities=section.severities, events=tuple(map(Event, section.events)),
        labels=tuple(section.labels.items()), include=section.include, exclude=section.exclude,
    )  # fmt: skip


def _route(section: RouteSection, around: _Around, *, place: str, calendar: Calendar | None) -> Route:
    name = section.name or place
    here = around.within(section)
    try:
        return Route(
            name=name, matcher=matcher_of(section), receivers=here.receivers, goes_on=section.goes_on,
            grouping=_grouping(here), quiet=_quiet(here, calendar),
            routes=tuple(
                _route(one, here, place=f"{place}.{number}", calendar=calendar)
                for number, one in enumerate(section.routes, 1)
            ),
        )  # fmt: skip
    except (DeliveryError, ValueError) as error:
        said = str(error)
        raise DeliveryError(said if said.startswith("notify.") else f"notify.routes: route {name}: {said}") from None


def _grouping(here: _Around) -> Grouping | None:
    if not here.group_by:
        return None
    return Grouping(
        by=here.group_by, wait_ms=round(here.group_wait_s * 1000), interval_ms=round(here.group_interval_s * 1000)
    )


def _quiet(here: _Around, calendar: Calendar | None) -> Quiet | None:
    if not here.active and not here.quiet:
        return None
    build = partial(Quiet, active=windows_of(here.active), hours=windows_of(here.quiet))
    return build(calendar=calendar or Calendar.xshg(), then=QuietThen(here.quiet_then))


def _inhibition(section: InhibitSection) -> Inhibition:
    try:
        return Inhibition(
            name=section.name, source=matcher_of(section.source), target=matcher_of(section.target),
            equal=section.equal, hold_ms=round(section.hold_s * 1000),
        )  # fmt: skip
    except ValueError as error:
        raise DeliveryError(f"notify.inhibits: {section.name}: {error}") from None
