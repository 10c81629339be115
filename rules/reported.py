"""`Reported`: the values that events report, read off the pass that found them, or evaluated for their symbols."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        """Return what each fire of the sample just taken reports."""
        # All that is there is read before a pass for the rest writes over it.
        found = [self._there(group, fire) for fire in fires]
        missing: dict[int, list[int]] = {}
        for place, fire in enumerate(fires):
            if found[place] is None:
                missing.setdefault(fire.slot.order, []).append(place)
        for wanted in missing.values():
            rows = np.array([fires[place].row for place in wanted])
            for place, values in zip(wanted, self._evaluated(fires[wanted[0]].slot, rows), strict=True):
                found[place] = values
        return [values for values in found if values is not None]

    def _there(self, group: EdgeGroup, fire: Fire) -> Values | None:
        """Return a fire's values from the group's last pass; None if one of them was not part of it."""
        kept, place = group.plan.results, group.place(fire.row)
        values: Values = {}
        for text, node in fire.slot.values.items():
            if isinstance(node, (Field, TruthField)):
                values[text] = _known(node.column.array.item(fire.row))
            elif node in kept:
                values[text] = _at(node, place)
            else:
                return None
        return values

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
