"""What `check` warns of about receivers: rules that none is told of, filters and routes that no rule can reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from config.loading import Loaded, text_of
from config.origins import origin_of
from config.places import place_in_table
from feeds.instruments import Instrument
from feeds.sessions import Calendar
from monitord.commands import CommandError
from monitord.routing import build_routing
from notifiers.errors import DeliveryError
from notifiers.filters import AlertFilter
from notifiers.reach import Unreached, unheard, unreachable, unreached
from notifiers.routing import Routing
from rules.alert import Event
from rules.errors import Finding, RuleError
from rules.rule import Rule, RuleSet
from rules.rulefile import load

_ROUTES = ("notify", "routes")


def receiver_lints(rules: RuleSet, loaded: Loaded, instruments: Sequence[Instrument]) -> list[Finding]:
    """Return the warnings about these rules and the receivers of the settings.

    A receiver's filters are judged by these rules and those of the settings together: it is no mistake to check but one
    of the files. Where those of the settings can't be read, nobody can tell.
    """
    filters = {
        one.name: AlertFilter(
            events=tuple(map(Event, one.events)), rules=one.rules, symbols=one.symbols, severities=one.severities
        )
        for one in loaded.settings.notify.receivers()
    }  # fmt: skip
    if not filters:
        return []
    routing = _routing(loaded)
    deaf = [*_halved(loaded), *unheard(rules, filters, routing=routing, instruments=instruments)]
    others = _configured_rules(loaded)
    if others is None:
        return deaf
    every = {rule.id: rule for rule in (*others, *rules.rules)}
    found = unreached(tuple(every.values()), filters, instruments=instruments)
    astray = unreachable(tuple(every.values()), routing, instruments=instruments)
    return [
        *deaf,
        *(_finding(one, loaded) for one in found),
        *(_placed(loaded, _ROUTES, one.number, f"route {one.route}: {one.message}", hint=one.hint) for one in astray),
    ]


def _halved(loaded: Loaded) -> list[Finding]:
    """Return a warning for each inhibition, where several engines share the rules and so what receivers are told."""
    share = loaded.settings.engine.share
    if not share:
        return []
    message = (
        f"with engine.share = {share} each process hands on a part of the alerts, and an alert that another one has "
        "handed on withholds none here"
    )
    hint = "name the receivers in the settings of one of the processes alone: it then reads every alert of all shares"
    return [
        _placed(loaded, ("notify", "inhibits"), number, f"inhibition {one.name}: {message}", hint=hint)
        for number, one in enumerate(loaded.settings.notify.inhibits)
    ]


def _routing(loaded: Loaded) -> Routing:
    """Return the routes of the settings; raises CommandError where they cannot be. When it is quiet matters not."""
    try:
        return build_routing(loaded.settings.notify, Calendar(()))
    except DeliveryError as error:
        raise CommandError(str(error)) from None


def _configured_rules(loaded: Loaded) -> tuple[Rule, ...] | None:
    """Return the rules the daemon would run, None where it could not."""
    try:
        return load(loaded.settings.rules.texts()).rules
    except (OSError, UnicodeDecodeError, RuleError):
        return None


def _finding(one: Unreached, loaded: Loaded) -> Finding:
    path, number = _place_of(one.receiver, loaded)
    message = f"receiver {one.receiver}: {one.message}"
    return _placed(loaded, path, number, message, hint=one.hint, key=one.field, value=one.value)


def _place_of(receiver: str, loaded: Loaded) -> tuple[tuple[str, str], int]:
    """Return the setting whose list holds the receiver, and where in the list it stands."""
    return next(
        (("notify", key), number)
        for key, receivers in loaded.settings.notify.lists().items()
        for number, one in enumerate(receivers)
        if one.name == receiver
    )


def _placed(
    loaded: Loaded,
    path: tuple[str, ...],
    number: int,
    message: str,
    *,
    hint: str,
    key: str | None = None,
    value: str | None = None,
) -> Finding:
    """Place a complaint in the TOML file; where it is not from there, its source is all that can be named."""
    finding = Finding(origin_of(loaded.origins, path), 0, 0, message, "warning", hint=hint)
    text = text_of(loaded, path)
    if text is None:
        return finding
    place = place_in_table(text, ".".join(path), number, key=key, value=value)
    return replace(
        finding, file=str(loaded.file), line=place.line, column=place.column, source=place.source, width=place.width
    )
