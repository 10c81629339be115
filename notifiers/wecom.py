"""WeCom (企业微信): a robot of a group, by its webhook address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

from aiohttp.abc import AbstractResolver

from notifiers.answer import Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S
from notifiers.wording import Markup, Wording, full_width, utf8_bytes
from rules.alert import Alert

MARKDOWN_BYTES: Final = 4096
TEXT_BYTES: Final = 2048
BUNDLES: Final = {"markdown": 100, "text": 50}
"""Alerts in one message: with 24 bytes an id, ids take up to about 60 % of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeComOptions(WrittenOptions):
    """A WeCom robot's section. url is left out of repr.

    url         the webhook address, with its key.
    format      markdown or text; only text can call people by mobile number, or everybody.
    at_user_ids, at_mobiles, at_all   who is called.
    """

    url: str = field(repr=False)
    format: Literal["markdown", "text"] = "markdown"
    at_user_ids: tuple[str, ...] = ()
    at_mobiles: tuple[str, ...] = ()
    at_all: bool = False


class WeComNotifier(ChatBot):
    """One message a request; 20 a minute. There is no signature: the key in the address is all there is."""

    options_class: ClassVar = WeComOptions
    accepted: ClassVar[bytes] = b'{"errcode":0,"errmsg":"ok"}'
    codes: ClassVar = Codes(
        names=("errcode",),
        permanent=(93000, 40058),
        pauses_s={45009: 60.0},
        hints={
            -1: "WeCom is busy",
            45009: "sent too fast",
            93000: "there is no such robot: look at the url's key",
            40058: "the message is not as WeCom wants it",
        },
    )

    def __init__(self, options: WeComOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if options.format not in BUNDLES:
            raise DeliveryError(f"receiver {options.name}: format is markdown or text")
        if options.format == "markdown" and (options.at_mobiles or options.at_all):
            raise DeliveryError(
                f'receiver {options.name}: WeCom calls mobile numbers and everybody in text only; set format = "text"'
            )
        self._shown = " ".join(f"<@{one}>" for one in options.at_user_ids) if options.format == "markdown" else ""
        if utf8_bytes(self._shown) > MARKDOWN_BYTES // 8:
            raise DeliveryError(f"receiver {options.name}: too many are called to leave room for a message")
        super().__init__(
            options, url=parse_url(options.name, options.url), markup=self._markup_of(options), resolver=resolver
        )
        self.pacing = Pacing(
            rates=(Rate(20, 60.0),), bundle_alerts=BUNDLES[options.format], stale_after_s=CHAT_STALE_AFTER_S
        )
        self._format = options.format
        self._called: dict[str, Any] = {
            "mentioned_list": [*options.at_user_ids, *(["@all"] if options.at_all else [])],
            "mentioned_mobile_list": list(options.at_mobiles),
        }

    def _markup_of(self, options: WeComOptions) -> Markup:
        if options.format == "text":
            return Markup(limit=TEXT_BYTES)
        markup = Markup(limit=MARKDOWN_BYTES, title="**{}**", escape=full_width)
        return replace(markup, limit=markup.limit - utf8_bytes(self._shown) - 1)

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        text = "\n".join(part for part in (wording.text, self._shown) if part)
        content: dict[str, Any] = {"content": text}
        if self._format == "text":
            content |= {name: called for name, called in self._called.items() if called}
        return Letter(self._url, {"msgtype": self._format, self._format: content})
