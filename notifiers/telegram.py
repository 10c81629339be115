"""Telegram: a bot that writes to one chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, ClassVar, Final

from aiohttp.abc import AbstractResolver

from notifiers.answer import Answer, Codes, parse_url
from notifiers.chat import ChatBot, Letter, WrittenOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Outcome, Verdict
from notifiers.pacing import Pacing, Rate
from notifiers.retry import CHAT_STALE_AFTER_S, RETRY_AFTER_LIMIT_S
from notifiers.wording import Markup, Wording, utf16_units
from rules.alert import Alert

TEXT_UNITS: Final = 4096
SERVER: Final = "https://api.telegram.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramOptions(WrittenOptions):
    """A Telegram bot's section. token is left out of repr.

    token      of the bot, as @BotFather gives it.
    chat_id    whom it writes to: a number, negative for groups, or @channel.
    thread_id  topic of a forum group, 0 = none.
    silent     without a sound.
    server     a Bot API server of one's own, or a mirror.
    """

    token: str = field(repr=False)
    chat_id: str
    thread_id: int = 0
    silent: bool = False
    server: str = SERVER


class TelegramNotifier(ChatBot):
    """One message a request; in a group 20 a minute, in a chat one a second."""

    options_class: ClassVar = TelegramOptions
    accepted: ClassVar[bytes] = b'{"ok":true,"result":{"message_id":1}}'
    codes: ClassVar = Codes(
        names=("error_code",),
        permanent=(400, 401, 403, 404),
        hints={
            400: "Telegram does not take the message, or there is no such chat_id",
            401: "there is no such bot: look at the token",
            403: "the bot was blocked, or is not in the chat",
            404: "there is no such bot: look at the token",
            429: "sent too fast",
        },
    )
    pacing = Pacing(rates=(Rate(20, 60.0), Rate(1, 1.0)), bundle_alerts=100, stale_after_s=CHAT_STALE_AFTER_S)

    def __init__(self, options: TelegramOptions, *, resolver: AbstractResolver | None = None) -> None:
        """Check the options; raises DeliveryError. resolver is for tests."""
        if not options.token or not options.chat_id:
            raise DeliveryError(f"receiver {options.name}: token and chat_id are needed")
        server = parse_url(options.name, options.server, setting="server")
        super().__init__(
            options,
            url=server / f"bot{options.token}" / "sendMessage",
            secrets=(options.token,),
            markup=Markup(limit=TEXT_UNITS, size=utf16_units, title="<b>{}</b>", escape=escape),
            resolver=resolver,
        )
        self._fields: dict[str, Any] = {
            "chat_id": options.chat_id, "parse_mode": "HTML", "link_preview_options": {"is_disabled": True},
            "disable_notification": options.silent,
        }  # fmt: skip
        if options.thread_id:
            self._fields["message_thread_id"] = options.thread_id

    def _letter(self, wording: Wording, *, alerts: Sequence[Alert], now_ms: int) -> Letter:
        return Letter(self._url, {**self._fields, "text": wording.text})

    def _judge(self, answer: Answer, now_ms: int) -> Outcome:
        """Success is `ok` alone; a failure's code stands beside it, and the pause it wants in `parameters`."""
        if answer.fields.get("ok") is True and answer.good:
            return Outcome(verdict=Verdict.OK, code=answer.status)
        outcome = self.codes.judge(answer, now_ms)
        if outcome.verdict is Verdict.OK:  # error_code 0 beside ok: false
            outcome = replace(outcome, verdict=Verdict.RETRY, text=f"not ok: {answer.excerpt}")
        parameters = answer.fields.get("parameters")
        pause_s = parameters.get("retry_after") if isinstance(parameters, dict) else None
        if outcome.verdict is not Verdict.RETRY or not isinstance(pause_s, int) or pause_s < 0:
            return outcome
        return replace(outcome, retry_after_s=min(float(pause_s), RETRY_AFTER_LIMIT_S))
