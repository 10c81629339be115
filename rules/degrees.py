"""How each node of the graph grows with prices, or with volumes, so that state can follow an ex-rights day.

Were all prices of a symbol's past multiplied by f, a moving average would be f times what it is, a deviation f times, a
variance f² times, a count and an oscillator the same: the value of a node that grows with degree d is multiplied by
f**d, and so is what it carries, whatever bars it has seen that are long gone. A node is MIXED where that is not so,
which is where prices meet a number that is none of theirs: `C > 1800`, `LAST <= ENTRY*0.95`.

Degrees are found from a node's arguments by a rule for each class. A class without a rule is taken to be MIXED: its
state is then made anew from the bars that are kept (exrights.py), which is right as far as those reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from rules.functions import (
    across,
    arithmetic,
    averages,
    comparing,
    counting,
    crossing,
    parabolic,
    references,
    regression,
    seconds,
    spread,
    truths,
    varying,
    windows,
)
from rules.functions.values import Constant, Field, TruthField
from rules.node import Node

Degree: TypeAlias = float
"""The exponent d of f**d; ANY of a constant 0, which grows as anything does; MIXED."""
ANY: Final = -np.inf
MIXED: Final = np.inf
WordDegrees: TypeAlias = Mapping[str, Degree]
_ALMOST_NOTHING: Final = 1e-8
"""A comparison with 0 is one with 0 plus the tolerance."""

PRICES: Final[WordDegrees] = {
    **dict.fromkeys(("C", "O", "H", "L", "LAST", "PRECLOSE", "DAYOPEN", "DAYHIGH", "DAYLOW"), 1.0),
    **dict.fromkeys(("AUCP", "LIMITUP", "LIMITDOWN", "PEAK"), 1.0),
    **{f"{side}P{level}": 1.0 for side in ("BID", "ASK") for level in range(1, 6)},
    "PNL": MIXED,  # LAST against ENTRY, which stays as it was paid
}
"""Words that grow with the symbol's prices; all others do not."""
VOLUMES: Final[WordDegrees] = {
    **dict.fromkeys(("V", "VOLDAY"), 1.0),
    **{f"{side}V{level}": 1.0 for side in ("BID", "ASK") for level in range(1, 6)},
}
"""Words that grow with the number of shares there are."""

Rule: TypeAlias = Callable[[Node, Sequence[Degree]], Degree]


def degrees(nodes: Iterable[Node], words: WordDegrees) -> dict[Node, Degree]:
    """Return the degree of each node; arguments stand before their readers, as `reach` and the graph have them.

    words: of the market's words by canonical name (of a book's as PEAK), 0 for one that is not there.
    """
    found: dict[Node, Degree] = {}
    for node in nodes:
        found[node] = _degree(node, [found[arg] for arg in node.args], words)
    return found


def carried(node: Node, name: str, found: Mapping[Node, Degree]) -> Degree:
    """Return the degree of what a node carries under this name; a ring carries its value."""
    own = found[node]
    if own == MIXED or name.startswith("ring") or not node.args:
        return own
    args = [found[arg] for arg in node.args]
    weights = _CARRIED.get((type(node), name))
    if weights is None:
        weights = _NONE if name in _PLAIN else _FIRST
    parts = [weight * degree for weight, degree in zip(weights, args, strict=False) if weight and degree != ANY]
    return sum(parts) if parts else 0.0


def _degree(node: Node, args: Sequence[Degree], words: WordDegrees) -> Degree:
    if isinstance(node, Constant):
        return ANY if abs(node.number) <= _ALMOST_NOTHING else 0.0
    if isinstance(node, Field | TruthField):
        return words.get(node.key.partition("@")[0], 0.0)
    rule = _rule_of(type(node))
    if rule is None or MIXED in args:
        return MIXED
    return rule(node, args)


def _rule_of(kind: type) -> Rule | None:
    return next((RULES[base] for base in kind.__mro__ if base in RULES), None)


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _alike(args: Iterable[Degree]) -> Degree:
    """Return the degree that all share, ANY standing for whatever it must be; MIXED if they differ."""
    distinct = {degree for degree in args if degree != ANY}
    return MIXED if len(distinct) > 1 else distinct.pop() if distinct else ANY


def _plain(node: Node, args: Sequence[Degree]) -> Degree:
    return 0.0


def _first(node: Node, args: Sequence[Degree]) -> Degree:
    return args[0]


def _second(node: Node, args: Sequence[Degree]) -> Degree:
    return args[1]


def _all_alike(node: Node, args: Sequence[Degree]) -> Degree:
    return _alike(args)


def _compared(node: Node, args: Sequence[Degree]) -> Degree:
    return MIXED if _alike(args[:2]) == MIXED else 0.0


