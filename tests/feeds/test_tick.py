"""A batch of ticks: its lazy columns are decoded once, whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

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
