"""`Rule` and `RuleSet`: what to watch for, frozen. Text becomes rules in rulefile.py; the engine runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from feeds.sessions import Session
from rules.alert import Event
from rules.errors import Finding
from rules.language.tree import Formula
from rules.message import Template
from rules.selector import Selector

PERIODS: tuple[str, ...] = ("tick", "1m", "5m", "15m", "30m", "60m", "1d", "1w", "1mon")


class Evaluation(StrEnum):
    """When a rule takes a sample."""

    TICK = "tick"
    BAR_CLOSE = "bar_close"


class Mode(StrEnum):
    EDGE = "edge"
    STATE = "state"


class Frequency(StrEnum):
    """How often an armed edge may be sent: per (rule, rev, leg, symbol, trade date) but for ONCE, which is for good."""

    ONCE = "once"
    ONCE_PER_DAY = "once_per_day"
    ONCE_PER_SESSION = "once_per_session"
    """Once in each half-day and auction."""
    ONCE_PER_BAR = "once_per_bar"
    ALWAYS = "always"


class Gap(StrEnum):
    """What a fire is whose previous sample lies before a night, lunch, halt or outage."""

    TAG = "tag"
    SUPPRESS = "suppress"


@dataclass(frozen=True, slots=True)
class Flap:
    """More than `over` fires within `within_ms` are flapping: one event, then silence until it is quiet as long."""

    over: int
    within_ms: int


class OnStart(StrEnum):
    """What a condition that is already true at the first valid sample does."""

    SUPPRESS = "suppress"
    FIRE = "fire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One condition of a rule; `name` is None where the rule has only one."""

    name: str | None = None
    when: Formula
    rearm: Formula | None = None
    """None: re-arms when the condition is false on a valid sample."""


class By(StrEnum):
    """What the members of a rule over groups are grouped by."""

    NONE = "none"
    """One group of all of them."""
    SECTOR = "sector"
    BOARD = "board"


class Measure(StrEnum):
    """What is made of the members' values; members whose value is unknown are left out."""

    COUNT = "count"
    """Members for which the condition is true."""
    SHARE = "share"
    """The same as a share of those for which it is known, 0 to 1."""
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One entry of `agg`: a formula over each member, made one number per group.

    name: upper case. ranked: not the number itself but its place among the rule's groups, 1 = the largest.
    """

    name: str
    measure: Measure
    of: Formula
    ranked: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """What makes a rule one over groups: its `select` are the members, its conditions are about the aggregates.

    min_valid: a group of whose members a smaller share has known values is not evaluated.
    """

    by: By
    aggregates: tuple[Aggregate, ...]
    min_valid: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a rule file, checked. Durations are ms of the rule's own session clock; None = no limit.

    rev: hash of the fields that change what the rule means (condition, period, lifecycle, scope), not label or message.
    """

    id: str
    rev: str
    legs: tuple[Leg, ...]
    select: Selector
    over: Over | None = None
    """None: each symbol is watched by itself."""
    period: str = "tick"
    evaluation: Evaluation = Evaluation.TICK
    mode: Mode = Mode.EDGE
    session: tuple[Session, ...] = (Session.CONTINUOUS,)
    frequency: Frequency = Frequency.ONCE_PER_DAY
    step: float | None = None
    """A further fire needs LAST to have moved by this share in the same direction (freq: {step: 1%})."""
    for_ms: int = 0
    """State mode: how long the condition must hold before it fires."""
    keep_firing_ms: int = 0
    """State mode: how long it must have been false before it resolves."""
    cap: int = 250
    """Longest window of series length, in bars."""
    confirm: bool = False
    """Tick-evaluated on bars: fires are provisional until the bar closes."""
    gap: Gap = Gap.TAG
    flap: Flap | None = None
    cooldown_ms: int | None = None
    max_per_day: int | None = None
    expires_ms: int | None = None
    """Unix ms from which on the rule is not evaluated any more."""
    on_start: OnStart = OnStart.SUPPRESS
    severity: str = "info"
    labels: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[str, Template] = field(default_factory=dict)
    """Event name → template; a rule with one message has it under "fire"."""
    group: str = ""
    file: str = ""
    line: int = 0


def events_of(rule: Rule) -> frozenset[Event]:
    """Return the events that the life of this rule can have."""
    events = {Event.FIRE, Event.SUPPRESSED}
    if rule.mode is Mode.STATE:
        events |= {Event.RESOLVE, Event.PENDING} if rule.for_ms else {Event.RESOLVE}
    if rule.confirm:
        events |= {Event.CONFIRMED, Event.WITHDRAWN}
    if rule.over is not None:
        events.add(Event.NODATA)
    if rule.flap is not None:
        events.add(Event.FLAPPING)
    if rule.expires_ms is not None:
        events.add(Event.EXPIRED)
    return frozenset(events)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All loaded rules in file order; ids are unique.

    source: the canonical JSON this set is made from and can be made from again (a control record carries it).
    """

    rules: tuple[Rule, ...]
    source: str
    warnings: tuple[Finding, ...] = field(default=(), compare=False)
    """Lints of all files: they mean something, but likely not what was meant."""
