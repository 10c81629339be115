"""`ChatBot`: what all receivers share that post a text to a vendor's HTTP interface and are answered with a code."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver
from yarl import URL

from notifiers.answer import Answer, Codes, fields_of, refused_or_retry
from notifiers.egress import Redactor, guarded_session, inflated, parse_networks, read_limited
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.retry import CHAT_SCHEDULE, RetrySchedule
from notifiers.wording import Language, Markup, TooLong, Wording, compose
from rules.alert import Alert

LANGUAGES: Final = ("zh", "en")
PUBLIC_PARTS: Final = frozenset(
    {"robot", "send", "access_token", "open-apis", "hook", "cgi-bin", "webhook", "sendMessage", "push"}
)
"""Parts of the vendors' addresses that anybody may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenOptions(NotifierOptions):
    """The section of a receiver that writes for people. language: zh or en. Raises DeliveryError for another."""

    language: Language = "zh"

    def __post_init__(self) -> None:
        NotifierOptions.__post_init__(self)  # no super(): a slotted dataclass is another class than its body saw
        if self.language not in LANGUAGES:
            raise DeliveryError(f"receiver {self.name}: language is zh or en")


@dataclass(frozen=True, slots=True)
class Letter:
    """A request to make: a JSON object to post to a URL."""

    url: URL
    fields: dict[str, Any]


class ChatBot(ABC):
    """Posts JSON to one URL and judges the answer by the protocol's own code: HTTP 200 alone is no success.

    A kind says in class attributes what its vendor wants, and in `_letter` how a message looks.
    """

    options_class: ClassVar[type[NotifierOptions]]
    accepted: ClassVar[bytes]
    codes: ClassVar[Codes]

    schedule: RetrySchedule = CHAT_SCHEDULE
    pacing: Pacing

    def __init__(
        self,
        options: WrittenOptions,
        *,
        url: URL,
        secrets: Iterable[str] = (),
        markup: Markup,
        keyword: str = "",
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Keep what `_letter` needs.

        url: of the interface, secret where it holds a token. secrets: texts besides it that nobody may see.
        resolver: for tests.
        """
        self.options: NotifierOptions = options
        self._language = options.language
        self._url, self._markup, self._keyword = url, markup, keyword
        self._allow = parse_networks(options.allow_networks)
        self._redact = Redactor(url, [secret for secret in secrets if secret], public=PUBLIC_PARTS)
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
        return await self._tell((notification.alert,), notification.now_ms)

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Post one message that tells each alert, or where there is no room at least its id."""
        return await self._tell(bundle.alerts, bundle.now_ms)

    @abstractmethod
    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        """Return the request that tells this."""

    def _judge(self, answer: Answer, now_ms: int) -> Outcome:
        return self.codes.judge(answer, now_ms)

    async def _tell(self, alerts: Sequence[Alert], now_ms: int) -> Outcome:
        try:
            wording = compose(alerts, self._markup, language=self._language, keyword=self._keyword)
        except TooLong as error:
            return Outcome(verdict=Verdict.PERMANENT, text=str(error))
        return await self._post(self._letter(wording, alerts=alerts, now_ms=now_ms), now_ms)

    async def _post(self, letter: Letter, now_ms: int) -> Outcome:
        """Make one request; every failure becomes an Outcome without the URL in it."""
        if self._session is None:
            raise DeliveryError(f"receiver {self.options.name} is not open")
        body = orjson.dumps(letter.fields)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            # The session's own limits cover the request; this one covers it with the closing of a broken connection.
            async with (
                asyncio.timeout(self.options.total_timeout_s),
                self._session.post(letter.url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return self._judge(await self._read(response), now_ms)
        except TimeoutError:
            return Outcome(verdict=Verdict.RETRY, text=f"no answer from {self.host} in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: an answer or host name that the HTTP library cannot parse.
            return refused_or_retry(error, self.host)

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        # The body decides, so it is waited for, and read though it is compressed: else what was taken is sent again.
        raw = await read_limited(response, wait_s=self.options.total_timeout_s)
        body = inflated(raw, response.headers.get("Content-Encoding", "").strip().lower())
        return Answer(
            status=response.status,
            retry_after=response.headers.get("Retry-After"),
            fields=fields_of(body),
            excerpt=self._redact(body.decode("utf-8", "replace")),
        )
