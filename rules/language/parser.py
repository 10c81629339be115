"""`parse`: formula text → typed tree, with the place of everything. lark (LALR) does the grammar in grammar.lark.

Nothing here recurses over the text, and its size is bounded first, so no input can crash the parser or hold it up.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken
from lark.visitors import v_args

from rules.language.syntax import Source, did_you_mean, prepare, unexpected_character, unexpected_token
from rules.language.tree import (
    Binary,
    Binding,
    Call,
    Compare,
    CrossPeriod,
    CrossReference,
    Expr,
    Formula,
    Logic,
    Name,
    Negate,
    Not,
    Number,
    Span,
    Statement,
    Text,
    children,
)

MAX_CHARACTERS: Final = 20_000
MAX_TOKENS: Final = 4_000
MAX_STATEMENTS: Final = 250
MAX_DEPTH: Final = 100
"""How deep expressions may nest; a sum of n terms nests n deep, as it is added from the left."""

STYLES: Final = (
    "NODRAW", "STICK", "STICKTYPE", "VOLSTICK", "LINESTICK", "COLORSTICK", "CROSSDOT", "CIRCLEDOT", "POINTDOT",
    "DOTLINE", "LINEDASH", "LINEDOT", "LINEDASHDOT", "NOTEXT", "NOTITLE", "NOFRAME", "NOIMAGE", "DRAWABOVE",
    "DRAWBELOW", "DRAWCENTER", "ALIGN", "VALIGN", "PRECIS", "PXDN", "MOVE", "SHIFT", "LAYER", "RGBX", "DRAWNULL",
    "AXISDEPTH",
)  # fmt: skip
"""Words that may follow a statement's value after a comma: how to draw it. Ignored."""
_STYLE = re.compile(
    rf"(?:COLOR\w*|LINETHICK[0-9]*|LAYER[0-9]+|RGBX?\w*|PRECIS[0-9]*|V?ALIGN[0-9]|MOVE[0-9]+|SHIFT[0-9]+|{'|'.join(STYLES)})"
)
_DRAWING = re.compile(
    r"DRAW\w*|PLAYSOUND|STICKLINE\w*|POLYLINE|VERTLINE|HORLINE|EXPLAIN|PARTLINE|FILLRGN|FLOATRGN|TIPTEXT|PLOYLINE"
)
_SEMICOLON: Final = "_SEMICOLON"
_SPLIT: Final = "make several rules of it"
_COMPARISONS: Final = {"!=": "<>", "==": "="}


def parse(text: str, *, file: str = "formula", first_line: int = 1) -> Formula:
    """Parse a formula; drawing styles and drawing statements are dropped.

    file and first_line: where the text stands, for the findings. Raises RuleFileError for text that is no formula,
    has no condition, or is larger than the limits above.
    """
    source = Source(text, file, first_line)
    if len(text) > MAX_CHARACTERS:
        raise source.refuse(0, 1, f"the formula has {len(text)} characters, more than {MAX_CHARACTERS}", hint=_SPLIT)
    try:
        statements = _statements(source, prepare(source))
        shown = _shown([statement for statement in statements if statement is not None])
        _refuse_deep(source, shown)
        return Formula(text, shown, _condition(source, shown))
    except _Refusal as refusal:
        raise source.refuse(refusal.start, refusal.end, refusal.message, hint=refusal.hint) from None


