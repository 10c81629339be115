"""Apprise: the long tail of services that have no file of their own here. An extra: `pip install 'monitord[apprise]'`.

Apprise tells success or failure and no more, and for some services it tells success where the service refused. Those
have receivers of their own here, and are refused.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import structlog

from notifiers.calling import LoneCall, StillBusy
from notifiers.chat import WrittenOptions
from notifiers.egress import EgressRefused, Network, is_allowed, parse_networks
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.retry import CHAT_SCHEDULE, CHAT_STALE_AFTER_S
from notifiers.wording import Markup, TooLong, Wording, compose
from rules.alert import Alert

log = structlog.get_logger()

REFUSED: Final = {
    "dingtalk": "dingtalk", "feishu": "feishu", "lark": "feishu", "wecombot": "wecom", "wecom": "pushplus",
    "pushplus": "pushplus", "schan": "serverchan", "bark": "bark",
}  # fmt: skip
"""Scheme → our receiver: Apprise calls HTTP 200 a success there, whatever code the body bears."""
UNJUDGED: Final = frozenset({"pushdeer", "spugpush", "pushme", "qq", "chanify"})
"""Schemes of the same kind (each answers 200 and tells in the body that it refused) without a receiver here."""
UNANSWERED: Final = frozenset({"syslog", "rsyslog"})
"""Schemes of a datagram that nobody acknowledges: every attempt would count as delivered."""
PLAIN: Final = frozenset({"json", "form", "xml"})
"""Schemes that post to any address: right where HTTP 200 means success, which it does not at these hosts."""
HOSTS: Final = {
    "oapi.dingtalk.com": "dingtalk", "open.feishu.cn": "feishu", "open.larksuite.com": "feishu",
    "qyapi.weixin.qq.com": "wecom", "api.telegram.org": "telegram", "api.day.app": "bark",
    "pushplus.plus": "pushplus", "sctapi.ftqq.com": "serverchan", "push.ft07.com": "serverchan",
}  # fmt: skip
"""Host, with all under it → our receiver, which judges what the body says."""
CONNECTING: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
"""Audit events of a packet on its way: UDP has no connect."""
TEXT_BYTES: Final = 4000
ID_BYTES: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class AppriseOptions(WrittenOptions):
    """An Apprise service's section. url is left out of repr. url: as Apprise's documentation says for the service."""

    url: str = field(repr=False)
    total_timeout_s: float = 30.0


class AppriseNotifier:
    """Calls Apprise in a thread of its own, one for each attempt.

    What a thread does can't be cut off: while it lasts, attempts are refused. None keeps the process from ending.
    Its connections are judged where they are made, like all others (see egress.py): by an audit hook of Python, for
    Apprise uses many libraries.
    """

    options_class: ClassVar = AppriseOptions

    def __init__(self, options: AppriseOptions) -> None:
        """Check the options; raises DeliveryError where the extra is missing or the url is none."""
        self.options: NotifierOptions = options
        self.schedule = CHAT_SCHEDULE
        self._language = options.language
        self._allow = parse_networks(options.allow_networks)
        self._service = _service(options)
        limit = min(int(self._service.body_maxlen or TEXT_BYTES), TEXT_BYTES)
        self._markup = Markup(limit=max(limit, ID_BYTES), title=None)
        self.pacing = Pacing(bundle_alerts=max(2, min(100, limit // ID_BYTES - 2)), stale_after_s=CHAT_STALE_AFTER_S)
        self._opened = False
        self._call = LoneCall[tuple[bool, bool]]("apprise")

    @property
    def host(self) -> str:
        """The service's name: the only part of its URL that may be shown."""
        return str(self._service.service_name)

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        self._opened = False

    async def send(self, notification: Notification) -> Outcome:
        return await self._tell((notification.alert,))

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Send one message that tells each alert, or where there is no room at least its id."""
        return await self._tell(bundle.alerts)

    async def _tell(self, alerts: Sequence[Alert]) -> Outcome:
        if not self._opened:
            raise DeliveryError(f"receiver {self.options.name} is not open")
        try:
            wording = compose(alerts, self._markup, language=self._language)
            refused, told = await self._call(lambda: self._notify(wording), within_s=self.options.total_timeout_s)
        except TooLong as error:
            return Outcome(verdict=Verdict.PERMANENT, text=str(error))
        except StillBusy:
            return Outcome(verdict=Verdict.RETRY, text=f"{self.host}: the attempt before this one still lasts")
        except TimeoutError:
            return Outcome(verdict=Verdict.RETRY, text=f"no answer from {self.host} in time")
        if refused:
            text = f"{self.host}: not a public address; add its network to allow_networks to permit it"
            return Outcome(verdict=Verdict.PERMANENT, text=text)
        if told:
            return Outcome(verdict=Verdict.OK)
        return Outcome(verdict=Verdict.RETRY, text=f"{self.host}: Apprise reports a failure, and not which")

    def _notify(self, wording: Wording) -> tuple[bool, bool]:
        """Send in the call's thread; return whether an address was refused, and whether Apprise reports success."""
        _guard.allow, _guard.refused = self._allow, False
        try:
            told = bool(self._service.notify(body=wording.text, title=wording.title))
        except Exception as error:
            # The top of a foreign part. The error's text stays out of the log, it may hold the URL.
            log.warning("apprise_failed", receiver=self.options.name, error=type(error).__name__)
            told = False
        return _guard.refused, told


