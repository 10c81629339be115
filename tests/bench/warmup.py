"""How long a warm-up holds up the engine and the loop: 5,500 symbols, 480 bars of each of three periods, W1 rules."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from feeds.history import COLUMNS, Bars, table_of
from feeds.sessions import DAY_MS, unix_ms
from monitord.warmup import CHUNK, in_chunks
from rules.engine import Engine
from tests.rules.test_past import RULES

SYMBOLS = tuple(f"{600000 + number}.SH" for number in range(5_500))
UNTIL_MS = unix_ms(20250102, 15 * 3_600_000)
PERIODS = ("1d", "5m", "1m")
STEP_MS = {"1d": DAY_MS, "5m": 300_000, "1m": 60_000}


def history(period: str, bars: int) -> list[Bars]:
    rng = np.random.default_rng(1)
    n = len(SYMBOLS)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.01, (n, bars)), axis=1)), 2).ravel()
    columns = dict.fromkeys(COLUMNS, close)
    ends = UNTIL_MS - STEP_MS[period] * np.arange(bars - 1, -1, -1)
    table = table_of(period, np.repeat(np.array(SYMBOLS), bars), np.tile(ends, n), columns=columns)
    return list(in_chunks(table, until_ms=UNTIL_MS, day=None))


async def measure(bars: int = 480) -> dict[str, float]:
    """Return seconds of the whole, of the longest turn of the engine thread, and the longest the loop was late."""
    engine, loop, late = Engine(), asyncio.get_running_loop(), [0.0]
    engine.step(RULES)
    parts = [(period, history(period, bars)) for period in PERIODS]

    async def watch() -> None:
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late.append(loop.time() - due)

    watching = asyncio.ensure_future(watch())
    turns: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        began = time.perf_counter()
        for _, some in parts:
            for one in some:
                at = time.perf_counter()
                await loop.run_in_executor(thread, engine.step, one)
                turns.append(time.perf_counter() - at)
        whole = time.perf_counter() - began
    watching.cancel()
    return {"whole_s": whole, "longest_turn_s": max(turns), "loop_late_s": max(late), "turns": len(turns)}


def main() -> None:
    found = asyncio.run(measure())
    print(f"chunks of {CHUNK}: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
