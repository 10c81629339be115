"""The recorder: what it writes is what replay reads, whatever it was killed in."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from feeds.dayfile import ROWS, note_of
from feeds.errors import FeedError
from feeds.history import Bars
from feeds.history import encode as encode_bars
from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat, Input, Mark, MarkKind
from feeds.instruments import encode_table, instrument_of
from feeds.recordedfile import open_recording
from feeds.recorder import Recorder
from feeds.recording import recorded
from feeds.replay import ReplayFeed
from feeds.sessions import unix_ms
from feeds.tick import CORE, REST, TickBatch
from tests.virtual_time import run

DAY, NEXT = 20250102, 20250103
TEN = unix_ms(DAY, 36_000_000)
INSTRUMENTS = Control(ControlKind.INSTRUMENTS, encode_table([instrument_of("600519.SH", name="贵州茅台")]))
RULES = Control(ControlKind.RULES, "rules, whatever they say")


def batch(at_s: float, *, date: int = DAY, n: int = 3, book: bool = True) -> TickBatch:
    """Return n ticks a second apart from at_s on after ten, each number its own."""
    ts_ms = unix_ms(date, 36_000_000) + round(1000 * at_s) + np.arange(n, dtype=np.int64)
    names = (*CORE, *REST) if book else CORE
    columns = {name: np.round(np.arange(n) + at_s + 1 + place / 7, 3) for place, name in enumerate(names)}
    columns["last"] = np.where(np.arange(n) == 1, np.nan, columns["last"])
    if book:
        columns["trades"] = np.arange(n, dtype=np.float64)
    symbols = tuple(f"{600000 + row:06}.SH" for row in range(n))
    return TickBatch(symbols, ts_ms, columns=columns, recv_ms=ts_ms + 250, status=np.full(n, 13, np.int16))


def day_of(count: int = 30, *, date: int = DAY) -> list[Input]:
    """Return what a feed may say: batches with heartbeats and marks between them."""
    said: list[Input] = []
    for step in range(count):
        said.append(batch(3 * step, date=date, book=step % 5 != 0))
        now_ms = unix_ms(date, 36_000_000) + 3000 * step
        if step % 4 == 1:
            said.append(Heartbeat(now_ms + 1500))
        if step % 10 == 7:
            said += [Mark(MarkKind.SILENT, now_ms + 1600, "nothing comes"), Mark(MarkKind.GAP, now_ms + 2000)]
            said.append(Mark(MarkKind.ALIVE, now_ms + 2000, "again"))
    return said


def record(folder: Path, values: Sequence[Input], *, finish: bool = True, offsets: bool = False) -> Recorder:
    recorder = Recorder(folder, source_id="test")
    for place, value in enumerate(values):
        recorder.add(value, offset=place if offsets else -1)
    recorder.sync()
    if finish:
        recorder.finish()
        recorder.close()
    return recorder


def read(*paths: Path) -> list[Input]:
    """Return the inputs of recordings with their control records."""
    found = recorded(paths, controls=frozenset(ControlKind), bars=True)
    return [one.value if isinstance(one, FeedInput) else one for one in found]


def same(found: Sequence[Input], given: Sequence[Input]) -> bool:
    """Tell whether both say the same; batches of one second are one batch to `recorded`."""
    return list(found) == list(given)


def test_every_input_comes_back_as_it_was(tmp_path: Path) -> None:
    said = [INSTRUMENTS, RULES, *day_of(), RULES, Control(ControlKind.RULES, "others"), batch(100)]
    record(tmp_path, said)
    said.remove(RULES)
    expected = [INSTRUMENTS, RULES, *[one for one in said[1:] if one != RULES]]
    assert same(read(tmp_path / f"{DAY}.parquet"), expected)


def test_each_trade_date_has_its_file_which_begins_with_what_holds(tmp_path: Path) -> None:
    first, second = day_of(), day_of(date=NEXT)
    recorder = record(tmp_path, [INSTRUMENTS, *first, *second])
    assert recorder.counters()["recorded_days"] == 2
    assert same(read(tmp_path / f"{DAY}.parquet"), [INSTRUMENTS, *first])
    assert same(read(tmp_path / f"{NEXT}.parquet"), [INSTRUMENTS, *second])
    assert same(read(tmp_path / f"{DAY}.parquet", tmp_path / f"{NEXT}.parquet"), [INSTRUMENTS, *first, *second])


def test_the_date_is_that_of_the_market_clock_not_of_a_stale_tick(tmp_path: Path) -> None:
    """A feed's first push may hold yesterday's quotes of stocks that don't trade today."""
    fresh = batch(0, date=NEXT)
    stale = TickBatch(
        fresh.symbols,
        np.array([fresh.ts_event_ms[0] - 86_400_000, *fresh.ts_event_ms[1:]]),
        columns={name: fresh.column(name) for name in (*CORE, *REST)},
        recv_ms=fresh.recv_ms,
    )
    record(tmp_path, [stale, batch(3, date=NEXT)])
    assert [path.name for path in tmp_path.glob("*.parquet")] == [f"{NEXT}.parquet"]
    values = read(tmp_path / f"{NEXT}.parquet")
    assert np.concatenate([one.ts_event_ms for one in values if isinstance(one, TickBatch)])[0] == stale.ts_event_ms[0]


