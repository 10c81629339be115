"""Recorded sessions: which rows become which inputs, and what is said about files that are no recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds import recordedfile, recording
from feeds.errors import FeedError
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.sessions import unix_ms
from feeds.tick import CORE, TickBatch

A, B, C = "600519.SH", "000001.SZ", "300750.SZ"
TEN = unix_ms(20230201, 36_000_000)


def rows(*given: tuple[str | None, int], **columns: list[Any]) -> dict[str, list[Any]]:
    """Return the columns of a recording with one row per (symbol, ts_event)."""
    table: dict[str, list[Any]] = {"symbol": [one for one, _ in given], "ts_event": [ts for _, ts in given]}
    table |= {name: [10.0 + place for place in range(len(given))] for name in CORE}
    return table | columns


def write(path: Path, columns: dict[str, list[Any]], **types: Any) -> Path:
    table = pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()})
    if ".csv" in path.suffixes:
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=3)
    return path


def shape(played: list[FeedInput]) -> list[Any]:
    """Return what was played in short: the (symbol, ts) of a batch's rows, or what else it was."""
    return [
        list(zip(one.value.symbols, one.value.ts_event_ms.tolist(), strict=True))
        if isinstance(one.value, TickBatch)
        else one.value
        for one in played
    ]


def play(*paths: Path, symbols: list[str] | None = None) -> list[Any]:
    return shape(list(recording.inputs(paths, symbols)))


def test_rows_of_one_second_are_one_batch(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.parquet", rows((A, TEN), (B, TEN + 999), (A, TEN + 1000), (A, TEN + 1000), (B, TEN + 3000))
    )
    assert play(path) == [
        [(A, TEN), (B, TEN + 999)],
        [(A, TEN + 1000), (A, TEN + 1000)],
        [(B, TEN + 3000)],
    ]


def test_offsets_count_from_0(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN), (A, TEN + 1000), (A, TEN + 500_000)))
    assert [one.offset for one in recording.inputs([path])] == [0, 1, 2, 3, 4]


def test_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    columns = rows((A, TEN), (B, TEN + 100), (A, TEN + 3000), bid_price_1=[9.99, 0.0, 9.98], bid_lots_1=[3.0, 0.0, 5.0])
    columns |= {"status": [13, 13, 18], "trades": [7, -1, 9], "prev_close": [10.0, None, 0.0]}
    packed, text = write(tmp_path / "s.parquet", columns), write(tmp_path / "s.csv", columns)
    assert [one.value for one in recording.inputs([packed])] == [one.value for one in recording.inputs([text])]


def test_a_price_of_zero_is_none(tmp_path: Path) -> None:
    columns = rows(
        (A, TEN), (A, TEN), last=[0.0, 5.0], ask_price_2=[0.0, 6.0], ask_lots_2=[0.0, None], limit_up=[0.0, 9.0]
    )
    (only,) = recording.inputs([write(tmp_path / "s.parquet", columns)])
    assert isinstance(only.value, TickBatch)
    np.testing.assert_array_equal(only.value.column("last"), [np.nan, 5.0])
    np.testing.assert_array_equal(only.value.column("ask_price_2"), [np.nan, 6.0])
    np.testing.assert_array_equal(only.value.column("ask_lots_2"), [0.0, 0.0])
    np.testing.assert_array_equal(only.value.column("limit_up"), [np.nan, 9.0])
    np.testing.assert_array_equal(only.value.column("volume_lots"), [10.0, 11.0])


def test_columns_a_recording_lacks_are_absent(tmp_path: Path) -> None:
    (only,) = recording.inputs([write(tmp_path / "s.parquet", rows((A, TEN)))])
    assert isinstance(only.value, TickBatch)
    assert only.value.column("trades").tolist() == [-1.0]
    assert only.value.status.tolist() == [0]
    assert not only.value.has("bid_price_1")
    assert only.value.recv_ms.tolist() == [TEN]


