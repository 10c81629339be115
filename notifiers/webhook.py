"""The generic webhook: one signed POST per alert, after the Standard Webhooks specification (standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import ClassVar, Final

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver

from notifiers.answer import judge, parse_url, refused_or_retry
from notifiers.egress import Redactor, guarded_session, parse_networks, read_limited
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import NO_LIMIT
from notifiers.retry import WEBHOOK_SCHEDULE
from rules.alert import shanghai_iso

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES_MIN: Final = 24
"""The specification asks for 24 to 64 random bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions(NotifierOptions):
    """A webhook's section. url and secrets are left out of repr.

    secrets  `whsec_<base64>`, the current one first; several while a receiver changes over. Empty: unsigned.
    """

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class WebhookNotifier:
    """Posts alerts to one URL. Any 2xx is success; a redirect is a failure."""

    options_class: ClassVar = WebhookOptions
    accepted: ClassVar[bytes] = b""

    def __init__(self, options: WebhookOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        self.options: NotifierOptions = options
        self.schedule = WEBHOOK_SCHEDULE
        self.pacing = NO_LIMIT
        self._url = parse_url(options.name, options.url)
        self._keys = tuple(parse_secret(options.name, secret) for secret in options.secrets)
        self._allow = parse_networks(options.allow_networks)
        self._redact = Redactor(self._url, options.secrets)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    @property
    def host(self) -> str:
        """The URL's host: the only part of it that may be shown."""
        return self._url.host or ""

    async def open(self) -> None:
        await self.close()
        self._session = guarded_session(
            allow=self._allow,
            connect_timeout_s=self.options.connect_timeout_s,
            total_timeout_s=self.options.total_timeout_s,
            resolver=self._resolver,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, notification: Notification) -> Outcome:
        alert = notification.alert
        body = envelope(alert.type, shanghai_iso(alert.ts_event_ms), notification.record)
        return await self._post(alert.id, body, now_ms=notification.now_ms)

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Post one envelope whose data holds the ids, and the records unchanged; its type is alerts.group or digest."""
        ids = orjson.dumps([alert.id for alert in bundle.alerts])
        data = b'{"id":%b,"ids":%b,"alerts":[%b]}' % (orjson.dumps(bundle.id), ids, b",".join(bundle.records))
        newest_ms = max(alert.ts_event_ms for alert in bundle.alerts)
        body = envelope(f"alerts.{bundle.kind}", shanghai_iso(newest_ms), data)
        return await self._post(bundle.id, body, now_ms=bundle.now_ms)

    async def _post(self, message_id: str, body: bytes, *, now_ms: int) -> Outcome:
        """Make one signed request."""
        if self._session is None:
            raise DeliveryError(f"receiver {self.options.name} is not open")
        headers = signed_headers(message_id, now_ms // 1000, body, self._keys)
        try:
            # The session's own limits cover the request; this one covers it with the closing of a broken connection.
            async with (
                asyncio.timeout(self.options.total_timeout_s),
                self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                body_read = await read_limited(response)
                encoded = "Content-Encoding" in response.headers
                excerpt = "" if encoded else self._redact(body_read.decode("utf-8", "replace"))
                return judge(response.status, response.headers.get("Retry-After"), excerpt, now_ms)
        except TimeoutError:
            return Outcome(verdict=Verdict.RETRY, text=f"no answer from {self.host} in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: an answer or host name that the HTTP library cannot parse.
            return refused_or_retry(error, self.host)


def parse_secret(name: str, secret: str) -> bytes:
    """Return the key bytes of `whsec_<base64>`; raises DeliveryError, without the secret in it."""
    hint = f"write {SECRET_PREFIX} and the base64 of at least {SECRET_BYTES_MIN} random bytes"
    if not secret.startswith(SECRET_PREFIX):
        raise DeliveryError(f"receiver {name}: a secret does not begin with {SECRET_PREFIX}; {hint}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise DeliveryError(f"receiver {name}: a secret is not base64; {hint}") from None
    if len(key) < SECRET_BYTES_MIN:
        raise DeliveryError(f"receiver {name}: a secret is too short; {hint}")
    return key


def envelope(alert_type: str, timestamp: str, record: bytes) -> bytes:
    """Wrap the record's bytes, unchanged, as the specification's payload: type, timestamp, data."""
    return b'{"type":%b,"timestamp":%b,"data":%b}' % (orjson.dumps(alert_type), orjson.dumps(timestamp), record)


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return one `v1,<base64>` signature of `<id>.<timestamp>.<body>`."""
    mac = hmac.new(key, b"%b.%d.%b" % (message_id.encode(), timestamp_s, body), hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def signed_headers(message_id: str, timestamp_s: int, body: bytes, keys: tuple[bytes, ...]) -> dict[str, str]:
    """Return the request's headers; the signatures stand in the order of the keys, none without keys."""
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
    }
    if keys:
        headers["webhook-signature"] = " ".join(signature(key, message_id, timestamp_s, body) for key in keys)
    return headers
