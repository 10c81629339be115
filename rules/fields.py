"""Readers of the values in a rule file: each takes a document and a value, and returns what it means.

Every reader raises RuleFileError with the place of the value, what is wrong, and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from feeds.instruments import Board
from feeds.sessions import Session
from rules.alert import SHANGHAI
from rules.document import Document, Listing, Scalar, Table, Value
from rules.errors import RuleFileError
from rules.language.syntax import did_you_mean
from rules.rule import Flap, Frequency
from rules.selector import Selector

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

RESERVED: Final = {
    "feed": "the events of the feed's health",
    "delivery": "the events of the receivers' health",
    "adviser": "the adviser's answers",
}
"""Ids that no rule may have, and who has them."""
MAX_DURATION_MS: Final = 31 * 86_400_000
_YES_NO = re.compile(r"y|n|yes|no|on|off", re.IGNORECASE)
_TRUE_FALSE = re.compile(r"true|false", re.IGNORECASE)
_NULL = re.compile(r"|~|null", re.IGNORECASE)
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_ODD_NUMBER = re.compile(
    r"[-+]?0[0-9_]+|[-+]?0[box][0-9a-fA-F_]+|[-+]?[0-9]+_[0-9_]*|[-+]?\.(?:inf|nan)", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SYMBOL = re.compile(r"[0-9]{6}\.(?:SH|SZ|BJ)")
_CODE = re.compile(r"[0-9]{6}")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ID = re.compile(r"[^\W_][\w.\-]{0,63}")
_EXCHANGES: Final = (
    (re.compile(r"(?:4|8|92)[0-9]+"), "BJ"),
    (re.compile(r"(?:5|6|9|11)[0-9]+"), "SH"),
    (re.compile(r"[0-3][0-9]+"), "SZ"),
)


def text(document: Document, value: Value, *, numbers: bool = True) -> str:
    """Read a text. Plain scalars that other YAML readers take for something else are refused: quote them."""
    if not isinstance(value, Scalar):
        raise document.refuse(value, f"a text is needed here, not {_what(value)}", hint="write one text")
    if value.style:
        return value.text
    if _NULL.fullmatch(value.text):
        raise document.refuse(value, "there is no value here", hint="write one, or remove the key")
    trap = _trap(value.text)
    if trap is not None:
        raise document.refuse(value, trap, hint=f'quote it: "{value.text}"')
    if not numbers and _NUMBER.fullmatch(value.text):
        raise document.refuse(value, f"{value.text} is a number", hint=f'quote it: "{value.text}"')
    return value.text


def _trap(plain: str) -> str | None:
    """Say what else a plain scalar is to some YAML reader, None if it is a text to all."""
    if _YES_NO.fullmatch(plain):
        truth = plain.lower() in ("y", "yes", "on")
        return f"{plain} without quotes is read as {truth} by many YAML readers"
    if _TRUE_FALSE.fullmatch(plain):
        return f"{plain} without quotes is a truth value, and a text is needed here"
    if _SIXTIES.fullmatch(plain) and not plain.startswith(("+", "-")):
        return f"{plain} without quotes is read as {_in_sixties(plain)} by many YAML readers"
    if _ODD_NUMBER.fullmatch(plain):
        return f"{plain} without quotes is read as a number"
    return None


def _in_sixties(plain: str) -> str:
    total = 0.0
    for part in plain.replace("_", "").split(":")[:20]:
        total = total * 60 + float(part)
    return f"{total:.12g}"


def _what(value: Value) -> str:
    if isinstance(value, Scalar):
        return repr(value.text) if len(value.text) <= 40 else "a text"
    return "a list" if isinstance(value, Listing) else "a table"


def key_name(document: Document, key: Scalar) -> str:
    """Read a key as a text, so that `on:` is not True and `1:` not a number."""
    return text(document, key, numbers=False)


def entries(document: Document, value: Value) -> tuple[Value, ...]:
    """Read a list; one scalar alone is a list of it."""
    if isinstance(value, Table):
        raise document.refuse(value, "a list is needed here, not a table", hint="write […]")
    found = (value,) if isinstance(value, Scalar) else value.entries
    if not found:
        raise document.refuse(value, "the list is empty", hint="write an entry, or remove the key")
    return found


def texts(document: Document, value: Value) -> tuple[str, ...]:
    """Read a list of texts."""
    return tuple(text(document, entry) for entry in entries(document, value))


def table(document: Document, value: Value, what: str) -> Table:
    """Read a table; `what` it is says the complaint."""
    if not isinstance(value, Table):
        raise document.refuse(value, f"{what} is a table of key: value, not {_what(value)}", hint="write key: value")
    return value


def version(document: Document, top: Table) -> None:
    """Refuse a file whose `version:` is not 1."""
    value = top.get("version")
    if value is None:
        hint = "begin with version: 1"
        raise RuleFileError([document.finding(top.start, top.start + 1, "version is missing", hint=hint)])
    if not (isinstance(value, Scalar) and value.text == "1" and not value.style):
        raise document.refuse(value, "this program reads version 1", hint="write version: 1")


def whole(least: int, most: int) -> Callable[[Document, Value], int]:
    """Return a reader of whole numbers in these bounds."""

    def read(document: Document, value: Value) -> int:
        plain = value.text if isinstance(value, Scalar) and not value.style else ""
        if not re.fullmatch(r"[+-]?(?:0|[1-9][0-9]{0,15})", plain):
            raise document.refuse(value, f"a whole number is needed here, not {_what(value)}", hint=f"write {least}")
        if not least <= int(plain) <= most:
            message = f"a number from {least} to {most} is needed here, not {plain}"
            raise document.refuse(value, message, hint="remove the key for no limit")
        return int(plain)

    return read


def choice(field: str, kinds: type[E]) -> Callable[[Document, Value], E]:
    """Return a reader of one of an enumeration's values."""
    names = tuple(str(kind) for kind in kinds)
    pick = one_of(field, names)
    return lambda document, value: kinds(pick(document, value))


