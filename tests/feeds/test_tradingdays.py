"""The exchange's trading days as written down, against the library they are from."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from feeds import tradingdays
from feeds.tradingdays import CLOSED, of_library, of_table, trading_dates


def table_of(trading: list[int]) -> str:
    """Return what CLOSED has to be for these trading days, the last of which ends a year."""
    day, last, rows, known = tradingdays.FIRST, date(trading[-1] // 10_000, 12, 31), {}, {*trading}
    while day <= last:
        closed = rows.setdefault(day.year, [])
        if day.weekday() < 5 and int(day.strftime("%Y%m%d")) not in known:
            closed.append(day.strftime("%m%d"))
        day += timedelta(days=1)
    parts = [(year, row[at : at + 22]) for year, row in rows.items() for at in range(0, max(len(row), 1), 22)]
    return "\n" + "".join(" ".join([str(year), *row]) + "\n" for year, row in parts)


def test_the_table_tells_what_the_library_does() -> None:
    """A newer release may know more days; what both know is the same, whichever release is installed."""
    library, table = of_library(), of_table()
    last = min(library[-1], table[-1])
    belongs = f"feeds/tradingdays.py, as this release tells it:\n{table_of(library)}"
    assert [day for day in table if day <= last] == [day for day in library if day <= last], belongs
    assert table == sorted({*table})


def test_the_table_is_written_as_the_test_would_write_it() -> None:
    assert table_of(of_table()) == CLOSED


def test_the_library_is_asked_where_another_release_of_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradingdays, "of_library", lambda: [20300102])
    monkeypatch.setattr(tradingdays, "version", {tradingdays.LIBRARY: "99.0"}.__getitem__)
    assert trading_dates() == [20300102]
    monkeypatch.setattr(tradingdays, "version", {tradingdays.LIBRARY: tradingdays.WRITTEN_FROM}.__getitem__)
    assert trading_dates() == of_table()