def test_files_are_merged_by_time_and_ties_keep_the_order_given(tmp_path: Path) -> None:
    one = write(tmp_path / "1.parquet", rows((A, TEN), (A, TEN + 2000), (A, TEN + 4000)))
    two = write(tmp_path / "2.csv", rows((B, TEN - 1000), (B, TEN), (B, TEN + 2000)))
    assert play(one, two) == [
        [(B, TEN - 1000)],
        [(A, TEN), (B, TEN)],
        [(A, TEN + 2000), (B, TEN + 2000)],
        [(A, TEN + 4000)],
    ]
    assert play(two, one)[1:3] == [[(B, TEN), (A, TEN)], [(B, TEN + 2000), (A, TEN + 2000)]]


@given(
    times=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30).map(sorted), min_size=1, max_size=4),
    at_once=st.integers(1, 7),
)
def test_merging_is_a_stable_sort_however_files_are_read(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]], at_once: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paths, every = [], []
    for number, offsets in enumerate(times):
        given = [(f"60000{number}.SH", TEN + 400 * offset) for offset in offsets]
        paths.append(write(folder / f"{number}.parquet", rows(*given)))
        every += given
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordedfile, "ROWS_AT_ONCE", at_once)
        patch.setattr(recordedfile.tables, "__kwdefaults__", {"rows": at_once})
        played = play(*paths)
    assert [row for batch in played for row in batch] == sorted(every, key=lambda row: row[1])
    seconds = [[ts // 1000 for _, ts in batch] for batch in played]
    assert all(len(set(batch)) == 1 for batch in seconds)
    assert len({batch[0] for batch in seconds}) == len(seconds), (
        "a second is one batch, also across stretches and files"
    )


def test_a_silence_of_over_a_minute_is_marked(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN), (B, TEN + 60_000), (A, TEN + 120_001)))
    played = play(path)
    assert played[2:4] == [
        Mark(MarkKind.SILENT, TEN + 70_000, "no row for 60 s of trading time"),
        Mark(MarkKind.ALIVE, TEN + 120_001),
    ]
    assert len(played) == 5


@pytest.mark.parametrize(
    ("last", "following", "silent"),
    [
        ((20230201, "11:30:00"), (20230201, "13:00:00"), False),
        ((20230201, "11:29:30"), (20230201, "13:00:30"), False),
        ((20230201, "11:29:30"), (20230201, "13:00:31"), True),
        ((20230201, "09:20:00"), (20230201, "09:30:50"), False),
        ((20230201, "09:25:00"), (20230201, "09:31:01"), True),
        ((20230201, "15:00:00"), (20230202, "09:15:00"), False),
        ((20230201, "14:59:30"), (20230202, "09:30:31"), True),
        ((20230201, "15:00:00"), (20230302, "09:15:00"), False),
        ((20230201, "14:57:00"), (20230201, "15:00:00"), True),
    ],
)
def test_only_trading_time_counts_as_silence(
    tmp_path: Path, last: tuple[int, str], following: tuple[int, str], silent: bool
) -> None:
    first_ms, next_ms = (unix_ms(date, clock(text)) for date, text in (last, following))
    played = play(write(tmp_path / "s.parquet", rows((A, first_ms), (A, next_ms))))
    assert len(played) == (4 if silent else 2)
    if silent:
        assert (played[1].ts_ms, played[2].ts_ms) == (first_ms + 10_000, next_ms)


def clock(text: str) -> int:
    hour, minute, second = map(int, text.split(":"))
    return ((hour * 60 + minute) * 60 + second) * 1000


def test_the_silence_between_two_files_is_judged_over_both(tmp_path: Path) -> None:
    one = write(tmp_path / "1.parquet", rows((A, TEN), (A, TEN + 100_000)))
    two = write(tmp_path / "2.parquet", rows((B, TEN + 50_000)))
    assert not any(isinstance(value, Mark) for value in play(one, two))


