"""What an HTTP answer, or the lack of one, means for a delivery: the same for every receiver that is told over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from notifiers.egress import EgressRefused, describe
from notifiers.errors import DeliveryError
from notifiers.notifier import Outcome, Verdict
from notifiers.retry import RETRY_AFTER_LIMIT_S

RETRIED_4XX: Final = frozenset({408, 425, 429})
GONE: Final = frozenset({404, 410})
"""What tells of a wrong address also where there is no code of the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer as far as it was read.

    fields   the body's JSON object, {} where the body is none: compressed, cut off, another thing altogether.
    excerpt  the body for the operator: redacted, short, on one line.
    """

    status: int
    retry_after: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    excerpt: str = ""

    @property
    def good(self) -> bool:
        """Whether the HTTP status tells of success, which says nothing about the protocol inside."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The result codes of a protocol that lives inside HTTP answers; a code that is in no list is tried again.

    names      fields of the body that hold the code: the first that is there decides.
    success    the one code of success; any other, or none, is a failure whatever the HTTP status is.
    permanent  codes of an alert or a bot that will never be taken: numbers and ranges.
    pauses_s   codes after which the receiver wants to be left alone, and for how many seconds.
    hints      what to do about a code, for the operator.
    """

    names: tuple[str, ...]
    success: int = 0
    permanent: tuple[int | range, ...] = ()
    pauses_s: Mapping[int, float] = field(default_factory=dict)
    hints: Mapping[int, str] = field(default_factory=dict)

    def code_of(self, fields: Mapping[str, Any]) -> int | None:
        """Return the body's code, None where it bears none, or none that is a whole number."""
        code = next((fields[name] for name in self.names if name in fields), None)
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    def is_permanent(self, code: int) -> bool:
        """Tell whether trying again is no use."""
        return any(code == one if isinstance(one, int) else code in one for one in self.permanent)

    def judge(self, answer: Answer, now_ms: int) -> Outcome:
        """Return what the answer means: by its code where there is one, else by its HTTP status, but never success."""
        code = self.code_of(answer.fields)
        pause_s = parse_retry_after(answer.retry_after, now_ms) if answer.status in {429, 503} else None
        if code is None:
            # Other statuses of refusal are a front door's or a proxy's, which knows nothing of the message.
            if answer.status in GONE:
                return judge(answer.status, answer.retry_after, answer.excerpt, now_ms)
            text = f"HTTP {answer.status} without {' or '.join(self.names)}: {answer.excerpt}"
            return Outcome(verdict=Verdict.RETRY, code=answer.status, text=text, retry_after_s=pause_s)
        if code == self.success:
            if answer.good:
                return Outcome(verdict=Verdict.OK, code=code)
            text = f"HTTP {answer.status} although {self.names[0]} is {code}: {answer.excerpt}"
            return Outcome(verdict=Verdict.RETRY, code=answer.status, text=text, retry_after_s=pause_s)
        text = ": ".join(part for part in (f"{self.names[0]} {code}", self.hints.get(code), answer.excerpt) if part)
        if self.is_permanent(code):
            return Outcome(verdict=Verdict.PERMANENT, code=code, text=text)
        wanted = [pause for pause in (pause_s, self.pauses_s.get(code)) if pause is not None]
        unknown = answer.status < 500 and not wanted and code not in self.hints
        return Outcome(
            verdict=Verdict.RETRY, code=code, text=text, retry_after_s=max(wanted, default=None), unknown=unknown
        )  # fmt: skip


def fields_of(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is, {} for anything else."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def parse_url(name: str, url: str, *, setting: str = "url") -> URL:
    """Return the parsed URL; raises DeliveryError, without the URL in it, unless it is http(s) with a host."""
    try:
        parsed = URL(url)
    except ValueError:
        raise DeliveryError(f"receiver {name}: {setting} cannot be parsed; write https://host/path") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise DeliveryError(f"receiver {name}: {setting} needs http:// or https:// and a host")
    return parsed


def judge(status: int, retry_after: str | None, excerpt: str, now_ms: int) -> Outcome:
    """Return what an HTTP answer means for the delivery."""
    if 200 <= status < 300:
        return Outcome(verdict=Verdict.OK, code=status)
    if status == 410:
        return Outcome(verdict=Verdict.DISABLE, code=status, text=excerpt)
    if 400 <= status < 500 and status not in RETRIED_4XX:
        return Outcome(verdict=Verdict.PERMANENT, code=status, text=excerpt)
    pause_s = parse_retry_after(retry_after, now_ms) if status in {429, 503} else None
    return Outcome(verdict=Verdict.RETRY, code=status, text=excerpt, retry_after_s=pause_s)


def parse_retry_after(text: str | None, now_ms: int) -> float | None:
    """Return the pause in seconds, 0 to RETRY_AFTER_LIMIT_S; None where there is none or it cannot be read.

    Both forms are read: a count of seconds and an HTTP date.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_LIMIT_S)
    try:
        at_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at_s - now_ms / 1000), RETRY_AFTER_LIMIT_S)


def refused_or_retry(error: Exception, host: str) -> Outcome:
    """Return the outcome of a request without an answer: an address refused or unusable is final, all else retried."""
    if isinstance(getattr(error, "os_error", error), EgressRefused):
        text = f"{host} is not a public address; add its network to allow_networks to permit it"
        return Outcome(verdict=Verdict.PERMANENT, text=text)
    if isinstance(error, aiohttp.InvalidURL):
        return Outcome(verdict=Verdict.PERMANENT, text=f"{host} is not a host name or address that can be used")
    return Outcome(verdict=Verdict.RETRY, text=f"{host}: {describe(error)}")
