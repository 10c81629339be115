"""Connections are cut and the broker is killed while alerts flow: whoever follows has every alert once, in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from redis.exceptions import RedisError

from monitord.broker import EmbeddedBroker
from notifiers.channel import connect_to
from tests.acceptance.daemon import Daemon
from tests.acceptance.follower import DocumentedClient, DocumentedConsumer, Follower, outbox_of

pytestmark = pytest.mark.acceptance

CUTS = int(os.environ.get("MONITORD_TEST_CUTS", "40"))
BROKER_KILLS = int(os.environ.get("MONITORD_TEST_BROKER_KILLS", "10"))
CONSUMER_KILLS = 4
LOST_BYTES = 50_000
"""What a power cut takes off the end of the broker's file: some 50 alerts."""
LONGEST_S = 300.0
"""How long anything may take on a slow machine before the test gives up."""
LEVELS = (-2, -1.5, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 1.5, 2)


def rule_file(**conditions: str) -> str:
    """Write an edge rule for each condition, which fires as often as it comes true."""
    lines = [
        f'  - {{id: {name}, select: all, when: "{when}", rearm: "NOT ({when})", freq: always}}'
        for name, when in conditions.items()
    ]
    return "\n".join(["version: 1", "groups:", "- name: mine", "  rules:", *lines, ""])


def free_port() -> int:
    """Return a port that nobody listens on now: a client of the documents comes back to where it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Run a daemon that decides some 50 alerts a second, and a thousand at its start."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(**{f"level{at}": f"PCT > {level}" for at, level in enumerate(LEVELS)}))
    daemon = Daemon(
        tmp_path / "d",
        {
            "rules.files": rules,
            "feed.simulated.symbols": 300,
            "feed.simulated.speed": 60,
            "feed.simulated.start": "10:30:00",
            "engine.checkpoint_s": 2,
            "gateway.allow_loopback_without_token": True,
            "gateway.port": free_port(),
        },
    )
    await daemon.start()
    try:
        await daemon.listening()
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.returncode is None:
            await daemon.interrupt()


@pytest.fixture
async def consumer(daemon: Daemon, tmp_path: Path) -> AsyncIterator[DocumentedConsumer]:
    """Run the documented consumer beside the daemon."""
    consumer = DocumentedConsumer(tmp_path, broker_of(daemon).url)
    await consumer.start()
    yield consumer
    await consumer.kill()


def broker_of(daemon: Daemon) -> EmbeddedBroker:
    """Return the daemon's broker, for its address."""
    return EmbeddedBroker(daemon.state_dir / "broker")


async def broker_pid(daemon: Daemon) -> int:
    """Return the pid of the broker as soon as it answers."""
    async with asyncio.timeout(20):
        while True:
            redis = connect_to(broker_of(daemon).url)
            with suppress(RedisError, OSError):
                return int((await redis.info("server"))["process_id"])
            await redis.aclose()
            await asyncio.sleep(0.02)


async def kill_broker(daemon: Daemon) -> None:
    """Kill -9 the broker and wait for its death: until then it may still write; a stopped parent leaves a zombie."""
    pid = await broker_pid(daemon)
    os.kill(pid, signal.SIGKILL)

    async def is_dead() -> bool:
        return not lives(pid)

    await daemon.until("the broker was dead", is_dead)


