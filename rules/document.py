"""A YAML text as nodes that know their place, so that every complaint about a value points at it in the file.

Tags are resolved nowhere: a plain scalar stays the text it is, and its reader (fields.py) says what it may be. So
`000001`, `14:57` and `no` are refused instead of becoming 1, 897 and False.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from feeds.characters import HALF_CHARACTER, whole
from rules.errors import Finding, RuleFileError

MAX_CHARACTERS: Final = 512_000
MAX_NODES: Final = 100_000
"""Values of a file, with aliases counted as often as they are used: a few lines of aliases can mean billions."""
MAX_OPEN: Final = 200
"""Brackets that stand open, in comments and texts too: ten times what a rule may nest."""
_BRACKET: Final = re.compile(r"[\[\]{}]")
MAX_DEPTH: Final = 20
_FORMULA_KEY: Final = re.compile(r"[ \t-]*(?:when|rearm)[ \t]*:")
_FLATTER: Final = "a rule file is groups of rules, and no deeper than a rule needs"
_BLANK: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as text. style: "" plain, ' or " quoted, | or > block. start, end: where it stands in the file."""

    text: str
    style: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    entries: tuple[Value, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping; keys are scalars, each there once."""

    pairs: tuple[tuple[Scalar, Value], ...]
    start: int
    end: int

    def get(self, key: str) -> Value | None:
        """Return the value of a key, None if it is not there."""
        return next((value for name, value in self.pairs if name.text == key), None)

    def key(self, key: str) -> Scalar:
        """Return the key itself, for its place; raises KeyError if it is not there."""
        for name, _ in self.pairs:
            if name.text == key:
                return name
        raise KeyError(key)


Value: TypeAlias = Scalar | Listing | Table


@dataclass(slots=True)
class Document:
    """The text of one file, and the errors found in it so far."""

    text: str
    file: str
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    _starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._starts = [0, *(at + 1 for at, char in enumerate(self.text) if char == "\n")]

    def line(self, offset: int) -> int:
        """Return the line of a character, from 1."""
        return bisect_right(self._starts, offset)

    def finding(self, start: int, end: int, message: str, *, hint: str, severity: str = "error") -> Finding:
        """Return a finding at characters `start` up to `end`; carets stay within the first line."""
        start = min(max(start, 0), len(self.text))
        line = self.line(start)
        source = self.text[self._starts[line - 1] :].split("\n", 1)[0].rstrip("\r")
        source = whole(source)  # what is said has to be told
        column = start - self._starts[line - 1] + 1
        width = max(1, min(end - start, len(source) - column + 1))
        return Finding(
            file=self.file, line=line, column=column, message=message, severity=severity, source=source, width=width,
            hint=hint,
        )  # fmt: skip

    def refuse(self, place: Value, message: str, *, hint: str) -> RuleFileError:
        """Return the error of one finding at a value."""
        return RuleFileError([self.finding(place.start, place.end, message, hint=hint)])

    def place(self, finding: Finding, scalar: Scalar) -> Finding:
        """Move a finding about the text of a scalar (lines and columns within it) to where it stands in the file."""
        offsets = origins(self.text, scalar)
        lines = scalar.text.split("\n")
        at = sum(len(line) + 1 for line in lines[: finding.line - 1]) + finding.column - 1
        at = min(at, len(scalar.text))
        last = min(at + finding.width - 1, len(scalar.text))
        placed = self.finding(
            offsets[at], max(offsets[last], offsets[at]) + 1, finding.message, hint=finding.hint or ""
        )
        return replace(placed, hint=finding.hint, severity=finding.severity, rule=finding.rule)


def read(document: Document) -> Value | None:
    """Read a document's text; None, with the reason among `document.errors`, if it is no YAML or is empty."""
    text = document.text
    if len(text) > MAX_CHARACTERS:
        message = f"the file has {len(text)} characters, more than {MAX_CHARACTERS}"
        document.errors.append(document.finding(0, 1, message, hint="split it into several files"))
        return None
    deep = _too_deep(text)
    if deep is not None:
        message = f"nested more than {MAX_DEPTH} deep"
        document.errors.append(document.finding(deep, deep + 1, message, hint=_FLATTER))
        return None
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
        if root is None:
            raise RuleFileError([document.finding(0, 1, "the file is empty", hint="begin with version: 1")])
        return _Reading(document).value(root, 0)
    except MarkedYAMLError as error:
        document.errors.append(_explained(document, error))
    except RecursionError:
        document.errors.append(document.finding(0, 1, f"nested more than {MAX_DEPTH} deep", hint=_FLATTER))
    except (YAMLError, ValueError, OverflowError) as error:
        # ruamel.yaml lets an impossible \U escape and unprintable characters out as these.
        at = getattr(error, "position", 0)
        message = str(getattr(error, "reason", None) or error).split("\n")[0]
        document.errors.append(document.finding(at, at + 1, f"not YAML: {message}", hint="remove it"))
    except RuleFileError as error:
        document.errors.extend(error.findings)
    return None


def _too_deep(text: str) -> int | None:
    """Return where more brackets stand open than any file needs, None if nowhere.

    ruamel.yaml's time grows with the square of them: 2,000 take 15 s.
    """
    depth = 0
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_OPEN:
            return bracket.start()
    return None


class _Reading:
    """Turns ruamel's nodes into ours, counting them: aliases make a few nodes many.

    A node is read once, however often its alias is used; it counts, and is deep, as often.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0
        self._deepest = 0
        # What a node gave, how many values it holds and how deep they go below it, by the node's id.
        self._known: dict[int, tuple[Value, int, int]] = {}

    def value(self, node: Any, depth: int) -> Value:
        known = self._known.get(id(node))
        if known is not None:
            value, count, below = known
            self._take(node, count, depth + below)
            return value
        before, deepest, self._deepest = self._count, self._deepest, depth
        self._take(node, 1, depth)
        value = self._read(node, depth)
        self._known[id(node)] = value, self._count - before, self._deepest - depth
        self._deepest = max(deepest, self._deepest)
        return value

    def _take(self, node: Any, count: int, depth: int) -> None:
        """Count values that go so deep, and refuse what is too much."""
        document, start = self._document, node.start_mark.index
        self._count += count
        self._deepest = max(self._deepest, depth)
        if depth > MAX_DEPTH:
            raise RuleFileError(
                [document.finding(start, start + 1, f"nested more than {MAX_DEPTH} deep", hint=_FLATTER)]
            )
        if self._count > MAX_NODES:
            message = f"more than {MAX_NODES} values, aliases counted as often as they are used"
            raise RuleFileError([document.finding(start, start + 1, message, hint="write less with & and *")])

    def _read(self, node: Any, depth: int) -> Value:
        document = self._document
        start, end = node.start_mark.index, node.end_mark.index
        if document.text[start : start + 1] == "!":
            raise RuleFileError([document.finding(start, end, "tags are not used in rule files", hint="leave it out")])
        if isinstance(node, ScalarNode):
            if half := HALF_CHARACTER.search(node.value):
                message = f"\\u{ord(half[0]):04x} alone is no character, but half of one"
                hint = r"write the character itself, or both halves as one: \U0001F600"
                raise RuleFileError([document.finding(start, end, message, hint=hint)])
            return Scalar(node.value, node.style or "", self._past_anchor(start), end)
        if isinstance(node, SequenceNode):
            return Listing(tuple(self.value(entry, depth + 1) for entry in node.value), start, end)
        assert isinstance(node, MappingNode)
        return Table(tuple(self._pairs(node, depth)), start, end)

    def _pairs(self, node: Any, depth: int) -> Iterator[tuple[Scalar, Value]]:
        seen: dict[str, Scalar] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, depth + 1)
            value = self.value(value_node, depth + 1)
            if not isinstance(key, Scalar):
                self._document.errors += self._document.refuse(
                    key, "a key must be one word", hint="write key: value"
                ).findings
                continue
            if key.text in seen:
                line = self._document.line(seen[key.text].start)
                self._document.errors += self._document.refuse(
                    key, f"duplicate key {key.text!r}", hint=f"it is already in line {line}"
                ).findings
                continue
            seen[key.text] = key
            if isinstance(value, Scalar) and value.start == value.end:
                value = replace(value, start=key.end, end=key.end + 1)
            yield key, value

    def _past_anchor(self, start: int) -> int:
        """Return where a scalar itself begins, if `&name` stands before it."""
        text = self._document.text
        if text[start : start + 1] != "&":
            return start
        while start < len(text) and text[start] not in _BLANK:
            start += 1
        while start < len(text) and text[start] in _BLANK:
            start += 1
        return start


def _explained(document: Document, error: MarkedYAMLError) -> Finding:
    """Say in our words what ruamel.yaml says in its own."""
    mark = error.problem_mark or error.context_mark
    at = mark.index if mark is not None else 0
    problem = str(error.problem or error.context or "not YAML").split("\n")[0]
    message, hint = f"not YAML: {problem}", "check indentation, colons and quotes; quote a text that holds ': ' or ' #'"
    if "\\t" in problem or document.text[at : at + 1] == "\t":
        message, hint = "a tab where YAML wants spaces", "indent with spaces"
    elif "but found another document" in problem:
        message, hint = "a second document", "one file is one document: remove ---"
    elif _FORMULA_KEY.match(document.text, document.text.rfind("\n", 0, at) + 1):
        hint = "write the formula below when: | and indent it: there YAML leaves { % # ' and : alone"
    elif "undefined alias" in problem:
        hint = 'quote a text that begins with *, as in ["*ST*"]'
    return document.finding(at, at + 1, message, hint=hint)


def origins(raw: str, scalar: Scalar) -> list[int]:
    """Return for each character of a scalar's text, and for its end, the offset in the file it comes from.

    YAML folds, indents and escapes, but keeps order: text and file are walked together, blanks aside.
    """
    at = scalar.start
    if scalar.style in ("|", ">"):
        at = raw.find("\n", at) + 1
    elif scalar.style:
        at += 1
    offsets: list[int] = []
    for char in scalar.text:
        if char not in _BLANK:
            at = _skip_blanks(raw, at, scalar.style)
        offsets.append(min(at, len(raw)))
        if char not in _BLANK or raw[at : at + 1] in _BLANK or raw[at : at + 1] == "\\":
            at += _written_length(raw, at, scalar.style)
    return [*offsets, min(at, len(raw))]


def _skip_blanks(raw: str, at: int, style: str) -> int:
    while at < len(raw) and (raw[at] in _BLANK or (style == '"' and raw[at : at + 2] == "\\\n")):
        at += 1 if raw[at] in _BLANK else 2
    return at


def _written_length(raw: str, at: int, style: str) -> int:
    """Return how many characters of the file one character of the text takes."""
    if style == "'" and raw[at : at + 2] == "''":
        return 2
    if style == '"' and raw[at : at + 1] == "\\":
        return {"x": 4, "u": 6, "U": 10}.get(raw[at + 1 : at + 2], 2)
    return 1
