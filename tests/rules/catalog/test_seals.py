"""Seals and breaks that the catalog finds in nine days of ten stocks, against tables counted by brute force."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from feeds.recording import inputs
from rules.alert import Alert
from tests.rules import sessions_by_hand as hand
from tests.rules.catalog.test_pankou import SEALS, run, used

TEN = tuple(f"ten-2019{day}" for day in ("0116", "0212", "0214", "0221", "0222", "0225", "0226", "0304", "0305"))


@cache
def ten_days(folder: Path) -> dict[tuple[str, str], list[Alert]]:
    paths = [folder / "sessions" / f"{one}.parquet" for one in TEN]
    return run(used(*(f"use: {rule}" for rule in (*SEALS, "limit-up-broken"))), (one.value for one in inputs(paths)))


def spells(events: Iterable[Alert]) -> Iterator[tuple[str, str, str | None]]:
    """Yield (day, first sealed, first unsealed) of each episode; None where it lasted to the end of the session."""
    begun: dict[str, Alert] = {}
    ended: dict[str, str] = {}
    for event in events:
        if event.event == "fire":
            begun[event.episode_id] = event
        else:
            assert event.event == "resolve"
            if event.why != "day_end":
                ended[event.episode_id] = hand.at(event.ts_event_ms)
    for episode, fire in begun.items():
        yield fire.trade_date.replace("-", ""), hand.at(fire.ts_event_ms), ended.get(episode)


def test_seals_and_breaks_of_ten_stocks_in_nine_days_are_those_of_the_tables(market_data: Path) -> None:
    found = ten_days(market_data)
    table = pd.read_csv(market_data / "tables" / "ten_seal_spells.csv", dtype={"day": str})
    counts = pd.read_csv(market_data / "tables" / "ten_seals.csv", dtype={"day": str})
    wanted: dict[tuple[str, str], list[tuple[str, str, str | None]]] = defaultdict(list)
    for row in table.itertuples():
        wanted[row.side, row.symbol].append(
            (row.day, row.start, row.broken_at if isinstance(row.broken_at, str) else None)
        )
    assert len(table) == 38
    for side, rule in zip(("up", "down"), SEALS, strict=True):
        for symbol in counts.symbol.unique():
            mine = list(spells(found[rule, symbol]))
            assert mine == wanted[side, symbol], (side, symbol)
            for row in counts[(counts.symbol == symbol) & (counts.side == side)].itertuples():
                today = [spell for spell in mine if spell[0] == row.day]
                assert len(today) == row.spells
                assert sum(end is not None for _, _, end in today) == row.breaks


def test_a_spell_sealed_at_the_first_row_fires_late_and_ends_with_the_day(market_data: Path) -> None:
    counts = pd.read_csv(market_data / "tables" / "ten_seals.csv", dtype={"day": str})
    found = ten_days(market_data)
    first = counts[counts.sealed_at_first_row]
    assert len(first) > 0
    for row in first.itertuples():
        events = found[f"limit-{row.side}-sealed", row.symbol]
        today = [event for event in events if event.trade_date.replace("-", "") == row.day]
        assert (today[0].event, today[0].late, hand.at(today[0].ts_event_ms)) == ("fire", True, row.first_seal)
    for row in counts[counts.sealed_at_end & (counts.day != "20190305")].itertuples():
        events = found[f"limit-{row.side}-sealed", row.symbol]
        last = [event for event in events if event.trade_date.replace("-", "") == row.day][-1]
        assert (last.event, last.why) == ("resolve", "day_end")


def test_the_message_of_a_break_bears_its_number(market_data: Path) -> None:
    found = ten_days(market_data)
    breaks = [event for event in found["limit-up-broken", "609004.SH"] if event.trade_date == "2019-02-26"]
    assert [event.message[: event.message.index("，")] for event in breaks] == [
        f"609004.SH 第 {number} 次炸板" for number in range(1, 6)
    ]
    opened = [event for event in found["limit-up-sealed", "609004.SH"] if event.event == "resolve"]
    assert all(event.message.startswith("609004.SH 打开涨停板 ") for event in opened)
