"""Publishers with a share each on one stream: one epoch for all, no alert lost by another's doing, none twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import fakeredis
import pytest

from monitord import pump as pump_module
from monitord.pump import Pump
from monitord.store import Store
from notifiers.alertstream import Behind, Fenced, Outgoing, Receipt
from notifiers.channel import AlertChannel
from rules.alert import Alert, Event


def alert(number: int) -> Alert:
    return Alert(
        id=f"al_{number}", episode_id="ep", event=Event.FIRE, rule="brk", rev="r", symbol="600519.SH",
        trade_date="2023-02-01", episode=number, ts_event_ms=number, period="tick",
    )  # fmt: skip


def outgoing(*numbers: int) -> list[Outgoing]:
    return [Outgoing(f"al_{n}", b'{"id":"al_%d"}' % n, None, "brk", "page") for n in numbers]


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
async def channel(server: fakeredis.FakeServer) -> AsyncIterator[Callable[[str], AlertChannel]]:
    made: list[AlertChannel] = []

    def make(share: str) -> AlertChannel:
        made.append(AlertChannel("", share=share, connect=lambda: fakeredis.FakeAsyncRedis(server=server)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


class Engine:
    """What one engine has of its own: store, share and pump."""

    def __init__(self, store: Store, channel: AlertChannel) -> None:
        self.store, self.channel = store, channel
        self.pump = Pump(store, channel, check_s=0.01)

    async def publish(self, *numbers: int) -> None:
        """Commit these events and let the pump run until they are told."""
        await self.store.commit([alert(n) for n in numbers], offset=max(numbers, default=0))
        self.pump = Pump(self.store, self.channel, check_s=0.01)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.pump.run())
            assert await self.pump.drain(10.0) == 0
            running.cancel()


@pytest.fixture
async def engines(tmp_path: Path, channel: Callable[[str], AlertChannel]) -> AsyncIterator[tuple[Engine, Engine]]:
    async with AsyncExitStack() as cleanup:
        made = []
        for share in ("0/2", "1/2"):
            store = await Store.open(tmp_path / share[0] / "monitord.sqlite")
            cleanup.push_async_callback(store.close)
            of_share = channel(share)
            await of_share.claim()
            made.append(Engine(store, of_share))
        yield made[0], made[1]


async def told(reader: AlertChannel) -> list[tuple[str, int, str]]:
    """Return (epoch, offset, id) of all that the stream holds."""
    return [
        (e.epoch, e.off, e.alert_json.split(b'"id":"')[1].split(b'"')[0].decode()) for e in await reader.read(after=0)
    ]


async def ids(reader: AlertChannel, *, epoch: str | None = None) -> list[str]:
    return [name for of, _, name in await told(reader) if epoch in (None, of)]


async def lose_tail(server: fakeredis.FakeServer, *, top: int, own: dict[str, int]) -> None:
    """Put the broker back to where it was at offset `top`, as a truncated log does."""
    redis = fakeredis.FakeAsyncRedis(server=server)
    for entry, fields in await redis.xrange("mon:{alerts}:stream", min=f"{top + 1}-0"):
        await redis.xdel("mon:{alerts}:stream", entry)
        name = fields[b"alert"].split(b'"id":"')[1].split(b'"')[0].decode()
        await redis.delete(f"mon:{{alerts}}:dedup:{name}")
    kept = await redis.xrange("mon:{alerts}:stream")
    await redis.delete("mon:{alerts}:stream")
    for entry, fields in kept:
        await redis.xadd("mon:{alerts}:stream", fields, id=entry)
    await redis.hset("mon:{alerts}:meta", mapping={"top": top, **{f"top:{share}": off for share, off in own.items()}})
    await redis.aclose()


async def test_both_publish_in_one_epoch_with_contiguous_offsets(engines: tuple[Engine, Engine]) -> None:
    a, b = engines
    for n in range(0, 20, 2):
        await a.publish(n)
        await b.publish(n + 1)
    found = await told(a.channel)
    assert [off for _, off, _ in found] == list(range(1, 21))
    assert len({epoch for epoch, _, _ in found}) == 1
    assert [name for _, _, name in found] == [f"al_{n}" for n in range(20)]
    assert (a.pump.counters()["redrives"], b.pump.counters()["redrives"]) == (0, 0)


async def test_both_at_once_lose_and_double_nothing(engines: tuple[Engine, Engine]) -> None:
    a, b = engines
    await asyncio.gather(a.publish(*range(0, 600, 2)), b.publish(*range(1, 600, 2)))
    found = await told(a.channel)
    found += [(e.epoch, e.off, "") for e in await a.channel.read(after=500)]
    assert [off for _, off, _ in found] == list(range(1, 601))
    assert len({epoch for epoch, _, _ in found}) == 1


async def test_a_wiped_broker_is_redriven_by_both_into_one_epoch(
    engines: tuple[Engine, Engine], server: fakeredis.FakeServer
) -> None:
    a, b = engines
    await a.publish(0, 2, 4)
    await b.publish(1, 3)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.flushall()
    await redis.aclose()
    await b.publish(5)
    await a.publish(6)
    await b.publish(7)
    epoch, top = await a.channel.top()
    assert sorted(await ids(a.channel)) == [f"al_{n}" for n in range(8)]
    assert {of for of, _, _ in await told(a.channel)} == {epoch}
    assert [off for _, off, _ in await told(a.channel)] == list(range(top - 7, top + 1))
    assert (a.pump.counters()["redrives"], b.pump.counters()["redrives"]) == (1, 0), "b began it before, a joined"


async def test_a_lost_tail_is_seen_although_the_other_has_filled_it_since(
    engines: tuple[Engine, Engine], server: fakeredis.FakeServer
) -> None:
    """The top says nothing: the other's alerts got the very offsets of those that were lost."""
    a, b = engines
    await b.publish(1)
    await a.publish(0, 2, 4)
    (before, _) = await a.channel.top()
    await lose_tail(server, top=2, own={"0/2": 2, "1/2": 1})
    await b.publish(3, 5, 7)
    assert await a.channel.top() == (before, 5)
    await a.publish(6)
    epoch, _ = await a.channel.top()
    assert epoch != before
    await b.publish(9)
    assert sorted(await ids(a.channel, epoch=epoch)) == [f"al_{n}" for n in (0, 1, 2, 3, 4, 5, 6, 7, 9)]
    offs = [off for of, off, _ in await told(a.channel) if of == epoch]
    assert offs == list(range(6, 15))