def test_a_tick_with_an_absurd_time_opens_no_file_of_its_own(tmp_path: Path) -> None:
    mad = batch(3)
    mad.ts_event_ms[1] += 40 * 86_400_000
    record(tmp_path, [batch(0), mad, batch(6)])
    assert [path.name for path in tmp_path.glob("*.parquet")] == [f"{DAY}.parquet"]


@pytest.mark.parametrize("synced", [0, 1, 17, 40])
def test_killed_anywhere_the_next_recorder_completes_the_day(tmp_path: Path, synced: int) -> None:
    """The folder is copied in mid-work, which is all that a kill leaves."""
    said = [INSTRUMENTS, *day_of(40)]
    running = record(tmp_path / "running", said[:synced], finish=False)
    shutil.copytree(tmp_path / "running", tmp_path / "left")
    assert list((tmp_path / "left").glob("*.parquet")) == []
    running.close()
    taken_up = Recorder(tmp_path / "left", source_id="test")
    path = taken_up.finish()
    taken_up.close()
    if synced < 2:
        assert path is None, "a control record alone has no date"
    else:
        assert path is not None
        assert same(read(path), said[:synced])
        assert list((tmp_path / "left").glob("*.part")) == []


def test_killed_between_two_dates_no_input_is_lost_or_doubled(tmp_path: Path) -> None:
    said = [INSTRUMENTS, *day_of(10), *day_of(10, date=NEXT)]
    for cut in range(8, len(said)):
        folder = tmp_path / str(cut)
        running = record(folder / "running", said[:cut], finish=False)
        shutil.copytree(folder / "running", folder / "left")
        running.close()
        record(folder / "left", said[cut:])
        paths = sorted((folder / "left").glob("*.parquet"))
        assert same(read(*paths), said), f"cut at {cut}"


def test_killed_after_the_file_is_whole_and_before_the_journal_is_freed_nothing_comes_twice(tmp_path: Path) -> None:
    said = day_of(10)
    running = record(tmp_path / "running", said, finish=False)
    spool = tmp_path / "running" / "spool"
    shutil.copytree(spool, tmp_path / "kept")
    running.finish()
    running.close()
    shutil.rmtree(spool)
    shutil.copytree(tmp_path / "kept", spool)  # as if the state behind the finish never reached the disk
    record(tmp_path / "running", [batch(300)])
    assert same(read(tmp_path / "running" / f"{DAY}.parquet"), [*said, batch(300)])


def test_a_date_that_goes_on_after_a_stop_is_one_file(tmp_path: Path) -> None:
    said = [INSTRUMENTS, *day_of(40)]
    record(tmp_path, said[:20])
    record(tmp_path, said[20:31])
    record(tmp_path, said[31:])
    assert [path.name for path in tmp_path.glob("*.parquet")] == [f"{DAY}.parquet"]
    assert same(read(tmp_path / f"{DAY}.parquet"), said)


def test_a_lost_journal_loses_no_later_day(tmp_path: Path) -> None:
    record(tmp_path, day_of(10))
    shutil.rmtree(tmp_path / "spool")
    running = record(tmp_path, day_of(5, date=NEXT), finish=False)
    shutil.copytree(tmp_path, tmp_path.with_name("left"))
    running.close()
    taken_up = Recorder(tmp_path.with_name("left"), source_id="test")
    taken_up.finish()
    taken_up.close()
    assert same(read(tmp_path.with_name("left") / f"{NEXT}.parquet"), day_of(5, date=NEXT))