def one_of(field: str, names: Sequence[str]) -> Callable[[Document, Value], str]:
    """Return a reader of one of these words; a word that comes later is refused as such."""

    def read(document: Document, value: Value) -> str:
        found = value.text if isinstance(value, Scalar) and value.text in names else text(document, value)
        if found not in names:
            meant = did_you_mean(found, names)
            raise document.refuse(value, f"{field} can't be {found!r}", hint=meant or f"one of {', '.join(names)}")
        return found

    return read


def frequency(document: Document, value: Value) -> tuple[Frequency, float | None]:
    """Read `freq`: a word, or {step: 1%}, which is as often as LAST goes on by that share."""
    if not isinstance(value, Table):
        return choice("freq", Frequency)(document, value), None
    step = value.get("step")
    if step is None or len(value.pairs) != 1:
        raise document.refuse(value, "freq is a word or {step: …}", hint="write freq: {step: 1%}")
    return Frequency.ALWAYS, share(document, step)


def flap(document: Document, value: Value) -> Flap | str:
    """Read `flap`: off, or {over: 4, within: 10m}."""
    if not isinstance(value, Table):
        return one_of("flap", ("off",))(document, value)
    over, within = value.get("over"), value.get("within")
    if over is None or within is None or len(value.pairs) != 2:
        raise document.refuse(value, "flap needs over and within", hint="write flap: {over: 4, within: 10m}")
    return Flap(whole(1, 1000)(document, over), duration_ms(document, within))


def share(document: Document, value: Value) -> float:
    """Read a share such as 80% or 0.8, above 0 and at most 1."""
    written = value.text if isinstance(value, Scalar) else ""
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(%?)", written)
    found = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0.0 < found <= 1.0:
        raise document.refuse(value, f"a share of up to 100% is needed here, not {_what(value)}", hint="write 1%")
    return found


def duration_ms(document: Document, value: Value) -> int:
    """Read a duration such as 30s, 10m or 1h30m, in ms."""
    written = value.text if isinstance(value, Scalar) else ""
    if not _DURATION.fullmatch(written):
        hint = f"write {written}s for seconds" if re.fullmatch(r"[0-9]{1,9}", written) else "write 30s, 10m or 1h30m"
        raise document.refuse(value, f"a duration is needed here, not {_what(value)}", hint=hint)
    total = sum(float(amount) * _UNIT_MS[unit] for amount, unit in _DURATION_PART.findall(written))
    if not 1 <= total <= MAX_DURATION_MS:
        raise document.refuse(value, f"a duration is from 1ms to 31d, not {_what(value)}", hint="write 30s or 10m")
    return round(total)


def sessions(document: Document, value: Value) -> tuple[Session, ...]:
    """Read one session or a list; doubles are dropped."""
    pick = choice("session", Session)
    return tuple(dict.fromkeys(pick(document, entry) for entry in entries(document, value)))


def expiry_ms(document: Document, value: Value) -> int:
    """Read "2026-12-31 14:00" in Shanghai time, or a date, whose end is meant; Unix ms."""
    written = text(document, value)
    for pattern, whole_day in (("%Y-%m-%d", True), ("%Y-%m-%d %H:%M", False), ("%Y-%m-%d %H:%M:%S", False)):
        try:
            moment = datetime.strptime(written, pattern).replace(tzinfo=SHANGHAI)
            moment += timedelta(days=whole_day)
        except (ValueError, OverflowError):
            continue
        return round(moment.timestamp() * 1000)
    raise document.refuse(
        value, f"{written!r} is no date in Shanghai time", hint='write "2026-12-31 14:00", or "2026-12-31" for its end'
    )


def is_id(name: str) -> bool:
    """Tell whether this is a name such as a rule or a book may have."""
    return _ID.fullmatch(name) is not None


