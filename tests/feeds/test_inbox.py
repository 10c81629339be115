"""Threads on one side, one task on the other; each race that the module speaks of has its test here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from feeds.errors import FeedError
from feeds.inbox import Received, TickInbox
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.tick import TickBatch


def batch(number: int, n: int = 1, symbol: str = "600000.SH") -> TickBatch:
    return TickBatch((symbol,) * n, np.full(n, number, np.int64), columns={})


def numbers(values: list[Received]) -> list[int | str]:
    """Return a batch as its number, a mark as its kind, a heartbeat as ♥ and its time."""
    return [
        int(value.ts_event_ms[0])
        if isinstance(value, TickBatch)
        else str(value.kind)
        if isinstance(value, Mark)
        else f"♥{value.ts_ms}"
        for value in values
    ]


async def drained(inbox: TickInbox) -> list[Received]:
    inbox.close()
    return [value async for value in inbox]


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


async def test_what_a_thread_pushes_comes_out_in_order() -> None:
    inbox = TickInbox(10)
    in_thread(lambda: [inbox.push(batch(number)) for number in range(5)])
    assert numbers(await drained(inbox)) == [0, 1, 2, 3, 4]


async def test_overflow_drops_the_oldest_and_leaves_one_gap_in_its_place() -> None:
    inbox = TickInbox(2)
    for number in range(5):
        assert inbox.push(batch(number, n=3))
        assert len(inbox) <= 2
    assert numbers(await drained(inbox)) == ["gap", 3, 4]
    assert inbox.counters()["inbox_dropped_batches"] == 3
    assert inbox.counters()["inbox_dropped_ticks"] == 9


async def test_a_gap_that_was_taken_is_followed_by_a_new_one() -> None:
    inbox = TickInbox(1)
    inbox.push(batch(1))
    inbox.push(batch(2))
    assert numbers([await anext(inbox)]) == ["gap"]
    inbox.push(batch(3))
    assert numbers(await drained(inbox)) == ["gap", 3]


async def test_marks_survive_an_overflow_in_their_order() -> None:
    inbox = TickInbox(1)
    inbox.push_mark(Mark(MarkKind.SILENT, 1))
    inbox.push(batch(2))
    inbox.push_mark(Mark(MarkKind.ALIVE, 3))
    inbox.push(batch(4))
    assert numbers(await drained(inbox)) == ["silent", "gap", "alive", 4]


async def test_the_gap_is_dated_by_the_dropped_ticks_even_if_one_has_an_absurd_time() -> None:
    inbox = TickInbox(1)
    inbox.push(TickBatch(("600000.SH",) * 3, np.array([1000, 4_000_000_000_000, 1002]), columns={}))
    inbox.push(batch(2000))
    gap = await anext(inbox)
    assert isinstance(gap, Mark)
    assert gap.ts_ms == 1002


async def test_a_heartbeat_supersedes_one_that_nobody_took() -> None:
    inbox = TickInbox(4)
    inbox.push_heartbeat(Heartbeat(1))
    inbox.push_heartbeat(Heartbeat(2))
    inbox.push(batch(3))
    inbox.push_heartbeat(Heartbeat(4))
    assert numbers(await drained(inbox)) == ["♥2", 3, "♥4"]


async def test_an_empty_batch_is_nothing() -> None:
    inbox = TickInbox(1)
    assert inbox.push(batch(0, n=0))
    assert await drained(inbox) == []


async def test_close_delivers_what_is_queued_and_takes_no_more() -> None:
    inbox = TickInbox(4)
    inbox.push(batch(1))
    inbox.close()
    inbox.close()
    assert not inbox.push(batch(2))
    assert not inbox.push_mark(Mark(MarkKind.GAP, 0))
    assert not inbox.push_heartbeat(Heartbeat(0))
    assert numbers([value async for value in inbox]) == [1]
    assert inbox.counters()["inbox_late"] == 3


async def test_close_ends_a_consumer_that_waits() -> None:
    inbox = TickInbox(4)
    waiting = asyncio.ensure_future(drained_by_waiting(inbox))
    await asyncio.sleep(0)
    in_thread(inbox.close)
    assert await asyncio.wait_for(waiting, 5) == []


async def drained_by_waiting(inbox: TickInbox) -> list[Received]:
    return [value async for value in inbox]


async def test_cancelling_the_consumer_loses_nothing() -> None:
    inbox = TickInbox(4)
    waiting = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox.push(batch(1))  # wakes it; the cancel arrives before it runs
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert numbers(await drained(inbox)) == [1]


async def test_one_wake_up_however_many_pushes_before_the_consumer_runs() -> None:
    inbox = TickInbox(100)
    waiting = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    in_thread(lambda: [inbox.push(batch(number)) for number in range(50)])
    assert numbers([await waiting]) == [0]
    assert inbox.counters()["inbox_wakes"] == 1
    assert len(await drained(inbox)) == 49


async def test_race_push_between_found_empty_and_wait() -> None:
    """The consumer found nothing and is about to wait: a push at that very point must wake it."""
    inbox = TickInbox(4)
    clear, pushed = inbox._ready.clear, []

    def clear_then_push() -> None:
        clear()
        if not pushed:
            pushed.append(1)
            inbox._lock.release()  # the producer comes first behind the critical section
            try:
                in_thread(lambda: inbox.push(batch(7)))
            finally:
                inbox._lock.acquire()

    inbox._ready.clear = clear_then_push  # type: ignore[method-assign]
    assert numbers([await asyncio.wait_for(anext(inbox), 5)]) == [7]


async def test_race_a_late_wake_up_finds_nothing_and_waits_again() -> None:
    inbox = TickInbox(4)
    waiting = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox._ready.set()  # as a wake-up whose batch was taken already
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    inbox.push(batch(3))
    assert numbers([await asyncio.wait_for(waiting, 5)]) == [3]


def test_race_the_loop_closes_under_a_producer() -> None:
    loop = asyncio.new_event_loop()

    async def make() -> TickInbox:
        inbox = TickInbox(4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(inbox), 0)  # leaves it asleep, so that the next push wants to wake the loop
        return inbox

    inbox = loop.run_until_complete(make())
    inbox._asleep = True
    loop.close()
    assert not inbox.push(batch(1))
    assert not inbox.push(batch(2))
    inbox.close()
    assert inbox.counters()["inbox_late"] == 1


async def test_several_producers_lose_nothing_and_keep_each_ones_order() -> None:
    inbox, count, start = TickInbox(10_000), 500, threading.Barrier(4)
    codes = [f"60000{number}.SH" for number in range(4)]

    def produce(code: str) -> None:
        start.wait()
        for number in range(count):
            inbox.push(batch(number, symbol=code))

    threads = [threading.Thread(target=produce, args=(code,)) for code in codes]
    for thread in threads:
        thread.start()
    seen: dict[str, list[int]] = {code: [] for code in codes}
    for _ in range(count * len(codes)):
        value = await asyncio.wait_for(anext(inbox), 10)
        assert isinstance(value, TickBatch)
        seen[value.symbols[0]].append(int(value.ts_event_ms[0]))
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(count)) for numbers in seen.values())
    assert await drained(inbox) == []


async def test_under_overflow_by_several_producers_the_books_balance() -> None:
    inbox, count = TickInbox(8), 400
    threads = [
        threading.Thread(target=lambda: [inbox.push(batch(number)) for number in range(count)]) for _ in range(4)
    ]
    taken: list[Received] = []
    for thread in threads:
        thread.start()

    def settled() -> int:
        """How many batches were taken or dropped: as long as some are neither, something comes."""
        return sum(isinstance(one, TickBatch) for one in taken) + inbox.counters()["inbox_dropped_batches"]

    while len(taken) < 100 and settled() < 4 * count:
        taken.append(await asyncio.wait_for(anext(inbox), 10))
        await asyncio.sleep(0)
    for thread in threads:
        thread.join()
    taken += await drained(inbox)
    assert settled() == 4 * count
    gaps = [index for index, value in enumerate(taken) if isinstance(value, Mark)]
    # A mark that was taken while its batches were still being dropped is followed by another one, never by nothing.
    assert all(isinstance(taken[index + 1], TickBatch | Mark) for index in gaps)


async def test_an_inbox_without_room_is_refused() -> None:
    with pytest.raises(FeedError, match="room for 1"):
        TickInbox(0)
