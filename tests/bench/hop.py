"""The hop from a vendor's thread into the event loop: `TickInbox` beside one `call_soon_threadsafe` per tick.

From the first push in the thread until the consuming task has everything of one callback.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable

import numpy as np

from feeds.inbox import TickInbox
from feeds.tick import TickBatch
from tests.bench.report import Line, Report
from tests.bench.timing import Timing, summary
from tests.bench.w1 import MARKET, make_market

Hop = Callable[[TickBatch], "asyncio.Future[float]"]


def run(*, quick: bool) -> Report:
    """Race the two ways in turns, over the same batch."""
    batch = make_market(MARKET // 10 if quick else MARKET, bars=2).next()
    batched, single = asyncio.run(_race(batch, repeats=5 if quick else 40))
    timings = {"TickInbox": batched, "call_soon_threadsafe per tick": single}
    ratio = single.median_ms / batched.median_ms
    least = 300 if len(batch) == MARKET else None  # a batch costs the same however many ticks it holds
    return Report("hop", [Line("vs call_soon_threadsafe per tick", ratio, least=least)], timings)


async def _race(batch: TickBatch, *, repeats: int) -> tuple[Timing, Timing]:
    inbox = TickInbox(16)
    batched: list[float] = []
    single: list[float] = []
    gc.collect()  # what other benchmarks have left
    for _ in range(repeats):
        batched.append(await _through_inbox(inbox, batch))
        single.append(await _one_by_one(batch))
    return summary("TickInbox", batched[1:]), summary("call_soon_threadsafe per tick", single[1:])


async def _through_inbox(inbox: TickInbox, batch: TickBatch) -> float:
    """Return the seconds one batch takes, the consumer asleep when it comes."""
    taker = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    started = _in_thread(lambda: inbox.push(batch))
    await taker
    return time.perf_counter() - started[0]


async def _one_by_one(batch: TickBatch) -> float:
    """Return the seconds its ticks take, each scheduled by itself and put into an asyncio.Queue."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[str, float]]()
    ticks = list(zip(batch.symbols, batch.column("last").tolist(), strict=True))

    def push() -> None:
        for tick in ticks:
            loop.call_soon_threadsafe(queue.put_nowait, tick)

    started = _in_thread(push)
    for _ in ticks:
        await queue.get()
    return time.perf_counter() - started[0]


def _in_thread(push: Callable[[], object]) -> np.ndarray:
    """Start a thread that notes the time and pushes; the returned array holds that time once it has run."""
    started = np.zeros(1)

    def body() -> None:
        started[0] = time.perf_counter()
        push()

    threading.Thread(target=body).start()
    return started