def test_inputs_that_come_again_are_passed_over(tmp_path: Path) -> None:
    said = day_of(10)
    recorder = record(tmp_path, said, finish=False, offsets=True)
    for place, value in enumerate(said):
        recorder.add(value, offset=place)
    recorder.add(batch(90), offset=len(said))
    recorder.finish()
    assert recorder.last_offset == len(said)
    recorder.close()
    assert same(read(tmp_path / f"{DAY}.parquet"), [*said, batch(90)])
    assert Recorder(tmp_path, source_id="test").last_offset == len(said)


def test_a_hole_in_the_offsets_is_a_gap(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, source_id="test")
    for offset in (0, 1, 5):
        recorder.add(batch(3 * offset), offset=offset)
    recorder.finish()
    recorder.close()
    gap = Mark(MarkKind.GAP, int(batch(3).ts_event_ms.max()), "3 inputs were not recorded")
    assert read(tmp_path / f"{DAY}.parquet") == [batch(0), batch(3), gap, batch(15)]
    assert recorder.counters()["recorded_gaps"] == 1


def bars_of(*symbols: str, until_ms: int = unix_ms(20241231, 54_000_000)) -> Bars:
    n = 2 * len(symbols)
    prices = np.arange(n, dtype=np.float64) + 10
    each = np.full(len(symbols), np.nan)
    return Bars(
        "1d", until_ms, symbols, np.full(len(symbols), 2), np.tile([until_ms - 86_400_000, until_ms], len(symbols)),
        *(prices + step / 8 for step in range(6)), np.full(len(symbols), 20241231), each, each,
    )  # fmt: skip


def same_bars(mine: Input, theirs: Bars) -> bool:
    return isinstance(mine, Bars) and encode_bars(mine) == encode_bars(theirs)


@pytest.mark.parametrize("killed", [False, True])
def test_bars_of_a_warm_up_stand_before_the_first_tick_and_later_ones_at_their_place(
    tmp_path: Path, *, killed: bool
) -> None:
    first, later = bars_of("600000.SH", "600001.SH"), bars_of("600002.SH")
    given: list[Input] = [INSTRUMENTS, first, batch(0), batch(3), later, batch(6)]
    record(tmp_path, given, finish=not killed, offsets=True).close()
    if killed:
        taken_up = Recorder(tmp_path, source_id="test")
        taken_up.finish()
        taken_up.close()
    (path,) = tmp_path.glob("*.parquet")
    assert path.stem == str(DAY), "not the date the bars are of"
    found = read(path)
    assert same_bars(found[1], first)
    assert same_bars(found[4], later)
    assert [one for one in found if not isinstance(one, Bars)] == [INSTRUMENTS, batch(0), batch(3), batch(6)]
    chosen = [one for one in recorded([path], {"600001.SH"}, controls=(), bars=True) if isinstance(one, Bars)]
    assert [one.symbols for one in chosen] == [("600001.SH",), ()]
    assert chosen[0].close.tolist() == first.close[2:].tolist()
    assert not [one for one in recorded([path], controls=()) if isinstance(one, Bars)]


def test_a_row_of_bars_that_are_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    lines = ["symbol,ts_event,kind,text," + ",".join(CORE), f",{TEN},bars,nonsense" + "," * len(CORE), ""]
    path.write_text("\n".join(lines))
    with pytest.raises(FeedError, match="a row of bars cannot be read"):
        read(path)


def test_records_that_say_nothing_new_leave_no_hole(tmp_path: Path) -> None:
    failed = Control(ControlKind.FAILED, '{"record":false,"offset":7,"why":"x"}')
    record(tmp_path, [INSTRUMENTS, batch(0), failed, INSTRUMENTS, batch(3)], offsets=True)
    assert read(tmp_path / f"{DAY}.parquet") == [INSTRUMENTS, batch(0), batch(3)]


