"""The `Notifier` protocol and the registry of receivers: one file per kind of receiver, one line here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, Protocol

from notifiers.errors import DeliveryError
from notifiers.filters import DEFAULT_EVENTS, AlertFilter
from notifiers.pacing import Pacing
from notifiers.retry import RetrySchedule
from rules.alert import Alert, Event

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Verdict(StrEnum):
    """What one attempt means for the delivery and its receiver."""

    OK = "ok"
    RETRY = "retry"
    """Try again by the schedule: the receiver is away, slow or asks for a pause."""
    PERMANENT = "permanent"
    """Never again by itself: a dead letter at once, a person may replay it."""
    DISABLE = "disable"
    """The receiver is gone for good: a dead letter, and the receiver is switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one attempt.

    code         the protocol's own status, None if there was no answer.
    text         why, for the operator: redacted and short, for it is stored and logged.
    retry_after_s  the pause the receiver asked for, None if it asked for none.
    unknown      it answered with a code that nobody knows, so RETRY is a guess: it may not like the message.
    own          we refused it ourselves, by a limit that somebody set: nothing was asked of the receiver, so this says
                 nothing of how it is.
    """

    verdict: Verdict
    code: int | None = None
    text: str = ""
    retry_after_s: float | None = None
    unknown: bool = False
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """An alert on its way to one receiver.

    alert     the decoded record.
    record    the record's bytes as they were published; a receiver that carries the record sends these unchanged.
    now_ms    wall clock at the attempt, Unix ms.
    """

    alert: Alert
    record: bytes
    now_ms: int


class BundleKind(StrEnum):
    """Why alerts come together in one message."""

    GROUP = "group"
    """A route groups them."""
    DIGEST = "digest"
    """They could not be told one by one: a rate, quiet hours, or a receiver that was away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Several alerts on their way to one receiver as one message, at least two and in the stream's order.

    id       of the message, the same in each attempt; no alert's.
    records  each alert's bytes as they were published, in the order of alerts.
    now_ms   wall clock at the attempt, Unix ms.
    """

    id: str
    kind: BundleKind
    alerts: tuple[Alert, ...]
    records: tuple[bytes, ...]
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierOptions:
    """What every receiver's section has. Raises DeliveryError when a value is unusable.

    name            identity of the receiver: its Redis group is `notify:<name>`, its deliveries are stored under it.
    events, rules, symbols, severities   what it is told of, as AlertFilter says.
    per_minute      so many messages a minute at most, besides the limits of its kind; 0 = no other limit.
    allow_networks  networks such as "10.0.0.0/8" that may be connected to although they are not public.
    connect_timeout_s, total_timeout_s   limits of one attempt.
    """

    name: str
    events: tuple[Event, ...] = DEFAULT_EVENTS
    rules: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    per_minute: int = 0
    allow_networks: tuple[str, ...] = ()
    connect_timeout_s: float = 3.0
    total_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DeliveryError(f"receiver name {self.name!r}: use 1 to 64 letters, digits, '_', '-' or '.'")
        if not 0 < self.connect_timeout_s <= self.total_timeout_s <= 60:
            raise DeliveryError(f"receiver {self.name}: timeouts need 0 < connect_timeout_s ≤ total_timeout_s ≤ 60")
        if self.per_minute < 0:
            raise DeliveryError(f"receiver {self.name}: per_minute is a number of messages, 0 = no limit")

    @property
    def filter(self) -> AlertFilter:
        """Which alerts the receiver is told of."""
        return AlertFilter(
            events=self.events, rules=self.rules, symbols=self.symbols, severities=self.severities
        )  # fmt: skip


class Notifier(Protocol):
    """One receiver. Used by one task at a time; `send` and `send_bundle` are never called concurrently.

    options   its frozen options.
    schedule  the delays of its attempts.
    pacing    how fast it may be told, and how many alerts one message can carry.
    """

    options: NotifierOptions
    schedule: RetrySchedule
    pacing: Pacing

    async def open(self) -> None:
        """Make ready to send; may be called again after `close`."""

    async def send(self, notification: Notification) -> Outcome:
        """Make one attempt, within the options' total timeout.

        What the receiver or the network does is an Outcome, never an exception. Cancelling leaves it unknown whether
        the receiver has the alert. Neither the outcome nor a log may hold the receiver's URL or secrets.
        """

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Make one attempt to tell up to `pacing.bundle_alerts` alerts in one message that names each alert's id.

        Else as `send`.
        """

    async def close(self) -> None:
        """Release connections. Idempotent; safe before `open`."""


NOTIFIERS: dict[str, str] = {
    "webhook": "notifiers.webhook:WebhookNotifier",
    "dingtalk": "notifiers.dingtalk:DingTalkNotifier",
    "feishu": "notifiers.feishu:FeishuNotifier",
    "wecom": "notifiers.wecom:WeComNotifier",
    "telegram": "notifiers.telegram:TelegramNotifier",
    "bark": "notifiers.bark:BarkNotifier",
    "pushplus": "notifiers.pushplus:PushPlusNotifier",
    "serverchan": "notifiers.serverchan:ServerChanNotifier",
    "email": "notifiers.email:EmailNotifier",
    "redis": "notifiers.redis_list:RedisListNotifier",
    "tdx": "notifiers.tdx:TdxNotifier",
    "apprise": "notifiers.apprise:AppriseNotifier",
}
"""Kind in the settings → `module:class`, imported when chosen.

The class takes its options object alone, has the options' class as `options_class`, and as `accepted` an answer body
that its kind of receiver gives for success (the contract tests serve it).
"""


def load_notifier(kind: str) -> Callable[..., Notifier]:
    """Import and return the notifier class of this kind; raises DeliveryError that lists the kinds if there is none."""
    if kind not in NOTIFIERS:
        raise DeliveryError(f"no receiver of kind {kind!r}; there are: {', '.join(sorted(NOTIFIERS))}")
    module, _, attribute = NOTIFIERS[kind].partition(":")
    notifier: Callable[..., Notifier] = getattr(import_module(module), attribute)
    return notifier


def build_notifier(kind: str, **options: Any) -> Notifier:
    """Build the receiver of this kind from its section's fields; raises DeliveryError for an unusable or unknown field.

    Lists become tuples and event names Events, so a parsed TOML or YAML section fits as it is.
    """
    notifier_class: Any = load_notifier(kind)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    name = fields.get("name")
    unknown = fields.keys() - notifier_class.options_class.__dataclass_fields__.keys()
    if unknown:
        raise DeliveryError(f"receiver {name!r}: a {kind} has no field {', '.join(sorted(unknown))}")
    try:
        if "events" in fields:
            fields["events"] = tuple(Event(event) for event in fields["events"])
        built: Notifier = notifier_class(notifier_class.options_class(**fields))
    except ValueError as error:
        raise DeliveryError(f"receiver {name!r}: {error}; events are: {', '.join(Event)}") from None
    except TypeError as error:
        raise DeliveryError(f"receiver {name!r}: {error}") from None
    return built
