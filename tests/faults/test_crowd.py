"""50 of 500 clients never read: the others hear in time, those are cut soon, and memory does not grow by much."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog

from tests.acceptance.daemon import ROOT
from tests.faults.counts import LONG, count
from tests.monitord.gateway.stand import Stand, standing, until

pytestmark = pytest.mark.acceptance

CLIENTS, DEAF = 500, 50
SECONDS = count("crowd_seconds", ci=8, long=120)
BURST, BURSTS_PER_S = 8, 5
SEND_BUFFER_BYTES = 8_192
"""Of a connection in the kernel: once it is full, somebody has to wait."""
CUT_WITHIN_S, GROWTH_BYTES, P99_S = 10.0, 64_000_000, 0.1


def resident_bytes() -> int:
    """Return the memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Crowd:
    """The clients' process."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.crowd", str(self._port), str(CLIENTS - DEAF), str(DEAF),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=2**30,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"

    async def account(self) -> dict[str, object]:
        out, _ = await self._process.communicate(b"")  # closes its stdin
        return dict(json.loads(out))

    async def ended(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def burst_after_burst(stand: Stand) -> tuple[dict[int, int], float, int]:
    """Publish for SECONDS, on a slow machine until the deaf are cut.

    Return when each offset was published, when the last deaf one was cut, and memory's peak.
    """
    loop, published_ns = asyncio.get_running_loop(), dict[int, int]()
    began, cut_s, peak = loop.time(), float("inf"), 0
    for number in range(3 * SECONDS * BURSTS_PER_S):
        if number >= SECONDS * BURSTS_PER_S and cut_s < float("inf"):
            break
        await asyncio.sleep(max(0.0, began + number / BURSTS_PER_S - loop.time()))
        now_ns = time.monotonic_ns()
        published_ns |= {stand.alerts.newest + one: now_ns for one in range(1, BURST + 1)}
        stand.alerts.publish(BURST)
        peak = max(peak, resident_bytes())
        if stand.gateway.clients == CLIENTS - DEAF:
            cut_s = min(cut_s, loop.time() - began)
    return published_ns, cut_s, peak


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep a line for each of the deaf out of the output."""
    with structlog.testing.capture_logs():
        yield


async def test_who_does_not_read_is_cut_and_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitord.gateway.outlet.SEND_BYTES", SEND_BUFFER_BYTES)
    async with standing(max_clients=CLIENTS + 1) as stand:
        crowd = Crowd(stand.port)
        try:
            await crowd.start()
            await until(lambda: sum(bool(one.live) for one in stand.gateway.hub.followers) == CLIENTS, within_s=30)
            before = resident_bytes()
            published_ns, cut_s, peak = await burst_after_burst(stand)
            newest = stand.alerts.newest
            await until(lambda: not any(one.outlet.behind_bytes for one in stand.gateway.hub.followers), within_s=30)
            await asyncio.sleep(0.2)  # from the kernel to who reads it
            seen = await crowd.account()
        finally:
            await crowd.ended()
        closed = stand.gateway.counters()["closed_4008"]
    assert (seen["gaps"], seen["ended"]) == (0, 0), "none of those that read was cut"
    assert seen["offs"] == [newest] * (CLIENTS - DEAF)
    assert (closed, seen["deaf_cut"]) == (DEAF, DEAF)
    heard_ns: list[dict[str, int]] = seen["heard_ns"]  # type: ignore[assignment]
    late_s = np.array([[(one[str(off)] - at) / 1e9 for off, at in published_ns.items()] for one in heard_ns])
    p99 = float(np.percentile(late_s, 99))
    each_second = [
        float(np.percentile(part, 99))
        for part in np.array_split(late_s, late_s.shape[1] // (BURST * BURSTS_PER_S), axis=1)
    ]
    print(
        f"p99 {p99 * 1000:.1f} ms of {late_s.size} ({[round(one * 1000) for one in each_second]} second by second), "
        f"cut after {cut_s:.1f} s, {(peak - before) / 1e6:.1f} MB more"
    )
    assert cut_s <= CUT_WITHIN_S
    assert peak - before < GROWTH_BYTES
    # In the first second the deaf have room in their buffers yet, so it tells how busy the machine is:
    # beside other tests on two cores, whole seconds belong to those.
    bound_s = P99_S if LONG else max(P99_S, 2 * each_second[0])
    assert (p99 if LONG else float(np.percentile(each_second[1 : round(cut_s)], 25))) < bound_s
