"""Settings of who is told of what: receivers, routes, inhibition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from config.receivers import (
    AppriseService,
    Bark,
    DingTalk,
    Email,
    Feishu,
    PushPlus,
    Receiver,
    RedisList,
    ServerChan,
    Tdx,
    Telegram,
    Webhook,
    WeCom,
)
from config.values import Events, Section, Words, complaint, tables


class Match(Section):
    """Which alerts: each condition that is given has to hold, and any of its entries will do."""

    rules: Words = ()  # globs, as symbols and severities
    symbols: Words = ()
    boards: Words = ()
    sectors: Words = ()
    severities: Words = ()
    events: Events = ()
    labels: dict[str, str] = Field(default_factory=dict)  # name → glob, all of them
    include: Words = ()  # the message has one of these texts in it
    exclude: Words = ()  # and none of these


class RouteSection(Match):
    """Where alerts that match go. A route inside has what it does not say itself from the one around it."""

    name: str = Field(default="", max_length=64)
    receivers: Words | None = None
    goes_on: bool = Field(default=False, alias="continue")  # try the later routes too
    group_by: Words | None = None  # one message for those with the same words; [] = each by itself
    group_wait_s: Annotated[float, Field(ge=0, le=3)] | None = None  # from a group's first alert to its message
    group_interval_s: Annotated[float, Field(ge=0, le=86_400)] | None = None  # between two messages of a group
    active: Words | None = None  # told only in these sessions and times of trading days, [] = always
    quiet: Words | None = None  # and not in these
    quiet_then: Literal["digest", "drop"] | None = None  # what becomes of those that come while it is quiet
    routes: tuple[RouteSection, ...] = ()


class InhibitSection(Section):
    """While an alert of source lasts, those of target with the same words are withheld."""

    name: str = Field(min_length=1, max_length=64)
    source: Match
    target: Match
    equal: Words = ("symbol",)
    hold_s: Annotated[float, Field(gt=0, le=86_400)] = 3_600.0  # at most so long after the source's fire


RULES_OF_TELLING = frozenset({"routes", "inhibits"})
"""What of the section is no list of receivers."""


class NotifySection(Section):
    """Who is told: a list of receivers for each kind, and who of them of what."""

    webhooks: Annotated[tuple[Webhook, ...], BeforeValidator(tables)] = ()  # receivers over HTTP
    dingtalk: Annotated[tuple[DingTalk, ...], BeforeValidator(tables)] = ()  # robots of DingTalk groups
    feishu: Annotated[tuple[Feishu, ...], BeforeValidator(tables)] = ()  # bots of Feishu or Lark groups
    wecom: Annotated[tuple[WeCom, ...], BeforeValidator(tables)] = ()  # robots of WeCom groups
    telegram: Annotated[tuple[Telegram, ...], BeforeValidator(tables)] = ()  # Telegram chats
    bark: Annotated[tuple[Bark, ...], BeforeValidator(tables)] = ()  # iPhones
    pushplus: Annotated[tuple[PushPlus, ...], BeforeValidator(tables)] = ()  # WeChat by PushPlus
    serverchan: Annotated[tuple[ServerChan, ...], BeforeValidator(tables)] = ()  # WeChat or app by ServerChan
    email: Annotated[tuple[Email, ...], BeforeValidator(tables)] = ()  # mail by SMTP
    redis: Annotated[tuple[RedisList, ...], BeforeValidator(tables)] = ()  # lists in a Redis
    tdx: Annotated[tuple[Tdx, ...], BeforeValidator(tables)] = ()  # files that TDX shows
    apprise: Annotated[tuple[AppriseService, ...], BeforeValidator(tables)] = ()  # services by Apprise
    routes: Annotated[tuple[RouteSection, ...], BeforeValidator(tables)] = ()  # who is told of what, first match
    inhibits: Annotated[tuple[InhibitSection, ...], BeforeValidator(tables)] = ()  # which alerts make others needless

    def lists(self) -> dict[str, tuple[Receiver, ...]]:
        """Return each kind's list of receivers by its key."""
        lists = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: found for key, found in lists.items() if key not in RULES_OF_TELLING}

    def receivers(self) -> tuple[Receiver, ...]:
        """Return the receivers of all kinds, in order of kind."""
        return tuple(one for receivers in self.lists().values() for one in receivers)

    @property
    def receiver_names(self) -> tuple[str, ...]:
        """The names of all receivers, of whatever kind."""
        return tuple(one.name for one in self.receivers())

    @model_validator(mode="after")
    def _routes_lead_to_receivers(self) -> NotifySection:
        names = self.receiver_names
        for place, route in _numbered(self.routes):
            for receiver in route.receivers or ():
                if receiver not in names:
                    hint = f"there are {', '.join(names)}" if names else "there is none; add one, such as a webhook"
                    raise complaint("routes", f"{place} names a receiver {receiver!r} that there is not", hint)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> NotifySection:
        first: dict[str, str] = {}
        for key, receivers in self.lists().items():
            for one in receivers:
                if one.name in first:
                    other = f"two {key} are" if first[one.name] == key else f"{key} and {first[one.name]} have one"
                    raise complaint(key, f"{other} named {one.name!r}", "give each its own name")
                first[one.name] = key
        return self


def _numbered(routes: tuple[RouteSection, ...], outer: str = "") -> Iterator[tuple[str, RouteSection]]:
    """Yield each route, those inside too, with a name for people: its own, else its number such as 2.1."""
    for number, route in enumerate(routes, 1):
        place = f"{outer}{number}"
        yield (f"route {route.name!r}" if route.name else f"route {place}"), route
        yield from _numbered(route.routes, f"{place}.")
