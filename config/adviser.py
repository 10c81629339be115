"""Settings of the adviser, which asks a language model about alerts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from config.values import PlainAddress, Section, Symbols, Words, listed, network


class AdviserSection(Section):
    """Asks an OpenAI-compatible endpoint about alerts; its answers are events of the rule `adviser`."""

    url: PlainAddress = ""  # of the interface, up to /v1; "" = nobody is asked
    key: Annotated[SecretStr, Field(min_length=1)] | None = None  # sent as a bearer token, unset = none is sent
    model: str = Field(default="gpt-4o-mini", min_length=1)
    rules: Words = ()  # only alerts of these rules, () = all; likewise symbols and severities
    symbols: Symbols = ()
    severities: Words = ()
    per_minute: int = Field(default=6, ge=1, le=600)  # questions a minute at most
    max_tokens: int = Field(default=300, ge=16, le=8192)  # of one answer
    tokens_per_day: int = Field(default=100_000, ge=0)  # questions and answers, since the daemon's start
    timeout_s: float = Field(default=20.0, gt=0, le=60)  # how long an answer may take
    language: Literal["zh", "en"] = "zh"
    # networks it may be in although they are not public
    allow_networks: Annotated[tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(listed)] = ()

    def options(self) -> dict[str, Any]:
        """Return the fields as the adviser takes them, the key as a plain text: show this to nobody."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in ("key", "timeout_s")}
        times = {"total_timeout_s": self.timeout_s, "connect_timeout_s": min(3.0, self.timeout_s)}
        return {**fields, **times, "key": "" if self.key is None else self.key.get_secret_value()}
