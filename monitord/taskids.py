"""Ids of tasks' rules: `task-3.entry`. What tasks tell is known by them, so no other rule may bear one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rules.errors import Finding

if TYPE_CHECKING:
    from rules.rule import Rule

RESERVED: Final = re.compile(r"task-.*\..*")
"""Ids of tasks' rules alone: histories of tasks go by them."""
TASK_RULE: Final = re.compile(
    r"task-([0-9]{1,18})\.(entry|take_profit|stop_loss|condition|advice|order)(?:-([0-9]{1,2}))?"
)
"""Ids of rules of tasks: the task, what it is about, and the number of a condition."""


def task_of(rule: str) -> tuple[int, str] | None:
    """Return the task of a rule and what it is about, None for a rule of no task."""
    found = TASK_RULE.fullmatch(rule)
    return None if found is None else (int(found[1]), found[2])


def reserved(rules: Iterable[Rule]) -> list[Finding]:
    """Return the errors of rules that bear the id of a task's rule and are none."""
    return [
        Finding(
            rule.file, rule.line, 1, f"the id {rule.id!r} is that of a task's rule", rule=rule.id,
            hint="choose one that does not begin with task-, or is without a dot",
        ) for rule in rules if RESERVED.fullmatch(rule.id) and not _is_of_task(rule)
    ]  # fmt: skip


def _is_of_task(rule: Rule) -> bool:
    found = TASK_RULE.fullmatch(rule.id)
    return found is not None and rule.file == f"task/{found[1]}"
