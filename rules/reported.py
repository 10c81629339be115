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
from rules.program import EdgeGroup, Fire, Slot

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
        return self._evaluated(slot, np.array([row]))[0]

    def of_fires(self, group: EdgeGroup, fires: Sequence[Fire]) -> list[Values]:
        """Return what each of these fires of a group reports; those of a slot stand together."""
        if all(_stands(node) for fire in fires for node in fire.slot.values.values()):
            return [_read(fire) for fire in fires]
        if group.reporting is not None:
            group.reporting.peek(np.array([fire.row for fire in fires]))
            return [_values(fire.slot, place) for place, fire in enumerate(fires)]
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
        return [_values(slot, place) for place in range(len(rows))]


def _values(slot: Slot, place: int) -> Values:
    """Return what a slot reports of the symbol at this place of the pass that has just been made."""
    return {text: _at(node, place) for text, node in slot.values.items()}


def _stands(node: Node) -> bool:
    return isinstance(node, (Field, TruthField))


def _read(fire: Fire) -> Values:
    """Return what a fire reports where all of it stands in columns of the market."""
    return {
        text: _known(node.column.array.item(fire.row))
        for text, node in fire.slot.values.items()
        if isinstance(node, (Field, TruthField))
    }


def _at(node: Node, place: int) -> float | None:
    value = node.value
    if isinstance(value, Truth):
        return 1.0 if value.t[place] else 0.0 if value.f[place] else None
    return _known(float(value[place]))


def _known(number: float) -> float | None:
    return None if number != number else number
