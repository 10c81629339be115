"""Email by SMTP: TLS from the start (465) or by STARTTLS (587), one message an alert or digest."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from pathlib import Path
from typing import ClassVar, Final, Literal

import aiosmtplib
from yarl import URL

from notifiers.chat import WrittenOptions
from notifiers.egress import EgressRefused, Redactor, describe, guarded_socket, parse_networks
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.retry import RetrySchedule
from notifiers.wording import Markup, TooLong, compose
from rules.alert import Alert

TEXT_BYTES: Final = 1_000_000
"""Far below what any server takes, far above what 500 alerts need."""
PORTS: Final = {"tls": 465, "starttls": 587, "none": 25}
SCHEDULE: Final = RetrySchedule((0, 10, 60, 300, 900, 1800, 3600, 7200))
"""0, 10 s, 1, 5, 15, 30 min, 1 h, 2 h: a server that greylists wants minutes, and who reads mail has some."""
REMEMBERED: Final = 256
"""Messages of which is kept who has them already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailOptions(WrittenOptions):
    """A mail server's section. password is left out of repr.

    host, port   the server; port 0 = what is usual for `security`.
    security     tls, starttls, or none, which takes no password.
    ca_file      certificates to trust instead of the system's, for a server of one's own; "" = the system's.
    sender, to   addresses, also as "Name <a@b.cn>".
    """

    host: str
    port: int = 0
    security: Literal["tls", "starttls", "none"] = "tls"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    sender: str
    to: tuple[str, ...]
    total_timeout_s: float = 30.0


