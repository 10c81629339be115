"""`message` of a rule: one text, or texts by event, by language, or by both in either order; all of them checked.

A rule set is loaded for one language. Of each event's texts it keeps the one in that language, else the one that names
no language, else the other's: a rule written in one language is told in it rather than not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum

from rules import fields
from rules.alert import Event
from rules.document import Document, Scalar, Table, Value
from rules.errors import RuleFileError
from rules.language.syntax import did_you_mean
from rules.message import Template


class Language(StrEnum):
    """What messages may be written in."""

    ZH = "zh"
    EN = "en"


DEFAULT_LANGUAGE = Language.ZH
_EVENTS = tuple(map(str, Event))
_LANGUAGES = tuple(map(str, Language))


def read_messages(
    document: Document, value: Value, *, allowed: Collection[str], language: Language
) -> dict[str, Template]:
    """Return event → template in this language. Findings go to `document.errors`; what has one is left out."""
    found: dict[str, dict[str, Template]] = {}
    for event, tongue, text in _texts(document, value, "", ""):
        try:
            found.setdefault(event or str(Event.FIRE), {})[tongue] = _template(document, text, allowed)
        except RuleFileError as error:
            document.errors += error.findings
    return {event: _chosen(texts, language) for event, texts in found.items()}


def _chosen(texts: dict[str, Template], language: Language) -> Template:
    for tongue in (str(language), "", *_LANGUAGES):
        if tongue in texts:
            return texts[tongue]
    raise AssertionError("there is a text under each event")


def _texts(document: Document, value: Value, event: str, tongue: str) -> Iterator[tuple[str, str, Value]]:
    """Yield (event, language, text) of every text, "" where none is named."""
    if not isinstance(value, Table):
        yield event, tongue, value
        return
    if not value.pairs:
        document.errors += document.refuse(
            value, "there is no message here", hint="write one, or remove the key"
        ).findings
    kinds = {_kind(key) for key, _ in value.pairs} - {""}
    for key, entry in value.pairs:
        kind = _kind(key)
        if len(kinds) > 1:
            message = "events and languages stand side by side"
            document.errors += document.refuse(
                key, message, hint="write message: {zh: {fire: …}, en: {fire: …}}"
            ).findings
            return
        if kind == "event" and not event:
            yield from _texts(document, entry, key.text, tongue)
        elif kind == "language" and not tongue:
            yield from _texts(document, entry, event, key.text)
        else:
            document.errors += _refused(document, key, event, tongue).findings


def _kind(key: Scalar) -> str:
    return "event" if key.text in _EVENTS else "language" if key.text in _LANGUAGES else ""


def _refused(document: Document, key: Scalar, event: str, tongue: str) -> RuleFileError:
    """Return the complaint about a key that is neither an event nor a language, or is one a second time."""
    known = (() if event else _EVENTS) + (() if tongue else _LANGUAGES)
    if not known:
        return document.refuse(
            key, "a message has an event and a language, and both are given", hint="write a text here"
        )
    hint = did_you_mean(key.text, known) or f"one of {', '.join(known)}"
    return document.refuse(key, f"message can't be {key.text!r}", hint=hint)


def _template(document: Document, value: Value, allowed: Collection[str]) -> Template:
    text = fields.text(document, value)
    assert isinstance(value, Scalar)
    try:
        return Template.parse(text, allowed=allowed)
    except RuleFileError as error:
        raise RuleFileError([document.place(finding, value) for finding in error.findings]) from None
