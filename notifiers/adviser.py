"""The adviser: asks an OpenAI-compatible endpoint about an alert, and its answer becomes a later event.

It is delivered to like a receiver: behind the alert, with a rate, a few tries and a record of each. Nobody waits for
it: what comes too fast, too late or beyond the day's tokens is simply not asked about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import aiohttp
import orjson
from yarl import URL

from notifiers.answer import fields_of, judge, parse_url, refused_or_retry
from notifiers.chat import WrittenOptions
from notifiers.egress import Redactor, guarded_session, parse_networks, read_limited
from notifiers.errors import DeliveryError
from notifiers.filters import AlertFilter
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import Pacing
from notifiers.reports import is_report
from notifiers.retry import RetrySchedule
from notifiers.routing import DELIVER_LABEL
from rules.alert import Alert, Event, identities, shanghai_iso

ADVISER_RULE: Final = "adviser"
"""Rule id of the answers; about a task's alert it is `task-3.advice`."""
LATEST_S: Final = 120.0
"""Advice about an alert that is older is of no use to anybody."""
DECISIONS: Final = ("buy", "sell", "hold")
MESSAGE_CHARACTERS: Final = 600
CHARACTERS_A_TOKEN: Final = 1.0
"""For what an endpoint does not count itself: of Chinese text about that many, of English four."""
_SYSTEM: Final = {
    "zh": "你是A股盯盘助手。根据给出的提醒，只回答一个JSON对象："
    '{"decision":"buy|sell|hold","confidence":0到100的整数,"reasons":["一两句理由"]}。不要其他文字。',
    "en": "You assist a trader of Chinese A-shares. Answer about the alert with one JSON object and nothing else: "
    '{"decision":"buy|sell|hold","confidence":integer 0 to 100,"reasons":["a sentence or two"]}.',
}

Tell = Callable[[Alert], Awaitable[object]]
"""Stores an event and lets it be published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedFilter(AlertFilter):
    """What is asked about: never an answer of an adviser, nor what became of an order."""

    def passes(self, alert: Alert) -> bool:
        return not is_advice(alert.rule) and not is_report(alert.rule) and AlertFilter.passes(self, alert)


def is_advice(rule: str) -> bool:
    """Tell whether this is the rule of an adviser's answers."""
    return rule == ADVISER_RULE or rule.endswith(".advice")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviserOptions(WrittenOptions):
    """The adviser's section. key is left out of repr.

    url             of the interface, such as https://api.example.com/v1; `/chat/completions` comes behind.
    max_tokens      of one answer. tokens_per_day: questions and answers together, by the endpoint's own count.
    """

    url: str
    key: str = field(default="", repr=False)
    model: str
    max_tokens: int = 300
    tokens_per_day: int = 100_000

    @property
    def filter(self) -> AlertFilter:
        return AdvisedFilter(
            events=self.events, rules=self.rules, symbols=self.symbols, severities=self.severities
        )  # fmt: skip


