"""A formula's text before and after the grammar: narrowed and blanked for it, explained when it refuses.

Every change made here is one character for one, so places in the tree are places in the text as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from rules.errors import Finding, RuleFileError
from rules.language.tree import Span

_FULL_WIDTH: Final = {0xFF01 + i: 0x21 + i for i in range(94)}
WIDE: Final = _FULL_WIDTH | str.maketrans("、‘’“”×÷−–\u3000\u200b\u200c\u200d\ufeff", ",''\"\"*/--     ")
"""Full-width letters, digits and signs as Chinese keyboards give them, quotes and dashes as word processors do, blanks
that nobody sees, and what each stands for."""

_KEPT = re.compile(r"""'[^'\n]*'|"[^"\n]*"|\{[^}]*\}?|//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/)?""")
_WORDS: Final = {
    "NAME": "a name", "NUMBER": "a number", "STRING": "a text", "XREF": "a reference", "CMPOP": "a comparison",
    "ADDOP": "+ or -", "MULOP": "* or /", "PERCENT": "%", "NOT": "NOT", "LPAR": "(", "RPAR": ")", "_COMMA": ",",
    "_SEMICOLON": ";", "_COLON": ":", "_ASSIGN": ":=", "_HASH": "#", "_AND": "AND", "_OR": "OR", "$END": "the end",
}  # fmt: skip
_INSTEAD_OF: Final = {
    "&": "write AND or &&", "|": "write OR or ||", "}": "comments begin with {", "≥": "write >=", "≤": "write <=",
    "≠": "write <>", "^": "write POW(A,B)", ".": 'an output of a shipped formula stands in quotes: "MACD.DIF"(12,26,9)',
    "[": "write ( and )", "]": "write ( and )", "$": 'another symbol stands in quotes: "SH000001$CLOSE"',
}  # fmt: skip
"""What to write for a sign that is none of the language."""
_OPERAND: Final = frozenset({"NAME", "NUMBER", "LPAR"})
_AFTER_OPERAND: Final = frozenset({"NAME", "NUMBER", "RPAR", "PERCENT", "STRING", "XREF"})


@dataclass(frozen=True, slots=True)
class Source:
    """A formula's text and where it stands, to place findings in it."""

    text: str
    file: str
    first_line: int = 1

    def finding(self, span: Span, message: str, *, hint: str, severity: str = "error") -> Finding:
        """Return a finding whose carets stand under `span` (under its first line where it has several)."""
        lines = self.text.split("\n")
        line = lines[span.line - 1] if span.line <= len(lines) else ""
        end = span.end_column if span.end_line == span.line else len(line) + 1
        return Finding(
            file=self.file, line=span.line + self.first_line - 1, column=span.column, message=message,
            severity=severity, source=line.rstrip("\r"), width=max(1, end - span.column), hint=hint,
        )  # fmt: skip

    def span(self, start: int, end: int) -> Span:
        """Return the place of characters `start` up to `end` of the text."""
        line = self.text.count("\n", 0, start) + 1
        end_line = line + self.text.count("\n", start, end)
        column = start - self.text.rfind("\n", 0, start)
        return Span(line, column, end_line, end - self.text.rfind("\n", 0, end), start, end)

    def refuse(self, start: int, end: int, message: str, *, hint: str) -> RuleFileError:
        """Return the error of one finding at these characters."""
        return RuleFileError([self.finding(self.span(start, end), message, hint=hint)])


def prepare(source: Source) -> str:
    """Return the text with comments blanked and punctuation narrowed, character for character.

    Raises RuleFileError for a comment that is not closed.
    """
    narrow = source.text.translate(WIDE)
    pieces: list[str] = []
    done = 0
    for match in _KEPT.finditer(narrow):
        pieces.append(narrow[done : match.start()])
        pieces.append(_kept(source, match))
        done = match.end()
    pieces.append(narrow[done:])
    return "".join(pieces)


def _kept(source: Source, match: re.Match[str]) -> str:
    """Return a literal as it was written between its quotes, a comment as blanks."""
    text = match.group()
    if text[0] in "'\"":
        return text[0] + source.text[match.start() + 1 : match.end() - 1] + text[-1]
    close = "}" if text[0] == "{" else "*/" if text.startswith("/*") else ""
    if not text.endswith(close) or text == "/*/":
        opening = "{" if close == "}" else "/*"
        raise source.refuse(
            match.start(), match.start() + len(opening), "comment is not closed", hint=f"end it with {close}"
        )
    return re.sub(r"[^\n]", " ", text)


def unexpected_character(source: Source, at: int) -> RuleFileError:
    """Explain a character that begins nothing of the language."""
    char = source.text[at]
    if char.translate(WIDE) in "'\"":
        message = "text is not closed"
        hint = f"end it with {char} on the same line"
    else:
        message = f"unexpected character {char!r}"
        hint = _INSTEAD_OF.get(char.translate(WIDE), "remove it")
    return source.refuse(at, at + 1, message, hint=hint)


def unexpected_token(
    source: Source, place: tuple[int, int], *, kind: str, before: Sequence[str], expected: Iterable[str]
) -> RuleFileError:
    """Explain a token the grammar can't take here.

    place: start and end of the token; kind: its terminal; before: the terminals before it; expected: what would do.
    """
    start, end = place
    last = before[-1] if before else ""
    wanted = set(expected)
    found = "the formula ends" if kind == "$END" else f"unexpected {source.text[start:end]!r}"
    if kind == "CMPOP" and last in _AFTER_OPERAND and "CMPOP" not in wanted:
        message, hint = "comparisons do not chain", "write A<B AND B<C, or BETWEEN(B,A,C)"
    elif "RPAR" in wanted and kind in ("$END", "_SEMICOLON"):
        message, hint = f"{found}, but a parenthesis is still open", "close it with )"
    elif kind == "RPAR" and last in _AFTER_OPERAND:
        message, hint = "this parenthesis was never opened", "remove it or add ( before"
    elif wanted >= _OPERAND:
        message, hint = f"{found} where a value is needed", "a number, a word, a function call or ( … ) goes here"
    elif kind == "_ASSIGN" or kind == "_COLON":
        message, hint = (
            f"{found}: only a name can be given a value",
            "write NAME:=… or NAME:… at the start of a statement",
        )
    elif kind == "NAME" and last == "NUMBER" and start and not source.text[start - 1].isspace():
        message, hint = (
            "a name can't begin with a digit",
            f"write it the other way round, as in {source.text[start:end]}5",
        )
    elif kind in _AFTER_OPERAND and last in _AFTER_OPERAND:
        message, hint = f"{found} right after a value", "put an operator, AND, OR, a comma or ; between them"
    else:
        message, hint = found, f"expected {expectation(wanted)}"
    return source.refuse(start, end, message, hint=hint)


def expectation(terminals: Iterable[str]) -> str:
    """Return terminals in words: `a comparison, ) or AND`."""
    words = sorted(_WORDS.get(terminal, terminal) for terminal in terminals)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the hint with the closest known word, None if nothing is close. Long words are not searched for."""
    if len(word) > 40:
        return None
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None