class _Guard(threading.local):
    """What this thread may connect to; None: whatever it likes."""

    allow: Sequence[Network] | None = None
    refused: bool = False


_guard: Final = _Guard()
_hooked = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in CONNECTING or _guard.allow is None:
        return
    address = args[1]
    if address is None:  # sendmsg on a connected socket
        return
    if not (isinstance(address, tuple) and is_allowed(str(address[0]), _guard.allow)):
        _guard.refused = True
        raise EgressRefused


def _service(options: AppriseOptions) -> Any:
    """Return Apprise's object of the url; raises DeliveryError, without the url in it."""
    global _hooked
    try:
        from apprise import Apprise, OverflowMode
    except ImportError:
        raise DeliveryError(f"receiver {options.name}: install Apprise: pip install 'monitord[apprise]'") from None
    # Both write URLs and bodies; a hook can't be taken out again, so there is one for all.
    for library in ("apprise", "urllib3", "requests"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    service = Apprise.instantiate(options.url, suppress_exceptions=True)
    if service is None:
        raise DeliveryError(f"receiver {options.name}: url is none that Apprise knows; see its documentation")
    _refuse_false_success(options.name, service)
    service.overflow_mode = OverflowMode.SPLIT
    service.socket_connect_timeout = options.connect_timeout_s
    service.socket_read_timeout = options.total_timeout_s
    return service


def _refuse_false_success(name: str, service: Any) -> None:
    """Raise DeliveryError for a service of which Apprise would report success where there was none."""
    schemes = {scheme for kind in (service.protocol, service.secure_protocol) for scheme in _listed(kind)}
    ours = next((REFUSED[scheme] for scheme in schemes if scheme in REFUSED), None)
    if ours is None and schemes & PLAIN:
        host = f".{str(service.host or '').lower().rstrip('.')}"
        ours = next((kind for known, kind in HOSTS.items() if host.endswith(f".{known}")), None)
    why = "Apprise reports success for messages that this service refuses"
    if ours is not None:
        raise DeliveryError(f"receiver {name}: {why}; use [[notify.{ours}]]")
    if schemes & UNJUDGED:
        raise DeliveryError(f"receiver {name}: {why}; use a service of docs/receivers.md, such as [[notify.bark]]")
    if schemes & UNANSWERED:
        raise DeliveryError(
            f"receiver {name}: nobody acknowledges what is sent to syslog; "
            "use [[notify.redis]] or [[notify.webhooks]], or read the daemon's own log, which tells every alert"
        )


def _listed(schemes: Any) -> tuple[str, ...]:
    return (schemes,) if isinstance(schemes, str) else tuple(schemes or ())