class Adviser:
    """Asks about one alert at a time. tell: what stores an answer as an event; its id follows from the alert's."""

    options_class: ClassVar = AdviserOptions
    schedule = RetrySchedule((0, 2, 10))
    pacing = Pacing(bundle_alerts=1000)

    def __init__(self, options: AdviserOptions, *, tell: Tell) -> None:
        """Check the options; raises DeliveryError."""
        self.options: NotifierOptions = options
        self._said = options
        self._url = parse_url(options.name, options.url) / "chat" / "completions"
        self._allow = parse_networks(options.allow_networks)
        self._redact = Redactor(URL(), [options.key] if options.key else [])
        self._tell = tell
        self._day, self._spent = "", 0
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        await self.close()
        options = self.options
        self._session = guarded_session(
            allow=self._allow, connect_timeout_s=options.connect_timeout_s, total_timeout_s=options.total_timeout_s
        )  # fmt: skip

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, notification: Notification) -> Outcome:
        alert, options = notification.alert, self._said
        if notification.now_ms - _decided_ms(alert) > LATEST_S * 1000:
            return Outcome(verdict=Verdict.OK, text="not asked: the alert is too old")
        body = orjson.dumps(self._question(alert))
        expected = round(len(body) / CHARACTERS_A_TOKEN) + options.max_tokens
        if self._left(notification.now_ms) < expected:
            return Outcome(verdict=Verdict.OK, text=f"not asked: {self._spent} tokens are spent today")
        outcome, answer = await self._ask(body, notification.now_ms)
        if answer is None:
            return outcome
        tokens = _tokens(answer, expected)
        self._spent += tokens
        text = _text_of(answer)
        if text is None:
            return Outcome(verdict=Verdict.PERMANENT, code=outcome.code, text="the answer holds no text")
        await self._tell(self._advice(alert, text, tokens=tokens))
        return Outcome(verdict=Verdict.OK, code=outcome.code, text=f"{tokens} tokens")

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Ask nothing: what comes in a bundle came faster than the rate, and would be answered too late."""
        return Outcome(verdict=Verdict.OK, text=f"not asked: {len(bundle.alerts)} alerts at once")

    def _left(self, now_ms: int) -> int:
        day = shanghai_iso(now_ms)[:10]
        if day != self._day:
            self._day, self._spent = day, 0
        return self._said.tokens_per_day - self._spent

    def _question(self, alert: Alert) -> dict[str, Any]:
        told = {
            "event": str(alert.event), "rule": alert.rule, "symbol": alert.symbol, "name": alert.name,
            "time": shanghai_iso(alert.ts_event_ms), "message": alert.message, "values": alert.values,
            "tick": alert.tick, "labels": alert.labels,
        }  # fmt: skip
        return {
            "model": self._said.model, "max_tokens": self._said.max_tokens, "temperature": 0,
            "messages": [
                {"role": "system", "content": _SYSTEM[self._said.language]},
                {"role": "user", "content": orjson.dumps(told).decode()},
            ],
        }  # fmt: skip

    async def _ask(self, body: bytes, now_ms: int) -> tuple[Outcome, Mapping[str, Any] | None]:
        """Make one request; return what it means, and the answer's fields if it is one."""
        if self._session is None:
            raise DeliveryError(f"receiver {self.options.name} is not open")
        headers = {"Content-Type": "application/json"}
        if self._said.key:
            headers["Authorization"] = f"Bearer {self._said.key}"
        host = self._url.host or ""
        try:
            async with (
                asyncio.timeout(self.options.total_timeout_s),
                self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                raw = await read_limited(response, wait_s=self.options.total_timeout_s)
                excerpt = self._redact(raw.decode("utf-8", "replace"))
                outcome = judge(response.status, response.headers.get("Retry-After"), excerpt, now_ms)
                return outcome, fields_of(raw) if outcome.verdict is Verdict.OK else None
        except TimeoutError:
            return Outcome(verdict=Verdict.RETRY, text=f"no answer from {host} in time"), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return refused_or_retry(error, host), None

    def _advice(self, alert: Alert, text: str, *, tokens: int) -> Alert:
        """Return the event of an answer; one that is no JSON is told as it is."""
        said = _object_in(text)
        decision = said.get("decision")
        decision = decision if decision in DECISIONS else "unknown"
        confidence = said.get("confidence")
        sure = float(confidence) if isinstance(confidence, int | float) and 0 <= confidence <= 100 else None
        reasons = said.get("reasons")
        words = "；".join(map(str, reasons)) if isinstance(reasons, list) else text
        alert_id, episode_id = identities(ADVISER_RULE, self.options.name, alert.id, event=Event.FIRE)
        task, dot, _ = alert.rule.rpartition(".")
        told = {DELIVER_LABEL: alert.labels[DELIVER_LABEL]} if DELIVER_LABEL in alert.labels else {}
        return Alert(
            id=alert_id, episode_id=episode_id, event=Event.FIRE, severity="info",
            rule=f"{task}.advice" if dot and "task" in alert.labels else ADVISER_RULE, rev=ADVISER_RULE,
            symbol=alert.symbol, group=alert.group, name=alert.name, trade_date=alert.trade_date,
            episode=alert.episode, ts_event_ms=alert.ts_event_ms, period=alert.period,
            labels={
                "about": alert.id, "about_rule": alert.rule, "decision": decision, "model": self._said.model, **told,
            },
            values={"CONFIDENCE": sure, "TOKENS": float(tokens)}, tick=alert.tick,
            message=self._redact_long(f"{decision}: {words}"),
        )  # fmt: skip

    def _redact_long(self, text: str) -> str:
        """Return the text without the key, printable and short; a model may say whatever it was given."""
        plain = text.replace(self._said.key, "***") if self._said.key else text
        return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:MESSAGE_CHARACTERS]


def _decided_ms(alert: Alert) -> int:
    """Return our own clock at the decision; an alert without it, as of a test, is of its event's time."""
    return (alert.stamps or {}).get("evaluated_ms", alert.ts_event_ms)


def _tokens(answer: Mapping[str, Any], expected: int) -> int:
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else expected


def _text_of(answer: Mapping[str, Any]) -> str | None:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() else None


def _object_in(text: str) -> Mapping[str, Any]:
    """Return the JSON object in a text, which models like to fence; {} where there is none."""
    begin, end = text.find("{"), text.rfind("}")
    try:
        found = orjson.loads(text[begin : end + 1]) if 0 <= begin < end else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