def test_where_offsets_are_ids_only_what_is_said_is_missing(tmp_path: Path) -> None:
    def opened() -> Recorder:
        return Recorder(tmp_path, source_id="test", counted=False)

    recorder = opened()
    for number in (1000, 5000):
        recorder.add(batch(number / 1000), offset=number)
    recorder.lose(7)
    recorder.add(batch(9), offset=9000)
    recorder.sync()
    recorder.close()

    again = opened()  # the source is read again from before our end
    again.add(batch(9), offset=9000)
    again.add(batch(12), offset=12_000)
    again.sync()
    again.close()

    resumed = opened()
    resumed.resume(12_000)
    resumed.add(batch(15), offset=15_000)
    resumed.sync()
    resumed.close()

    behind = opened()
    behind.add(batch(20), offset=20_000)
    behind.finish()
    behind.close()
    found = read(tmp_path / f"{DAY}.parquet")
    reasons = [(place, one.reason) for place, one in enumerate(found) if isinstance(one, Mark)]
    assert reasons == [(2, "7 inputs were not recorded"), (6, "the recorder was not running")]


def test_what_a_restart_runs_again_is_recorded_once(tmp_path: Path) -> None:
    warm, renamed = bars_of("600000.SH"), Control(ControlKind.INSTRUMENTS, encode_table([instrument_of("600519.SH")]))
    first = Recorder(tmp_path, source_id="test")
    for value, offset, behind in (
        (INSTRUMENTS, -1, -1), (warm, -1, -1), (batch(0), 0, -1), (renamed, -1, 0), (batch(3), 1, -1),
        (INSTRUMENTS, -1, 1),
    ):  # fmt: skip
        first.add(value, offset=offset, behind=behind)
    first.sync()
    first.close()
    again = Recorder(tmp_path, source_id="test")
    for value, offset, behind in (
        (warm, -1, -1), (batch(0), 0, -1), (renamed, -1, 0), (batch(3), 1, -1), (INSTRUMENTS, -1, 1), (warm, -1, 1),
        (batch(6), 2, -1),
    ):  # fmt: skip
        again.add(value, offset=offset, behind=behind)
    again.finish()
    again.close()
    found = read(tmp_path / f"{DAY}.parquet")
    assert [one for one in found if not isinstance(one, Bars)] == [
        INSTRUMENTS, batch(0), renamed, batch(3), INSTRUMENTS, batch(6)
    ]  # fmt: skip
    assert len(found) == 7


@pytest.mark.parametrize("note", [b"{", b"[1]", b'{"source_id":"test"}', b'{"source_id":"test","through":"x"}'])
def test_a_broken_note_is_counted_and_its_file_left_alone(tmp_path: Path, note: bytes) -> None:
    record(tmp_path, day_of(3))
    path = tmp_path / f"{NEXT}.parquet"
    table = pq.read_table(tmp_path / f"{DAY}.parquet")
    pq.write_table(table.replace_schema_metadata({b"monitord.record": note}), path)
    before = path.read_bytes()
    with pytest.raises(FeedError, match="note cannot be read"):
        note_of(path)
    recorder = Recorder(tmp_path, source_id="test")
    recorder.add(batch(0, date=NEXT))
    recorder.finish()
    assert recorder.counters()["recordings_damaged"] >= 1
    recorder.close()
    assert path.read_bytes() == before
    (new,) = tmp_path.glob(f"{NEXT}-*.parquet")
    assert read(new) == [batch(0, date=NEXT)]


def test_offsets_that_begin_anew_are_recorded_again(tmp_path: Path) -> None:
    recorder = record(tmp_path, day_of(5), finish=False, offsets=True)
    recorder.forget_offsets()
    recorder.add(batch(60), offset=0)
    recorder.finish()
    recorder.close()
    assert read(tmp_path / f"{DAY}.parquet")[-1] == batch(60)


def test_two_sources_of_one_date_have_a_file_each(tmp_path: Path) -> None:
    record(tmp_path, [batch(0)])
    other = Recorder(tmp_path, source_id="other")
    other.add(batch(3))
    path = other.finish()
    other.close()
    assert path is not None
    assert path.name.startswith(f"{DAY}-")
    assert note_of(path)["source_id"] == "other"
    assert read(tmp_path / f"{DAY}.parquet") == [batch(0)]


