"""`Reported`: the values that events report, evaluated for their symbols.

The pass that finds fires keeps no values for them: to write a column of 5,500 numbers costs 15 µs, and a few numbers of
some symbols are made in less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import numpy as np

from feeds.tick import IntArray
from rules.functions.values import Field, TruthField
from rules.latest import knowns
from rules.node import Node, Truth
from rules.plan import Plan
from rules.program import EdgeGroup, Fire, Slot, Values


class Reported:
    """What slots report of symbols; `make_plan` gives the pass that evaluates a slot's values."""

    def __init__(self, make_plan: Callable[[Slot], Plan]) -> None:
        self._make_plan = make_plan
        self._plans: dict[int, Plan] = {}
        """By the slot's order, from its first event on."""

    def forget(self) -> None:
        """Forget the passes: slots have changed."""
        self._plans.clear()

    def look(self, slot: Slot, row: int) -> Values:
        """Return what an event of this slot reports now for one symbol."""
        return self._evaluated(slot, np.array([row]))[0]

    def of_fires(self, group: EdgeGroup, fires: Sequence[Fire], rows: IntArray) -> list[Values]:
        """Return what each of these fires of a group, at `rows`, reports; those of a slot stand together."""
        nodes = {node: None for slot, _, _ in fires for node in slot.values.values()}
        if all(isinstance(node, (Field, TruthField)) for node in nodes):
            standing = {node: knowns(node.column.array.take(rows)) for node in nodes}  # type: ignore[attr-defined]
            return _dealt(fires, standing)
        if group.reporting is not None:
            group.reporting.peek(rows)
            return _dealt(fires, {node: _numbers(node) for node in nodes})
        found: list[Values] = []
        for _, some in groupby(fires, lambda fire: fire.slot.order):
            together = list(some)
            found += self._evaluated(together[0].slot, np.array([fire.row for fire in together]))
        return found

    def _evaluated(self, slot: Slot, rows: IntArray) -> list[Values]:
        plan = self._plans.get(slot.order)
        if plan is None:
            plan = self._plans[slot.order] = self._make_plan(slot)
        plan.peek(rows)
        numbers = [_numbers(node) for node in slot.values.values()]
        return [
            {text: of_node[place] for text, of_node in zip(slot.values, numbers, strict=True)}
            for place in range(len(rows))
        ]


def _dealt(fires: Sequence[Fire], numbers: Mapping[Node, Sequence[float | None]]) -> list[Values]:
    """Return the values of each fire, which stand at its place in the numbers of each node."""
    dealt: list[Values] = []
    for place, (slot, _, _) in enumerate(fires):
        told: Values = {}
        for text, node in slot.values.items():  # a comprehension is a call of its own for each fire
            told[text] = numbers[node][place]
        dealt.append(told)
    return dealt


def _numbers(node: Node) -> list[float | None]:
    """Return the values of a node in the pass that has just been made; a truth as 1 or 0."""
    value = node.value
    if isinstance(value, Truth):
        return [1.0 if true else 0.0 if false else None for true, false in zip(value.t, value.f, strict=True)]
    return knowns(value)
