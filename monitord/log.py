"""Logs as events with fields: JSON lines on stdout, or coloured lines on a terminal; secrets are blotted out.

Everything goes one way: structlog and the standard library's logging (aiohttp, redis) end in the same processors.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

BLOT: Final = "***"
_SECRET_KEY: Final = re.compile(r"token|secret|passw|authorization|cookie|credential|api_?key|signature", re.IGNORECASE)
_ADDRESS_KEY: Final = re.compile(r"(^|_)(url|webhook)$", re.IGNORECASE)
_IN_TEXT: Final = (
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE), rf"\1 {BLOT}"),
    (re.compile(r"(\w://)[^/\s@]+@"), rf"\1{BLOT}@"),
    (
        re.compile(r"([?&](?:access_token|token|key|sign|secret|password|ticket)=)[^&\s\"']+", re.IGNORECASE),
        rf"\1{BLOT}",
    ),
    (re.compile(r"(/hook/)[\w-]+"), rf"\1{BLOT}"),
    (re.compile(r"\bwhsec_[\w+/=-]+"), BLOT),
)
_SHORTEST_KNOWN: Final = 4
"""A known secret shorter than this would blot out half of every word."""


class Redaction:
    """A structlog processor that blots out secrets: by key, by the look of a text, and every known secret itself."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        known = sorted((text for text in secrets if len(text) >= _SHORTEST_KNOWN), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        return {key: self._field(key, value) for key, value in event_dict.items()}

    def _field(self, key: str, value: Any) -> Any:
        if _SECRET_KEY.search(key) and not isinstance(value, int | float | type(None)):
            return BLOT
        if _ADDRESS_KEY.search(key):
            return _host_only(str(value))
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, bool | int | float | type(None)):
            return value
        if isinstance(value, Mapping):
            return {str(key): self._field(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(inner) for inner in value]
        return self.text(value if isinstance(value, str) else str(value))

    def text(self, text: str) -> str:
        """Blot out what looks like a secret, or is one, inside a text."""
        if self._known is not None:
            text = self._known.sub(BLOT, text)
        for pattern, replacement in _IN_TEXT:
            text = pattern.sub(replacement, text)
        return text


def _host_only(address: str) -> str:
    """Keep scheme, host and port of an address: many receivers carry their key in path or query."""
    match = re.match(r"(\w+://)(?:[^/@\s]*@)?([^/?#\s]*)(.*)", address, re.DOTALL)
    if match is None:
        return BLOT
    return f"{match[1]}{match[2]}{'/' + BLOT if match[3].strip('/') else ''}"


class _Stdout(logging.StreamHandler[TextIO]):
    """Write to whatever sys.stdout is now: the live console puts itself there while it draws."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute there
        return sys.stdout


def configure(*, format: str = "auto", level: str = "info", secrets: Collection[str] = ()) -> None:
    """Send all logs of the process to stdout. Call once at start; a second call replaces the first.

    format: "json", "console", or "auto" for console on a terminal. level: the least level written.
    secrets: texts that must never appear, whatever field they are in.
    """
    console = format == "console" or (format == "auto" and sys.stdout.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console, key="ts"),
        structlog.processors.format_exc_info,
        Redaction(secrets),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Stdout()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_foreign, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(console=console)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its lines hold whole request targets, tickets included, and the gateway logs connections itself.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _renderer(*, console: bool) -> Processor:
    if console:
        return structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), timestamp_key="ts", sort_keys=False, pad_event_to=24
        )
    return _json_line


def _json_line(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    """Render one line: ts, level, event first, then the fields as they were given."""
    first = {key: event_dict.pop(key) for key in ("ts", "level", "event") if key in event_dict}
    fields = {**first, **event_dict}
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate: slower, but no line is lost
        return json.dumps(fields, default=str)


def _name_foreign(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    """Give a library's sentence a static event name: the sentence becomes a field."""
    logger_name = event_dict["_record"].name
    return {**event_dict, "event": "library_log", "logger": logger_name, "text": event_dict["event"]}