def test_a_damaged_file_is_passed_over_and_left_as_it_is(tmp_path: Path) -> None:
    record(tmp_path, day_of(3))
    damaged = b"PAR1 cut short"
    for date in (NEXT, 20251231):
        (tmp_path / f"{date}.parquet").write_bytes(damaged)
    record(tmp_path, said := day_of(5, date=NEXT))
    (new,) = tmp_path.glob(f"{NEXT}-*.parquet")
    assert read(new) == said
    assert (tmp_path / f"{NEXT}.parquet").read_bytes() == damaged


def test_a_second_recorder_on_the_folder_is_refused(tmp_path: Path) -> None:
    first = record(tmp_path, [batch(0)], finish=False)
    with pytest.raises(FeedError, match="another recorder"):
        Recorder(tmp_path, source_id="test")
    first.close()
    Recorder(tmp_path, source_id="test").close()


def test_a_second_recorder_is_refused_on_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locking(fd: int, mode: int, count: int) -> None:
        """Lock as the system there does, which says that it may not rather than that it would have to wait."""
        assert (mode, count) == (2, 1)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    monkeypatch.setattr("feeds.recorder.fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    test_a_second_recorder_on_the_folder_is_refused(tmp_path)


def test_more_rows_than_a_row_group_are_several_of_them(tmp_path: Path) -> None:
    said = [batch(3 * step, n=20_000) for step in range(8)]
    record(tmp_path, said)
    path = tmp_path / f"{DAY}.parquet"
    assert pq.ParquetFile(path).metadata.num_row_groups >= 160_000 // ROWS
    assert open_recording(path).has_marks


def test_the_journal_of_finished_days_goes(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, source_id="test")
    for step in range(8):
        recorder.add(batch(3 * step, n=20_000))
    recorder.finish()
    recorder.add(batch(0, date=NEXT))
    recorder.finish()
    recorder.close()
    assert sum(path.stat().st_size for path in (tmp_path / "spool").rglob("*.journal")) < 40 << 20


def test_a_file_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    first, then = [INSTRUMENTS, *day_of(20)], day_of(20, date=NEXT)
    here, archived = tmp_path / "here", tmp_path / "archived.parquet"
    record(here, first)
    (here / f"{DAY}.parquet").rename(archived)
    # The next morning, as `monitord record` begins: a mark, what holds, and a kill before the first tick.
    gap = Mark(MarkKind.GAP, TEN + 60_000, "the recorder was not running")
    killed = record(here, [gap, RULES], finish=False)
    assert killed.finish() is None
    killed.close()
    record(here, then)
    assert [path.name for path in here.glob("*.parquet")] == [f"{NEXT}.parquet"]
    assert same(read(archived, here / f"{NEXT}.parquet"), [*first, RULES, gap, *then])


def test_the_rest_of_a_date_whose_file_was_moved_away_has_a_name_of_its_own(tmp_path: Path) -> None:
    record(tmp_path, [batch(0)])
    (tmp_path / f"{DAY}.parquet").rename(tmp_path / "archived")
    record(tmp_path, [batch(30)])
    record(tmp_path, [batch(60)])
    (rest,) = tmp_path.glob("*.parquet")
    assert rest.name.startswith(f"{DAY}-")
    assert same(read(rest), [batch(30), batch(60)])


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FeedError, match="cannot be used for recordings"):
        Recorder(tmp_path / "file" / "folder", source_id="test")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record(tmp_path, [batch(0)], finish=False)
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(recorder._journal, "_fd", full)
    with pytest.raises(FeedError, match="No space left"):
        recorder.add(batch(3))
    os.close(full)


def test_the_replay_feed_knows_the_recorded_instruments(tmp_path: Path) -> None:
    async def scenario() -> None:
        feed = ReplayFeed(inputs=[tmp_path / f"{DAY}.parquet"])
        await feed.open()
        assert [(one.symbol, one.name) for one in await feed.instruments()] == [("600519.SH", "贵州茅台")]
        values = [given.value async for given in feed]
        assert same(values, day_of(10)), "control records are none of a feed's inputs"
        await feed.close()

    record(tmp_path, [INSTRUMENTS, RULES, *day_of(10)])
    run(scenario())


def test_a_recording_with_a_control_row_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "symbol,ts_event,kind,text," + ",".join(CORE) + f"\n,{TEN},control,nonsense" + "," * len(CORE) + "\n"
    )
    with pytest.raises(FeedError, match=r"control row holds 'nonsense'"):
        read(path)
