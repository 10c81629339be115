"""Positions of files and API through the store and the pipeline, over restarts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from feeds.journal import Journal
from feeds.simulated import SimulatedFeed
from monitord.checkpoint import CheckpointFolder
from monitord.pipeline import Pipeline
from monitord.positions import Listed, PositionSources
from monitord.store import Store
from rules import positions, rulefile
from rules.errors import RuleError, RuleFileError
from rules.positions import Position

RULES = """version: 1
groups:
- name: g
  rules:
  - {id: held, select: {positions: main}, when: LAST > 0}
  - {id: two, select: {positions: two}, when: LAST > 0}
"""
MAIN = "version: 1\nbooks: {main: [{symbol: 600519.SH, entry: 10, quantity: 100}]}\n"
TWO = Position("two", "600519.SH", 5.0, 1.0)


class Desk:
    """A state directory with position files that a test rewrites."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {"p.yaml": MAIN}
        self.sectors: dict[str, Sequence[str]] = {}

    async def store(self) -> Store:
        return await Store.open(self.folder / "store.sqlite")

    def sources(self, store: Store) -> PositionSources:
        return PositionSources(lambda: dict(self.files), store.held)

    async def pipeline(self, store: Store) -> Pipeline:
        feed = SimulatedFeed(symbols=20, speed=None, start="14:56:30", days=1)
        pipeline = Pipeline(
            feed,
            journal=Journal(self.folder / "journal", source_id=feed.source_id),
            store=store,
            checkpoints=CheckpointFolder(self.folder / "checkpoints"),
            load_rules=lambda: rulefile.load({"r": RULES}),
            positions=self.sources(store),
            load_sectors=lambda: self.sectors,
            on_alerts=lambda alerts: None,
        )
        await pipeline.recover()
        return pipeline


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_positions_by_api_stand_beside_those_of_files(desk: Desk) -> None:
    store = await desk.store()
    sources = desk.sources(store)
    await sources.replace([TWO])
    listed = await sources.listing()
    assert listed == (Listed(Position("main", "600519.SH", 10.0, 100.0), "file"), Listed(TWO, "api"))
    assert positions.decode(await sources.source()) == tuple(one.position for one in listed)
    await store.close()
    store = await desk.store()
    assert await desk.sources(store).listing() == listed
    await store.close()


async def test_a_book_is_of_files_or_of_the_api(desk: Desk) -> None:
    store = await desk.store()
    sources = desk.sources(store)
    with pytest.raises(RuleError, match="book main is in a position file"):
        await sources.replace([Position("main", "000001.SZ", 1.0, 1.0)])
    with pytest.raises(RuleError, match="position 600519"):
        await sources.replace([Position("two", "600519", 1.0, 1.0)])
    assert await store.held.all() == ()
    await sources.replace([TWO])
    desk.files["q.yaml"] = MAIN.replace("main", "two")
    with pytest.raises(RuleError, match="book two"):
        await sources.source()
    await store.close()


async def test_positions_take_effect_at_once_and_after_a_restart(desk: Desk) -> None:
    store = await desk.store()
    pipeline = await desk.pipeline(store)
    assert pipeline.engine.market.books.held == {"main": frozenset({"600519.SH"})}
    await pipeline.hold([TWO])
    assert pipeline.engine.market.books.held == {"main": frozenset({"600519.SH"}), "two": frozenset({"600519.SH"})}
    desk.files["p.yaml"] = MAIN.replace("entry: 10", "entry: 11")
    await pipeline.reload()
    source = pipeline.engine.market.books.source
    assert positions.decode(source)[0].entry == 11.0
    await pipeline.run()
    fired = await store.episodes(since_date="2025-01-02")
    assert {key[0] for key in fired} == {"held", "two"}
    await pipeline.close()

    again = await desk.pipeline(store)
    assert again.engine.market.books.source == source
    assert await again.positions() == await pipeline.positions()
    await again.close()
    await store.close()


async def test_a_bad_file_changes_nothing_that_is_in_force(desk: Desk) -> None:
    store = await desk.store()
    pipeline = await desk.pipeline(store)
    before, instruments = pipeline.engine.market.books.source, pipeline.engine.market.instruments_source
    desk.files["p.yaml"] = MAIN.replace("entry: 10", "entry: ten")
    desk.sectors = {"600519.SH": ("白马",)}
    with pytest.raises(RuleFileError, match="a number is needed here, not ten"):
        await pipeline.reload()
    assert pipeline.engine.market.books.source == before
    assert pipeline.engine.market.instruments_source == instruments
    with pytest.raises(RuleFileError):
        await pipeline.hold([TWO])
    assert await store.held.all() == ()
    desk.files["p.yaml"] = MAIN
    await pipeline.reload()
    assert "白马" in pipeline.engine.market.instruments["600519.SH"].sectors
    await pipeline.close()
    await store.close()
