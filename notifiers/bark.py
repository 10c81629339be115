"""Bark: pushes to an iPhone, by the app's own server or one of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from aiohttp.abc import AbstractResolver

from notifiers.answer import Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.pacing import Pacing
from notifiers.retry import CHAT_STALE_AFTER_S
from notifiers.wording import Markup, Wording, json_bytes
from rules.alert import Alert

TEXT_BYTES: Final = 3000
"""Apple carries 4096 bytes a push, title, group and the server's own fields included."""
SERVER: Final = "https://api.day.app"
LEVELS: Final = ("auto", "active", "timeSensitive", "passive", "critical")
BY_SEVERITY: Final = {"critical": "timeSensitive", "info": "passive"}
"""Level `auto`: what is critical comes through a focus, what is info lights no screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarkOptions(WrittenOptions):
    """A Bark device's section. key is left out of repr.

    key     of the device, as the app shows it.
    server  a server of one's own.
    group   under which the phone lists the pushes.
    level   active, timeSensitive, passive, critical; auto = by severity.
    sound   name of a sound of the app, "" = the phone's.
    """

    key: str = field(repr=False)
    server: str = SERVER
    group: str = "monitord"
    level: Literal["auto", "active", "timeSensitive", "passive", "critical"] = "auto"
    sound: str = ""


class BarkNotifier(ChatBot):
    """One push a request."""

    options_class: ClassVar = BarkOptions
    accepted: ClassVar[bytes] = b'{"code":200,"message":"success","timestamp":1675216925}'
    codes: ClassVar = Codes(
        names=("code",),
        success=200,
        permanent=(400, 401, 403, 404, 413),
        hints={400: "there is no such key, or the push is not as Bark wants it"},
    )
    pacing = Pacing(bundle_alerts=50, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: BarkOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if not options.key:
            raise DeliveryError(f"receiver {options.name}: key is needed")
        if options.level not in LEVELS:
            raise DeliveryError(f"receiver {options.name}: level is one of {', '.join(LEVELS)}")
        super().__init__(
            options,
            url=parse_url(options.name, options.server, setting="server") / "push",
            secrets=(options.key,),
            markup=Markup(limit=TEXT_BYTES, size=json_bytes, title=None),
            resolver=resolver,
        )
        self._key, self._group, self._level, self._sound = options.key, options.group, options.level, options.sound

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        # The key goes into the body, not into the address, which servers log. An id makes a push that comes twice one.
        fields = {
            "device_key": self._key, "title": wording.title, "body": wording.text, "group": self._group,
            "level": self._level_of(alerts), "id": alerts[0].id,
        }  # fmt: skip
        return Letter(self._url, fields | ({"sound": self._sound} if self._sound else {}))

    def _level_of(self, alerts: Sequence[Alert]) -> str:
        if self._level != "auto":
            return self._level
        severities = {alert.severity for alert in alerts}
        worst = "critical" if "critical" in severities else "info" if severities == {"info"} else "warning"
        return BY_SEVERITY.get(worst, "active")
