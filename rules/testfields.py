"""Readers of the values in a file of rule tests; each raises RuleFileError with the place and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final

from feeds.exrights import LEAST
from feeds.instruments import Instrument, instrument_of
from feeds.sessions import unix_ms
from rules import fields
from rules.alert import Event
from rules.document import Document, Scalar, Table, Value
from rules.errors import RuleFileError
from rules.language.parser import parse
from rules.language.syntax import did_you_mean
from rules.language.text import normal
from rules.testcase import (
    EVENT_KEYS,
    NUMBER_KEYS,
    TEXT_KEYS,
    TRUTH_KEYS,
    Expected,
    ExRight,
    Gap,
    Halt,
    Reload,
    Restart,
    Series,
)

MAX_SAMPLES: Final = 200_000
YEARS: Final = range(1990, 2100)
"""What a day of a test may be in: the exchanges opened in 1990."""
_SAMPLE = re.compile(r"(?P<value>_|nan|[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?:\*(?P<times>\d+))?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d{4})-(\d\d)-(\d\d) )?([01]?\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,3}))?")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the parts of a case share: its date and its symbols."""

    date: int
    symbols: tuple[str, ...]


def read_series(document: Document, value: Value) -> Series:
    """Read samples such as `1795 1799 1780*203 _*9 nan`; a plain number is one sample."""
    if not isinstance(value, Scalar):
        raise document.refuse(value, "samples are a text", hint='write "1795 1799 1780*203"')
    samples: list[float | None] = []
    for word in value.text.split():
        match = _SAMPLE.fullmatch(word)
        if match is None:
            raise document.refuse(
                value, f"{word!r} is no sample", hint='samples are numbers, nan and _, as in "10 11*3 _*2"'
            )
        times = 1 if match["times"] is None else int(match["times"])
        if len(samples) + times > MAX_SAMPLES:
            raise document.refuse(value, f"more than {MAX_SAMPLES} samples", hint="use a longer step, or a file")
        samples += [None if match["value"] == "_" else float(match["value"])] * times
    if not samples:
        raise document.refuse(value, "there are no samples", hint='write "1795 1799 1780*203"')
    return tuple(samples)


def read_moment(document: Document, value: Value, setting: Setting) -> int:
    """Read HH:MM:SS[.mmm] of the test's date, or with a date of its own before it; Unix ms."""
    text = fields.text(document, value)
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise document.refuse(value, f"{text!r} is no time of day", hint='write "10:00:00" or "10:00:00.500"')
    clock_ms = (int(match[4]) * 3600 + int(match[5]) * 60 + int(match[6])) * 1000 + int((match[7] or "0").ljust(3, "0"))
    day = setting.date if match[1] is None else _day_of(document, value, (match[1], match[2], match[3]))
    return unix_ms(day, clock_ms)


def read_date(document: Document, value: Value) -> int:
    """Read a date such as 2025-01-02, as yyyymmdd."""
    match = _DATE.fullmatch(value.text) if isinstance(value, Scalar) else None
    if match is None:
        raise document.refuse(value, "this is no date", hint="write 2025-01-02")
    return _day_of(document, value, (match[1], match[2], match[3]))


def _day_of(document: Document, value: Value, parts: tuple[str, str, str]) -> int:
    try:
        day = date(*map(int, parts))
    except ValueError:
        raise document.refuse(value, f"there is no day {'-'.join(parts)}", hint="write 2025-01-02") from None
    if day.year not in YEARS:
        message = f"a day from {YEARS.start} to {YEARS.stop - 1} is needed here, not {day}"
        raise document.refuse(value, message, hint="write 2025-01-02")
    return day.year * 10_000 + day.month * 100 + day.day


def read_instruments(document: Document, value: Value) -> dict[str, Instrument]:
    """Read {600519.SH: {name: …, sectors: […], list_date: …}}."""
    found: dict[str, Instrument] = {}
    for key, entry in fields.table(document, value, "instruments").pairs:
        symbol = fields.symbol(document, key)
        known = fields.table(document, entry, "an instrument")
        for name, _ in known.pairs:
            if name.text not in ("name", "sectors", "list_date"):
                raise document.refuse(
                    name, f"an instrument has no {name.text!r}", hint="it has name, sectors, list_date"
                )
        name_value, sectors, listed = known.get("name"), known.get("sectors"), known.get("list_date")
        found[symbol] = instrument_of(
            symbol,
            name=None if name_value is None else fields.text(document, name_value),
            list_date=None if listed is None else read_date(document, listed),
            sectors=() if sectors is None else fields.texts(document, sectors),
        )
    return found


# ── directives ────────────────────────────────────────────────────────────────────────────────────────────────────


def _part(document: Document, value: Value, known: tuple[str, ...], example: str) -> Table:
    """Read a directive's table."""
    if not isinstance(value, Table):
        raise document.refuse(value, "a table is needed here", hint=f"write {example}")
    for key, _ in value.pairs:
        if key.text not in known:
            raise document.refuse(key, f"there is no {key.text!r} here", hint=f"write {example}")
    return value


def _time(document: Document, found: Table, key: str, setting: Setting) -> int:
    value = found.get(key)
    if value is None:
        raise document.refuse(found, f"{key} is missing", hint=f'write {key}: "10:00:00"')
    return read_moment(document, value, setting)


def _stretch(document: Document, found: Table, setting: Setting) -> tuple[int, int]:
    from_ms, until_ms = _time(document, found, "from", setting), _time(document, found, "to", setting)
    if until_ms <= from_ms:
        raise document.refuse(found, "it ends before it begins", hint="put the earlier time under from")
    return from_ms, until_ms


