"""Pushes of a terminal on a machine whose clock is wrong: no thread, no terminal, no time of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from feeds.decode import Decoder
from feeds.inbox import TickInbox
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.sessions import unix_ms
from feeds.tick import TickBatch
from feeds.xtpushes import Pulse, Pushes

TEN = unix_ms(20250106, 36_000_000)
STOCK = "600519.SH"


def tick(ts_ms: int) -> dict[str, Any]:
    prices = dict.fromkeys(("lastPrice", "open", "high", "low", "lastClose"), 10.0)
    return {"time": ts_ms, **prices, "amount": 1e6, "volume": 1000, "openInt": 13}


@dataclass
class Machine:
    """A terminal that pushes every three seconds, and our clock, which is `ahead_s` of the exchange's."""

    ahead_s: float = 0.0
    passed_s: float = 0.0
    got: list[TickBatch | Heartbeat | Mark] = field(default_factory=list)
    longest_silence_s: float = 0.0

    def __post_init__(self) -> None:
        self.inbox = TickInbox(1000)
        self.pushes = Pushes(
            Decoder(), self.inbox, pulse=Pulse([STOCK]), unproven=(),
            monotonic=lambda: 70.0 + self.passed_s, now=lambda: TEN / 1000 + self.passed_s + self.ahead_s,
        )  # fmt: skip
        self.pushes.epochs = frozenset([1])

    async def seconds(self, count: int, *, pushing: bool = True) -> None:
        for _ in range(count):
            if pushing and self.passed_s % 3 == 0:
                self.pushes.on_push(1, {STOCK: tick(TEN + int(self.passed_s * 1000))})
            self.pushes.beat()
            self.pushes.miss_pulse(10.0)
            self.longest_silence_s = max(self.longest_silence_s, self.pushes.silent_s())
            self.passed_s += 1
        while self.inbox._queue:
            self.got.append(await anext(self.inbox))

    @property
    def told(self) -> list[MarkKind]:
        return [value.kind for value in self.got if isinstance(value, Mark)]

    @property
    def beats(self) -> int:
        return sum(isinstance(value, Heartbeat) for value in self.got)


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


@pytest.mark.parametrize("ahead_s", [0.0, -8.0, 60.0, 130.0, 3600.0, 28_800.0])
def test_a_clock_ahead_of_the_exchange_is_no_silence(ahead_s: float) -> None:
    async def work() -> None:
        machine = Machine(ahead_s)
        await machine.seconds(400)
        assert machine.told == [] and machine.longest_silence_s < 10 and machine.beats > 100
        await machine.seconds(20, pushing=False)
        assert machine.told == [MarkKind.SILENT]  # and a real one is found all the same
        await machine.seconds(30)
        assert machine.told == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]

    run(work)


def test_a_clock_that_is_set_ahead_while_ticks_flow_is_no_silence() -> None:
    async def work() -> None:
        machine = Machine()
        await machine.seconds(60)
        machine.ahead_s = 3600.0
        await machine.seconds(60)
        assert machine.told == [] and machine.longest_silence_s < 10

    run(work)


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_clock_behind_the_exchange_is_said_and_mended_by_setting_it(from_the_start: bool) -> None:
    async def work() -> None:
        machine = Machine()
        await machine.seconds(0 if from_the_start else 30)
        machine.ahead_s = -12.0
        await machine.seconds(120)
        silent = next(value for value in machine.got if isinstance(value, Mark))
        assert machine.told == [MarkKind.SILENT]
        assert "clock is 12 s behind" in silent.reason and silent.ts_ms < TEN + 60_000
        assert machine.longest_silence_s < 60  # the terminal is not asked for a new connection again and again
        machine.ahead_s = 0.0
        await machine.seconds(6)
        assert machine.told == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]

    run(work)


def test_a_tick_of_the_future_among_others_says_nothing_of_our_clock() -> None:
    async def work() -> None:
        machine = Machine()
        for _ in range(30):
            machine.pushes.on_push(1, {STOCK: tick(TEN + int(machine.passed_s * 1000) + 60_000)})
            await machine.seconds(3)
        assert machine.told == []

    run(work)


def test_old_ticks_of_a_first_push_say_nothing_of_the_time() -> None:
    async def work() -> None:
        machine = Machine()
        yesterday = TEN - 19 * 3_600_000  # 15:00, of another day
        for late_ms in range(0, 5000, 100):
            machine.pushes.on_push(1, {STOCK: tick(yesterday + late_ms)})
        await machine.seconds(20, pushing=False)
        assert machine.longest_silence_s >= 10

    run(work)