def lives(pid: int) -> bool:
    """Tell whether a process still runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def broker_file(daemon: Daemon) -> Path:
    """Return the file that the broker appends its writes to."""
    (file,) = (daemon.state_dir / "broker" / "appendonlydir").glob("*.incr.aof")
    return file


async def kill_brokers(daemon: Daemon, chance: random.Random) -> set[int]:
    """Kill -9 the broker again and again, each time another process; return their pids."""
    killed: set[int] = set()
    while len(killed) < BROKER_KILLS:
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        pid = await broker_pid(daemon)
        assert pid not in killed
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    return killed


async def kill_consumers(consumer: DocumentedConsumer, chance: random.Random) -> None:
    for _ in range(CONSUMER_KILLS):
        await asyncio.sleep(chance.uniform(1.0, 3.0))
        await consumer.kill()
        await consumer.start()


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[DocumentedClient]:
    """Run the documented WebSocket client beside the daemon."""
    client = DocumentedClient(daemon.addresses()[-1])
    running = asyncio.create_task(client.run())
    yield client
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def silence(daemon: Daemon) -> None:
    Path(str(daemon.settings["rules.files"])).write_text(rule_file(never="LAST < 0"))


async def come_to_rest(
    daemon: Daemon, follower: Follower, consumer: DocumentedConsumer, client: DocumentedClient
) -> None:
    """Stop the daemon, start it with a rule that never fires, and wait until all has been told; then stop it."""
    assert await daemon.interrupt() == 0, daemon.tail()
    silence(daemon)
    await daemon.start()
    address = await daemon.listening()

    async def all_told() -> bool:
        async with aiohttp.ClientSession(address) as session, session.get("/v1/alerts?page_size=1") as response:
            newest = await response.json()
        got = {len(follower.told), len(consumer.rows()), len(client.ids)}
        return got == {newest["total"]} and newest["alerts"][0]["off"] is not None

    following = asyncio.create_task(follow_until_ended(follower))
    await daemon.until("all was told", all_told, LONGEST_S)  # a client that was refused waits up to 30 s
    assert await daemon.interrupt() == 0, daemon.tail()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def follow_until_ended(follower: Follower) -> None:
    while True:
        await follower.follow(3600)


async def follow_until(follower: Follower, reached: Callable[[], bool]) -> None:
    """Follow, cut once a second, until something is so, however long a slow machine takes to get there."""
    async with asyncio.timeout(LONGEST_S):
        while not reached():
            await follower.follow(1.0)


def has_seen_enough(follower: Follower) -> bool:
    """Tell whether a test of cuts is worth its name: many cuts, and alerts that came after them."""
    return follower.counts["cuts"] >= CUTS and follower.counts["replayed"] > 100 and len(follower.told) > 500


async def cut_again_and_again(follower: Follower, chance: random.Random, storm_is_over: Callable[[], bool]) -> int:
    """Follow and be cut until all is over and enough was seen; return in how many connections alerts had come."""
    fruitful = 0
    while fruitful <= CUTS / 2 or not has_seen_enough(follower) or not storm_is_over():
        before = len(follower.told)
        await follower.follow(chance.uniform(0.1, 0.4), deaf_s=chance.choice((0, 0.1)), reset=chance.random() < 0.5)
        fruitful += len(follower.told) > before
        await asyncio.sleep(chance.choice((0, 0.2)))
    return fruitful


async def test_cut_clients_and_consumers_have_every_alert_once_in_order_whatever_dies(
    daemon: Daemon, consumer: DocumentedConsumer, client: DocumentedClient
) -> None:
    chance = random.Random(3)
    follower = Follower(daemon)
    async with asyncio.timeout(LONGEST_S + 3 * (CUTS + BROKER_KILLS)), asyncio.TaskGroup() as storm:
        killing = storm.create_task(kill_brokers(daemon, chance))
        rough = storm.create_task(kill_consumers(consumer, chance))
        cutting = storm.create_task(cut_again_and_again(follower, chance, lambda: killing.done() and rough.done()))
    in_the_storm = len(follower.told)
    await come_to_rest(daemon, follower, consumer, client)

    decided = outbox_of(daemon.state_dir)
    ids = [alert_id for alert_id, _, _ in decided]
    print(f"{len(killing.result())} kills, {dict(follower.counts)}, {len(ids)} alerts, {in_the_storm} in the storm")
    assert len(killing.result()) == BROKER_KILLS
    assert follower.counts["cuts"] >= CUTS
    assert cutting.result() > CUTS / 2, "too few alerts for a test of cuts"
    assert follower.counts["replayed"] > 100
    assert in_the_storm > 500
    assert list(follower.told) == ids
    assert follower.counts["notice_shutdown"] >= 1
    check_places(follower, decided)
    check_consumer(consumer, ids)
    assert client.ids == ids


def check_places(follower: Follower, decided: list[tuple[str, str | None, int | None]]) -> None:
    """Compare where alerts were seen with where they were stored, and offsets with a count; over epochs only order."""
    places = [place for place in follower.told.values() if place[1] is not None]
    if len(follower.epochs) == 1:
        assert places == [(epoch, off) for _, epoch, off in decided]
        assert [off for _, off in places] == list(range(1, len(decided) + 1))
    else:
        assert [off for _, off in places] == sorted({off for _, off in places if off is not None})
        assert follower.counts["told_of_a_gap"] > 0


def check_consumer(consumer: DocumentedConsumer, ids: list[str]) -> None:
    rows = consumer.rows()
    offsets = [off for _, off, _ in rows]
    assert [alert_id for alert_id, _, _ in rows] == ids
    assert offsets == sorted(set(offsets)), "first deliveries out of the stream's order"


def ends_of(follower: Follower) -> int:
    """Return how many connections have come to stand and were cut, or were ended by a hole in the stream."""
    return follower.counts["cuts"] + follower.counts["closed_4010"]


async def test_a_broker_that_lost_its_last_writes_is_told_of_and_nothing_is_missing(
    daemon: Daemon, consumer: DocumentedConsumer, client: DocumentedClient
) -> None:
    """What a power cut does to a broker that syncs every second: its file ends in the middle of a command."""
    follower = Follower(daemon)
    await follow_until(
        follower, lambda: len(follower.told) > 500 and broker_file(daemon).stat().st_size > 4 * LOST_BYTES
    )
    before, ends = len(follower.told), ends_of(follower)
    assert ends >= 1
    with daemon.held():  # else it would start the next broker before the file is cut short
        await kill_broker(daemon)
        file = broker_file(daemon)
        os.truncate(file, file.stat().st_size - LOST_BYTES)
    await follow_until(follower, lambda: ends_of(follower) > ends and len(follower.epochs) == 2)
    await come_to_rest(daemon, follower, consumer, client)

    decided = outbox_of(daemon.state_dir)
    ids = [alert_id for alert_id, _, _ in decided]
    redrives = daemon.events("redrive")
    print(f"{before} before, {dict(follower.counts)}, {len(ids)} alerts, redrives {redrives}")
    assert len(redrives) == 1
    assert follower.counts["told_of_a_gap"] >= 1
    assert list(follower.told) == ids
    assert {epoch for _, epoch, _ in decided} == {follower.epochs[-1]}
    check_places(follower, decided)
    check_consumer(consumer, ids)
    assert client.ids == ids
