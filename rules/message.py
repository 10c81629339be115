"""`Template`: the text of an alert with `{name[:format spec]}` in it, checked when it is read.

Only names and number or text formats: no attributes, no indexes, no conversions, so a template from a file can reach
nothing but the values it is given. `{{` and `}}` are braces.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rules.errors import RuleFileError
from rules.language.parser import upper
from rules.language.syntax import Source, did_you_mean

CONTEXT: Final = ("name", "symbol", "rule", "episode")
"""What every message may name besides words and outputs: texts, in lower case; episode is its number of the day."""
UNKNOWN: Final = "-"
MAX_CHARACTERS: Final = 2_000

_FIELD = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}:]*)(?P<spec>:[^{}]*)?\}|(?P<stray>[{}])")
_NUMBER_SPEC = re.compile(r"(?:[^{}]?[<>=^])?[+\- ]?#?0?(?:[1-9][0-9]?)?[,_]?(?:\.[0-9]{1,2})?[eEfFgGn%]?")
_TEXT_SPEC = re.compile(r"(?:[^{}]?[<>^])?(?:[1-9][0-9]?)?(?:\.[0-9]{1,2})?s?")


@dataclass(frozen=True, slots=True)
class Field:
    """One `{name:spec}`."""

    name: str
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A message: literal text and fields in order."""

    text: str
    parts: tuple[str | Field, ...]

    @classmethod
    def parse(cls, text: str, *, allowed: Collection[str], file: str = "message", first_line: int = 1) -> Template:
        """Read a template that may name `allowed` (upper case) and CONTEXT.

        Raises RuleFileError with every unknown name, bad format and stray brace.
        """
        source = Source(text, file, first_line)
        if len(text) > MAX_CHARACTERS:
            raise source.refuse(
                0, 1, f"the message has {len(text)} characters, more than {MAX_CHARACTERS}", hint="shorten it"
            )
        parts: list[str | Field] = []
        errors: list[RuleFileError] = []
        done = 0
        for match in _FIELD.finditer(text):
            parts.append(text[done : match.start()])
            done = match.end()
            try:
                parts.append(_part(source, match, allowed))
            except RuleFileError as error:
                errors.append(error)
        if errors:
            raise RuleFileError([finding for error in errors for finding in error.findings])
        return cls(text, _joined([*parts, text[done:]]))

    @property
    def names(self) -> tuple[str, ...]:
        """The words and outputs named, upper case, each once, in order; CONTEXT is not among them."""
        fields = (part.name for part in self.parts if isinstance(part, Field))
        return tuple(dict.fromkeys(name for name in fields if name not in CONTEXT))

    def filled(self, values: Mapping[str, float]) -> Template:
        """Return the template with these names (upper case) written out as their values."""
        parts = (
            _shown(values[part.name], part.spec) if isinstance(part, Field) and part.name in values else part
            for part in self.parts
        )
        return Template(self.text, _joined(parts))

    def render(self, values: Mapping[str, float | str | None]) -> str:
        """Fill in the values by name; None, NaN and what is missing are shown as `-`."""
        return "".join(
            [part if isinstance(part, str) else _shown(values.get(part.name), part.spec) for part in self.parts]
        )


def _joined(parts: Iterable[str | Field]) -> tuple[str | Field, ...]:
    """Return the parts with texts that follow each other made one, and empty ones left out."""
    joined: list[str | Field] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return tuple(joined)


def _part(source: Source, match: re.Match[str], allowed: Collection[str]) -> str | Field:
    """Return a brace or a checked field."""
    start, end = match.span()
    if match["stray"]:
        raise source.refuse(start, end, f"a single {match['stray']!r}", hint="double it to have it in the message")
    if match["name"] is None:
        return match.group()[0]
    written, spec = match["name"], (match["spec"] or ":")[1:]
    name = written if written in CONTEXT else upper(written)
    if name not in CONTEXT and name not in allowed:
        known = [*CONTEXT, *sorted(allowed)]
        hint = did_you_mean(written, known) or did_you_mean(name, known) or _refused_form(written)
        what = f"unknown name {written!r}" if written else "an empty name"
        raise source.refuse(start + 1, start + 1 + max(1, len(written)), f"{what} in the message", hint=hint)
    if not (_TEXT_SPEC if name in CONTEXT else _NUMBER_SPEC).fullmatch(spec):
        at = start + 1 + len(written) + 1
        what = "a text, as in {name:>8}" if name in CONTEXT else "a number, as in {LAST:.2f} or {PCT:+.2f}"
        raise source.refuse(at, at + max(1, len(spec)), f"{spec!r} is no format for {name}", hint=f"use one for {what}")
    return Field(name, spec)


def _refused_form(written: str) -> str:
    if re.search(r"[.\[!(]", written):
        return "only a name may stand here: no attributes, indexes or calls"
    return "a message may use named outputs (NAME:…), words of the market, name, symbol and rule"


def _shown(value: float | str | None, spec: str) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return format(value, spec)
    if math.isnan(value):
        return UNKNOWN
    return format(float(value), spec) if spec else number_text(value)


def number_text(value: float) -> str:
    """Return a number as people write it: 1801, 18.5, at most 12 significant digits."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else format(number, ".12g")
