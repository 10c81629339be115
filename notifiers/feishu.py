"""Feishu (飞书) and Lark: a custom bot of a group, by its webhook address, signed where the bot asks for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

from aiohttp.abc import AbstractResolver

from notifiers.answer import Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S
from notifiers.wording import Markup, Wording, full_width, json_bytes
from rules.alert import Alert, Event

BODY_BYTES: Final = 20_000
"""Of a whole request: the vendor says 20 KB and not which."""
FRAME_BYTES: Final = 900
"""Of it, what is not the text: the title, the sign and the names of fields."""
_ENTITIES: Final = str.maketrans({character: f"&#{ord(character)};" for character in "&<>*_~`[]()#:+\"'\\|"})
"""A card's Markdown takes HTML entities for what would be markup."""
COLOURS: Final = {"critical": "red", "warning": "orange", "info": "blue"}
"""Colour of a card's head by severity; grey for what is over."""
OVER: Final = frozenset({Event.RESOLVE, Event.WITHDRAWN, Event.EXPIRED})


def entities(text: str) -> str:
    """Escape for a card's Markdown."""
    return text.translate(_ENTITIES)


_CARD: Final = Markup(limit=BODY_BYTES, size=json_bytes, title=None, escape=entities)
# <at …> in a text calls people, and a text has no escapes.
_TEXT: Final = Markup(limit=BODY_BYTES, size=json_bytes, escape=full_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeishuOptions(WrittenOptions):
    """A Feishu bot's section. url and secret are left out of repr.

    url           the webhook address, of Feishu or Lark.
    secret        of a bot with 签名校验; "" = without.
    keyword       a word that the bot wants in each message (自定义关键词); "" = none.
    format        card (interactive) or text.
    at_user_ids, at_all   who is called: open_id or user_id.
    """

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    keyword: str = ""
    format: Literal["card", "text"] = "card"
    at_user_ids: tuple[str, ...] = ()
    at_all: bool = False


class FeishuNotifier(ChatBot):
    """One message a request; 100 a minute and 5 a second."""

    options_class: ClassVar = FeishuOptions
    accepted: ClassVar[bytes] = b'{"StatusCode":0,"StatusMessage":"success","code":0,"data":{},"msg":"success"}'
    codes: ClassVar = Codes(
        names=("code", "StatusCode"),
        permanent=(9499, 19001, 19002, 19021, 19022, 19024),
        pauses_s={11232: 60.0},
        hints={
            2200: "Feishu is busy",
            11232: "sent too fast",
            9499: "the message is not as Feishu wants it",
            19001: "there is no such bot: look at the url",
            19002: "the message is not as Feishu wants it",
            19021: "the sign does not match: look at the secret and at this machine's clock",
            19022: "this machine's address is not on the bot's list",
            19024: "the bot's keyword is missing: set keyword",
        },
    )
    pacing = Pacing(rates=(Rate(95, 60.0), Rate(5, 1.0)), bundle_alerts=200, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: FeishuOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if options.format not in {"card", "text"}:
            raise DeliveryError(f"receiver {options.name}: format is card or text")
        called = (*options.at_user_ids, *(("all",) if options.at_all else ()))
        pattern = '<at user_id="{}"></at>' if options.format == "text" else "<at id={}></at>"
        self._called = "".join(pattern.format(one) for one in called)
        taken = FRAME_BYTES + json_bytes(self._called)
        if taken > BODY_BYTES // 2:
            raise DeliveryError(f"receiver {options.name}: too many are called to leave room for a message")
        super().__init__(
            options,
            url=parse_url(options.name, options.url),
            secrets=(options.secret,),
            markup=replace(_TEXT if options.format == "text" else _CARD, limit=BODY_BYTES - taken),
            keyword=options.keyword,
            resolver=resolver,
        )
        self._format, self._secret = options.format, options.secret

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        text = self._markup.line.join(part for part in (wording.text, self._called) if part)
        fields: dict[str, Any] = {}
        if self._secret:
            fields = {"timestamp": str(now_ms // 1000), "sign": sign(self._secret, now_ms // 1000)}
        if self._format == "text":
            return Letter(self._url, {**fields, "msg_type": "text", "content": {"text": text}})
        return Letter(self._url, {**fields, "msg_type": "interactive", "card": _card(wording.title, text, alerts)})


def _card(title: str, text: str, alerts: Sequence[Alert]) -> dict[str, Any]:
    """Return a card with a coloured head and one block of Markdown."""
    worst = next((colour for level, colour in COLOURS.items() if any(a.severity == level for a in alerts)), "blue")
    colour = "grey" if all(alert.event in OVER for alert in alerts) else worst
    return {
        "config": {"wide_screen_mode": True},
        "header": {"title": {"tag": "plain_text", "content": title}, "template": colour},
        "elements": [{"tag": "markdown", "content": text}],
    }


def sign(secret: str, now_s: int) -> str:
    """Return the base64 of HMAC-SHA256 over nothing with `<s>\\n<secret>` as the key; valid for an hour."""
    return base64.b64encode(hmac.new(f"{now_s}\n{secret}".encode(), b"", hashlib.sha256).digest()).decode()