class _Refusal(Exception):
    """A complaint of a tree building step, which knows places but not the source."""

    def __init__(self, start: int, end: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.start, self.end, self.message, self.hint = start, end, message, hint


def _statements(source: Source, text: str) -> list[Statement | None]:
    """Feed the tokens to the grammar one by one; a drawing statement yields None."""
    if not text.strip():
        raise source.refuse(0, 1, "the formula is empty", hint="write a condition, such as LAST>10")
    machine = _grammar().parse_interactive(text)
    kinds: list[str] = []
    begun = 0  # statements, as the grammar's start counts them: an empty one is none
    token = None
    try:
        for token in machine.iter_parse():
            begun += token.type != _SEMICOLON and (not kinds or kinds[-1] == _SEMICOLON)
            kinds.append(token.type)
            _refuse_long(source, token, words=len(kinds), statements=begun)
        statements: list[Statement | None] = machine.feed_eof(token)  # type: ignore[no-untyped-call]
    except UnexpectedCharacters as error:
        raise unexpected_character(source, error.pos_in_stream or 0) from None
    except UnexpectedToken as error:
        ending = error.token.type == "$END"
        end = len(text.rstrip())
        place = (end, end) if ending else (error.token.start_pos or 0, error.token.end_pos or 0)
        before = kinds if ending else kinds[:-1]
        expected = machine.accepts()  # type: ignore[no-untyped-call]
        raise unexpected_token(source, place, kind=error.token.type, before=before, expected=expected) from None
    return statements


def _refuse_long(source: Source, token: Token, *, words: int, statements: int) -> None:
    """Refuse at the first word too many: what comes behind it is not even parsed."""
    start = token.start_pos or 0
    if words > MAX_TOKENS:
        raise source.refuse(start, start + 1, f"the formula has more than {MAX_TOKENS} words and signs", hint=_SPLIT)
    if statements > MAX_STATEMENTS:
        raise source.refuse(start, start + 1, f"the formula has more than {MAX_STATEMENTS} statements", hint=_SPLIT)


def _shown(statements: list[Statement]) -> tuple[Statement, ...]:
    """Leave out drawing styles that stand alone; what the formula gives a value is no style, whatever its name."""
    named = {statement.name for statement in statements}
    return tuple(
        one
        for one in statements
        if one.name or not isinstance(one.expr, Name) or one.expr.name in named or not _STYLE.fullmatch(one.expr.name)
    )


def _condition(source: Source, statements: tuple[Statement, ...]) -> int:
    """Return the index of the last output or anonymous statement."""
    for index in reversed(range(len(statements))):
        if statements[index].binding is not Binding.PRIVATE:
            return index
    end = len(source.text.rstrip())
    hint = "end with the condition itself, as in A:=MA(C,5); C>A"
    if statements:
        raise source.refuse(
            statements[-1].span.start, end, "the formula has no condition, only := assignments", hint=hint
        )
    raise source.refuse(0, end, "the formula has no condition, only drawing", hint=hint)


def _refuse_deep(source: Source, statements: tuple[Statement, ...]) -> None:
    stack: list[tuple[Expr, int]] = [(statement.expr, 1) for statement in statements]
    while stack:
        expr, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise source.refuse(
                expr.span.start, expr.span.end, f"nested more than {MAX_DEPTH} deep",
                hint="give parts names with :=, or use SUM, MAX, COUNT …",
            )  # fmt: skip
        stack.extend((child, depth + 1) for child in children(expr))


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Builds the tree bottom up while lark reduces: no second walk, no recursion."""

    def start(self, *statements: Statement | None) -> list[Statement | None]:
        return list(statements)

    def private(self, name: Token, expr: Expr, *styles: None) -> Statement | None:
        return _statement(Binding.PRIVATE, expr, name)

    def output(self, name: Token, expr: Expr, *styles: None) -> Statement | None:
        return _statement(Binding.OUTPUT, expr, name)

    def anonymous(self, expr: Expr, *styles: None) -> Statement | None:
        return _statement(Binding.NONE, expr)

    def style(self, name: Token, *parts: Any) -> None:
        if not _STYLE.fullmatch(upper(name)):
            hint = (
                did_you_mean(upper(name), STYLES) or "after a comma stands how to draw a line; join conditions with AND"
            )
            raise _Refusal(*_place(name), f"unknown drawing style {str(name)!r}", hint)

    def args(self, *args: Expr) -> tuple[Expr, ...]:
        return args

    def either(self, *operands: Expr) -> Expr:
        return _logic("OR", operands)

    def both(self, *operands: Expr) -> Expr:
        return _logic("AND", operands)

    def negation(self, sign: Token, operand: Expr) -> Expr:
        return Not(operand, _join(_span(sign), operand.span))

    def compare(self, left: Expr, op: Token, right: Expr) -> Expr:
        return Compare(_COMPARISONS.get(op, str(op)), left, right, _join(left.span, right.span))

    def binary(self, left: Expr, op: Token, right: Expr) -> Expr:
        return Binary(str(op), left, right, _join(left.span, right.span))

    def sign(self, sign: Token, operand: Expr) -> Expr:
        span = _join(_span(sign), operand.span)
        return Negate(operand, span) if sign == "-" else replace(operand, span=span)

    def percent(self, number: Token, sign: Token) -> Expr:
        return Number(_number(number) / 100, _join(_span(number), _span(sign)))

    def number(self, number: Token) -> Expr:
        return Number(_number(number), _span(number))

    def string(self, text: Token) -> Expr:
        return Text(str(text)[1:-1], _span(text))

    def name(self, name: Token) -> Expr:
        return Name(upper(name), _span(name))

    def call(self, name: Token, opening: Token, args: tuple[Expr, ...], closing: Token) -> Expr:
        span = _join(_span(name), _span(closing))
        if upper(name) == "NOT" and len(args) == 1:
            return Not(args[0], span)
        return Call(upper(name), args, span)

    def cross_period(self, name: Token, period: Token) -> Expr:
        return CrossPeriod(upper(name), upper(period), _join(_span(name), _span(period)))

    def cross_reference(self, target: Token, *call: Any) -> Expr:
        span, args = (_span(target), ()) if not call else (_join(_span(target), _span(call[2])), call[1])
        return CrossReference(upper(target[1:-1]), args, span)

    def group(self, opening: Token, expr: Expr, closing: Token) -> Expr:
        # The span takes the parentheses in, so that "written in parentheses" can still be told from the tree.
        return replace(expr, span=_join(_span(opening), _span(closing)))


@cache
def _grammar() -> Lark:
    grammar = files("rules.language").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="basic", maybe_placeholders=False, transformer=_Builder())


def upper(text: str) -> str:
    """Return upper case, letter by letter: a letter whose capital is several letters stays."""
    large = text.upper()
    if len(large) == len(text):
        return large
    return "".join(char.upper() if len(char.upper()) == 1 else char for char in text)


def _statement(binding: Binding, expr: Expr, name: Token | None = None) -> Statement | None:
    if isinstance(expr, Call) and _DRAWING.fullmatch(expr.name):
        return None
    if name is None:
        return Statement(binding, "", "", expr, expr.span)
    return Statement(binding, upper(name), str(name), expr, _join(_span(name), expr.span))


def _logic(op: str, operands: tuple[Expr, ...]) -> Expr:
    """Join operands; one that is the same operation itself is taken apart, as grouping does not change the meaning."""
    flat: list[Expr] = []
    for operand in operands:
        flat.extend(operand.operands if isinstance(operand, Logic) and operand.op == op else (operand,))
    return Logic(op, tuple(flat), _join(operands[0].span, operands[-1].span))


def _number(token: Token) -> float:
    value = float(token)
    if math.isinf(value):
        raise _Refusal(*_place(token), "this number is too large", "use one below 1E308")
    return value


def _place(token: Token) -> tuple[int, int]:
    return token.start_pos or 0, token.end_pos or 0


def _span(token: Token) -> Span:
    # lark gives every token of a text all of these; its annotations allow for tokens made by hand.
    line, column = token.line or 1, token.column or 1
    return Span(line, column, token.end_line or line, token.end_column or column + 1, *_place(token))


def _join(first: Span, last: Span) -> Span:
    return Span(first.line, first.column, last.end_line, last.end_column, first.start, last.end)
