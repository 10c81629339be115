"""The words of the WebSocket protocol: what a client may say, what it hears, and the codes of errors and closes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from sys import intern
from typing import Any, Final, TypeAlias

import orjson

from monitord.taskids import task_of

MAX_INTERVAL_MS: Final = 60_000
DEFAULT_INTERVAL_MS: Final = 500
MAX_NAME: Final = 200
TASK: Final = "task:"
NAMED: Final = ("alerts:sym:", "alerts:rule:", "alerts:sev:", "tick:", TASK)
PLAIN: Final = ("alerts", "health")
Id: TypeAlias = int | str | None


class ErrorCode(IntEnum):
    """What went wrong with one request; the connection stays."""

    BAD_REQUEST = 100
    UNAUTHORIZED = 101
    UNKNOWN_CHANNEL = 102
    PERMISSION_DENIED = 103
    LIMIT_EXCEEDED = 104
    ALREADY_SUBSCRIBED = 105
    UNRECOVERABLE_POSITION = 106
    INTERNAL = 120


class CloseCode(IntEnum):
    """Why a connection ends. 4000-4499: come back; 4500 and up: coming back changes nothing."""

    SHUTDOWN = 1001
    TOO_BIG = 1009
    INTERNAL = 1011
    AUTH_EXPIRED = 4001
    SLOW = 4008
    GAP = 4010
    RATE = 4029
    BAD_TOKEN = 4501
    FORBIDDEN_ORIGIN = 4503
    PROTOCOL = 4507


class RequestError(Exception):
    """A request that cannot be served; becomes an error reply."""

    def __init__(self, code: ErrorCode, msg: str, *, reply_to: Id = None) -> None:
        super().__init__(msg)
        self.code, self.msg, self.reply_to = code, msg, reply_to


class NotProtocol(Exception):
    """What came is no message of this protocol at all; ends the connection with 4507."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the stream of alerts: everything up to `off` of this epoch has been seen."""

    epoch: str
    off: int


@dataclass(frozen=True, slots=True)
class Want:
    """One channel of a subscribe request. interval_ms only on ticks, since only on alerts."""

    ch: str
    since: Position | None = None
    interval_ms: int = DEFAULT_INTERVAL_MS

    @property
    def is_alerts(self) -> bool:
        """Whether it carries alerts, which have positions."""
        return self.ch == "alerts" or self.ch.startswith(("alerts:", TASK))

    @property
    def is_task(self) -> bool:
        """Whether it carries a task's status and progress besides its alerts."""
        return self.ch.startswith(TASK)

    @property
    def symbol(self) -> str | None:
        """The symbol of a tick channel, else None."""
        return self.ch[5:] if self.ch.startswith("tick:") else None


@dataclass(frozen=True, slots=True)
class Auth:
    id: Id
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscribe:
    id: Id
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    id: Id
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    id: Id


Request: TypeAlias = Auth | Subscribe | Unsubscribe | Ping


@dataclass(frozen=True, slots=True)
class Published:
    """One alert as the gateway holds it. record: its JSON without a raw newline; channels: all it belongs to."""

    epoch: str
    off: int
    record: bytes
    channels: tuple[str, ...]

    @classmethod
    def of(cls, epoch: str, off: int, record: bytes) -> Published:
        """Read the names of its channels from the record; raises ValueError if it is no JSON object."""
        alert = orjson.loads(record)
        if not isinstance(alert, dict):
            raise ValueError("an alert is a JSON object")
        if b"\n" in record or b"\r" in record:  # they separate objects in a frame and lines in SSE
            record = orjson.dumps(alert)
        return cls(epoch, off, record, channels_of(alert.get("symbol"), alert.get("rule"), alert.get("severity")))


def channels_of(symbol: object, rule: object, severity: object) -> tuple[str, ...]:
    """Return all channels an alert goes out on; one without a symbol (a group's) has no symbol channel."""
    named = (("alerts:sym:", symbol), ("alerts:rule:", rule), ("alerts:sev:", severity))
    # One text of each name: ten thousand alerts are kept, 200 bytes less of each.
    channels = ("alerts", *[intern(start + name) for start, name in named if isinstance(name, str)])
    task = task_of(rule) if isinstance(rule, str) and rule.startswith("task-") else None
    return channels if task is None else (*channels, f"{TASK}{task[0]}")


