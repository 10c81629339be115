"""`Alert`: the frozen record of one event of a rule's life, and its JSON (schema version 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta, timezone
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, cast

import orjson

from feeds.characters import whole
from feeds.sessions import date_text, day_ms

SCHEMA_VERSION: Final = 1
SHANGHAI: Final = timezone(timedelta(hours=8))


class Event(StrEnum):
    """What happened to an episode."""

    PENDING = "pending"
    FIRE = "fire"
    RESOLVE = "resolve"
    SUPPRESSED = "suppressed"
    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"
    NODATA = "nodata"
    FLAPPING = "flapping"
    EXPIRED = "expired"


_TYPES: Final = {event: f"alert.{event}" for event in Event}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One event of the life of (rule, leg, symbol or group).

    trade_date "2023-02-01"; ts_event_ms Unix ms of the tick, deadline or bar end that decided it; bar_end_ms None on
    ticks; gap: what lies between the sample before and this one, session (a night), lunch, halt or feed, or exright (an
    absolute price, on such a day), None = nothing; values: named outputs and operands, None = unknown; tick: the
    deciding tick's columns, None = none; suppressed: fires held back since the last one sent; stamps: our own clock in
    ms, absent in replay.
    """

    id: str
    episode_id: str
    event: Event
    rule: str
    rev: str
    leg: str | None = None
    symbol: str | None = None
    group: str | None = None
    name: str | None = None
    severity: str = "info"
    labels: dict[str, str] = field(default_factory=dict)
    trade_date: str
    episode: int
    ts_event_ms: int
    period: str
    bar_end_ms: int | None = None
    provisional: bool = False
    gap: str | None = None
    late: bool = False
    values: dict[str, float | None] = field(default_factory=dict)
    tick: dict[str, float | None] | None = None
    suppressed: int = 0
    why: str | None = None
    message: str = ""
    stamps: dict[str, int] | None = None

    @property
    def type(self) -> str:
        return _TYPES[self.event]

    def record(self) -> dict[str, Any]:
        """Return the JSON object as a dict, keys in the documented order; `stamps` is left out where None."""
        event = self.event
        record: dict[str, Any] = {
            "v": SCHEMA_VERSION, "id": self.id, "episode_id": self.episode_id, "event": str(event),
            "type": _TYPES[event], "rule": self.rule, "rev": self.rev, "leg": self.leg, "symbol": self.symbol,
            "group": self.group, "name": self.name, "severity": self.severity, "labels": self.labels,
            "trade_date": self.trade_date, "episode": self.episode, "event_ts": shanghai_iso(self.ts_event_ms),
            "ts_event_ms": self.ts_event_ms, "period": self.period, "bar_end_ms": self.bar_end_ms,
            "provisional": self.provisional, "gap": self.gap, "late": self.late, "values": self.values,
            "tick": self.tick, "suppressed": self.suppressed, "why": self.why, "message": self.message,
        }  # fmt: skip
        if self.stamps is not None:
            record["stamps"] = self.stamps
        return record

    def to_json(self, **stamps: int) -> bytes:
        """Encode once, with these stamps (ms) added; the bytes go to the store, Redis, WebSocket and webhook as is."""
        record = self.record()
        if stamps:
            record["stamps"] = stamps if self.stamps is None else {**self.stamps, **stamps}
        try:
            return orjson.dumps(record)
        except TypeError:  # half a character: every way in refuses it, and a crash here would come with each start
            return orjson.dumps(_whole(record))

    @classmethod
    def from_json(cls, text: bytes | str) -> Alert:
        """Decode a record; raises ValueError for another schema version or a missing field."""
        return cls.from_record(orjson.loads(text))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Alert:
        """Build from a decoded record; unknown keys are ignored, so a newer writer does not stop an older reader."""
        if record.get("v") != SCHEMA_VERSION:
            raise ValueError(f"alert schema version {record.get('v')!r}, this program reads {SCHEMA_VERSION}")
        try:
            known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
            return cls(**{**known, "event": Event(record["event"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an alert record: {error}") from None


class Draft:
    """An Alert while it is being made: its very slots, to be written one by one, all of them.

    That takes 0.5 µs. A frozen class writes each of its 24 fields by a call, 10 µs for all; any other class that is
    given them by name has a dict made of them first, 2 µs.
    """

    __slots__ = tuple(Alert.__dataclass_fields__)

    def sealed(self) -> Alert:
        """Become the Alert, to which nothing can be written any more."""
        alert: Any = self
        alert.__class__ = Alert
        return cast(Alert, alert)


def stamp_published(record: bytes, published_ms: int) -> bytes:
    """Return a record's bytes with one more stamp, without decoding it; one that bears no stamps stays as it is."""
    # `stamps` is the record's last key, and holds numbers alone.
    if not record.endswith(b"}}") or b'"stamps":{' not in record:
        return record
    return b'%s,"published_ms":%d}}' % (record[:-2], published_ms)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return whole(value) if isinstance(value, str) else value


@lru_cache(maxsize=256)  # events of one moment come together
def shanghai_iso(ts_ms: int) -> str:
    """Format Unix ms as exchange-local ISO 8601 with milliseconds, such as 2023-02-01T10:02:03.000+08:00."""
    seconds, ms = divmod(day_ms(ts_ms), 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    # A datetime of a zone writes the same in 15 µs, where nobody has asked one for some ms.
    return f"{date_text(ts_ms)}T{hour:02}:{minute:02}:{second:02}.{ms:03}+08:00"


class Identities:
    """Makes the ids of events that begin alike, as all of a rule's leg do: what they share is hashed once."""

    __slots__ = ("_begun",)

    def __init__(self, *parts: str | int | None) -> None:
        self._begun = blake2b(_joined((*parts, "")), digest_size=10)

    def of(self, key: str | None, date: str, episode: int, event: Event) -> tuple[str, str]:
        """Return the id of the first event of this kind in an episode, and the episode's own.

        key: the symbol or group. The same as `identities` of all these parts gives.
        """
        hashed = self._begun.copy()
        hashed.update(f"{_NONE if key is None else key}\x1f{date}\x1f{episode}".encode())
        episode_id = "ep_" + hashed.hexdigest()
        hashed.update(_FIRSTS[event])
        return "al_" + hashed.hexdigest(), episode_id


def identities(*parts: str | int | None, event: Event) -> tuple[str, str]:
    """Return the id of the first event of this kind in an episode, and the episode's own; parts are the episode's."""
    episode = blake2b(_joined(parts), digest_size=10)
    first = episode.copy()
    first.update(_FIRSTS[event])
    return "al_" + first.hexdigest(), "ep_" + episode.hexdigest()


def identity(*parts: str | int | None) -> str:
    """Hash the parts of an identity to 20 hex digits; None and "" differ."""
    return blake2b(_joined(parts), digest_size=10).hexdigest()


def _joined(parts: tuple[str | int | None, ...]) -> bytes:
    return "\x1f".join([_NONE if part is None else str(part) for part in parts]).encode()


_NONE: Final = "\x00"
_FIRSTS: Final = {event: b"\x1f" + _joined((event, 1)) for event in Event}
"""What the identity of an episode's first event of each kind ends in."""
