"""`RuleDesk`: rules by API, and whether rules are evaluated at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from monitord.errors import NoneSuchError
from monitord.rulebook import Rulebook
from monitord.storedrules import Monitor, StoredMonitors, StoredService

log = structlog.get_logger(__name__)


class RuleDesk:
    """The rules by API of one daemon. Event loop only; changes come one after the other."""

    def __init__(self, book: Rulebook, *, stored: StoredMonitors, service: StoredService) -> None:
        self._book, self._stored, self._service = book, stored, service
        self._monitors: dict[int, Monitor] = {}
        self._since_ms: int | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Take what is kept."""
        self._monitors = {one.id: one for one in await self._stored.all()}
        _, self._since_ms = await self._service.state()

    @property
    def running(self) -> bool:
        """Whether rules are evaluated."""
        return self._book.running

    @property
    def since_ms(self) -> int | None:
        """Since when they are, or are not (Unix ms); None = nobody has ever said so."""
        return self._since_ms

    def all(self) -> list[Monitor]:
        """Return every rule by API, by id."""
        return list(self._monitors.values())

    def problem(self, monitor: Monitor) -> str | None:
        """Return why an enabled one is not evaluated, None where it is."""
        if not monitor.enabled:
            return None
        return self._book.refused.get(monitor.text().name, None if self.running else "the service is stopped")

    async def add(self, *, name: str, rule: Mapping[str, Any], enabled: bool) -> Monitor:
        """Keep a new one, and evaluate it if enabled; raises RefusedRules, NotHereError or StoreError."""
        async with self._turn:
            monitor_id = await self._stored.next_id()
            return await self._keep(Monitor(id=monitor_id, name=name, rule=rule, enabled=enabled), "added")

    async def change(
        self, monitor_id: int, *, name: str | None, rule: Mapping[str, Any] | None, enabled: bool | None
    ) -> Monitor:
        """Change what is not None; raises as `add` does, and NoneSuchError."""
        async with self._turn:
            old = self._monitor(monitor_id)
            changed = replace(
                old, name=old.name if name is None else name, rule=old.rule if rule is None else rule,
                enabled=old.enabled if enabled is None else enabled,
            )  # fmt: skip
            return await self._keep(changed, "changed")

    async def delete(self, monitor_id: int) -> Monitor:
        """Forget one; raises NoneSuchError or StoreError."""
        async with self._turn:
            monitor = self._monitor(monitor_id)
            await self._book.drop(monitor.text().name, keep=lambda: self._stored.delete(monitor_id))
            del self._monitors[monitor_id]
        log.info("monitor_changed", monitor=monitor_id, rule=monitor.rule_id, change="deleted")
        return monitor

    async def run(self, running: bool) -> bool:
        """Evaluate rules, or none, from now on and after a restart; return whether that is a change."""
        async with self._turn:
            if running == self.running:
                return False

            async def keep() -> None:
                self._since_ms = await self._service.set(running=running)

            await self._book.run(running, keep=keep)
        log.info("service_changed", running=running)
        return True

    def _monitor(self, monitor_id: int) -> Monitor:
        if monitor_id not in self._monitors:
            raise NoneSuchError(f"there is no monitor {monitor_id}")
        return self._monitors[monitor_id]

    async def _keep(self, monitor: Monitor, what: str) -> Monitor:
        kept: list[Monitor] = []

        async def keep() -> None:
            kept.append(await self._stored.put(monitor))

        text = monitor.text()
        if monitor.enabled:
            await self._book.put(text, keep=keep)
        else:
            await self._book.check(text)
            await self._book.drop(text.name, keep=keep)
        self._monitors[monitor.id] = kept[0]
        log.info("monitor_changed", monitor=monitor.id, rule=monitor.rule_id, enabled=monitor.enabled, change=what)
        return kept[0]
