"""Routes: who is told of an alert, together with which others, and when. Pure; the time is an argument.

Routes are tried in order. The first that matches is taken, and the later ones only if it says `continue`. Of a route
with routes inside, the first of those that matches is taken instead of it. A receiver that no route names is told of
all that its own filters let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from notifiers.errors import DeliveryError
from notifiers.inhibition import Inhibition, Inhibitor
from notifiers.matching import EVERYTHING, Known, Matcher, check_words, nothing_known, value_of
from notifiers.notifier import BundleKind
from notifiers.quiet import Quiet, QuietThen
from notifiers.silences import Silences
from rules.alert import Alert, identity

DELIVERY_RULE: Final = "delivery"
"""Rule id of the events of receivers' health; its label `receiver` says whose."""
RECEIVER_LABEL: Final = "receiver"
DELIVER_LABEL, NEVER = "deliver", "never"
"""A rule whose label says so is recorded and streamed, and no receiver is told."""
ALL: Final = "all"
"""In `group_by`: whatever the route takes is one group."""
LONGEST_WAIT_MS: Final = 3_000
LONGEST_INTERVAL_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Alerts with the same words (`value_of`) are told in one message.

    wait_ms      from a group's first alert until it is told, 0 to LONGEST_WAIT_MS.
    interval_ms  at least so long between two messages of one group. Raises DeliveryError.
    """

    by: tuple[str, ...]
    wait_ms: int = 1_000
    interval_ms: int = 30_000

    def __post_init__(self) -> None:
        check_words("group_by", self.by, besides=(ALL,))
        if not 0 <= self.wait_ms <= LONGEST_WAIT_MS:
            raise DeliveryError("group_wait_s: an alert may wait 0 to 3 s for others of its group")
        if not 0 <= self.interval_ms <= LONGEST_INTERVAL_MS:
            raise DeliveryError("group_interval_s: is 0 to 86400 s")

    def values(self, alert: Alert) -> tuple[str, ...]:
        """Return what makes the alert's group."""
        return tuple("" if word == ALL else value_of(alert, word) for word in self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where alerts that match go. goes_on: later routes are tried too; receivers: names, () = nobody is told."""

    name: str
    matcher: Matcher = EVERYTHING
    receivers: tuple[str, ...] = ()
    goes_on: bool = False
    grouping: Grouping | None = None
    quiet: Quiet | None = None
    routes: tuple[Route, ...] = ()


PLAIN: Final = Route(name="")
"""What a receiver has that no route names."""


def taken(routes: Sequence[Route], matches: Callable[[Matcher], bool]) -> list[Route]:
    """Return the routes that are taken, in order."""
    found: list[Route] = []
    for route in routes:
        if matches(route.matcher):
            found += taken(route.routes, matches) or [route]
            if not route.goes_on:
                break
    return found


def all_routes(routes: Sequence[Route]) -> Iterator[Route]:
    """Yield routes and those inside of them, each before its own."""
    for route in routes:
        yield route
        yield from all_routes(route.routes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where an alert waits for others to be told with it.

    key      of the group or quiet hours, for its receiver; begins with the kind and a colon.
    due_ms   Unix ms at which it is told; None: as wait_ms, interval_ms and the group's last message say.
    """

    key: str
    due_ms: int | None = None
    wait_ms: int = 0
    interval_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What becomes of an alert for one receiver: withheld (and why), in a bucket, or told by itself and at once."""

    route: str = ""
    withheld: str | None = None
    bucket: Bucket | None = None


def bundle_kind(key: str) -> BundleKind:
    """Return what the alerts of a bucket are told as."""
    return BundleKind(key.partition(":")[0])


def group_due_ms(bucket: Bucket, now_ms: int, *, open_ms: int | None, told_ms: int | None) -> int:
    """Return when an alert that comes into a bucket now is told.

    open_ms: when those are that wait there, None if nobody does; told_ms: when the group was told last, None = never.
    """
    if bucket.due_ms is not None:
        return bucket.due_ms
    longest_ms = max(bucket.wait_ms, bucket.interval_ms)
    if open_ms is not None and open_ms - now_ms <= longest_ms:  # longer: the wall clock was set back
        return open_ms
    after_ms = now_ms + bucket.wait_ms
    if told_ms is None or told_ms > now_ms:  # told in the future: the wall clock was set back
        return after_ms
    return max(after_ms, told_ms + bucket.interval_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """All that is configured about who is told."""

    routes: tuple[Route, ...] = ()
    inhibitions: tuple[Inhibition, ...] = ()

    @property
    def named(self) -> frozenset[str]:
        """The receivers that routes name."""
        return frozenset(name for route in all_routes(self.routes) for name in route.receivers)


NO_ROUTING: Final = Routing()


class Router:
    """Places alerts for one receiver, in the order of the stream."""

    def __init__(
        self,
        receiver: str,
        routing: Routing = NO_ROUTING,
        *,
        silences: Silences | None = None,
        known: Known = nothing_known,
        of_people: bool = True,
    ) -> None:
        """of_people: whether people are told; a program is told also where a rule's label spares people."""
        self._of_people = of_people
        self._receiver, self._routes, self._known = receiver, routing.routes, known
        self._is_named = receiver in routing.named
        self._silences = silences or Silences()
        self.inhibitor = Inhibitor(routing.inhibitions, known)

    def route(self, alert: Alert) -> Route | None:
        """Return the route by which the alert comes to the receiver, None if by none."""
        if alert.rule == DELIVERY_RULE and alert.labels.get(RECEIVER_LABEL) == self._receiver:
            return None  # who fails cannot be told so; without this the news would fail too, and be news again
        if not self._is_named:
            return PLAIN
        chosen = taken(self._routes, lambda matcher: matcher.matches(alert, self._known))
        return next((route for route in chosen if self._receiver in route.receivers), None)

    def place(self, alert: Alert, now_ms: int) -> Placement | None:
        """Return what becomes of an alert that comes now, None where it is not for this receiver.

        Every alert of the stream has to be given to `inhibitor.note` before, wanted or not.
        """
        route = self.route(alert)
        if route is None:
            return None
        why = self._silences.why(alert, now_ms, self._known) or self.inhibitor.why(alert)
        if self._of_people and alert.labels.get(DELIVER_LABEL) == NEVER:
            why = f"the rule's label {DELIVER_LABEL}: {NEVER}"
        if why is not None:
            return Placement(route=route.name, withheld=why)
        if route.quiet is not None and route.quiet.is_quiet(now_ms):
            return _in_quiet_hours(route, route.quiet, now_ms)
        return Placement(route=route.name, bucket=None if route.grouping is None else _group(route, alert))


def _in_quiet_hours(route: Route, quiet: Quiet, now_ms: int) -> Placement:
    until_ms = quiet.ends_ms(now_ms)
    if quiet.then is QuietThen.DROP or until_ms is None:
        return Placement(route=route.name, withheld=f"quiet hours of route {route.name}")
    bucket = Bucket(key=f"{BundleKind.DIGEST}:{identity(route.name)}", due_ms=until_ms)
    return Placement(route=route.name, bucket=bucket)


def _group(route: Route, alert: Alert) -> Bucket:
    grouping = route.grouping
    assert grouping is not None
    key = f"{BundleKind.GROUP}:{identity(route.name, *grouping.values(alert))}"
    return Bucket(key=key, wait_ms=grouping.wait_ms, interval_ms=grouping.interval_ms)
