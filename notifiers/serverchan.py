"""ServerChan (Server酱): messages to WeChat (Turbo) or to its own app (Server酱³), by a SendKey."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from aiohttp.abc import AbstractResolver
from yarl import URL

from notifiers.answer import Answer, Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Outcome, Verdict
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S
from notifiers.wording import Markup, Wording, utf8_bytes
from rules.alert import Alert

TEXT_BYTES: Final = 32_000
TITLE_CHARACTERS: Final = 32
NO_KEY: Final = 40001
USED_UP: Final = "次数限制"
PAUSE_S: Final = 3600.0
_ESCAPED: Final = re.compile(r"([\\`*_{}\[\]()#+!|<>~-])")
_APP_KEY: Final = re.compile(r"sctp(\d+)t[A-Za-z0-9]+")
_TURBO_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,128}")


def backslashed(text: str) -> str:
    """Escape for CommonMark."""
    return _ESCAPED.sub(r"\\\1", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChanOptions(WrittenOptions):
    """A ServerChan account's section. key is left out of repr.

    key      the SendKey: SCT… of Turbo, sctp… of Server酱³; it tells which of the two is asked.
    channel  numbers of channels with | between, "" = as the account is set.
    server   where another is to be asked than the vendor's; "" = the vendor's.
    """

    key: str = field(repr=False)
    channel: str = ""
    server: str = ""


class ServerChanNotifier(ChatBot):
    """One message a request. An account has few a day (five are free): filter, and group."""

    options_class: ClassVar = ServerChanOptions
    accepted: ClassVar[bytes] = b'{"code":0,"message":"","data":{"pushid":"1","error":"SUCCESS","errno":0}}'
    codes: ClassVar = Codes(
        names=("code", "errno"),
        permanent=(40001,),
        hints={40001: "there is no such key, or the account's messages of the day are used up"},
    )
    pacing = Pacing(rates=(Rate(5, 60.0),), bundle_alerts=200, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: ServerChanOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        super().__init__(
            options,
            url=_address(options),
            secrets=(options.key,),
            markup=Markup(limit=TEXT_BYTES, title=None, line="\n\n", escape=backslashed, size=utf8_bytes),
            resolver=resolver,
        )
        self._channel = options.channel

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        fields = {"title": wording.title[:TITLE_CHARACTERS], "desp": wording.text}
        return Letter(self._url, fields | ({"channel": self._channel} if self._channel else {}))

    def _judge(self, answer: Answer, now_ms: int) -> Outcome:
        """One code stands for a wrong key and for a day that is used up: the text tells, and the second passes."""
        outcome = self.codes.judge(_with_the_inner_code(answer), now_ms)
        if outcome.code == NO_KEY and USED_UP in str(answer.fields.get("message", "")):
            return replace(outcome, verdict=Verdict.RETRY, retry_after_s=PAUSE_S)
        return outcome


def _with_the_inner_code(answer: Answer) -> Answer:
    """Return the answer with the first errno that tells of a failure in the place of a code of success.

    One layer of the service takes a message (code 0), another may refuse it: in `errno`, at the top or inside `data`.
    """
    inner = answer.fields.get("data")
    errnos = [fields.get("errno", 0) for fields in (answer.fields, inner) if isinstance(fields, dict)]
    wrong = next((one for one in errnos if one != 0 or isinstance(one, bool)), 0)
    if answer.fields.get("code", 0) != 0 or wrong == 0 or not errnos:
        return answer
    return replace(answer, fields={**answer.fields, "code": wrong})


def _address(options: ServerChanOptions) -> URL:
    """Return where the key belongs; raises DeliveryError for what is no SendKey."""
    app = _APP_KEY.fullmatch(options.key)
    if app is None and not _TURBO_KEY.fullmatch(options.key):
        raise DeliveryError(f"receiver {options.name}: key is no SendKey such as SCT… or sctp…")
    vendor = f"https://{app[1]}.push.ft07.com/send" if app else "https://sctapi.ftqq.com"
    return parse_url(options.name, options.server or vendor, setting="server") / f"{options.key}.send"