def _operation(node: Node, args: Sequence[Degree]) -> Degree:
    assert isinstance(node, arithmetic.Operation)
    if node.op != "*":
        return _alike(args)
    return ANY if ANY in args else sum(args)


def _quotient(node: Node, args: Sequence[Degree]) -> Degree:
    return ANY if ANY in args[:2] else args[0] - args[1]


def _chosen(node: Node, args: Sequence[Degree]) -> Degree:
    return _alike(args[1:])


def _weighted(node: Node, args: Sequence[Degree]) -> Degree:
    return args[0] if args[1] in (0.0, ANY) else MIXED


def _by_length(node: Node, args: Sequence[Degree]) -> Degree:
    """A window whose length is a number of bars."""
    return args[0] if args[1] in (0.0, ANY) else MIXED


def _age_by_length(node: Node, args: Sequence[Degree]) -> Degree:
    return 0.0 if args[1] in (0.0, ANY) else MIXED


def _bars_alone(node: Node, args: Sequence[Degree]) -> Degree:
    return 0.0 if set(args) <= {0.0, ANY} else MIXED


def _deviation(node: Node, args: Sequence[Degree]) -> Degree:
    return args[0] if args[0] == ANY or node.key.startswith("STD") else 2 * args[0]


def _product(node: Node, args: Sequence[Degree]) -> Degree:
    return ANY if ANY in args else sum(args)


def _unary(node: Node, args: Sequence[Degree]) -> Degree:
    name = node.key.partition("(")[0]
    if name in ("", "ABS"):  # (-x)
        return args[0]
    if name == "SIGN" or args[0] in (0.0, ANY):
        return 0.0
    return args[0] / 2 if name == "SQRT" else MIXED


def _pair(node: Node, args: Sequence[Degree]) -> Degree:
    if not node.key.startswith("POW("):
        return _alike(args)
    exponent = node.args[1]
    if isinstance(exponent, Constant) and args[0] != ANY:
        return args[0] * exponent.number
    return 0.0 if set(args) <= {0.0, ANY} else MIXED


RULES: Final[Mapping[type, Rule]] = {
    arithmetic.Operation: _operation, arithmetic.Quotient: _quotient, arithmetic.Unary: _unary,
    arithmetic.Pair: _pair, comparing.Shifted: _first, comparing.Greater: _compared, comparing.Equal: _compared,
    truths.Conjunction: _plain, truths.Disjunction: _plain, truths.Inverse: _plain,
    truths.TruthNumber: _plain, truths.NumberTruth: _plain, truths.ChosenNumber: _chosen,
    truths.ChosenTruth: _plain,
    across.Across: _first, across.AcrossTruth: _plain, across.AcrossClosed: _first, across.BarEnd: _plain,
    averages.Smoothed: _first, averages.DynamicAverage: _weighted, averages.SeededAverage: _first,
    counting.Age: _plain, counting.FirstAge: _plain, counting.OldestAge: _plain, counting.Run: _plain,
    counting.Count: _plain, counting.Exists: _plain, counting.Every: _plain, counting.Filtered: _plain,
    counting.Known: _plain, counting.Untrue: _plain,
    crossing.Cross: _compared, crossing.LongCross: _plain,
    parabolic.Parabolic: _all_alike,
    references.Earlier: _first, references.Remembered: _second,
    regression.Fitted: _first, regression.Covariance: _product, regression.Correlation: _plain,
    seconds.TickAmount: _first, seconds.BigTick: _plain, seconds.VolumeRatio: _plain, seconds.Heard: _first,
    spread.Deviations: _deviation, spread.MeanDeviation: _first,
    varying.Folded: _by_length, varying.FoldedAge: _age_by_length, varying.EarlierBy: _by_length,
    varying.ExistsWithin: _bars_alone, varying.EveryWithin: _bars_alone,
    windows.Window: _first, windows.Overall: _first, windows.ExtremeBars: _plain,
}  # fmt: skip
"""Class of nodes → the degree of its value, given those of its arguments, none of them MIXED."""

_NONE: Final = ()
_FIRST: Final = (1.0,)
_PLAIN: Final = frozenset({"age", "seen", "run", "untrue", "false", "up", "speed", "below", "last_end"})
"""Names under which bars are counted and directions kept."""
_CARRIED: Final[Mapping[tuple[type, str], tuple[float, ...]]] = {
    (counting.Count, "base"): _NONE,
    (references.Remembered, "then"): (0.0, 1.0),
    (regression.Covariance, "mean_y"): (0.0, 1.0),
    (regression.Covariance, "products"): (1.0, 1.0),
    (spread.Deviations, "m2"): (2.0,),
    (spread.Deviations, "floor"): (2.0,),
}
"""(class, name) → how the degrees of the arguments add up in it, where it is not the first one's."""
