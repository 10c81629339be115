"""The cache of own bars: whole files or none, what is not ours refused with the reason, old days pruned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from feeds.barcache import BarCache, days_for
from feeds.errors import FeedError
from feeds.history import COLUMNS, BarTable, table_of
from feeds.sessions import unix_ms

DATES = (20250102, 20250103, 20250106)
SYMBOLS = ("600519.SH", "000001.SZ")


def day(date: int, *, period: str = "1d", close: float = 10.0) -> BarTable:
    ends = np.array([unix_ms(date, 15 * 3_600_000)] * 2)
    columns = {name: np.array([close, close + 1]) for name in COLUMNS}
    return table_of(period, np.array(SYMBOLS), ends, columns=columns)


@pytest.fixture
def cache(tmp_path: Path) -> BarCache:
    cache = BarCache(tmp_path / "bars")
    for number, date in enumerate(DATES):
        cache.write(day(date, close=10.0 + number), date, {SYMBOLS[0]: (0.5, 2.0)} if number == 1 else {})
    return cache


def closes(cache: BarCache, *, through: int = DATES[-1]) -> list[float]:
    found = cache.read("1d", bars=100, through=through)
    return [] if found is None else found.table.of(SYMBOLS[:1]).close.tolist()


def test_what_was_written_is_read_with_its_ex_rights(cache: BarCache) -> None:
    found = cache.read("1d", bars=10, through=DATES[-1])
    assert found is not None
    assert found.table.symbols == tuple(sorted(SYMBOLS))
    assert found.factors == {DATES[1]: {SYMBOLS[0]: (0.5, 2.0)}}
    assert closes(cache) == [10.0, 11.0, 12.0]
    assert closes(cache, through=DATES[1]) == [10.0, 11.0]
    assert cache.read("5m", bars=10, through=DATES[-1]) is None
    assert cache.read("1w", bars=10, through=DATES[-1]) is None


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[60] ^= 0xFF
    file.write_bytes(bytes(content))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _foreign(file: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), file)


def _other_day(file: Path) -> None:
    (file.parent / f"{DATES[0]}.parquet").replace(file)


def _wrong_bars(file: Path) -> None:
    table = pq.read_table(file)
    bad = table.set_column(table.schema.get_field_index("close"), "close", pa.array([-1.0, 2.0]))
    pq.write_table(bad.replace_schema_metadata(table.schema.metadata), file)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_cut, "damaged or cut short"),
        (_flip, "damaged or cut short"),
        (_empty, "damaged or cut short"),
        (_foreign, "not one of ours"),
        (_other_day, "its date is 20250102"),
        (_wrong_bars, "bars that cannot be"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_the_reason(cache: BarCache, damage: object, why: str) -> None:
    file = cache.folder / "1d" / f"{DATES[1]}.parquet"
    damage(file)  # type: ignore[operator]
    with capture_logs() as logs:
        left = closes(cache)
    assert 11.0 not in left
    assert 12.0 in left
    refused = [log for log in logs if log["event"] == "bars_skipped"]
    assert len(refused) == 1
    assert why in refused[0]["why"]
    assert refused[0]["file"].endswith("20250103.parquet")


def test_old_days_are_pruned_and_what_a_killed_writer_left(cache: BarCache) -> None:
    left = cache.folder / "1d" / "20250107.partial"
    left.write_bytes(b"half")
    assert cache.prune(bars=1) == 0, "a few days more than asked for are kept for suspended stocks"
    assert not left.exists()
    for date in range(20240101, 20240129):
        cache.write(day(date), date, {})
    assert cache.prune(bars=2) == 28 + len(DATES) - days_for("1d", 2)
    assert cache.dates("1d")[-3:] == list(DATES)


def test_a_disk_that_refuses_leaves_what_was_there(cache: BarCache) -> None:
    (cache.folder / "1d" / f"{DATES[0]}.partial").mkdir()
    with pytest.raises(FeedError, match="cannot write"):
        cache.write(day(DATES[0], close=99.0), DATES[0], {})
    assert closes(cache)[0] == 10.0


WRITER = """
import sys
from pathlib import Path
from feeds.barcache import BarCache
from tests.feeds.test_barcache import DATES, day
cache = BarCache(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    cache.write(day(DATES[0], close=10.0 + number % 50), DATES[0], {})
"""


def test_a_writer_killed_at_any_moment_leaves_a_readable_cache(cache: BarCache) -> None:
    for delay in range(5):
        child = subprocess.Popen(  # our own interpreter and text
            [sys.executable, "-c", WRITER, str(cache.folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        seen = (cache.folder / "1d" / f"{DATES[0]}.parquet").stat().st_mtime_ns
        while (cache.folder / "1d" / f"{DATES[0]}.parquet").stat().st_mtime_ns == seen:
            os.sched_yield()
        for _ in range(delay * 997):
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with capture_logs() as logs:
            assert len(closes(cache)) == len(DATES)
        assert not logs


def test_some_symbols_alone_are_read_with_the_one_that_has_the_most_bars(tmp_path: Path) -> None:
    ends = np.array([unix_ms(DATES[0], hour * 3_600_000) for hour in (10, 11, 10)])
    names = np.array(["600519.SH", "600519.SH", "000002.SZ"])
    table = table_of("60m", names, ends, columns={name: np.array([1.0, 2.0, 3.0]) for name in COLUMNS})
    BarCache(tmp_path).write(table, DATES[0], {})
    found = BarCache(tmp_path, only=frozenset({"000002.SZ", "000003.SZ"})).read("60m", bars=9, through=DATES[0])
    assert found is not None
    assert found.table.symbols == ("000002.SZ", "600519.SH")
    assert found.table.of(("000002.SZ",)).close.tolist() == [3.0]
    alone = BarCache(tmp_path, only=frozenset({"600519.SH"})).read("60m", bars=9, through=DATES[0])
    assert alone is not None
    assert alone.table.symbols == ("600519.SH",)