def _own_symbols(document: Document, found: Table, setting: Setting) -> tuple[str, ...]:
    value = found.get("symbol")
    if value is None:
        return setting.symbols
    return tuple(fields.symbol(document, entry) for entry in fields.entries(document, value))


def read_gap(document: Document, value: Value, setting: Setting) -> Gap:
    found = _part(document, value, ("from", "to", "at"), '{from: "10:00:00", to: "10:01:00"} or {at: "10:00:00"}')
    if found.get("at") is not None:
        return Gap(_time(document, found, "at", setting), None)
    return Gap(*_stretch(document, found, setting))


def read_halt(document: Document, value: Value, setting: Setting) -> Halt:
    found = _part(document, value, ("from", "to", "symbol"), '{from: "10:00:00", to: "10:10:00"}')
    return Halt(_own_symbols(document, found, setting), *_stretch(document, found, setting))


def read_restart(document: Document, value: Value, setting: Setting) -> Restart:
    if isinstance(value, Scalar):
        at_ms = read_moment(document, value, setting)
        return Restart(at_ms, at_ms, gap=False)
    found = _part(document, value, ("at", "back_at", "gap"), '{at: "10:00:00", back_at: "10:00:40"}')
    at_ms = _time(document, found, "at", setting)
    back_ms = at_ms if found.get("back_at") is None else _time(document, found, "back_at", setting)
    if back_ms < at_ms:
        raise document.refuse(found, "it is back before it went", hint="put the later time under back_at")
    gap = found.get("gap")
    return Restart(at_ms, back_ms, gap=back_ms > at_ms if gap is None else _truth(document, gap))


def read_reload(document: Document, value: Value, setting: Setting) -> Reload:
    if isinstance(value, Scalar):
        return Reload(read_moment(document, value, setting), None)
    found = _part(document, value, ("at", "rule_files"), '{at: "10:00:00", rule_files: [other.yaml]}')
    files = found.get("rule_files")
    return Reload(_time(document, found, "at", setting), None if files is None else fields.texts(document, files))


def read_exright(document: Document, value: Value, setting: Setting) -> ExRight:
    found = _part(document, value, ("date", "factor", "symbol"), "{date: 2025-01-03, factor: 0.5}")
    day, factor = found.get("date"), found.get("factor")
    number = factor.text if isinstance(factor, Scalar) else ""
    if not re.fullmatch(r"\d*\.?\d+", number) or not LEAST <= float(number) <= 10:
        raise document.refuse(
            found, "factor is a number above 0: old price times factor is the new one", hint="factor: 0.5"
        )
    at = setting.date if day is None else read_date(document, day)
    return ExRight(_own_symbols(document, found, setting), unix_ms(at), float(number))


# ── expected events ───────────────────────────────────────────────────────────────────────────────────────────────


def read_expected(document: Document, value: Value) -> Expected:
    found = fields.table(document, value, "an event")
    named: dict[str, str | float | bool | None] = {}
    for key, entry in found.pairs:
        name, reader = _event_key(document, key)
        named[name] = reader(document, entry)
    for needed in ("at", "event"):
        if needed not in named:
            raise document.refuse(found, f"{needed} is missing", hint='write {at: "10:00:00", event: fire}')
    return Expected(named, found.start, found.end)


def _event_key(document: Document, key: Scalar) -> tuple[str, Callable[[Document, Value], str | float | bool | None]]:
    name = key.text
    if name == "at":
        return name, _event_time
    if name == "event":
        return name, lambda document, value: str(fields.choice("event", Event)(document, value))
    if name in TEXT_KEYS:
        return name, _text_or_null
    if name in TRUTH_KEYS:
        return name, _truth
    if name in NUMBER_KEYS:
        return name, _number
    meant = did_you_mean(name, EVENT_KEYS) if name.islower() else None
    try:
        expr = parse(name).statements[0].expr
    except (RuleFileError, IndexError):
        raise document.refuse(
            key, f"an event has no {name!r}", hint=meant or "a value is a word or an expression"
        ) from None
    if meant is not None:
        raise document.refuse(key, f"an event has no {name!r}", hint=meant)
    return normal(expr), _number


def _event_time(document: Document, value: Value) -> str:
    """Read `at` as it is shown: [2025-01-02 ]10:00:00, with .mmm where the ms are not 0."""
    written = fields.text(document, value)
    match = _CLOCK.fullmatch(written)
    if match is None:
        raise document.refuse(value, f"{written!r} is no time of day", hint='write "10:00:00" or "10:00:00.500"')
    ms = int((match[7] or "0").ljust(3, "0"))
    day = "" if match[1] is None else f"{match[1]}-{match[2]}-{match[3]} "
    return f"{day}{match[4]:0>2}:{match[5]}:{match[6]}" + (f".{ms:03}" if ms else "")


def _text_or_null(document: Document, value: Value) -> str | None:
    return None if _is_null(value) else fields.text(document, value)


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and not value.style and value.text in ("null", "~", "Null", "NULL")


def _truth(document: Document, value: Value) -> bool:
    plain = value.text if isinstance(value, Scalar) and not value.style else ""
    if plain not in ("true", "false"):
        raise document.refuse(value, "true or false is needed here", hint="write true")
    return plain == "true"


def _number(document: Document, value: Value) -> float | None:
    if _is_null(value):
        return None
    plain = value.text if isinstance(value, Scalar) and not value.style else ""
    match = _SAMPLE.fullmatch(plain)
    if match is None or match["value"] in ("_",) or match["times"] is not None:
        raise document.refuse(value, "a number is needed here", hint="write a number, or null where it is unknown")
    return float(plain)
