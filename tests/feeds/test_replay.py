"""`ReplayFeed`: what is its own beside the contract of all feeds and the rules of recordings."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from feeds import recording
from feeds.errors import FeedError
from feeds.inputs import FeedInput
from feeds.replay import ReplayFeed
from feeds.sessions import unix_ms
from feeds.tick import TickBatch
from tests.virtual_time import run

HEAD = "symbol,ts_event,last,open,high,low,prev_close,volume_lots,amount_cny"
TEN = unix_ms(20230201, 36_000_000)


def session(path: Path, *times: int, symbol: str = "600519.SH") -> Path:
    path.write_text("\n".join([HEAD, *(f"{symbol},{ts},10,10,10,10,10,{n},1e3" for n, ts in enumerate(times))]) + "\n")
    return path


async def play(feed: ReplayFeed, *, after: int = -1) -> list[FeedInput]:
    await feed.open(after=after)
    return [given async for given in feed]


@pytest.mark.parametrize("name", ["ten-20190305", "600519-000333-20230202"])
def test_it_yields_what_the_offline_reader_yields(market_data: Path, name: str) -> None:
    path = market_data / "sessions" / f"{name}.parquet"
    offline = list(recording.inputs([path]))
    assert run(play(ReplayFeed(inputs=[path]))) == offline
    for after in np.random.default_rng(1).integers(0, len(offline), 1).tolist():
        assert run(play(ReplayFeed(inputs=[path], speed=1000.0), after=after)) == offline[after + 1 :]


def test_a_recorded_day_lasts_as_long_as_it_lasted(market_data: Path) -> None:
    async def scenario() -> float:
        path = market_data / "sessions" / "ten-20190305.parquet"
        await play(ReplayFeed(inputs=[path], speed=10.0))
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(((14 * 60 + 49) * 60 + 57 - (9 * 60 + 40) * 60 - 3) / 10)


def test_the_night_between_two_days_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> list[float]:
        path = session(tmp_path / "s.csv", TEN, TEN + 3000, TEN + 86_400_000, TEN + 86_404_000)
        feed, came = ReplayFeed(inputs=[path], speed=1.0), []
        await feed.open()
        async for given in feed:
            if isinstance(given.value, TickBatch):
                came.append(asyncio.get_running_loop().time())
        return came

    # Nothing came for the rest of the first day: the mark of that is 10 s behind its last row, and paced like a row.
    assert run(scenario()) == pytest.approx([0, 3, 13, 17])


def test_a_filter_leaves_the_other_symbols_out(tmp_path: Path) -> None:
    one = session(tmp_path / "1.csv", TEN, TEN + 3000)
    two = session(tmp_path / "2.csv", TEN, TEN + 3000, symbol="000001.SZ")
    played = run(play(ReplayFeed(inputs=[one, two], symbols=["000001.SZ"])))
    assert [given.value.symbols for given in played if isinstance(given.value, TickBatch)] == [("000001.SZ",)] * 2


def test_the_source_is_known_by_content_and_not_by_time(tmp_path: Path) -> None:
    path = session(tmp_path / "s.csv", TEN, TEN + 3000)
    before = ReplayFeed(inputs=[path]).source_id
    os.utime(path, (1, 1))
    assert ReplayFeed(inputs=[path]).source_id == before
    assert ReplayFeed(inputs=[path], symbols=()).source_id == before
    assert ReplayFeed(inputs=[path], symbols=["600519.SH"]).source_id != before
    session(path, TEN, TEN + 4000)
    assert ReplayFeed(inputs=[path]).source_id != before


def test_a_missing_file_is_refused_when_the_feed_is_made(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"none\.csv: cannot be read"):
        ReplayFeed(inputs=[tmp_path / "none.csv"])


def test_a_bad_file_is_refused_by_open_and_a_bad_row_where_it_comes(tmp_path: Path) -> None:
    bad_file = tmp_path / "bad.parquet"
    bad_file.write_bytes(b"PAR1")
    with pytest.raises(FeedError, match=r"bad\.parquet: cannot be read as a Parquet file"):
        run(ReplayFeed(inputs=[bad_file]).open())
    bad_row = session(tmp_path / "row.csv", TEN, TEN - 1)
    with pytest.raises(FeedError, match="row 2: ts_event is earlier"):
        run(play(ReplayFeed(inputs=[bad_row])))


def test_no_file_to_play_is_an_error() -> None:
    with pytest.raises(FeedError, match="no recording to play"):
        run(ReplayFeed(inputs=[]).open())


def test_the_loop_stays_free_while_a_file_is_read(market_data: Path) -> None:
    """Reading happens in a worker thread: the loop turns at least once for each stretch of rows."""

    async def scenario() -> int:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.ensure_future(count_turns())
        await play(ReplayFeed(inputs=[market_data / "sessions" / "ten-20190305.parquet"]))
        counting.cancel()
        return turns

    assert run(scenario()) > 1
