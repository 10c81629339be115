"""What `check` warns of about receivers: rules that none is told of, filters and routes that no rule can reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_PATH = ("notify", "webhooks")
_ROUTES = ("notify", "routes")


def receiver_lints(rules: RuleSet, loaded: Loaded, instruments: Sequence[Instrument]) -> list[Finding]:
    """Return the warnings about these rules and the receivers of the settings.

    A receiver's filters are judged by these rules and those of the settings together: it is no mistake to check but one
    of the files. Where those of the settings can't be read, nobody can tell.
    """
    filters = {
        webhook.name: AlertFilter(
            events=tuple(map(Event, webhook.events)), rules=webhook.rules, symbols=webhook.symbols,
            severities=webhook.severities,
        )
        for webhook in loaded.settings.notify.webhooks
    }  # fmt: skip
    if not filters:
        return []
    routing = _routing(loaded)
    deaf = unheard(rules, filters, routing=routing, instruments=instruments)
    others = _configured_rules(loaded)
    if others is None:
        return deaf
    every = {rule.id: rule for rule in (*others, *rules.rules)}
    numbers = {name: number for number, name in enumerate(filters)}
    found = unreached(tuple(every.values()), filters, instruments=instruments)
    astray = unreachable(tuple(every.values()), routing, instruments=instruments)
    return [
        *deaf,
        *(_finding(one, loaded, numbers) for one in found),
        *(_placed(loaded, _ROUTES, one.number, f"route {one.route}: {one.message}", hint=one.hint) for one in astray),
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


def _finding(one: Unreached, loaded: Loaded, numbers: Mapping[str, int]) -> Finding:
    number, message = numbers[one.receiver], f"receiver {one.receiver}: {one.message}"
    return _placed(loaded, _PATH, number, message, hint=one.hint, key=one.field, value=one.value)


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
