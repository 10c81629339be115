"""Inputs the engine fails at, and control records it refuses: the next process goes on behind them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from feeds.inputs import Control, ControlKind, Input, Mark, MarkKind
from feeds.journal import Journal, read_journal
from feeds.simulated import SimulatedFeed
from feeds.tick import TickBatch
from monitord import failures
from monitord.checkpoint import CheckpointFolder
from monitord.engineroom import DOUBTS_AT_ONCE, EngineRoom
from monitord.errors import EngineError
from monitord.pipeline import Pipeline
from monitord.store import Store
from rules import rulefile
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleError
from tests.monitord.test_pipeline import RULES, LiveStand, with_book

CROSS = "'CROSS(LAST, 1.5)'"
POISON = 1.25


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "store.sqlite")
    yield opened
    await opened.close()


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Input], bool]], list[Input]]:
    """Let every engine fail at some inputs, when it has already moved on; return what it took of them and others."""

    def begin(is_bad: Callable[[Input], bool]) -> list[Input]:
        taken: list[Input] = []
        step = Engine.step

        def steps(engine: Engine, value: Input, *, offset: int = -1) -> list[Alert]:
            alerts = step(engine, value, offset=offset)
            taken.append(value)
            if is_bad(value):
                raise ZeroDivisionError("a bug")
            return alerts

        monkeypatch.setattr(Engine, "step", steps)
        return taken

    return begin


def is_bad(value: Input) -> bool:
    return isinstance(value, TickBatch) and bool((value.column("last") == POISON).any())


async def pushed(folder: Path, store: Store, *prices: float) -> LiveStand:
    """Recover a live pipeline and push prices into it, as far as it goes; nothing of it is closed, as in a kill."""
    stand = LiveStand(folder, store, CROSS)
    await stand.pipeline.recover()
    for price in prices:
        stand.feed.queue.put_nowait(with_book(price))
    stand.feed.queue.put_nowait(None)
    await stand.pipeline.run()
    return stand


async def test_a_live_input_that_fails_twice_is_passed_over_as_a_gap(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]]
) -> None:
    taken = poison(is_bad)
    with pytest.raises(EngineError, match=r"input \d+: ZeroDivisionError: a bug"):
        await pushed(tmp_path, store, 1.0, POISON)
    with capture_logs() as logs:
        second = await pushed(tmp_path, store, 2.0)
    assert second.pipeline.counters()["passed_over"] == 1
    assert [one["log_level"] for one in logs if one["event"] == "input_passed_over"] == ["error"]
    assert [one["times"] for one in logs if one["event"] == "engine_failed"] == [2]
    assert any(isinstance(one, Mark) and one.reason == failures.PASSED_OVER for one in taken)
    (row,) = await store.pending(limit=9)
    alert = Alert.from_json(row.record)
    assert (alert.values["LAST"], alert.gap) == (2.0, "feed"), "rules know that something is missing"


async def test_every_later_process_passes_over_the_same(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]]
) -> None:
    poison(is_bad)
    with pytest.raises(EngineError):
        await pushed(tmp_path, store, 1.0, POISON)
    second = await pushed(tmp_path, store, 1.1, 2.0)
    arrays, header = await second.pipeline.ask(lambda engine: engine.checkpoint())
    third = LiveStand(tmp_path, store, CROSS)
    with capture_logs() as logs:
        await third.pipeline.recover()
    assert [one["event"] for one in logs if "fail" in one["event"]] == [], "it is not tried again"
    assert third.pipeline.counters()["passed_over"] == 1
    assert [alert.id for alert in third.alerts] == [alert.id for alert in second.alerts]
    at = third.journal.end - 1  # without the mark of the third start
    replayed = Engine()
    told = third.pipeline._room.failures
    for offset, value in third.journal.read():
        if offset <= at:
            place = failures.Place(False, offset)
            given = told.instead(place, value, clock_ms=replayed.market.clock_ms) if told.passes_over(place) else value
            replayed.step(given, offset=offset)
    again, others = replayed.checkpoint()
    assert others == header
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


async def test_what_failed_once_and_goes_on_is_kept_and_not_passed_over(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, poison: Callable[..., list[Input]]
) -> None:
    with monkeypatch.context() as once:
        step = Engine.step
        once.setattr(
            Engine, "step", lambda self, value, offset=-1: 1 / 0 if is_bad(value) else step(self, value, offset=offset)
        )
        with pytest.raises(EngineError):
            await pushed(tmp_path, store, 1.0, POISON)
    taken = poison(lambda value: False)
    second = await pushed(tmp_path, store, 2.0)
    assert second.pipeline.counters()["passed_over"] == 0
    assert sum(map(is_bad, taken)) == 1
    (kept,) = (tmp_path / "failed").iterdir()
    assert "ZeroDivisionError" in (kept / "why.txt").read_text(encoding="utf-8")
    rules, batch = (record.value for record in read_journal(kept))
    assert isinstance(rules, Control)
    assert CROSS in rules.text
    assert isinstance(batch, TickBatch)
    assert batch.column("bid_price_1").tolist() == [POISON]


async def test_killed_between_the_failure_and_its_record_it_is_tried_twice_again(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = poison(is_bad)
    with monkeypatch.context() as killed:
        killed.setattr(EngineRoom, "_note_failure", lambda *args: None)
        with pytest.raises(EngineError):
            await pushed(tmp_path, store, 1.0, POISON)
    taken.clear()
    second = await pushed(tmp_path, store, 2.0)
    assert sum(map(is_bad, taken)) == failures.OFTEN
    assert second.pipeline.counters()["passed_over"] == 1


async def test_where_everything_fails_it_is_the_program_and_no_input(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pushed(tmp_path, store, *(1.0 + i / 1000 for i in range(failures.MOST + 1)))
    poison(lambda value: isinstance(value, TickBatch))
    with pytest.raises(EngineError, match="this is the program's fault"):
        await LiveStand(tmp_path, store, CROSS).pipeline.recover()
    assert len(list((tmp_path / "failed").iterdir())) <= failures.KEPT


async def test_an_input_of_a_feed_with_offsets_is_passed_over_at_the_second_restart(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]]
) -> None:
    def stand() -> Pipeline:
        feed = SimulatedFeed(symbols=20, speed=None, start="14:58:30", days=1)
        return Pipeline(
            feed,
            journal=Journal(tmp_path / "journal", source_id=feed.source_id),
            store=store,
            checkpoints=CheckpointFolder(tmp_path / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": RULES}),
            on_alerts=lambda alerts: None,
        )

    first: list[TickBatch] = []

    def is_fifth(value: Input) -> bool:
        if isinstance(value, TickBatch) and len(first) < 5:
            first.append(value)
        return isinstance(value, TickBatch) and len(first) == 5 and value.ts_event_ms[0] == first[4].ts_event_ms[0]

    taken = poison(is_fifth)
    for _ in range(failures.OFTEN):
        pipeline = stand()
        await pipeline.recover()
        with pytest.raises(EngineError):
            await pipeline.run()
        await pipeline.close()
    pipeline = stand()
    await pipeline.recover()
    taken.clear()
    await pipeline.run()
    assert pipeline.counters()["passed_over"] == 1
    assert sum(isinstance(one, Mark) and one.kind is MarkKind.GAP for one in taken) == 1
    await pipeline.close()


# ── control records that are refused ──────────────────────────────────────────────────────────────────────────────


async def test_killed_after_a_refused_reload_the_next_process_knows_nothing_of_it(tmp_path: Path, store: Store) -> None:
    stand = await pushed(tmp_path / "a", store, 1.0)
    stand.when = "'CORSS(LAST, 1)'"
    with pytest.raises(RuleError):
        await stand.pipeline.reload()
    for bad in (Control(ControlKind.EXRIGHTS, "nonsense"), Control(ControlKind.RULES, "[]")):
        end = stand.journal.end
        with pytest.raises(Exception, match=r"not the|ex-rights"):
            await stand.pipeline._control(bad)
        assert stand.journal.end == end
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # what is on the disk if it is killed now
    with capture_logs() as logs:
        after = await pushed(tmp_path / "b", store, 2.0)
    assert [one["event"] for one in logs if one["log_level"] == "error"] == []
    assert [alert.values["LAST"] for alert in after.alerts] == [2.0]


async def test_a_record_that_another_version_took_and_this_one_refuses_is_passed_over(
    tmp_path: Path, store: Store
) -> None:
    stand = await pushed(tmp_path, store, 1.0)
    for kind in (ControlKind.RULES, ControlKind.INSTRUMENTS, ControlKind.POSITIONS, ControlKind.EXRIGHTS):
        stand.journal.append(Control(kind, "nonsense"))
    with capture_logs() as logs:
        after = await pushed(tmp_path, store, 2.0)
    assert [one["kind"] for one in logs if one["event"] == "control_refused"] == [
        "rules", "instruments", "positions", "exrights",
    ]  # fmt: skip
    assert [alert.values["LAST"] for alert in after.alerts] == [2.0]
    assert after.pipeline.counters()["passed_over"] == 0


async def test_new_rules_that_the_engine_fails_at_end_the_process_and_are_no_part_of_the_next_one(
    tmp_path: Path, store: Store, poison: Callable[..., list[Input]]
) -> None:
    stand = await pushed(tmp_path, store, 1.0)
    poison(lambda value: isinstance(value, Control) and "LAST > 7" in value.text)
    stand.when = "LAST > 7"
    with pytest.raises(EngineError, match="failed at new rules"):
        await stand.pipeline.reload()
    after = await pushed(tmp_path, store, 2.0)
    assert after.pipeline.counters()["passed_over"] == 1
    assert [alert.values["LAST"] for alert in after.alerts] == [2.0]


async def test_ex_rights_days_that_are_not_believed_are_told_once_each_and_counted(
    tmp_path: Path, store: Store
) -> None:
    stand = await pushed(tmp_path, store, 1.0)
    doubts = stand.pipeline.engine.market.exrights.unbelieved

    async def push(price: float) -> list[tuple[str, object]]:
        stand.feed.queue.put_nowait(with_book(price))
        stand.feed.queue.put_nowait(None)
        with capture_logs() as logs:
            await stand.pipeline.run()
        return [(one["event"], one.get("symbol", one.get("more"))) for one in logs]

    doubts["600519.SH", 20230202] = "a factor out of bounds"
    assert await push(1.1) == [("exright_not_believed", "600519.SH")]
    assert await push(1.2) == []
    doubts.update({(f"{number:06}.SZ", 20230202): "a broken feed" for number in range(DOUBTS_AT_ONCE + 5)})
    assert (await push(1.3))[-2:] == [("exright_not_believed", "000019.SZ"), ("exrights_not_believed", 5)]
    assert stand.pipeline.counters()["exrights_not_believed"] == DOUBTS_AT_ONCE + 6
