"""A batch of ticks: its lazy columns are decoded once, whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from feeds.frame import encode
from feeds.tick import CORE, REST, FloatArray, TickBatch


def test_two_threads_that_ask_for_the_book_at_once_both_get_it_and_it_is_decoded_once() -> None:
    loading, go_on, loads = threading.Event(), threading.Event(), list[str]()

    def load() -> Mapping[str, FloatArray]:
        loads.append(threading.current_thread().name)
        loading.set()
        assert go_on.wait(10)
        return {name: np.array([7.0]) for name in REST}

    batch = TickBatch(("600519.SH",), np.array([1]), columns={name: np.array([1.0]) for name in CORE}, load=load)
    found: list[float] = []
    asking = [threading.Thread(target=lambda: found.append(float(batch.column("bid_price_1")[0]))) for _ in range(2)]
    asking[0].start()
    assert loading.wait(10)
    assert batch.rest_waits
    asking[1].start()  # while the first is decoding: it must not take the column for one that the source lacks
    go_on.set()
    for thread in asking:
        thread.join(10)
    assert (found, len(loads), batch.rest_waits) == ([7.0, 7.0], 1, False)


@pytest.mark.parametrize("mask", [[True, False, True], [False, False, False], [True, True, True]])
def test_what_is_kept_by_a_mask_is_what_is_taken_by_its_positions(mask: list[bool]) -> None:
    batch = TickBatch(
        ("600519.SH", "000001.SZ", "600519.SH"),
        np.array([1, 2, 3]),
        columns={name: np.arange(3.0) + place for place, name in enumerate(CORE)},
        recv_ms=np.array([4, 5, 6]),
        status=np.array([13, 1, 13], np.int16),
        load=lambda: {"bid_price_1": np.array([7.0, 8.0, np.nan])},
    )
    kept = batch.keep(np.array(mask))
    assert kept.rest_waits, "the book is not decoded for it"
    assert kept == batch.take(np.flatnonzero(mask))


@pytest.mark.parametrize("positions", [slice(1, 3), np.array([2, 0])])
def test_ticks_that_are_to_stand_alone_share_nothing_with_the_batch(positions: slice | np.ndarray) -> None:
    columns = {name: np.arange(3.0) + place for place, name in enumerate(CORE)}
    book = {"bid_lots_1": np.ones(3)}
    batch = TickBatch(("A.SH", "B.SZ", "C.SZ"), np.array([1, 2, 3]), columns=columns, load=lambda: book)
    part = batch.take(positions)
    alone = part.alone()
    assert alone == part
    assert not alone.rest_waits
    assert alone.has("bid_lots_1")
    assert not alone.has("bid_lots_2"), "what the source lacks is not made up"
    for name in (*CORE, "bid_lots_1"):
        assert not np.shares_memory(alone.column(name), batch.column(name))
    for mine, theirs in ((alone.ts_event_ms, batch.ts_event_ms), (alone.recv_ms, batch.recv_ms)):
        assert not np.shares_memory(mine, theirs)
    assert not np.shares_memory(alone.status, batch.status)


def test_a_column_that_is_made_up_is_none_of_the_source_whoever_has_asked_for_it() -> None:
    batch = TickBatch(("A.SH", "B.SZ"), np.array([1, 2]), columns={"last": np.ones(2)})
    part = batch.take(np.array([1]))
    assert np.isnan(part.column("open")).all()
    assert batch.column("bid_lots_1").tolist() == [0.0, 0.0]
    assert not any(one.has(name) for one in (batch, part) for name in ("open", "bid_lots_1"))
    assert encode(batch) == encode(TickBatch(batch.symbols, batch.ts_event_ms, columns={"last": np.ones(2)}))


def test_ticks_are_taken_while_another_thread_decodes_the_book() -> None:
    class Column(np.ndarray):
        """In the middle of its taking the journal's thread comes to the book."""

        def __getitem__(self, positions: object) -> FloatArray:
            decoding = threading.Thread(target=batch.has, args=("bid_price_1",))
            decoding.start()
            decoding.join(10)
            return np.asarray(self)[positions]  # type: ignore[index, no-any-return]

    core = {name: np.arange(3.0).view(Column) for name in CORE}
    load = dict.fromkeys(REST, np.array([7.0, 8.0, 9.0])).copy
    batch = TickBatch(("600519.SH", "000001.SZ", "600000.SH"), np.array([1, 2, 3]), columns=core, load=load)
    kept = batch.keep(np.array([True, False, True]))
    assert (kept.column("last").tolist(), kept.column("bid_price_1").tolist()) == ([0.0, 2.0], [7.0, 9.0])