def test_a_recording_with_marks_is_not_judged(tmp_path: Path) -> None:
    columns = rows((A, TEN), (None, TEN + 12_000), (None, TEN + 500_000), (None, TEN + 500_000), (A, TEN + 500_000))
    columns |= {"kind": ["tick", "silent", "alive", "gap", "tick"], "text": [None, "quiet", None, "reconnected", None]}
    for name in ("s.parquet", "s.csv"):
        assert play(write(tmp_path / name, columns))[1:4] == [
            Mark(MarkKind.SILENT, TEN + 12_000, "quiet"),
            Mark(MarkKind.ALIVE, TEN + 500_000),
            Mark(MarkKind.GAP, TEN + 500_000, "reconnected"),
        ]


def test_heartbeats_are_played_and_control_rows_passed_over(tmp_path: Path) -> None:
    columns = rows((A, TEN), (None, TEN + 1), (None, TEN + 2), (A, TEN + 3))
    columns |= {"kind": ["tick", "heartbeat", "control", None], "text": [None, None, '["rules", "{}"]', None]}
    played = list(recording.inputs([write(tmp_path / "s.parquet", columns)]))
    assert shape(played) == [[(A, TEN)], Heartbeat(TEN + 1), [(A, TEN + 3)]]
    assert [one.offset for one in played] == [0, 1, 2]


def test_recorded_arrival_keeps_its_order_where_event_times_go_back(tmp_path: Path) -> None:
    columns = rows((A, TEN + 2000), (B, TEN), (A, TEN + 2500), recv_ms=[TEN + 3000, TEN + 3000, TEN + 3001])
    (only,) = recording.inputs([write(tmp_path / "s.parquet", columns)])
    assert isinstance(only.value, TickBatch)
    assert only.value.symbols == (A, B, A)
    assert only.value.recv_ms.tolist() == [TEN + 3000, TEN + 3000, TEN + 3001]


def test_a_tick_from_the_future_does_not_move_the_clock_for_those_behind_it(tmp_path: Path) -> None:
    far = TEN + 9_000_000
    columns = rows((A, TEN), (B, far), (A, TEN + 30_000), (A, TEN + 33_000))
    columns["recv_ms"] = [TEN, TEN + 3000, TEN + 30_000, TEN + 33_000]
    assert play(write(tmp_path / "s.parquet", columns)) == [
        [(A, TEN)], [(B, far)], [(A, TEN + 30_000)], [(A, TEN + 33_000)],
    ]  # fmt: skip


def test_symbols_leave_a_heartbeat_where_they_leave_no_tick(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN), (B, TEN), (B, TEN + 1500), (C, TEN + 1700), (A, TEN + 100_000)))
    assert play(path, symbols=[A]) == [
        [(A, TEN)],
        Heartbeat(TEN + 1700),
        Mark(MarkKind.SILENT, TEN + 11_700, "no row for 98 s of trading time"),
        Mark(MarkKind.ALIVE, TEN + 100_000),
        [(A, TEN + 100_000)],
    ]


def test_equal_lists_of_symbols_are_one_tuple(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN), (B, TEN), (C, TEN + 1000), (A, TEN + 3000), (B, TEN + 3000)))
    first, _, last = (one.value for one in recording.inputs([path]))
    assert isinstance(first, TickBatch)
    assert isinstance(last, TickBatch)
    assert first.symbols is last.symbols


# ── files that are no recordings ──


def refusal(path: Path) -> str:
    with pytest.raises(FeedError) as caught:
        list(recording.inputs([path]))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["s.parquet", "s.csv"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    columns = rows((A, TEN))
    del columns["prev_close"], columns["amount_cny"]
    assert "no column prev_close, amount_cny;" in refusal(write(tmp_path / name, columns))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("last", ["10.0"], "column last holds string; expected numbers"),
        ("ts_event", [float(TEN)], "column ts_event holds double; expected whole numbers (ms since 1970, UTC)"),
        ("symbol", [600519], "column symbol holds int64; expected text"),
        ("status", [13.0], "column status holds double; expected whole numbers"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, column: str, values: list[Any], said: str) -> None:
    assert said in refusal(write(tmp_path / "s.parquet", rows((A, TEN)) | {column: values}))


def test_text_in_a_number_column_of_a_csv_is_shown(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "s.csv", rows((A, TEN), (A, TEN), last=["10", "ten"])))
    assert "'ten'" in said


