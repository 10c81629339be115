"""What is made by API and outlives a restart: rules, tasks, and whether rules are evaluated at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitord.deliveries import Run
from monitord.errors import StoreError
from monitord.ruletext import RuleField, RuleText, rule_text
from monitord.tasks import MonitorTask, TaskTerms


class TakenError(StoreError):
    """The stock has a task already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """A rule made by API. rule: its fields as in a rule file; enabled: whether it is evaluated."""

    id: int
    name: str
    rule: Mapping[str, Any]
    enabled: bool = True
    created_ms: int = 0
    updated_ms: int = 0

    @property
    def rule_id(self) -> str:
        """Its rule's id: as given, else by its number."""
        given = self.rule.get("id")
        return given if isinstance(given, str) else f"monitor-{self.id}"

    def text(self) -> RuleText:
        """Return it as a rule file."""
        fields = {"id": self.rule_id, **{key: value for key, value in self.rule.items() if key != "id"}}
        rule = [RuleField(key, value, f"rule.{key}") for key, value in fields.items()]
        return rule_text(f"monitor/{self.id}", self.name or "api", [rule], whole="rule")


class StoredMonitors:
    """The rules made by API of one open store; every call is one transaction, as `Store` says."""

    def __init__(self, run: Run, *, clock_ms: Callable[[], int]) -> None:
        self._run, self._clock_ms = run, clock_ms

    async def all(self) -> list[Monitor]:
        """Return them by id."""

        def look(db: sqlite3.Connection) -> list[Monitor]:
            return [_monitor(row) for row in db.execute("SELECT * FROM monitors ORDER BY id")]

        return await self._run(look)

    async def next_id(self) -> int:
        """Return the id that the next one gets."""
        return await self._run(lambda db: _next_id(db, "monitors"))

    async def put(self, monitor: Monitor) -> Monitor:
        """Keep one under its id, in place of what had it; return it with its times."""
        now_ms = self._clock_ms()
        body = json.dumps({"name": monitor.name, "rule": dict(monitor.rule), "enabled": monitor.enabled})

        def write(db: sqlite3.Connection) -> Monitor:
            db.execute(
                "INSERT INTO monitors VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET body = excluded.body, updated_ms = excluded.updated_ms",
                (monitor.id, body, now_ms, now_ms),
            )
            return _monitor(db.execute("SELECT * FROM monitors WHERE id = ?", (monitor.id,)).fetchone())

        return await self._run(write)

    async def delete(self, monitor_id: int) -> None:
        """Forget one."""
        await self._run(lambda db: db.execute("DELETE FROM monitors WHERE id = ?", (monitor_id,)))


class StoredTasks:
    """The tasks of one open store; every call is one transaction, as `Store` says."""

    def __init__(self, run: Run, *, clock_ms: Callable[[], int]) -> None:
        self._run, self._clock_ms = run, clock_ms

    async def all(self) -> list[MonitorTask]:
        """Return them by id."""

        def look(db: sqlite3.Connection) -> list[MonitorTask]:
            return [_task(row) for row in db.execute("SELECT * FROM tasks ORDER BY id")]

        return await self._run(look)

    async def next_id(self) -> int:
        """Return the id that the next one gets."""
        return await self._run(lambda db: _next_id(db, "tasks"))

    async def put(self, task_id: int, terms: TaskTerms) -> MonitorTask:
        """Keep a task's terms, of a new one too; raises TakenError where another task has its stock."""
        now_ms = self._clock_ms()

        def write(db: sqlite3.Connection) -> MonitorTask:
            try:
                db.execute(
                    "INSERT INTO tasks (id, stock_code, body, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET stock_code = excluded.stock_code, body = excluded.body, "
                    "updated_ms = excluded.updated_ms",
                    (task_id, terms.stock_code, terms.model_dump_json(), now_ms, now_ms),
                )
            except sqlite3.IntegrityError:
                raise TakenError(f"{terms.stock_code} has a task already") from None
            return _task(db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone())

        return await self._run(write)

    async def run(self, task_id: int, *, running: bool) -> MonitorTask:
        """Keep that a task was started or stopped now; return it. Raises StoreError for an unknown id."""
        now_ms = self._clock_ms()
        moment = "started_ms" if running else "stopped_ms"

        def write(db: sqlite3.Connection) -> MonitorTask:
            db.execute(f"UPDATE tasks SET running = ?, {moment} = ? WHERE id = ?", (int(running), now_ms, task_id))
            row = db.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)).fetchone()
            if row is None:
                raise StoreError(f"there is no task {task_id}")
            return _task(row)

        return await self._run(write)

    async def delete(self, task_id: int) -> None:
        """Forget a task; its history stays."""
        await self._run(lambda db: db.execute("DELETE FROM tasks WHERE id = ?", (task_id,)))


class StoredService:
    """Whether rules are evaluated, in one open store."""

    def __init__(self, run: Run, *, clock_ms: Callable[[], int]) -> None:
        self._run, self._clock_ms = run, clock_ms

    async def state(self) -> tuple[bool, int | None]:
        """Return whether they are, and since when (Unix ms; None = ever since)."""
        running, since_ms = await self._run(lambda db: db.execute("SELECT running, since_ms FROM service").fetchone())
        return bool(running), since_ms

    async def set(self, *, running: bool) -> int:
        """Keep that they are from now on, or are not; return the time."""
        now_ms = self._clock_ms()
        await self._run(lambda db: db.execute("UPDATE service SET running = ?, since_ms = ?", (int(running), now_ms)))
        return now_ms


def _next_id(db: sqlite3.Connection, table: str) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 1 if row is None else int(row[0]) + 1


def _monitor(row: Sequence[Any]) -> Monitor:
    return Monitor(id=row[0], created_ms=row[2], updated_ms=row[3], **json.loads(row[1]))


def _task(row: Sequence[Any]) -> MonitorTask:
    task_id, _, body, created_ms, updated_ms, started_ms, stopped_ms, running = row
    return MonitorTask(
        id=task_id, terms=TaskTerms.model_validate_json(body), running=bool(running), created_ms=created_ms,
        updated_ms=updated_ms, started_ms=started_ms, stopped_ms=stopped_ms,
    )  # fmt: skip
