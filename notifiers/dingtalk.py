"""DingTalk (钉钉): a custom robot of a group, by its webhook address, signed where the robot asks for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

import orjson
from aiohttp.abc import AbstractResolver

from notifiers.answer import Answer, Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Outcome
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S
from notifiers.wording import Markup, Wording, full_width, json_bytes
from rules.alert import Alert

BODY_BYTES: Final = 20_000
"""Of a whole request."""
FRAME_BYTES: Final = 600
"""Of it, what is not the text: the title and the names of fields."""
BLOCKED_S: Final = 600.0
"""Who sends more than 20 in a minute is refused for so long."""
BUSY_STATUS: Final = 1111
"""`status` of the page with which the vendor's front door answers in the robot's place."""
_MARKDOWN: Final = Markup(limit=BODY_BYTES, size=json_bytes, title="### {}", line="\n\n", escape=full_width)
_TEXT: Final = Markup(limit=BODY_BYTES, size=json_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DingTalkOptions(WrittenOptions):
    """A DingTalk robot's section. url and secret are left out of repr.

    url           the webhook address, with its access_token.
    secret        SEC…, of a robot with 加签; "" = without.
    keyword       a word that the robot wants in each message (自定义关键词); "" = none.
    format        markdown or text.
    at_mobiles, at_user_ids, at_all   who is called.
    """

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    keyword: str = ""
    format: Literal["markdown", "text"] = "markdown"
    at_mobiles: tuple[str, ...] = ()
    at_user_ids: tuple[str, ...] = ()
    at_all: bool = False


class DingTalkNotifier(ChatBot):
    """One message a request; 20 a minute, who sends more is blocked for ten minutes."""

    options_class: ClassVar = DingTalkOptions
    accepted: ClassVar[bytes] = b'{"errcode":0,"errmsg":"ok"}'
    codes: ClassVar = Codes(
        names=("errcode",),
        permanent=(310000, 300005, range(400_100, 400_200), range(430_100, 430_110)),
        pauses_s={130101: BLOCKED_S, 410100: BLOCKED_S},
        hints={
            -1: "DingTalk is busy",
            130101: "sent too fast, blocked for ten minutes",
            410100: "sent too fast, blocked for ten minutes",
            310000: "refused by the robot's security settings: keyword, sign (and this machine's clock) or address",
            300005: "there is no such access_token",
            400101: "there is no such access_token",
            400102: "the robot was stopped",
            400105: "the robot does not take this kind of message",
            400106: "the robot was removed",
        },
    )
    # One less than the vendor's 20 a minute: its minute and ours need not begin together, and the price is ten minutes.
    pacing = Pacing(rates=(Rate(19, 60.0),), bundle_alerts=200, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: DingTalkOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if options.format not in {"markdown", "text"}:
            raise DeliveryError(f"receiver {options.name}: format is markdown or text")
        called: dict[str, Any] = {
            "atMobiles": options.at_mobiles, "atUserIds": options.at_user_ids, "isAtAll": options.at_all
        }  # fmt: skip
        # Whom `at` names is called only where the text shows the name too, so each counts twice.
        self._shown = " ".join(f"@{one}" for one in (*options.at_mobiles, *options.at_user_ids))
        taken = FRAME_BYTES + len(orjson.dumps(called)) + json_bytes(self._shown)
        if taken > BODY_BYTES // 2:
            raise DeliveryError(f"receiver {options.name}: too many are called to leave room for a message")
        markup = replace(_TEXT if options.format == "text" else _MARKDOWN, limit=BODY_BYTES - taken)
        super().__init__(
            options,
            url=parse_url(options.name, options.url),
            secrets=(options.secret,),
            markup=markup,
            keyword=options.keyword,
            resolver=resolver,
        )
        self._format, self._secret, self._called = options.format, options.secret, called

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        text = self._markup.line.join(part for part in (wording.text, self._shown) if part)
        content = {"content": text} if self._format == "text" else {"title": wording.title, "text": text}
        url = self._url
        if self._secret:
            url = url.update_query(timestamp=str(now_ms), sign=sign(self._secret, now_ms))
        return Letter(url, {"msgtype": self._format, self._format: content, "at": self._called})

    def _judge(self, answer: Answer, now_ms: int) -> Outcome:
        outcome = self.codes.judge(answer, now_ms)
        if self.codes.code_of(answer.fields) is None and answer.fields.get("status") == BUSY_STATUS:
            return replace(outcome, retry_after_s=60.0)
        return outcome


def sign(secret: str, now_ms: int) -> str:
    """Return the base64 of HMAC-SHA256 over `<ms>\\n<secret>` with the secret as the key; valid for an hour."""
    mac = hmac.new(secret.encode(), f"{now_ms}\n{secret}".encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()