def rule_id(document: Document, value: Value) -> str:
    """Read a rule's id: letters, digits, `.`, `_` and `-`, at most 64, and none of RESERVED."""
    found = text(document, value)
    if not _ID.fullmatch(found):
        hint = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
        raise document.refuse(value, f"{_what(value)} is no id", hint=hint)
    if found in RESERVED:
        raise document.refuse(value, f"the id {found!r} is taken by {RESERVED[found]}", hint="choose another")
    return found


def symbol(document: Document, value: Value) -> str:
    """Read a symbol such as 600519.SH; a bare code is refused with the suffix it likely has."""
    found = value.text if isinstance(value, Scalar) else ""
    if _SYMBOL.fullmatch(found):
        return found
    if _CODE.fullmatch(found):
        suffix = next((exchange for pattern, exchange in _EXCHANGES if pattern.fullmatch(found)), "SH")
        number = "" if isinstance(value, Scalar) and value.style else f", which YAML reads as the number {int(found)}"
        raise document.refuse(value, f"{found} is a code without its exchange{number}", hint=f"write {found}.{suffix}")
    if _SYMBOL.fullmatch(found.upper()):
        raise document.refuse(value, f"{found!r} is no symbol", hint=f"write {found.upper()}")
    hint = 'write {glob: ["' + found + '"]}' if set(found) & set("*?") else "six digits and .SH, .SZ or .BJ"
    raise document.refuse(value, f"{_what(value)} is no symbol", hint=hint)


def selector(document: Document, value: Value) -> Selector:
    """Read `select`: all, a list of symbols, or a table of conditions."""
    if isinstance(value, Scalar) and value.text == "all":
        return Selector(every=True)
    if isinstance(value, Table):
        if value.get("positions") is not None:
            return Selector(book=_book(document, value))
        return _conditions(document, value, nested=False)
    return Selector(symbols=symbols(document, value))


def _book(document: Document, value: Table) -> str:
    """Read `positions: BOOK`, which stands alone: a rule over a book covers just what it holds."""
    for key, _ in value.pairs:
        if key.text != "positions":
            message = f"{key.text} and positions can't stand together"
            raise document.refuse(key, message, hint="a rule over a book covers every position in it, and nothing else")
    entry = value.pairs[0][1]
    found = text(document, entry)
    if not is_id(found):
        hint = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
        raise document.refuse(entry, f"{_what(entry)} is no name of a book", hint=hint)
    return found


def symbols(document: Document, value: Value) -> frozenset[str]:
    """Read a list of symbols; raises RuleFileError with every one that is none."""
    found: list[str] = []
    errors: list[RuleFileError] = []
    for entry in entries(document, value):
        try:
            found.append(symbol(document, entry))
        except RuleFileError as error:
            errors.append(error)
    if errors:
        raise RuleFileError([finding for error in errors for finding in error.findings])
    return frozenset(found)


_CONDITIONS: Final = ("symbols", "glob", "board", "name", "sector")


def _conditions(document: Document, value: Table, *, nested: bool) -> Selector:
    """Read a table of conditions; `nested`: it is the table of `exclude`."""
    known = _CONDITIONS if nested else (*_CONDITIONS, "exclude", "all", "positions")
    for key, _ in value.pairs:
        if key.text not in known:
            hint = did_you_mean(key.text, known) or f"one of {', '.join(known)}"
            raise document.refuse(key, f"select has no {key.text!r}", hint=hint)
    if not value.pairs:
        raise document.refuse(value, "nothing is selected", hint="write select: all to watch everything")
    pick = choice("board", Board)

    def each(key: str, read: Callable[[Document, Value], T]) -> tuple[T, ...]:
        found = value.get(key)
        return () if found is None else tuple(read(document, entry) for entry in entries(document, found))

    exclude = value.get("exclude")
    return Selector(
        every=_every(document, value, conditions=any(value.get(key) is not None for key in _CONDITIONS)),
        symbols=frozenset(each("symbols", symbol)),
        globs=each("glob", text),
        boards=frozenset(each("board", pick)),
        names=each("name", text),
        sectors=frozenset(each("sector", text)),
        exclude=None if exclude is None else _conditions(document, table(document, exclude, "exclude"), nested=True),
    )


def _every(document: Document, value: Table, *, conditions: bool) -> bool:
    """Tell whether all are meant: `all: true`, or nothing but an exclude."""
    found = value.get("all")
    if found is not None and not (isinstance(found, Scalar) and found.text == "true" and not found.style):
        raise document.refuse(found, "all can only be true", hint="leave it out to select by the other conditions")
    return found is not None or not conditions


def labels(document: Document, value: Value) -> Mapping[str, str]:
    """Read labels: texts by name."""
    pairs = table(document, value, "labels").pairs
    return {key_name(document, key): text(document, entry) for key, entry in pairs}