@pytest.mark.parametrize("name", ["s.parquet", "s.csv"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    empty = {column: [] for column in rows()}
    types = {column: pa.string() if column == "symbol" else pa.int64() for column in empty}
    assert "holds no rows" in refusal(write(tmp_path / name, empty, **types))


@pytest.mark.parametrize("name", ["s.parquet", "s.csv"])
def test_an_empty_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert "cannot be read as a" in refusal(path)


def test_a_torn_parquet_file_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN)))
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as a Parquet file" in refusal(path)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "there is no such file" in refusal(tmp_path / "s.parquet")


def test_no_file_at_all_is_an_error() -> None:
    with pytest.raises(FeedError, match="no recording to play"):
        list(recording.inputs([]))


@pytest.mark.parametrize("name", ["s.parquet", "s.csv"])
def test_time_that_goes_back_is_refused_with_its_row(tmp_path: Path, name: str) -> None:
    given = [(A, TEN + place * 1000) for place in range(9)]
    given[6] = (A, TEN)
    assert "row 7: ts_event is earlier than the row before" in refusal(write(tmp_path / name, rows(*given)))


def test_time_that_goes_back_between_two_stretches_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "s.parquet", rows((A, TEN), (A, TEN + 9000), (A, TEN + 8000)))
    monkeypatch.setattr(recordedfile.tables, "__kwdefaults__", {"rows": 2})
    assert "row 3: ts_event is earlier" in refusal(path)


def test_seconds_instead_of_milliseconds_are_noticed(tmp_path: Path) -> None:
    assert "row 1: ts_event is before 1990" in refusal(write(tmp_path / "s.parquet", rows((A, TEN // 1000))))


def test_a_time_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert "row 2: ts_event is missing" in refusal(write(tmp_path / "s.parquet", rows((A, TEN), (A, None))))  # type: ignore[arg-type]


def test_a_tick_without_symbol_is_refused(tmp_path: Path) -> None:
    assert "row 2: symbol is empty" in refusal(write(tmp_path / "s.parquet", rows((A, TEN), (None, TEN))))


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "s.parquet", rows((A, TEN), (A, TEN), kind=["tick", "tock"])))
    assert "row 2: kind is none of tick, heartbeat, control, bars, silent, gap, alive" in said


# ── the recorded sessions ──


@pytest.mark.parametrize("name", ["ten-20190305", "600519-000333-20230201", "sh30-20211201", "000001-20221230"])
def test_a_recorded_session_is_played_row_for_row(market_data: Path, name: str) -> None:
    path = market_data / "sessions" / f"{name}.parquet"
    table = pq.read_table(path).to_pandas()
    batches = [one.value for one in recording.inputs([path]) if isinstance(one.value, TickBatch)]
    assert [symbol for batch in batches for symbol in batch.symbols] == table.symbol.tolist()
    np.testing.assert_array_equal(np.concatenate([batch.ts_event_ms for batch in batches]), table.ts_event)
    np.testing.assert_array_equal(np.concatenate([batch.status for batch in batches]), table.status)
    for column in (*CORE, "bid_price_1", "ask_price_5", "bid_lots_3", "limit_up", "trades"):
        played = np.concatenate([batch.column(column) for batch in batches])
        is_price = column not in ("volume_lots", "amount_cny", "bid_lots_3", "trades")
        expected = table[column].replace(0, np.nan) if is_price else table[column]
        np.testing.assert_array_equal(played, expected)


def test_the_midday_hole_of_a_ten_session_is_the_only_silence(market_data: Path) -> None:
    marks = [v for v in play(market_data / "sessions" / "ten-20190305.parquet") if isinstance(v, Mark)]
    at = [(mark.kind.value, mark.ts_ms - unix_ms(20190305)) for mark in marks]
    assert at == [("silent", clock("11:20:07")), ("alive", clock("13:10:03"))]


def test_a_whole_day_with_lunch_has_no_silence(market_data: Path) -> None:
    days = [market_data / "sessions" / f"600519-000333-2023020{day}.parquet" for day in (1, 2)]
    assert not any(isinstance(value, Mark) for value in play(*days))