async def test_an_idle_publisher_sees_the_loss_of_its_own_and_joins_the_others_new_epoch(
    engines: tuple[Engine, Engine], server: fakeredis.FakeServer
) -> None:
    a, b = engines
    await a.publish(0, 2)
    await b.publish(1)
    await lose_tail(server, top=1, own={"0/2": 1, "1/2": 0})
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(Pump(one.store, one.channel, check_s=0.01).run()) for one in engines]
        async with asyncio.timeout(10):
            while len({name for of, _, name in await told(a.channel) if of == (await a.channel.top())[0]}) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for task in running:
            task.cancel()
    epochs = {of for of, _, _ in await told(a.channel)}
    assert len(epochs) == 2, "one new epoch, not one for each"


async def test_offsets_given_for_the_second_time_are_noticed_while_their_owner_is_away(
    engines: tuple[Engine, Engine], server: fakeredis.FakeServer
) -> None:
    a, b = engines
    await b.publish(1)
    await a.publish(0, 2)
    pump = Pump(b.store, b.channel, check_s=0.01)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(pump.run())
        async with asyncio.timeout(10):
            while pump._seen[1] < 3:  # noqa: ASYNC110  # it has looked, and saw what the other had there
                await asyncio.sleep(0.005)
            await lose_tail(server, top=1, own={"0/2": 0, "1/2": 1})
            while pump.counters()["redrives"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            epoch, _ = await a.channel.top()
            while await ids(a.channel, epoch=epoch) != ["al_1"]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        running.cancel()
    assert [off for of, off, _ in await told(a.channel) if of == epoch] == [4], "none of the offsets up to 3 again"
    await a.publish(4)
    assert sorted(await ids(a.channel, epoch=epoch)) == ["al_0", "al_1", "al_2", "al_4"]


async def test_an_older_epoch_than_ours_is_not_joined(
    engines: tuple[Engine, Engine], server: fakeredis.FakeServer
) -> None:
    """A broker restored from a backup: what was told behind it under that epoch's name is unknown here."""
    a, _ = engines
    await a.publish(0)
    first, _ = await a.channel.top()
    second, base = await a.channel.begin_epoch(acked=1)
    await a.store.begin_epoch(second, base=base)
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.hset("mon:{alerts}:meta", mapping={"epoch": first, "top": 1, "base": 0})
    await redis.aclose()
    await a.publish(2)
    third, _ = await a.channel.top()
    assert len({first, second, third}) == 3
    assert [epoch.split("-")[0] for epoch in (first, second, third)] == ["1", "2", "3"]


async def test_who_comes_new_joins_the_epoch_there_is(channel: Callable[[str], AlertChannel]) -> None:
    a, b = channel("0/2"), channel("1/2")
    epoch, _ = await a.begin_epoch(acked=0, ours="")
    assert await a.publish(outgoing(1, 2), epoch=epoch, acked=0) == [Receipt(1, False), Receipt(2, False)]
    assert await b.begin_epoch(acked=0, ours="") == (epoch, 0)
    assert await b.publish(outgoing(3), epoch=epoch, acked=0) == [Receipt(3, False)]
    with pytest.raises(Behind, match="top 3"):
        await b.publish(outgoing(4), epoch=epoch, acked=4)
    assert (await a.kept())[1] == 2
    assert (await b.kept())[1] == 3


async def test_a_fence_the_broker_lost_stands_again_with_the_next_alert(
    channel: Callable[[str], AlertChannel], server: fakeredis.FakeServer
) -> None:
    old, new = channel("0/2"), channel("0/2")
    await old.claim()
    await new.claim()
    redis = fakeredis.FakeAsyncRedis(server=server)
    await redis.flushall()
    await redis.aclose()
    epoch, _ = await new.begin_epoch(acked=0, ours="")
    await new.publish(outgoing(1), epoch=epoch, acked=0)
    with pytest.raises(Fenced, match="token 1, the share is held with token 2"):
        await old.publish(outgoing(2), epoch=epoch, acked=0)


async def test_a_zombie_with_nothing_to_tell_is_fenced_as_well(
    engines: tuple[Engine, Engine], channel: Callable[[str], AlertChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "FIRST_PAUSE_S", 0.001)
    a, _ = engines
    await a.publish(0)
    await channel("0/2").claim()
    async with asyncio.timeout(10):
        with pytest.raises(Fenced, match="the share 0/2 is held with token 2, ours is 1"):
            await Pump(a.store, a.channel, check_s=0.01).run()