class EmailNotifier:
    """A connection for each message. Taken means that the server took it for all but those it refuses for good.

    Those refused for a while alone are tried again, as far as this process remembers.
    """

    options_class: ClassVar = EmailOptions

    def __init__(self, options: EmailOptions) -> None:
        """Check the options; raises DeliveryError."""
        self.options: NotifierOptions = options
        self.schedule = SCHEDULE
        self.pacing = Pacing(bundle_alerts=500, stale_after_s=3600.0)
        self._mail = options
        _check(options)
        self._port = options.port or PORTS[options.security]
        self._tls = None if options.security == "none" else _context(options)
        self._allow = parse_networks(options.allow_networks)
        self._redact = Redactor(URL(), [text for text in (options.password, options.username) if text])
        self._told: OrderedDict[str, frozenset[str]] = OrderedDict()

    @property
    def host(self) -> str:
        """The server's name."""
        return self._mail.host

    async def open(self) -> None:
        """Connections are made for each message."""

    async def close(self) -> None:
        """Nothing stays open."""

    async def send(self, notification: Notification) -> Outcome:
        return await self._send(notification.alert.id, (notification.alert,), notification.now_ms)

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Send one message that tells each alert."""
        return await self._send(bundle.id, bundle.alerts, bundle.now_ms)

    async def _send(self, message_id: str, alerts: Sequence[Alert], now_ms: int) -> Outcome:
        try:
            message = self._message(message_id, alerts, now_ms)
        except TooLong as error:
            return Outcome(verdict=Verdict.PERMANENT, text=str(error))
        told = self._told.pop(message_id, frozenset())
        left = [one for one in map(_address, self._mail.to) if one not in told]
        try:
            refused = await self._hand_over(message, left)
        except TimeoutError:
            outcome = Outcome(verdict=Verdict.RETRY, text=f"no answer from {self.host} in time")
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            outcome = self._outcome(error)
        else:
            told |= set(left) - refused.keys()
            outcome = self._of_recipients(refused, told) if refused else Outcome(verdict=Verdict.OK, code=250)
        return self._keep(message_id, told, outcome)

    def _keep(self, message_id: str, told: frozenset[str], outcome: Outcome) -> Outcome:
        """Remember who has the message, for the next attempt."""
        if told and outcome.verdict is not Verdict.OK:
            self._told[message_id] = told
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        return outcome

    def _message(self, message_id: str, alerts: Sequence[Alert], now_ms: int) -> EmailMessage:
        """Return the mail; its Message-ID is the alert's, so that mail programs know one that comes twice."""
        wording = compose(alerts, Markup(limit=TEXT_BYTES, title=None), language=self._mail.language)
        message = EmailMessage()
        message["From"] = self._mail.sender
        message["To"] = ", ".join(self._mail.to)
        message["Subject"] = wording.title
        message["Date"] = formatdate(now_ms / 1000)
        message["Message-ID"] = f"<{message_id}@{_address(self._mail.sender).partition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(wording.text, charset="utf-8")
        return message

    async def _hand_over(self, message: EmailMessage, recipients: list[str]) -> dict[str, tuple[int, str]]:
        """Give the mail to the server; return the recipients it refused, with code and text.

        Raises what aiosmtplib raises, OSError, and TimeoutError.
        """
        async with asyncio.timeout(self.options.total_timeout_s):
            async with asyncio.timeout(self.options.connect_timeout_s):
                connected = await guarded_socket(self._mail.host, self._port, allow=self._allow)
            client = self._client(connected)
            try:
                await client.connect()
                if self._mail.username:
                    await client.login(self._mail.username, self._mail.password)
                sender = _address(self._mail.sender)
                refused, _ = await client.send_message(message, sender=sender, recipients=recipients)
            except aiosmtplib.SMTPRecipientsRefused as error:
                return {one.recipient: (one.code, one.message) for one in error.recipients}
            finally:
                # The mail is taken, or not, whatever the server says to a farewell; so there is none.
                # The socket is its transport's by now, which closes it.
                client.close()
        return {name: (response.code, response.message) for name, response in refused.items()}

    def _client(self, connected: socket.socket) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self._mail.host,
            sock=connected,
            use_tls=self._mail.security == "tls",
            start_tls=self._mail.security == "starttls",
            tls_context=self._tls,
            timeout=self.options.total_timeout_s,
            local_hostname="monitord",  # else the name of this machine is looked up, and told
        )

    def _of_recipients(self, refused: dict[str, tuple[int, str]], told: frozenset[str]) -> Outcome:
        """Return what it means that some recipients were refused: one refused for a while may be tried again.

        Where all the others have the mail, those refused for good don't make it a failure: one mailbox that is gone
        would be a receiver that refuses every alert.
        """
        passing = [answer for answer in refused.values() if answer[0] < 500]
        code, text = (passing or list(refused.values()))[0]
        done = Verdict.OK if told else Verdict.PERMANENT
        verdict = Verdict.RETRY if passing else done
        said = f"{len(refused)} of {len(self._mail.to)} recipients refused: {self._redact(text)}"
        return Outcome(verdict=verdict, code=code, text=said)

    def _outcome(self, error: Exception) -> Outcome:
        """Return the outcome of an attempt that ended in an exception: 5xx is for good, all else may pass."""
        if isinstance(error, EgressRefused):
            text = f"{self.host} is not a public address; add its network to allow_networks to permit it"
            return Outcome(verdict=Verdict.PERMANENT, text=text)
        if isinstance(error.__cause__ or error, ssl.SSLCertVerificationError):
            return Outcome(verdict=Verdict.PERMANENT, text=f"{self.host}: its certificate is not trusted; see ca_file")
        if isinstance(error, aiosmtplib.SMTPResponseException):
            verdict = Verdict.PERMANENT if 500 <= error.code < 600 else Verdict.RETRY
            what = "user name or password refused: " if isinstance(error, aiosmtplib.SMTPAuthenticationError) else ""
            return Outcome(verdict=verdict, code=error.code, text=what + self._redact(str(error.message)))
        if isinstance(error, aiosmtplib.SMTPNotSupported) or type(error) is aiosmtplib.SMTPException:
            # The second is how the library says that STARTTLS is not offered.
            text = f"{self.host} does not offer what is asked of it; see security and username"
            return Outcome(verdict=Verdict.PERMANENT, text=text)
        return Outcome(verdict=Verdict.RETRY, text=f"{self.host}: {describe(error)}")


def _check(options: EmailOptions) -> None:
    """Raise DeliveryError for what can't work."""
    if options.security not in PORTS:
        raise DeliveryError(f"receiver {options.name}: security is tls, starttls or none")
    if not options.to or not options.host:
        raise DeliveryError(f"receiver {options.name}: host and to are needed")
    if not 0 <= options.port <= 65_535:
        raise DeliveryError(f"receiver {options.name}: port is 0 to 65535")
    for one in (options.sender, *options.to):
        local, at, domain = _address(one).rpartition("@")
        if not (local and at and domain) or any(not c.isprintable() or c in " ,;" for c in _address(one)):
            raise DeliveryError(f"receiver {options.name}: {one!r} is no mail address")
        if any(not c.isprintable() for c in one):
            raise DeliveryError(f"receiver {options.name}: {one!r} is no mail address")
    if options.security == "none" and options.username:
        raise DeliveryError(f"receiver {options.name}: a password is sent over TLS only; set security")


def _address(text: str) -> str:
    return parseaddr(text)[1]


def _context(options: EmailOptions) -> ssl.SSLContext:
    """Return what certificates are checked with; raises DeliveryError where ca_file is none."""
    try:
        return ssl.create_default_context(cafile=options.ca_file or None)
    except (OSError, ssl.SSLError):
        raise DeliveryError(f"receiver {options.name}: ca_file {Path(options.ca_file)} can't be read") from None
