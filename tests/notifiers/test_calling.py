"""Calls that can't be cut off: one at a time, given up in time, what they raise comes out."""

from __future__ import annotations

import asyncio
import threading

import pytest

from notifiers.calling import LoneCall, StillBusy


async def test_what_a_call_returns_or_raises_comes_out() -> None:
    call = LoneCall[int]("test")
    assert await call(lambda: 7, within_s=20) == 7
    with pytest.raises(ZeroDivisionError):
        await call(lambda: 1 // 0, within_s=20)
    assert await call(lambda: 8, within_s=20) == 8


async def test_a_call_left_behind_refuses_the_next_until_it_has_ended() -> None:
    call, hanging, ran = LoneCall[None]("test"), threading.Event(), list[int]()
    with pytest.raises(TimeoutError):
        await call(lambda: hanging.wait(20) and ran.append(1), within_s=0.01)  # type: ignore[func-returns-value]
    with pytest.raises(StillBusy):
        await call(lambda: ran.append(2), within_s=20)
    hanging.set()
    async with asyncio.timeout(20):
        while True:
            try:
                await call(lambda: ran.append(3), within_s=20)
                break
            except StillBusy:
                await asyncio.sleep(0.001)
    assert ran == [1, 3]


async def test_a_cancelled_call_is_left_behind_too() -> None:
    call, hanging = LoneCall[bool]("test"), threading.Event()
    task = asyncio.ensure_future(call(lambda: hanging.wait(20), within_s=20))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StillBusy):
        await call(lambda: True, within_s=20)
    hanging.set()
