"""Clients are cut, brokers and consumers killed while alerts flow, and at the end the broker loses its last writes."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from monitord.broker import EmbeddedBroker
from tests.faults.counts import LONG, count
from tests.faults.followers import DocumentedClient, DocumentedConsumer, Follower
from tests.faults.lives import ForkedDaemon
from tests.faults.sessions import (
    SILENT,
    broker_pid,
    histories_of,
    judged,
    kill_and_see_it_die,
    levels,
    published_in,
    rule_file,
)

pytestmark = pytest.mark.acceptance

CLIENTS = count("cut_clients", ci=50, long=500)
CUTS = count("cuts", ci=20, long=200)
BROKER_KILLS = count("broker_kills", ci=5, long=100)
CONSUMER_KILLS = 4
LOST_BYTES = 20_000
"""What a power cut takes off the end of the broker's file: some 20 alerts."""
SPEED = 10 if LONG else 60
"""500 clients hear 60 market seconds a second no longer than some minutes, or the memory of what they heard is full."""
LONGEST_S = 900.0 if LONG else 300.0
"""How long anything may take on a slow machine before the test gives up: 500 clients page the history of thousands."""
ENTERING = 8
"""Clients that come to stand at the same time. A handshake costs both sides some ms: were all 500 at it, each would be
cut before it stands, and the loop of the clients would be seconds late."""


def free_port() -> int:
    """Return a port that nobody listens on now: a client of the documents comes back to where it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ForkedDaemon]:
    """Run a daemon that decides some 20 alerts a second, and 300 at its start."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(*levels(-1, -0.5, 0, 0.5, 1)))
    daemon = ForkedDaemon(
        tmp_path / "d",
        {
            "rules.files": rules,
            "feed.simulated.symbols": 200,
            "feed.simulated.speed": SPEED,
            "feed.simulated.start": "10:30:00",
            "engine.checkpoint_s": 2,
            "broker.strict": True,  # else a kill may cost it what it acknowledged: another redrive
            "gateway.allow_loopback_without_token": True,
            "gateway.port": free_port(),
        },
    )
    await daemon.start()
    await daemon.listening()
    yield daemon
    await daemon.ended()


@pytest.fixture
async def consumer(daemon: ForkedDaemon, tmp_path: Path) -> AsyncIterator[DocumentedConsumer]:
    """Run the documented consumer beside the daemon."""
    consumer = DocumentedConsumer(tmp_path, broker_url(daemon))
    await consumer.start()
    yield consumer
    await consumer.kill()


@pytest.fixture
async def client(daemon: ForkedDaemon) -> AsyncIterator[DocumentedClient]:
    """Run the documented WebSocket client beside the daemon."""
    client = DocumentedClient(daemon.addresses()[-1])
    running = asyncio.create_task(client.run())
    yield client
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def broker_url(daemon: ForkedDaemon) -> str:
    return EmbeddedBroker(daemon.state_dir / "broker").url


async def kill_brokers(daemon: ForkedDaemon, chance: random.Random) -> int:
    """Kill -9 the broker again and again, each time another process; return how many."""
    killed: set[int] = set()
    while len(killed) < BROKER_KILLS:
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        pid = await broker_pid(broker_url(daemon))
        assert pid not in killed
        await kill_and_see_it_die(pid)
        killed.add(pid)
    return len(killed)


async def kill_consumers(consumer: DocumentedConsumer, chance: random.Random) -> None:
    for _ in range(CONSUMER_KILLS):
        await asyncio.sleep(chance.uniform(1.0, 2.0))
        await consumer.kill()
        await consumer.start()


async def cut_again_and_again(follower: Follower, chance: random.Random) -> None:
    """Follow and be cut, by FIN or RST, hearing the end or deaf to it, until it has come to stand often enough."""
    while follower.counts["cuts"] < CUTS:
        await follower.follow(chance.uniform(0.1, 0.5), deaf_s=chance.choice((0, 0.1)), reset=chance.random() < 0.5)
        await asyncio.sleep(chance.choice((0, 0.2)))


async def follow_until(follower: Follower, reached: Callable[[], bool]) -> None:
    """Follow, cut once a second, until something is so, however long a slow machine takes to get there."""
    async with asyncio.timeout(LONGEST_S):
        while not reached():
            await follower.follow(1.0)


