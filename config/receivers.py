"""The settings of each kind of receiver. Its `kind` is that of notifiers/notifier.py, and so are the fields' names."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from config.values import TOLD, Events, PlainAddress, Section, Symbols, Words, complaint, listed, network, web_address

Networks: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(listed)]
WebAddress: TypeAlias = Annotated[SecretStr, AfterValidator(web_address)]
Secret: TypeAlias = Annotated[SecretStr, Field(min_length=1)]


class Receiver(Section):
    """What all receivers have."""

    kind: ClassVar[str]

    name: str = Field(min_length=1)
    events: Events = TOLD
    rules: Words = ()
    symbols: Symbols = ()
    severities: Words = ()
    per_minute: int = Field(default=0, ge=0)
    """Messages a minute at most, besides what the kind itself allows; 0 = no other limit."""
    allow_networks: Networks = ()
    """Networks a receiver may be in although they are not public."""

    def options(self) -> dict[str, Any]:
        """Return the fields as the notifier takes them: secrets are plain texts, so show this to nobody."""
        return {name: _plain(getattr(self, name)) for name in type(self).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


class Written(Receiver):
    """A receiver that writes for people."""

    language: Literal["zh", "en"] = "zh"


class Webhook(Receiver):
    """One receiver of alerts over HTTP; its address is a secret, as many receivers put their key there."""

    kind = "webhook"

    url: WebAddress
    secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(listed)] = ()
    """Signing secrets, newest first; every one signs, so that a receiver can change over."""


class DingTalk(Written):
    """A robot of a DingTalk group."""

    kind = "dingtalk"

    url: WebAddress
    secret: SecretStr = SecretStr("")
    """SEC…, of a robot with 加签."""
    keyword: str = ""
    format: Literal["markdown", "text"] = "markdown"
    at_mobiles: Words = ()
    at_user_ids: Words = ()
    at_all: bool = False


class Feishu(Written):
    """A bot of a Feishu or Lark group."""

    kind = "feishu"

    url: WebAddress
    secret: SecretStr = SecretStr("")
    """Of a bot with 签名校验."""
    keyword: str = ""
    format: Literal["card", "text"] = "card"
    at_user_ids: Words = ()
    at_all: bool = False


class WeCom(Written):
    """A robot of a WeCom group."""

    kind = "wecom"

    url: WebAddress
    format: Literal["markdown", "text"] = "markdown"
    at_user_ids: Words = ()
    at_mobiles: Words = ()
    at_all: bool = False

    @model_validator(mode="after")
    def _calls_in_text(self) -> WeCom:
        if self.format == "markdown" and (self.at_mobiles or self.at_all):
            raise complaint("format", "cannot call mobile numbers or everybody", 'set format = "text"')
        return self


class Telegram(Written):
    """A Telegram chat that a bot writes to."""

    kind = "telegram"

    token: Secret
    chat_id: str = Field(min_length=1)
    thread_id: int = Field(default=0, ge=0)
    silent: bool = False
    server: PlainAddress = "https://api.telegram.org"

    @model_validator(mode="before")
    @classmethod
    def _chat_id_as_text(cls, fields: Any) -> Any:
        """Take a number too, as Telegram writes ids."""
        if isinstance(fields, dict) and isinstance(fields.get("chat_id"), int):
            return {**fields, "chat_id": str(fields["chat_id"])}
        return fields


class Bark(Written):
    """An iPhone with Bark."""

    kind = "bark"

    key: Secret
    server: PlainAddress = "https://api.day.app"
    group: str = "monitord"
    level: Literal["auto", "active", "timeSensitive", "passive", "critical"] = "auto"
    sound: str = ""


class PushPlus(Written):
    """A PushPlus account."""

    kind = "pushplus"

    token: Secret
    topic: str = ""
    channel: str = "wechat"
    server: PlainAddress = "https://www.pushplus.plus"


class ServerChan(Written):
    """A ServerChan account."""

    kind = "serverchan"

    key: Secret
    channel: str = ""
    server: PlainAddress = ""


class Email(Written):
    """Mail by one SMTP server."""

    kind = "email"

    host: str = Field(min_length=1)
    port: int = Field(default=0, ge=0, le=65535)
    security: Literal["tls", "starttls", "none"] = "tls"
    username: str = ""
    password: SecretStr = SecretStr("")
    ca_file: str = ""
    sender: str = Field(min_length=3)
    to: Annotated[tuple[str, ...], BeforeValidator(listed), Field(min_length=1)]


class RedisList(Receiver):
    """A list in a Redis."""

    kind = "redis"

    url: Secret
    key: str = Field(default="monitord:alerts", min_length=1)
    max_length: int = Field(default=100_000, ge=0)


class Tdx(Written):
    """Files that TDX shows."""

    kind = "tdx"

    signs: str = ""
    number: int = Field(default=101, ge=1, le=9999)
    block: str = ""
    block_limit: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _has_a_file(self) -> Tdx:
        if not self.signs and not self.block:
            raise complaint("signs", "is missing, and so is block", "name extern_user.txt, a .blk file, or both")
        return self


class AppriseService(Written):
    """A service by Apprise."""

    kind = "apprise"

    url: Secret
