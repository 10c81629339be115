"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from monitord.broker import EmbeddedBroker

# A deadline per example measures the machine, not the code: speed has its benchmarks.
# In CI the examples are the same each time, so that a red run is about the change; elsewhere they search on.
settings.register_profile("monitord", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("monitord")

ROOT = Path(__file__).resolve().parent.parent


LONG = (
    "acceptance/test_recording.py", "rules/catalog/test_pankou.py", "monitord/test_bad_rules.py",
    "faults/test_kills.py", "rules/test_engine_replay.py", "feeds/test_simulated.py", "acceptance/test_shares.py",
    "rules/catalog/test_seals.py", "monitord/test_warmup.py", "soak/test_soak.py", "rules/catalog/test_speed.py",
    "rules/test_past.py", "acceptance/test_daemon.py", "feeds/test_replay.py", "rules/test_engine.py",
    "page/test_page.py", "rules/catalog/test_daily.py", "rules/test_states.py", "rules/test_share.py",
    "feeds/test_feed_contract.py", "acceptance/test_bridge_kills.py", "acceptance/test_openapi.py", "test_bench.py",
    "test_distribution.py",
)  # fmt: skip
"""The files that take longest, those that wait for processes among those that reckon.

A worker takes a file at a time: one of a minute that begins last is a minute in which the other core has nothing to do.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, the others in their order behind them."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda one: places.get(one.path, len(LONG)))


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Return the folder of recorded market data (`MARKET_DATA`, else ../shared/data); skip where it is absent."""
    folder = Path(os.environ.get("MARKET_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "sessions").is_dir():
        pytest.skip(f"recorded market data not found at {folder}; set MARKET_DATA to its folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _reaper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End the brokers this run leaves behind, also when it is killed."""
    command = [sys.executable, "-S", "-E", str(ROOT / "tests" / "reaper.py"), str(tmp_path_factory.getbasetemp())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """Run a real server of the test's own, with its append-only file in tmp_path; `broker.url` is its address."""
    async with running_broker(tmp_path / "broker", strict=False) as running:
        yield running


@pytest.fixture
async def strict_broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """Run a real server that acknowledges only what is on the disk, for who kills it and counts.

    The other one keeps its writes to itself for up to 2 s while the disk syncs those before, and acknowledges them all
    the same: killed then, it comes back with less (`Behind`). Seen on a busy disk, and each time where a sync takes
    0.2 s.
    """
    async with running_broker(tmp_path / "broker", strict=True) as running:
        yield running


@asynccontextmanager
async def running_broker(state: Path, *, strict: bool) -> AsyncIterator[EmbeddedBroker]:
    from monitord.broker import EmbeddedBroker

    with tempfile.TemporaryDirectory(prefix="broker-") as folder:  # tmp_path may be too long for a socket's path
        running = EmbeddedBroker(state, socket=Path(folder) / "s", strict=strict)
        await running.start()
        try:
            yield running
        finally:
            await running.stop()
