"""Rules, tasks and the service's state in the store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from monitord.schema import MIGRATIONS
from monitord.store import HistoryFilter, Store
from monitord.storedrules import Monitor, TakenError
from monitord.tasks import TaskTerms
from rules.alert import Alert, Event

TERMS = TaskTerms(stock_code="600519.SH", stop_loss=1.0, quant_config=[{"when": "LAST > 1"}])  # type: ignore[list-item]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "s.sqlite", clock_ms=lambda: 1000)
    yield store
    await store.close()


async def test_everything_is_as_it_was_after_a_restart(store: Store) -> None:
    task = await store.tasks.put(await store.tasks.next_id(), TERMS)
    started = await store.tasks.run(task.id, running=True)
    monitor = await store.monitors.put(Monitor(id=1, name="m", rule={"when": "LAST > 1", "big": 2**70}))
    since_ms = await store.service.set(running=False)
    await store.close()
    again = await Store.open(store.path)
    assert await again.tasks.all() == [started]
    assert (started.terms, started.running, started.started_ms, started.created_ms) == (TERMS, True, 1000, 1000)
    assert await again.monitors.all() == [monitor]
    assert await again.service.state() == (False, since_ms)
    await again.close()


async def test_a_stock_has_one_task(store: Store) -> None:
    await store.tasks.put(1, TERMS)
    other = await store.tasks.put(2, TERMS.model_copy(update={"stock_code": "000001.SZ"}))
    for task_id in (2, 3):
        with pytest.raises(TakenError, match=r"600519\.SH has a task already"):
            await store.tasks.put(task_id, TERMS)
    assert (await store.tasks.all())[1] == other


async def test_an_id_is_never_given_a_second_time(store: Store) -> None:
    await store.tasks.put(await store.tasks.next_id(), TERMS)
    await store.tasks.delete(1)
    assert await store.tasks.next_id() == 2
    assert await store.monitors.next_id() == 1


async def test_the_history_of_tasks_is_found_by_task_and_by_what_it_is_about(store: Store) -> None:
    def alert(number: int, rule: str) -> Alert:
        return Alert(
            id=f"al_{number}", episode_id="ep", event=Event.FIRE, rule=rule, rev="r", symbol="600519.SH",
            trade_date="2023-02-01", episode=1, ts_event_ms=number, period="tick",
        )  # fmt: skip

    rules = ["task-1.entry", "other", "task-1.condition-2", "task-12.entry", "task-1.stop_loss"]
    await store.commit([alert(number, rule) for number, rule in enumerate(rules)], offset=0)

    async def found(glob: str, before: int | None = None) -> list[str]:
        page = await store.history(HistoryFilter(task_rules=glob, before_seq=before))
        return [row.id for row in page.rows]

    assert await found("task-*.*") == ["al_4", "al_3", "al_2", "al_0"]
    assert await found("task-1.*") == ["al_4", "al_2", "al_0"]
    assert await found("task-*.condition-*") == ["al_2"]
    assert await found("task-*.*", before=3) == ["al_0"]


async def test_a_store_of_version_4_becomes_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    db = sqlite3.connect(path)
    for script in MIGRATIONS[:4]:
        db.executescript(script)
    db.executescript("PRAGMA user_version = 4; INSERT INTO held VALUES ('main', '600519.SH', 1.0, 2.0);")
    db.close()
    store = await Store.open(path)
    assert (await store.tasks.all(), await store.monitors.all()) == ([], [])
    assert await store.service.state() == (True, None)
    assert len(await store.held.all()) == 1
    await store.close()