@dataclass(frozen=True, slots=True)
class Burst:
    """What is due at one moment: the text, and the same framed for the wire. Made once, sent to many."""

    text: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of connection is spoken to. Equal subscriptions of one dialect get the very same bytes."""

    alert: Callable[[str, Published], bytes]
    plain: Callable[[str, bytes], bytes]
    heartbeat: Callable[[Position], bytes]
    join: bytes
    frame: Callable[[bytes], bytes]

    def burst(self, texts: Sequence[bytes]) -> Burst:
        text = texts[0] if len(texts) == 1 else self.join.join(texts)
        return Burst(text, self.frame(text))


def parse(text: str) -> Request:
    """Read one JSON object; raises NotProtocol if it is none, RequestError if it says nothing we understand."""
    try:
        said = orjson.loads(text)
    except ValueError:  # orjson names the place, but may quote what it read: that could be a token
        raise NotProtocol("not JSON") from None
    if not isinstance(said, dict):
        raise NotProtocol("not a JSON object")
    reply_to = said.get("id")
    if isinstance(reply_to, bool) or not isinstance(reply_to, int | str | None):
        raise RequestError(ErrorCode.BAD_REQUEST, "id must be an integer or a string")
    if isinstance(reply_to, str) and len(reply_to) > MAX_NAME:
        raise RequestError(ErrorCode.BAD_REQUEST, f"id is longer than {MAX_NAME} characters")
    try:
        return _request(reply_to, said)
    except RequestError as error:
        error.reply_to = reply_to
        raise


def _request(reply_to: Id, said: dict[str, Any]) -> Request:
    match said.get("op"):
        case "auth":
            if not isinstance(said.get("token"), str):
                raise RequestError(ErrorCode.BAD_REQUEST, "auth needs a token, a string")
            return Auth(reply_to, said["token"])
        case "subscribe":
            return Subscribe(reply_to, tuple(_want(arg) for arg in _args(said)))
        case "unsubscribe":
            return Unsubscribe(reply_to, tuple(_want(arg).ch for arg in _args(said)))
        case "ping":
            return Ping(reply_to)
    raise RequestError(ErrorCode.BAD_REQUEST, "op must be one of auth, subscribe, unsubscribe, ping")


def _args(said: dict[str, Any]) -> list[Any]:
    args = said.get("args")
    if not isinstance(args, list) or not args:
        raise RequestError(ErrorCode.BAD_REQUEST, 'args must be a list such as [{"ch":"alerts"}]')
    return args


def _want(arg: Any) -> Want:
    if isinstance(arg, str):
        arg = {"ch": arg}
    if not isinstance(arg, dict) or not isinstance(arg.get("ch"), str):
        raise RequestError(ErrorCode.BAD_REQUEST, 'each of args must be an object such as {"ch":"alerts"}')
    unknown = sorted(set(arg) - {"ch", "since", "interval_ms"})
    if unknown:
        raise RequestError(ErrorCode.BAD_REQUEST, f"unknown key {unknown[0][:40]!r}; there are ch, since, interval_ms")
    since, interval_ms = arg.get("since"), arg.get("interval_ms")
    return want(arg["ch"], since=None if since is None else _since(since), interval_ms=interval_ms)


def want(ch: str, *, since: Position | None = None, interval_ms: Any = None) -> Want:
    """Check one wish; raises RequestError 102 for a channel that cannot be, 100 for what does not fit the channel."""
    if not is_channel(ch):
        raise RequestError(ErrorCode.UNKNOWN_CHANNEL, f"unknown channel {ch[:60]!r}; there are {_known()}")
    wish = Want(ch, since, DEFAULT_INTERVAL_MS if interval_ms is None else interval_ms)
    if since is not None and not wish.is_alerts:
        raise RequestError(ErrorCode.BAD_REQUEST, f"since has no meaning on {ch}: only alerts are replayed")
    if interval_ms is not None and wish.symbol is None:
        raise RequestError(ErrorCode.BAD_REQUEST, f"interval_ms has no meaning on {ch}: only ticks are conflated")
    if isinstance(interval_ms, bool) or not isinstance(wish.interval_ms, int):
        raise RequestError(ErrorCode.BAD_REQUEST, "interval_ms must be an integer")
    if not 0 <= wish.interval_ms <= MAX_INTERVAL_MS:
        raise RequestError(ErrorCode.BAD_REQUEST, f"interval_ms must be from 0 to {MAX_INTERVAL_MS}")
    return wish


def is_channel(ch: str) -> bool:
    if len(ch) > MAX_NAME or not ch.isprintable():
        return False
    return ch in PLAIN or any(ch.startswith(prefix) and len(ch) > len(prefix) for prefix in NAMED)


def _known() -> str:
    return ", ".join((*PLAIN, *(f"{prefix}…" for prefix in NAMED)))


def _since(since: Any) -> Position:
    if not isinstance(since, dict) or set(since) != {"epoch", "off"}:
        raise RequestError(ErrorCode.BAD_REQUEST, 'since must be {"epoch":"…","off":…}')
    epoch, off = since["epoch"], since["off"]
    if not isinstance(epoch, str) or len(epoch) > MAX_NAME or isinstance(off, bool) or not isinstance(off, int):
        raise RequestError(ErrorCode.BAD_REQUEST, "since.epoch must be a string and since.off an integer")
    if off < 0:
        raise RequestError(ErrorCode.BAD_REQUEST, "since.off must not be negative")
    return Position(epoch, off)


POSITION: Final = re.compile(r"([^:\s]{1,200}):([0-9]{1,18})")


def position(text: str) -> Position:
    """Read `k3f9:10431`, the form of the query and of Last-Event-ID; raises RequestError 100."""
    found = POSITION.fullmatch(text)
    if found is None:
        raise RequestError(ErrorCode.BAD_REQUEST, "since must look like k3f9:10431, the epoch and the offset")
    return Position(found[1], int(found[2]))


def query_wants(channels: Sequence[str], since: str | None) -> tuple[Want, ...]:
    """Read `?ch=alerts&ch=health&since=k3f9:10431`; since goes with the alert channels. Raises RequestError."""
    place = None if since is None else position(since)
    wants = tuple(want(ch) for ch in channels)
    if place is not None and not any(wish.is_alerts for wish in wants):
        raise RequestError(ErrorCode.BAD_REQUEST, "since needs a channel of alerts")
    return tuple(Want(wish.ch, place if wish.is_alerts else None, wish.interval_ms) for wish in wants)


def ok_reply(reply_to: Id, result: Any) -> bytes:
    return orjson.dumps({"id": reply_to, "ok": True, "result": result})


def error_reply(error: RequestError) -> bytes:
    """Encode an error; what was said may hold lone surrogates, which no JSON encoder takes, so they are replaced."""
    msg = error.msg.encode("utf-8", "replace").decode()
    temporary = error.code is ErrorCode.INTERNAL
    told = {"code": int(error.code), "msg": msg, "temporary": temporary}
    return orjson.dumps({"id": error.reply_to, "ok": False, "error": told})


def notice(code: str, **details: int) -> bytes:
    return orjson.dumps({"op": "notice", "code": code, **details})


def _plain(ch: str, record: bytes) -> bytes:
    """Encode one message of a channel without positions (ticks, health); `record` is JSON."""
    return b'{"ch":%b,"data":%b}' % (orjson.dumps(ch), record)


def _alert(ch: str, alert: Published) -> bytes:
    return b'%b%d,"data":%b}' % (_alert_begins(ch, alert.epoch), alert.off, alert.record)


@lru_cache(maxsize=256)
def _alert_begins(ch: str, epoch: str) -> bytes:
    return b'{"ch":%b,"epoch":%b,"off":' % (orjson.dumps(ch), orjson.dumps(epoch))


def _heartbeat(top: Position) -> bytes:
    return orjson.dumps({"op": "hb", "top": {"alerts": top.off}})


def text_frame(text: bytes) -> bytes:
    """Frame a text for the wire as a server does (RFC 6455 5.2: FIN, opcode 1, never masked, not compressed)."""
    size = len(text)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + text
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + text
    return struct.pack("!BBQ", 0x81, 127, size) + text


WEBSOCKET: Final = Dialect(alert=_alert, plain=_plain, heartbeat=_heartbeat, join=b"\n", frame=text_frame)
