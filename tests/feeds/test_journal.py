"""The journal: what was appended comes back, in order, whatever moment the writer was killed at."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds import frame
from feeds import journal as journal_module
from feeds.errors import FeedError
from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.journal import Journal, read_journal
from feeds.segment import OWN_OFFSETS, Record
from feeds.tick import CORE, REST, TickBatch


def ticks(count: int, *, start_ms: int = 1_675_216_923_000) -> TickBatch:
    """Return a batch whose columns hold NaN, negative zero and ordinary numbers."""
    columns = {name: np.linspace(place, place + 1, count) for place, name in enumerate(CORE)}
    columns["last"][::2] = np.nan
    columns["open"][::3] = -0.0
    return TickBatch(
        tuple(f"{600000 + i}.SH" for i in range(count)), np.arange(start_ms, start_ms + count), columns=columns
    )


inputs = st.one_of(
    st.integers(0, 2**62).map(Heartbeat),
    st.builds(Mark, st.sampled_from(MarkKind), st.integers(0, 2**62), st.text(max_size=20)),
    st.builds(Control, st.sampled_from(ControlKind), st.text(max_size=60)),
    st.integers(1, 5).map(ticks),
)


def everything(folder: Path) -> list[tuple[int, Input]]:
    return [(record.offset, record.value) for record in read_journal(folder)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(inputs, min_size=1, max_size=25), segment_bytes=st.integers(1, 3000), tail=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_gives_back_a_prefix_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, values: list[Input], segment_bytes: int, tail: float
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    writer = Journal(folder, source_id="s", segment_bytes=segment_bytes)
    ends = []  # (segment, its size, records in all) after each append: what a kill at that moment leaves
    for value in values:
        writer.append(value)
        newest = max(folder.iterdir())
        ends.append((newest.name, newest.stat().st_size))
    writer.close()
    newest = max(folder.iterdir())
    cut = int(newest.stat().st_size * tail)
    os.truncate(newest, cut)
    whole = [name < newest.name or (name == newest.name and size <= cut) for name, size in ends]

    assert everything(folder) == list(enumerate(values[: sum(whole)]))
    again = Journal(folder, source_id="s", segment_bytes=segment_bytes)
    assert again.end == sum(whole) - 1
    assert again.append(Heartbeat(7)) == sum(whole)
    again.close()
    assert everything(folder) == [*enumerate(values[: sum(whole)]), (sum(whole), Heartbeat(7))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.999), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_read_as_an_input(
    tmp_path_factory: pytest.TempPathFactory, place: float, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    values = [Heartbeat(1), ticks(2), Mark(MarkKind.GAP, 5, "cut"), Control(ControlKind.RULES, "{}"), Heartbeat(2)]
    with_values(folder, values)
    (segment,) = folder.iterdir()
    damaged = bytearray(segment.read_bytes())
    damaged[int(place * len(damaged))] ^= flip
    segment.write_bytes(damaged)
    try:
        got = [value for _, value in everything(folder)]
    except FeedError as error:
        assert "damaged at byte" in str(error)  # noqa: PT017  # both outcomes are right, by where the byte lies
    else:
        assert got == values[:-1]  # the byte was in the last record: no good one behind it, so a torn tail


def with_values(folder: Path, values: list[Input], **options: int) -> None:
    writer = Journal(folder, **options)
    for value in values:
        writer.append(value)
    writer.close()


def test_damage_in_the_middle_says_file_and_byte(tmp_path: Path) -> None:
    with_values(tmp_path, [Heartbeat(n) for n in range(5)])
    (segment,) = tmp_path.iterdir()
    damaged = bytearray(segment.read_bytes())
    damaged[-3 * 27 + 20] ^= 1  # in the payload of the third record from the end (19 bytes of head, 8 of payload)
    segment.write_bytes(damaged)
    with pytest.raises(FeedError, match=rf"{segment.name} is damaged at byte \d+: good records go on at byte \d+"):
        Journal(tmp_path)


def test_a_torn_tail_is_counted(tmp_path: Path) -> None:
    with_values(tmp_path, [Heartbeat(1), Heartbeat(2)])
    (segment,) = tmp_path.iterdir()
    os.truncate(segment, segment.stat().st_size - 1)
    again = Journal(tmp_path)
    assert again.counters()["torn_bytes"] == 26
    assert again.end == 0
    again.close()


def test_an_offset_asked_for_begins_behind_it(tmp_path: Path) -> None:
    with_values(tmp_path, [Heartbeat(n) for n in range(40)], segment_bytes=200)
    journal = Journal(tmp_path, segment_bytes=200)
    assert list(journal.read(after=24)) == [(n, Heartbeat(n)) for n in range(25, 40)]
    assert list(journal.read(after=39)) == []
    journal.close()


def test_segments_stay_within_their_size(tmp_path: Path) -> None:
    with_values(tmp_path, [Heartbeat(n) for n in range(200)], segment_bytes=500)
    assert len(list(tmp_path.iterdir())) > 10
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 500


def test_trim_deletes_only_whole_segments_of_older_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=500)
    for n in range(200):
        journal.append(Heartbeat(n))
    deleted = journal.trim(before=100)
    assert deleted > 0
    assert journal.start <= 100
    assert list(journal.read(after=99)) == [(n, Heartbeat(n)) for n in range(100, 200)]
    with pytest.raises(FeedError, match="were trimmed: use a newer checkpoint"):
        list(journal.read(after=3))
    journal.trim(before=10_000)
    assert journal.append(Heartbeat(200)) == 200  # the segment in use is never deleted
    journal.close()


def test_a_missing_segment_is_a_hole_not_a_silence(tmp_path: Path) -> None:
    with_values(tmp_path, [Heartbeat(n) for n in range(60)], segment_bytes=300)
    second = sorted(tmp_path.iterdir())[1]
    second.unlink()
    with pytest.raises(FeedError, match=r"records \d+ to \d+ are missing"):
        list(read_journal(tmp_path))


def test_control_records_keep_the_feed_offset_they_follow(tmp_path: Path) -> None:
    journal = Journal(tmp_path, source_id="replay:2023-02-01")
    rules, positions = Control(ControlKind.RULES, '{"a":1}'), Control(ControlKind.POSITIONS, "[]")
    assert journal.append_control(rules, follows=-1) == 0
    assert journal.append_control(positions, follows=-1) == 1
    assert journal.append_control(rules, follows=57) == 2
    journal.close()
    again = Journal(tmp_path, source_id="replay:2023-02-01")
    assert list(again.records(after=0)) == [Record(1, -1, positions), Record(2, 57, rules)]
    assert again.newest_follows == 57
    with pytest.raises(FeedError, match="follows input 57; run the feed to that offset first"):
        again.append_control(positions, follows=56)
    again.close()


def test_another_sources_journal_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, source_id="xt").close()
    with pytest.raises(FeedError, match="holds inputs of the source 'xt', not of 'simulated:7'"):
        Journal(tmp_path, source_id="simulated:7")


def test_a_lost_journal_goes_on_behind_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path, first_offset=1001)
    assert (journal.start, journal.end) == (1001, 1000)
    assert journal.append(Heartbeat(1)) == 1001
    assert list(journal.read(after=1000)) == [(1001, Heartbeat(1))]
    journal.close()


def test_a_full_disk_refuses_the_record_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append(Heartbeat(1))
    write = os.write

    def full(fd: int, piece: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(parts)[:20]))  # a part, then no more
        patched.setattr(os, "write", full)
        with pytest.raises(FeedError, match="No space left on device; free space"):
            journal.append(Heartbeat(2))
    assert journal.append(Heartbeat(3)) == 1
    journal.close()
    assert everything(tmp_path) == [(0, Heartbeat(1)), (1, Heartbeat(3))]


def test_without_memory_for_the_rest_of_a_record_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    write = os.write

    def exhausted(fd: int, piece: memoryview) -> int:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(parts)[:20]))
        patched.setattr(os, "write", exhausted)
        with pytest.raises(MemoryError):
            journal.append(Heartbeat(1))
    assert journal.append(Heartbeat(2)) == 0
    journal.close()
    assert everything(tmp_path) == [(0, Heartbeat(2))]


def record(kind: int, payload: bytes) -> bytes:
    """Return a record as the docstring of feeds/segment.py has it."""
    summed = struct.pack("<Bq", kind, OWN_OFFSETS) + payload
    return b"\xa5J" + struct.pack("<II", len(payload), zlib.crc32(summed)) + summed


@pytest.mark.parametrize("way", ["whole", "in pieces", "without writev"])
def test_the_bytes_on_the_disk_are_those_of_the_format_however_they_get_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    journal, batch = Journal(tmp_path), lazy(5)
    (segment,) = tmp_path.iterdir()
    header = segment.stat().st_size
    if way == "without writev":
        monkeypatch.delattr(os, "writev")
    if way == "in pieces":  # a signal, or a disk that is nearly full, cuts within a part and within the rest
        write = os.write
        monkeypatch.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(parts)[:101]))
        monkeypatch.setattr(os, "write", lambda fd, piece: write(fd, piece[:33]))
    journal.append(batch, rest_later=True)
    journal.append(Heartbeat(7))
    journal.close()
    written = segment.read_bytes()[header:]
    assert written == (
        record(1, frame.encode(batch, columns="core"))
        + record(5, frame.encode_rest(batch))
        + record(2, struct.pack("<q", 7))
    )
    assert journal.counters()["bytes"] == len(written)
    assert everything(tmp_path) == [(0, lazy(5)), (1, Heartbeat(7))]


def test_a_record_has_fewer_parts_than_a_system_writes_at_once() -> None:
    whole = TickBatch(("600000.SH",), np.zeros(1, np.int64), columns={name: np.zeros(1) for name in (*CORE, *REST)})
    assert len(frame.parts(whole)) + 1 <= 40 <= os.sysconf("SC_IOV_MAX")


def test_after_a_failed_sync_no_record_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_module, "datasync", broken)
    with pytest.raises(FeedError, match="Input/output error"):
        journal.sync()
    monkeypatch.undo()
    with pytest.raises(FeedError, match="takes no more records: an earlier sync failed"):
        journal.append(Heartbeat(1))
    with pytest.raises(FeedError, match="an earlier sync failed"):
        journal.sync()
    journal.close()


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(FeedError, match="cannot open the journal"):
        Journal(tmp_path / "journal")


def lazy(count: int, *, level: float = 3.0) -> TickBatch:
    """Return a batch whose book waits to be decoded."""
    eager = ticks(count)
    book = {"bid_price_1": np.full(count, level), "trades": np.arange(count, dtype=np.float64)}
    columns = {name: eager.column(name) for name in CORE}
    return TickBatch(eager.symbols, eager.ts_event_ms, columns=columns, load=lambda: book)


def test_the_book_may_come_later_and_is_read_back_with_its_batch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    batch = lazy(3)
    assert journal.append(batch, rest_later=True) == 0
    assert batch.rest_waits
    ((_, before),) = everything(tmp_path)
    assert isinstance(before, TickBatch)
    assert not before.has("bid_price_1")
    assert journal.append_rest()
    assert not journal.append_rest(), "once is enough"
    assert journal.append(Heartbeat(5)) == 1
    journal.close()
    assert everything(tmp_path) == [(0, lazy(3)), (1, Heartbeat(5))]
    assert Journal(tmp_path).end == 1, "the book has no offset of its own"


@pytest.mark.parametrize("goes_on", ["append", "close"])
def test_a_book_nobody_asked_to_write_is_written_before_the_next_record_and_at_the_end(
    tmp_path: Path, goes_on: str
) -> None:
    journal = Journal(tmp_path)
    journal.append(lazy(3), rest_later=True)
    if goes_on == "append":
        journal.append(Heartbeat(5))
        assert everything(tmp_path) == [(0, lazy(3)), (1, Heartbeat(5))]
    journal.close()
    assert everything(tmp_path)[0] == (0, lazy(3))


def test_a_book_that_has_been_decoded_already_goes_with_its_batch(tmp_path: Path) -> None:
    journal, batch = Journal(tmp_path), lazy(3)
    batch.column("trades")
    journal.append(batch, rest_later=True)
    assert not journal.append_rest()
    assert everything(tmp_path) == [(0, lazy(3))]
    journal.close()


def test_a_journal_cut_within_a_book_keeps_the_batch_and_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(lazy(3), rest_later=True)
    (segment,) = tmp_path.iterdir()
    core = segment.stat().st_size
    journal.close()
    whole = segment.read_bytes()
    for cut in range(core, len(whole)):
        segment.write_bytes(whole[:cut])
        again = Journal(tmp_path)
        assert again.end == 0
        assert again.append(Heartbeat(5)) == 1
        again.close()
        (_, batch), (_, heartbeat) = everything(tmp_path)
        assert isinstance(batch, TickBatch)
        assert (batch.has("bid_price_1"), len(batch), heartbeat) == (False, 3, Heartbeat(5))


def test_a_book_stays_in_its_batchs_segment_and_within_its_size(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=3000)
    for _ in range(20):
        journal.append(lazy(3), rest_later=True)
    journal.close()
    assert len(list(tmp_path.iterdir())) > 2
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    assert everything(tmp_path) == [(offset, lazy(3)) for offset in range(20)]
