"""The JavaScript client of docs/websocket.md, run by Node: it resumes after cuts, and handles every alert once."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.monitord.gateway.stand import Stand, standing, until

DOCUMENT = Path(__file__).parents[3] / "docs" / "websocket.md"
MAIN = """
import { follow } from "./client.mjs";
follow(process.argv[2], (alert) => console.log(alert.id));
"""


def node() -> str:
    """Return the path of a Node whose WebSocket the client may use; skips where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node on the PATH")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"node {version.strip()} has no WebSocket")
    return found


@asynccontextmanager
async def following(stand: Stand, folder: Path) -> AsyncIterator[asyncio.Queue[str]]:
    """Run the documented client; yield the ids it handles."""
    found = re.search(r"```js\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (folder / "client.mjs").write_text(found[1])
    (folder / "main.mjs").write_text(MAIN)
    program = await asyncio.create_subprocess_exec(
        node(), "--experimental-websocket", str(folder / "main.mjs"), stand.gateway.address,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert program.stdout is not None
    ids: asyncio.Queue[str] = asyncio.Queue()

    async def read(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            ids.put_nowait(line.decode().strip())

    reading = asyncio.create_task(read(program.stdout))
    try:
        yield ids
    finally:
        program.kill()
        await program.wait()
        await reading


async def heard(ids: asyncio.Queue[str], count: int) -> list[str]:
    async with asyncio.timeout(20):
        return [await ids.get() for _ in range(count)]


async def test_it_resumes_after_every_cut_and_handles_each_alert_once(tmp_path: Path) -> None:
    async with standing() as stand, following(stand, tmp_path) as ids:
        for cut in range(4):
            hub = stand.gateway.hub
            await until(lambda hub=hub: any(follower.live for follower in hub.followers), within_s=20)
            stand.alerts.publish(5)
            assert await heard(ids, 5) == [f"al_{6 * cut + number}" for number in range(1, 6)]
            for follower in set(hub.followers):
                follower.outlet.abort()
            await until(lambda hub=hub: not any(follower.live for follower in hub.followers))
            stand.alerts.publish()  # while it is away
            assert await heard(ids, 1) == [f"al_{6 * cut + 6}"]
        assert ids.empty()


async def test_what_is_not_kept_any_more_comes_out_of_the_history(tmp_path: Path) -> None:
    async with standing(ring_size=2) as stand:
        stand.alerts.publish(3)
        await stand.caught_up(3)
        stand.alerts.trim(below=3)
        async with following(stand, tmp_path) as ids:
            assert await heard(ids, 3) == ["al_1", "al_2", "al_3"]
            stand.alerts.publish()
            assert await heard(ids, 1) == ["al_4"]
