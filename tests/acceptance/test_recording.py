"""What was recorded, by the daemon beside its work or by a recorder of its own, replays to the daemon's very events."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from feeds.sessions import HOUR_MS, Calendar, unix_ms
from feeds.simulated import Market
from tests.acceptance.daemon import LOOK_S
from tests.faults.lives import ForkedDaemon, ForkedProcess

pytestmark = pytest.mark.acceptance

FEED: dict[str, object] = {
    "feed.simulated.symbols": 60,
    "feed.simulated.speed": 0,
    "feed.simulated.start": "14:20:00",
    "feed.simulated.days": 2,
    "feed.simulated.interval_s": 30,
}
RULES = """
version: 1
groups:
- name: mine
  rules:
  - {id: over, select: all, when: "PCT > 1", rearm: "PCT < 1", freq: always}
  - {id: crossing, select: all, period: 1m, when: "CROSS(MA(C,5), MA(C,10))", freq: always}
  - {id: high, select: all, when: "LAST >= LIMITUP", freq: always, on_start: fire}
  - {id: trend, select: all, period: 1d, when: "LAST > MA(C,5)", rearm: "LAST < MA(C,5)", freq: always, on_start: fire}
"""


class Command:
    """One command of `monitord` in a forked process, and what it writes."""

    def __init__(self, log: Path, *words: str) -> None:
        self._log = log
        self.process = ForkedProcess(words, log)

    async def finished(self, *, deadline_s: float = 300.0) -> str:
        """Return what it wrote; it must end well."""
        async with asyncio.timeout(deadline_s):
            code = await self.process.wait()
        output = self._log.read_text("utf-8", errors="replace")
        assert code == 0, output[-3000:]
        return output


def flags(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


def unstamped(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "stamps"}


def told(state_dir: Path) -> list[dict[str, Any]]:
    """Return the events in a daemon's store, in order, without stamps."""
    store = sqlite3.connect(state_dir / "monitord.sqlite")
    try:
        rows = store.execute("SELECT record FROM events ORDER BY seq").fetchall()
    finally:
        store.close()
    return [unstamped(json.loads(row)) for (row,) in rows]


async def replayed(rules: Path, folder: Path) -> list[dict[str, Any]]:
    sessions, output = files(folder), folder / "events.jsonl"
    words = ("replay", "--rules", str(rules), "--input", *sessions, "--output", str(output))
    await Command(folder.with_suffix(".replay.log"), *words).finished()
    return [unstamped(json.loads(line)) for line in lines(output)]


def files(folder: Path, pattern: str = "*.parquet") -> list[str]:
    return sorted(map(str, folder.glob(pattern)))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def bar_file(folder: Path) -> Path:
    """Write the ten days before the market's first for each of its symbols, so that `trend` is warm at once."""
    market = Market(seed=1, symbols=60, date=20250102, interval_ms=30_000)
    path, date, days = folder / "bars.csv", 20250102, []
    for _ in range(10):
        date = Calendar.xshg().previous(date)
        days.append(unix_ms(date, 15 * HOUR_MS))
    rows = ["symbol,period,ts_end,open,high,low,close"]
    for one, price in zip(market.listing.instruments, market.listing.base_ticks / market.listing.per_yuan, strict=True):
        rows += [f"{one.symbol},1d,{end_ms}" + f",{price:.3f}" * 4 for end_ms in sorted(days)]
    path.write_text("\n".join(rows) + "\n")
    return path


def rule_file(folder: Path) -> Path:
    path = folder / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    return path


async def test_a_recording_replays_to_the_events_of_the_live_daemon(tmp_path: Path) -> None:
    rules = rule_file(tmp_path)
    daemon = ForkedDaemon(
        tmp_path / "d",
        {**FEED, "rules.files": rules, "record.folder": tmp_path / "beside", "history.files": bar_file(tmp_path)},
    )
    await daemon.start()
    recorder = Command(tmp_path / "record.log", "record", "--to", str(tmp_path / "apart"), *flags(FEED))
    assert await daemon.end(300) == 0, daemon.tail()
    assert "recorded:" in await recorder.finished()
    events = told(daemon.state_dir)
    assert len(events) > 50
    assert any(event["rule"] == "trend" for event in events[:60]), "warm at the first tick"
    for folder, expected in (
        ("beside", events),
        ("apart", [event for event in events if event["rule"] != "trend"]),  # it runs no rules, so it warms none up
    ):
        assert len(files(tmp_path / folder)) == 2, "a file for each trade date"
        assert await replayed(rules, tmp_path / folder) == expected, folder


async def test_a_daemon_killed_again_and_again_records_every_input_once(tmp_path: Path) -> None:
    rules = rule_file(tmp_path)
    daemon = ForkedDaemon(tmp_path / "d", {**FEED, "rules.files": rules, "record.folder": tmp_path / "beside"})

    async def works() -> bool:
        return bool(daemon.events("alert_fired"))

    for seconds in (0.1, 0.3, 0.5):
        await daemon.start()  # with a log of its own
        await daemon.until("it told something", works)
        assert await daemon.killed_after(seconds), "it had told everything before it was killed"
    await daemon.start()
    assert await daemon.end(300) == 0, daemon.tail()
    assert await replayed(rules, tmp_path / "beside") == told(daemon.state_dir)


async def test_a_recorder_stopped_by_a_signal_leaves_whole_files(tmp_path: Path) -> None:
    live = {**FEED, "feed.simulated.speed": 60}
    recorder = Command(tmp_path / "record.log", "record", "--to", str(tmp_path / "r"), *flags(live))
    for _ in range(1200):
        if files(tmp_path / "r", "*.part"):
            break
        await asyncio.sleep(LOOK_S)
    recorder.process.send_signal(signal.SIGINT)
    output = await recorder.finished()
    assert f"recorded: {tmp_path / 'r'}" in output
    assert [Path(path).suffix for path in files(tmp_path / "r", "2*")] == [".parquet"]
