"""Blocking calls on a thread that may hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from feeds.errors import FeedError
from feeds.xtlane import MOST_STUCK, VendorLane
from tests.feeds.vendor_terminal import until


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_calls_run_on_one_thread_in_order_and_answer() -> None:
    lane = VendorLane("test")
    names = await asyncio.gather(*(lane.ask(lambda: threading.current_thread().ident, timeout_s=5) for _ in range(5)))
    assert len(set(names)) == 1
    assert names[0] != threading.get_ident()
    assert not lane.is_busy
    lane.close()


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), StopIteration()])
async def test_what_a_call_raises_comes_out_and_the_lane_goes_on(error: BaseException) -> None:
    def failing() -> None:
        raise error

    lane = VendorLane("test")
    with pytest.raises((type(error), FeedError) if isinstance(error, ValueError) else FeedError):
        await lane.submit(failing, timeout_s=5)
    assert await lane.submit(lambda: 7, timeout_s=5) == 7
    lane.close()


async def test_a_call_that_hangs_is_left_behind_and_its_answer_dropped(release: threading.Event) -> None:
    lane, late = VendorLane("test"), []
    with pytest.raises(TimeoutError):
        await lane.submit(lambda: late.append(release.wait(10)), timeout_s=0.01)
    assert lane.abandoned == 1
    assert await lane.ask(lambda: "next", timeout_s=5) == "next"
    release.set()
    await until(lambda: late)
    assert await lane.ask(lambda: "and on", timeout_s=5) == "and on"
    lane.close()


async def test_who_waits_behind_a_hanging_call_is_served_all_the_same(release: threading.Event) -> None:
    lane = VendorLane("test")
    hanging = asyncio.ensure_future(lane.ask(lambda: release.wait(10), timeout_s=0.02))
    waiting = asyncio.ensure_future(lane.ask(lambda: "served", timeout_s=5))
    assert await waiting == "served"
    with pytest.raises(TimeoutError):
        await hanging
    lane.close()


async def test_so_many_may_hang_and_then_nothing_more_is_asked_until_one_comes_back(release: threading.Event) -> None:
    lane = VendorLane("test")
    for _ in range(MOST_STUCK):
        with pytest.raises(TimeoutError):
            await lane.submit(lambda: release.wait(10), timeout_s=0.001)
    with pytest.raises(FeedError, match="8 calls of the vendor hang; restart the terminal"):
        lane.submit(lambda: None, timeout_s=5)
    release.set()
    await until(lambda: not any(worker.is_alive() for worker in lane._stuck))
    assert await lane.submit(lambda: 7, timeout_s=5) == 7
    lane.close()


async def test_a_call_whose_asker_has_gone_is_left_behind(release: threading.Event) -> None:
    lane = VendorLane("test")
    asker = asyncio.ensure_future(lane.ask(lambda: release.wait(10), timeout_s=5))
    await until(lambda: lane.is_busy)
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert await lane.ask(lambda: 7, timeout_s=5) == 7
    assert lane.abandoned == 1
    lane.close()


def test_a_thread_that_hangs_outlives_neither_loop_nor_interpreter(release: threading.Event) -> None:
    async def scenario() -> VendorLane:
        lane = VendorLane("test")
        with pytest.raises(TimeoutError):
            await lane.submit(lambda: release.wait(10), timeout_s=0.001)
        return lane

    lane = asyncio.run(scenario())
    (worker,) = lane._stuck
    assert worker.daemon
    release.set()
    worker.join(10)  # its loop has closed: it ends without a word
    assert not worker.is_alive()
