"""PushPlus (推送加): messages to WeChat by an official account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from aiohttp.abc import AbstractResolver

from notifiers.answer import Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S, RETRY_AFTER_LIMIT_S
from notifiers.wording import Markup, Wording
from rules.alert import Alert

TEXT_BYTES: Final = 20_000
"""The vendor allows 20,000 characters, more for who pays."""
SERVER: Final = "https://www.pushplus.plus"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlusOptions(WrittenOptions):
    """A PushPlus account's section. token is left out of repr.

    token    of the account or of one message.
    topic    code of a group (群组编码), "" = the account's owner alone.
    channel  wechat, webhook, cp, mail, sms, as the vendor names them.
    server   where another is to be asked than the vendor's.
    """

    token: str = field(repr=False)
    topic: str = ""
    channel: str = "wechat"
    server: str = SERVER


class PushPlusNotifier(ChatBot):
    """One message a request. 200 a day are free; who goes on after code 900 is shut out for days."""

    options_class: ClassVar = PushPlusOptions
    accepted: ClassVar[bytes] = b'{"code":200,"msg":"\xe8\xaf\xb7\xe6\xb1\x82\xe6\x88\x90\xe5\x8a\x9f","data":"f1"}'
    codes: ClassVar = Codes(
        names=("code",),
        success=200,
        permanent=(302, 401, 403, 600, 805, 888, 903, 905, 999),
        pauses_s={900: RETRY_AFTER_LIMIT_S},
        hints={
            403: "this machine's address is not on the account's list",
            500: "PushPlus is busy",
            888: "the account has no points left",
            900: "the account is shut out: too many messages",
            903: "there is no such token",
            905: "the account's owner has not proved who they are (实名认证)",
            999: "PushPlus does not take the message",
        },
    )
    pacing = Pacing(rates=(Rate(5, 60.0), Rate(200, 86_400.0)), bundle_alerts=200, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: PushPlusOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if not options.token:
            raise DeliveryError(f"receiver {options.name}: token is needed")
        super().__init__(
            options,
            url=parse_url(options.name, options.server, setting="server") / "send",
            secrets=(options.token,),
            markup=Markup(limit=TEXT_BYTES, title=None),
            resolver=resolver,
        )
        self._fields: dict[str, Any] = {"token": options.token, "template": "txt", "channel": options.channel}
        if options.topic:
            self._fields["topic"] = options.topic

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        return Letter(self._url, {**self._fields, "title": wording.title, "content": wording.text})
