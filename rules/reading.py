"""`Reading`: reads fields of a YAML document so that one that is wrong is a complaint, and the others are read on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rules import fields
from rules.document import Document, Table, Value
from rules.errors import RuleFileError
from rules.language.syntax import did_you_mean

T = TypeVar("T")
P = ParamSpec("P")
Reader = Callable[[Document, Value], T]


class Reading:
    """Reads one document; its complaints go to the document's errors."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def entries(self, value: Value) -> tuple[Value, ...]:
        """Read a list; an empty one if it is none."""
        return self.tried(fields.entries, self._document, value) or ()

    def field(self, found: Table, key: str, reader: Reader[T], default: T) -> T:
        """Read a field; the default if it is missing or bad."""
        value = found.get(key)
        if value is None:
            return default
        read_value = self.tried(reader, self._document, value)
        return default if read_value is None else read_value

    def required(self, found: Table, key: str, reader: Reader[T]) -> T | None:
        """Read a field; None, after a complaint, if it is missing or bad."""
        value = found.get(key)
        if value is None:
            self.error(found, f"{key} is missing", hint=f"write {key}: …", width=1)
            return None
        return self.tried(reader, self._document, value)

    def tried(self, reader: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what the reader returns; None, with its findings kept, if it refuses."""
        try:
            return reader(*args, **kwargs)
        except RuleFileError as error:
            self._document.errors += error.findings
            return None

    def refuse_unknown(self, found: Table, known: tuple[str, ...], what: str) -> None:
        """Complain of each key that `what` does not have."""
        for key, _ in found.pairs:
            if key.text not in known and self.tried(fields.key_name, self._document, key) is not None:
                hint = did_you_mean(key.text, known) or f"it has {', '.join(known)}"
                self.error(key, f"{what} has no key {key.text!r}", hint=hint)

    def error(self, place: Value, message: str, *, hint: str, width: int | None = None) -> None:
        """Complain of a place in the file, or of its first `width` characters."""
        end = place.end if width is None else place.start + width
        self._document.errors.append(self._document.finding(place.start, end, message, hint=hint))
