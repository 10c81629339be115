"""`Reported`: the values that events report, evaluated for their symbols.

The pass that finds fires keeps no values for them: to write a column of 5,500 numbers costs 15 µs, and a few numbers of
some symbols are made in less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from feeds.tick import IntArray
from rules.functions.values import Field, TruthField
from rules.node import Node, Truth
from rules.plan import Plan
from rules.program import Fire, Slot

Values = dict[str, float | None]
"""Expression or output name → value, unknown is None."""


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
        return self._of_slot(slot, np.array([row]))[0]

    def of_fires(self, fires: Sequence[Fire]) -> list[Values]:
        """Return what each of these fires reports; those of a slot stand together."""
        found: list[Values] = []
        for _, some in groupby(fires, lambda fire: fire.slot.order):
            together = list(some)
            found += self._of_slot(together[0].slot, np.array([fire.row for fire in together]))
        return found

    def _of_slot(self, slot: Slot, rows: IntArray) -> list[Values]:
        """Return what events of a slot report of these symbols."""
        standing = {text: node.column for text, node in slot.values.items() if isinstance(node, (Field, TruthField))}
        if len(standing) < len(slot.values):
            return self._evaluated(slot, rows)
        return [{text: _known(float(column.array[row])) for text, column in standing.items()} for row in rows]

    def _evaluated(self, slot: Slot, rows: IntArray) -> list[Values]:
        plan = self._plans.get(slot.order)
        if plan is None:
            plan = self._plans[slot.order] = self._make_plan(slot)
        plan.peek(rows)
        return [{text: _at(node, place) for text, node in slot.values.items()} for place in range(len(rows))]


def _at(node: Node, place: int) -> float | None:
    value = node.value
    if isinstance(value, Truth):
        return 1.0 if value.t[place] else 0.0 if value.f[place] else None
    return _known(float(value[place]))


def _known(number: float) -> float | None:
    return None if number != number else number
