"""Functions of published formulas that are other functions in few words: each is read as what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rules.language.tree import Call, Compare, Expr, Number


@dataclass(frozen=True, slots=True)
class Shorthand:
    """written: how it is called; meant: what that stands for; count: arguments; expand: makes one of the other.

    repeats: an argument is written out twice.
    """

    written: str
    meant: str
    count: int
    expand: Callable[[Call], Expr]
    repeats: bool = False


def _call(name: str, call: Call, *args: Expr) -> Call:
    return Call(name, args, call.span)


def _ago(call: Call, x: Expr) -> Expr:
    return _call("REF", call, x, Number(1.0, call.span))


def _renamed(name: str) -> Callable[[Call], Expr]:
    return lambda call: _call(name, call, *call.args)


def _run(op: str) -> Callable[[Call], Expr]:
    """Return what makes EVERY(X op REF(X,1),N) of a call with (X,N)."""

    def expand(call: Call) -> Expr:
        x, n = call.args
        return _call("EVERY", call, Compare(op, x, _ago(call, x), call.span), n)

    return expand


def _always_above(call: Call) -> Expr:
    x, y, n = call.args
    return _call("EVERY", call, Compare(">", x, y, call.span), n)


def _swapped(call: Call) -> Expr:
    condition, then, otherwise = call.args
    return _call("IF", call, condition, otherwise, then)


def _wilder(call: Call) -> Expr:
    x, n = call.args
    return _call("SMA", call, x, n, Number(1.0, call.span))


SHORTHANDS: Final[dict[str, Shorthand]] = {
    "IFF": Shorthand("IFF(X,A,B)", "IF(X,A,B)", 3, _renamed("IF")),
    "IFN": Shorthand("IFN(X,A,B)", "IF(X,B,A)", 3, _swapped),
    "EXPMA": Shorthand("EXPMA(X,N)", "EMA(X,N)", 2, _renamed("EMA")),
    "MEMA": Shorthand("MEMA(X,N)", "SMA(X,N,1)", 2, _wilder),
    "REFV": Shorthand("REFV(X,N)", "REF(X,N)", 2, _renamed("REF")),
    "SGN": Shorthand("SGN(X)", "SIGN(X)", 1, _renamed("SIGN")),
    "UPNDAY": Shorthand("UPNDAY(X,N)", "EVERY(X>REF(X,1),N)", 2, _run(">"), True),
    "DOWNNDAY": Shorthand("DOWNNDAY(X,N)", "EVERY(X<REF(X,1),N)", 2, _run("<"), True),
    "NDAY": Shorthand("NDAY(X,Y,N)", "EVERY(X>Y,N)", 3, _always_above),
}
