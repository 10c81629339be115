"""`monitord warmup`: what rules need, what is at hand, and filling the cache from files and from a feed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feeds.barcache import BarCache
from feeds.errors import FeedError
from feeds.exrights import ExRight, ExRightTable
from feeds.history import COLUMNS, BarTable, PastBars, table_of
from feeds.instruments import Instrument, instrument_of
from feeds.sessions import Calendar, trade_date, unix_ms
from monitord.__main__ import main
from monitord.filling import fill, fill_from_feed
from tests.monitord.test_warmup import Live, Vendor

SYMBOLS = ("600519.SH", "000001.SZ", "000001.SH")
LAST = 20250102
NOW = unix_ms(20250103, 9 * 3_600_000)
RULES = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: ma, select: all, period: 1d, when: 'C > MA(C,20)'}\n"


def days(count: int) -> BarTable:
    """Return daily bars of `count` trading days up to LAST, of three symbols."""
    calendar, dates = Calendar.xshg(), [LAST]
    while len(dates) < count:
        dates.insert(0, calendar.previous(dates[0]))
    ends = np.array([unix_ms(date, 15 * 3_600_000) for date in dates])
    n = len(SYMBOLS)
    columns = {name: np.tile(np.linspace(10, 11, count), n) for name in COLUMNS}
    return table_of("1d", np.repeat(np.array(SYMBOLS), count), np.tile(ends, n), columns=columns)


def to_file(table: BarTable, file: Path) -> Path:
    columns = {name: getattr(table, name) for name in COLUMNS}
    names = np.array(table.symbols)[table.code]
    frame = pd.DataFrame({"symbol": names, "period": table.period, "ts_end": table.ends_ms, **columns})
    frame.to_csv(file, index=False)
    return file


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "rules.yaml").write_text(RULES)
    file = to_file(days(25), tmp_path / "days.csv")
    given = {"state_dir": tmp_path / "state", "rules.files": tmp_path / "rules.yaml", "history.files": file}
    return [f"--set={name}={value}" for name, value in given.items()]


def test_it_says_what_rules_need_and_fills_the_cache_from_files(
    options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["warmup", "--date", "2025-01-03", "--fill", "files", "--json", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["filled"] == {"1d": 25}
    assert told["rules"] == [{"rule": "ma", "needs": {"1d": 20}, "lacks": {}}]
    assert told["bars"]["1d"]["until"] == "2025-01-02"
    without = [option for option in options if "history.files" not in option]
    assert main(["warmup", "--date", "2025-01-03", *without]) == 0
    assert "ma: needs 20 of 1d; ready at the first tick" in capsys.readouterr().out
    assert main(["warmup", "--date", "2025-01-07", *without]) == 1, "two trading days are missing"
    assert "ma: needs 20 of 1d; lacks 19 of 1d" in capsys.readouterr().out


def test_a_feed_without_history_is_said(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup", "--fill", "feed", *options]) == 2
    assert "no history of its own; use --fill files" in capsys.readouterr().err


def test_a_file_that_is_none_is_said(options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "days.csv").write_text("a,b\n1,2\n")
    assert main(["warmup", *options]) == 2
    assert "no column symbol, period, ts_end" in capsys.readouterr().err


def test_days_that_are_there_stay_and_ex_rights_on_record_go_along(tmp_path: Path) -> None:
    cache, table = BarCache(tmp_path), days(5)
    dates = sorted({trade_date(int(ms)) for ms in table.ends_ms})
    exrights = ExRightTable([ExRight(SYMBOLS[0], dates[3], factor=0.5)])
    assert fill(cache, table, exrights=exrights, now_ms=NOW) == 5
    assert fill(cache, table, exrights=exrights, now_ms=NOW) == 0
    found = cache.read("1d", bars=5, through=LAST)
    assert found is not None
    assert found.factors == {dates[3]: {SYMBOLS[0]: (0.5, 1.0)}}


class Known(Vendor):
    async def instruments(self) -> list[Instrument]:
        return [instrument_of(symbol) for symbol in SYMBOLS[:2]]


async def test_a_feed_fills_the_cache_with_days_that_are_over(tmp_path: Path) -> None:
    cache, table = BarCache(tmp_path), days(30)
    feed = Known((), {"1d": PastBars(table, {LAST: {SYMBOLS[1]: (0.9, 1.0)}})})
    shown: list[tuple[int, int]] = []
    written = await fill_from_feed(cache, feed, {"1d": 20, "1w": 2}, NOW, show=lambda *at: shown.append(at))
    assert written == {"1d": 20}
    assert shown == [(0, 2), (2, 2)]
    found = cache.read("1d", bars=20, through=LAST)
    assert found is not None
    assert found.factors == {LAST: {SYMBOLS[1]: (0.9, 1.0)}}
    with pytest.raises(FeedError, match="no history"):
        await fill_from_feed(cache, Live(()), {"1d": 20}, NOW)