async def lose_the_last_writes(daemon: ForkedDaemon, followers: list[Follower]) -> None:
    """Do what a power cut does to a broker that syncs every second: its file ends in the middle of a command."""
    ends = [ends_of(one) for one in followers]
    with daemon.held():  # else it would start the next broker before the file is cut short
        await kill_and_see_it_die(await broker_pid(broker_url(daemon)))
        (file,) = (daemon.state_dir / "broker" / "appendonlydir").glob("*.incr.aof")
        os.truncate(file, file.stat().st_size - LOST_BYTES)
    for follower, before in zip(followers, ends, strict=True):
        await follow_until(follower, lambda: ends_of(follower) > before and follower.counts["told_of_a_gap"] > 0)  # noqa: B023


def ends_of(follower: Follower) -> int:
    """Return how many connections have come to stand and were cut, or were ended by a hole in the stream."""
    return follower.counts["cuts"] + follower.counts["closed_4010"]


async def come_to_rest(
    daemon: ForkedDaemon, followers: list[Follower], consumer: DocumentedConsumer, client: DocumentedClient
) -> None:
    """Stop the daemon, start it with a rule that never fires, and wait until all has been told; then stop it."""
    assert await daemon.interrupt() == 0, daemon.tail()
    await asyncio.to_thread(Path(str(daemon.settings["rules.files"])).write_text, SILENT)
    await daemon.start()
    address = await daemon.listening()

    async def all_told() -> bool:
        async with aiohttp.ClientSession(address) as session, session.get("/v1/alerts?page_size=1") as response:
            newest = await response.json()
        got = {*(len(one.told) for one in followers), len(consumer.rows()), len(client.ids)}
        return got == {newest["total"]} and newest["alerts"][0]["off"] is not None

    following = [asyncio.create_task(one.run()) for one in followers]
    await daemon.until("all was told", all_told, LONGEST_S)  # a client that was refused waits up to 30 s
    assert await daemon.interrupt() == 0, daemon.tail()
    for task in following:
        task.cancel()


async def test_cut_clients_and_consumers_have_every_alert_once_in_order_whatever_dies(
    daemon: ForkedDaemon, consumer: DocumentedConsumer, client: DocumentedClient
) -> None:
    chance = random.Random(3)
    entrance = asyncio.Semaphore(ENTERING)
    followers = [Follower(daemon, entrance=entrance) for _ in range(CLIENTS)]
    async with (
        asyncio.timeout(LONGEST_S + 3 * (CUTS + BROKER_KILLS) + CLIENTS * CUTS / 50),
        asyncio.TaskGroup() as storm,
    ):
        killing = storm.create_task(kill_brokers(daemon, chance))
        storm.create_task(kill_consumers(consumer, chance))
        for follower in followers:
            storm.create_task(cut_again_and_again(follower, random.Random(chance.random())))
    in_the_storm = len(followers[0].told)
    await lose_the_last_writes(daemon, followers[:2])
    redrives = daemon.events("redrive")
    await come_to_rest(daemon, followers, consumer, client)

    names = {f"client{number}": follower for number, follower in enumerate(followers)}
    histories = await histories_of(daemon, await published_in(daemon.state_dir), followers=names)
    report = judged(histories)
    counts = sum((follower.counts for follower in followers), start=type(followers[0].counts)())
    print(f"{killing.result()} broker kills, {dict(counts)}, {in_the_storm} alerts in the storm, redrives {redrives}")
    assert killing.result() == BROKER_KILLS
    assert min(follower.counts["cuts"] for follower in followers) >= CUTS
    assert counts["replayed"] > 20 * CLIENTS
    assert in_the_storm > 300
    assert (len(redrives), report.sizes["epochs"]) == (1, 2)
    assert min(follower.counts["told_of_a_gap"] for follower in followers) >= 1
    assert counts["notice_shutdown"] >= 1
    ids = [one.id for one in histories.committed]
    assert client.ids == ids
    check_consumer(consumer, ids)


def check_consumer(consumer: DocumentedConsumer, ids: list[str]) -> None:
    rows = consumer.rows()
    offsets = [off for _, off, _ in rows]
    assert [alert_id for alert_id, _, _ in rows] == ids
    assert offsets == sorted(set(offsets)), "first deliveries out of the stream's order"
