"""What settings are made of: sections, and the texts, lists and numbers in them with their checks."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

EventName: TypeAlias = Literal[
    "pending", "fire", "resolve", "suppressed", "confirmed", "withdrawn", "nodata", "flapping", "expired"
]
BoardName: TypeAlias = Literal["main", "chinext", "star", "bse", "index", "b_share", "etf", "bond"]
TOLD: tuple[EventName, ...] = ("fire", "resolve", "confirmed", "withdrawn", "nodata", "flapping", "expired")
"""What a receiver gets unless told otherwise; pending and suppressed are stored and streamed only."""


def listed(value: Any) -> Any:
    """Read the text of an environment variable, credential or --set as a list: JSON, or words with commas between."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON list ({error.msg} at character {error.pos + 1})") from None


def tables(value: Any) -> Any:
    """As `listed`, for lists of tables, which only JSON can write in one line."""
    if isinstance(value, str) and not value.strip().startswith("["):
        raise ValueError('is a list of tables; write it as JSON: [{"name": …}]')
    return listed(value)


def symbol(text: str) -> str:
    if re.fullmatch(r"\d{6}\.(SH|SZ|BJ)", text):
        return text
    if re.fullmatch(r"\d{6}", text):
        raise ValueError(f"{text!r} has no exchange: write {text}.SH, {text}.SZ or {text}.BJ")
    raise ValueError(f"{text!r} is no symbol such as 600519.SH")


def web_address(secret: SecretStr) -> SecretStr:
    if not re.match(r"https?://[^/\s]+", secret.get_secret_value()):
        raise ValueError("is no address that starts with http:// or https://")
    return secret


def plain_address(text: str) -> str:
    if text and not re.match(r"https?://[^/\s@]+(/|$)", text):
        raise ValueError("is no address that starts with http:// or https:// (and holds no password)")
    return text


def network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is no network such as 10.0.0.0/8") from None


def complaint(setting: str, wrong: str, hint: str) -> PydanticCustomError:
    """Make an error of a whole section point at the setting in it that is wrong."""
    return PydanticCustomError("setting", "{wrong}", {"setting": setting, "wrong": wrong, "hint": hint})


def check_scheme(url: SecretStr | None) -> None:
    if url is not None and not re.match(r"(rediss?|unix)://", url.get_secret_value()):
        raise complaint("url", "is no redis://, rediss:// or unix:// address", "redis://127.0.0.1:6379/0")


def cpu_numbers(text: str) -> frozenset[int]:
    """Return the processors of a list such as 0 or 0,2-3; raises ValueError for a text that is none."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip())
        if found is None or int(found[1]) > int(found[2] or found[1]):
            raise ValueError(f"{text!r} is no list of processors: write 0, or 0,2-3")
        numbers |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(numbers)


def cpu_list(text: str) -> str:
    """Check a list of processors, "" = all."""
    if text:
        cpu_numbers(text)
    return text


Words: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(listed)]
Symbols: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(symbol)], ...], BeforeValidator(listed)]
Events: TypeAlias = Annotated[tuple[EventName, ...], BeforeValidator(listed)]
PlainAddress: TypeAlias = Annotated[str, AfterValidator(plain_address)]
"""An address that is no secret: whoever has one to keep is refused."""
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Speed: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Multiple of real time; 0 = as fast as the ticks are taken."""


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def stream_name(text: str) -> str:
    """Return what can be a key's part; raises ValueError."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        return text
    raise ValueError(f"{text!r} is no name: letters, digits, - _ . and at most 64 of them")


StreamName: TypeAlias = Annotated[str, AfterValidator(stream_name)]
