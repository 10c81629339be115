"""`QuoteClient`: asks one vendor's page, one request at a time, and says how long to leave it alone after a failure.

A free public page is somebody's kindness: there is never more than one request under way, and a page that fails or
refuses is asked less and less often.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import aiohttp
from yarl import URL

from feeds.quotes_text import Answer, Page, code_of, split

FIRST_PAUSE_S: Final = 3.0
LONGEST_PAUSE_S: Final = 120.0
REFUSED_PAUSE_S: Final = 30.0
"""The shortest pause after 403 or 429: the page has told us to go away."""
LONGEST_RETRY_AFTER_S: Final = 900.0
MOST_BYTES: Final = 4 << 20
"""Ten times what 800 records have; an answer that goes on beyond is no answer."""


class Unanswered(Exception):
    """A request got nothing that can be used; `reason` is one of few words, the text is for people."""

    def __init__(self, reason: str, text: str, *, pause_s: float = 0.0) -> None:
        super().__init__(text)
        self.reason = reason
        self.pause_s = pause_s
        """At least so long the page wants to be left alone."""


class QuoteClient:
    """One page, over one kept connection. Event-loop thread; one `ask` at a time; `close` ends one under way."""

    def __init__(
        self, page: Page, *, url: str | None = None, timeout_s: float = 5.0, jitter: Callable[[], float] = random.random
    ) -> None:
        """Take the page, another address of it, how long an answer may take, and what spreads pauses (0..1)."""
        self.page = page
        self._url = url or page.url
        self._timeout_s = timeout_s
        self._jitter = jitter
        self._failures = 0
        self._session: aiohttp.ClientSession | None = None
        self._under_way: asyncio.Timeout | None = None

    @property
    def host(self) -> str:
        """The name of the machine asked, for people."""
        return URL(self._url).host or self._url

    async def ask(self, symbols: Iterable[str]) -> Answer:
        """Return the page's answer on these symbols; raises Unanswered. Cancelling closes the connection."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1),
                headers=self.page.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        address = URL(self._url + ",".join(map(code_of, symbols)), encoded=True)
        try:
            async with asyncio.timeout(self._timeout_s) as self._under_way:
                body = await self._body(self._session, address)
        except TimeoutError:
            raise self._failed("timeout", f"no answer within {self._timeout_s:g} s") from None
        except aiohttp.ClientPayloadError:
            raise self._failed("truncated", "the answer broke off") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed("unreachable", f"cannot be asked: {_plain(error)}") from None
        finally:
            self._under_way = None
        answer = split(body)
        if answer.empty:
            raise self._failed("empty", "the answer is empty")
        if answer.garbled and not answer.records and not answer.unknown:
            raise self._failed("garbled", f"the answer holds no quote; it begins with {body[:40]!r}")
        self._failures = 0
        return answer

    async def _body(self, session: aiohttp.ClientSession, address: URL) -> bytes:
        async with session.get(address, allow_redirects=False) as response:
            if response.status in (403, 429):
                pause_s = max(REFUSED_PAUSE_S, _retry_after_s(response))
                raise self._failed(f"http_{response.status}", f"refused with {response.status}", pause_s=pause_s)
            if response.status != 200:
                pause_s = _retry_after_s(response)
                raise self._failed("http_error", f"answered {response.status}", pause_s=pause_s)
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MOST_BYTES:
                    raise self._failed("too_long", f"the answer is longer than {MOST_BYTES >> 20} MB")
            return bytes(body)

    def _failed(self, reason: str, text: str, *, pause_s: float = 0.0) -> Unanswered:
        """Count a failure and return it with the pause it asks for: doubled each time, and spread by half of it."""
        backoff_s = min(FIRST_PAUSE_S * 2 ** min(self._failures, 16), LONGEST_PAUSE_S)
        self._failures += 1
        longest_s = max(backoff_s, min(pause_s * 2, LONGEST_RETRY_AFTER_S))
        return Unanswered(reason, f"{self.host}: {text}", pause_s=longest_s * (0.5 + 0.5 * self._jitter()))

    async def close(self) -> None:
        """End a request under way and close the connection. Idempotent."""
        if self._under_way is not None:
            with suppress(RuntimeError):  # it is expiring already, which ends the request as well
                self._under_way.reschedule(asyncio.get_running_loop().time())
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """Return the seconds a page asks to be left alone; 0 where it names a date, as none of them does."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER_S) if text.isascii() and text.isdecimal() else 0.0


def _plain(error: Exception) -> str:
    """Return an error without its address: that is ours and long."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or type(error.os_error).__name__
    return type(error).__name__
