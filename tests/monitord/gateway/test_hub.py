"""The hub: how it starts over, and what it tells of what was published in its own process."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
import pytest

from monitord.gateway.hub import Hub
from monitord.gateway.protocol import Position
from notifiers import alertstream
from notifiers.errors import DeliveryError
from tests.monitord.gateway.stand import EPOCH, FakeAlerts, record, standing, until


async def running(hub: Hub) -> asyncio.Task[None]:
    task = asyncio.create_task(hub.run())
    await until(lambda: hub.kept.top is not None or task.done())
    return task


async def test_a_run_that_failed_goes_on_where_it_was() -> None:
    alerts = FakeAlerts()
    hub = Hub(alerts, ring_size=100)  # type: ignore[arg-type]
    task = await running(hub)
    alerts.publish(5)
    await until(lambda: hub.kept.top == Position(EPOCH, 5))
    alerts.streams[0].queue.put_nowait(DeliveryError("lost"))
    with pytest.raises(DeliveryError):
        await task
    assert alerts.streams == []
    alerts.publish(5)
    task = await running(hub)
    await until(lambda: hub.kept.top == Position(EPOCH, 10))
    assert hub.counters["gaps"] == 0
    assert hub.counters["alerts"] == 10
    task.cancel()


async def test_a_stream_that_cannot_be_read_at_the_start_leaves_an_empty_ring() -> None:
    alerts = FakeAlerts()
    alerts.publish(5)
    alerts.down = True
    hub = Hub(alerts, ring_size=100)  # type: ignore[arg-type]
    task = await running(hub)
    assert hub.kept.top == Position(EPOCH, 5)
    alerts.down = False
    start = await hub.kept.locate("alerts", Position(EPOCH, 2))
    assert (start.recovered, start.replayed) == (True, 3)
    task.cancel()


async def test_a_record_that_cannot_be_read_takes_its_place_and_is_counted() -> None:
    alerts = FakeAlerts()
    hub = Hub(alerts, ring_size=100)  # type: ignore[arg-type]
    task = await running(hub)
    hub.take(alertstream.Envelope(1, EPOCH, b"rubbish"))
    hub.take(alertstream.Envelope(2, EPOCH, record(2)))
    assert hub.kept.top == Position(EPOCH, 2)
    assert hub.counters["unreadable"] == 1
    assert hub.counters["gaps"] == 0
    task.cancel()


async def test_an_envelope_that_comes_again_is_dropped() -> None:
    hub = Hub(FakeAlerts(), ring_size=10)  # type: ignore[arg-type]
    task = await running(hub)
    for off in (1, 2, 2, 1, 3):
        hub.take(alertstream.Envelope(off, EPOCH, record(off)))
    assert hub.kept.top == Position(EPOCH, 3)
    assert hub.counters["alerts"] == 3
    task.cancel()


async def test_a_client_that_is_let_go_at_a_gap_hears_nothing_from_behind_it() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "subscribe", "args": ["alerts"]})
        hub = stand.gateway.hub
        hub.take(alertstream.Envelope(1, EPOCH, record(1)))
        hub.take(alertstream.Envelope(9, "new1", record(9)))
        hub.flush()
        heard = (await talk.ws.receive()).data.split("\n")
        assert [orjson.loads(line)["off"] for line in heard] == [1]
        assert (await asyncio.wait_for(talk.ws.receive(), 5)).type is aiohttp.WSMsgType.CLOSE
        assert talk.ws.close_code == 4010


def heard(*offs: int) -> list[tuple[int, alertstream.Outgoing]]:
    """Return what a pump tells of these alerts."""
    return [(off, alertstream.Outgoing(f"al_{off}", record(off), "600519.SH", "brk", "info")) for off in offs]


async def test_what_was_just_published_here_goes_out_at_once_as_one_frame_and_once() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "subscribe", "args": ["alerts", "alerts:sym:600519.SH"]})
        hub = stand.gateway.hub
        hub.hear(EPOCH, heard(1, 2, 3))
        assert hub._flush_at is None, "nothing waits for a timer"
        for off in (1, 2, 3, 4):  # the channel's own messages come behind it
            hub.take(alertstream.Envelope(off, EPOCH, record(off)))
        frames = [(await talk.ws.receive()).data.split("\n") for _ in range(2)]
        told = [[(said["ch"], said["off"]) for said in map(orjson.loads, frame)] for frame in frames]
        assert told[0] == [(ch, off) for off in (1, 2, 3) for ch in ("alerts", "alerts:sym:600519.SH")]
        assert told[1] == [("alerts", 4), ("alerts:sym:600519.SH", 4)]
        assert [orjson.loads(line)["data"]["id"] for line in frames[0]] == [f"al_{off}" for off in (1, 1, 2, 2, 3, 3)]


async def test_what_does_not_follow_is_left_to_the_channel() -> None:
    hub = Hub(FakeAlerts(), ring_size=10)  # type: ignore[arg-type]
    hub.hear(EPOCH, heard(1))  # before the channel was ever reached
    task = await running(hub)
    hub.hear(EPOCH, heard(2))
    hub.hear("other", heard(1))
    assert hub.kept.top == Position(EPOCH, 0)
    hub.hear(EPOCH, heard(1, 1, 2))
    assert (hub.kept.top, hub.counters["gaps"]) == (Position(EPOCH, 2), 0)
    task.cancel()


async def test_a_hole_in_the_channel_of_what_was_heard_here_is_no_gap() -> None:
    alerts = FakeAlerts()
    hub = Hub(alerts, ring_size=10)  # type: ignore[arg-type]
    task = await running(hub)
    hub.hear(EPOCH, heard(1, 2, 3))
    alerts.announce(alertstream.Position(EPOCH, 2, recovered=False))
    alerts.publish(2)
    await until(lambda: hub.kept.top == Position(EPOCH, 4))
    assert (hub.counters["gaps"], hub.counters["alerts"]) == (0, 4)
    task.cancel()


@pytest.mark.parametrize("foreseen", [(1, 2, 3), (2, 3), (1, 2), (), None])
async def test_what_is_told_is_the_same_whatever_was_foreseen(foreseen: tuple[int, ...] | None) -> None:
    """Offsets are foreseen as 1, 2, ...: all but the first and the last guess wrong."""
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "subscribe", "args": ["alerts", "alerts:sym:600519.SH"]})
        hub = stand.gateway.hub
        told = heard(1, 2, 3)
        if foreseen is not None:
            hub.foresee(EPOCH, [alert for off, alert in told if off in foreseen])
        assert hub.kept.top == Position(EPOCH, 0)
        hub.hear(EPOCH, told)
        frame = (await talk.ws.receive()).data
        lines = [
            {"ch": ch, "epoch": EPOCH, "off": off, "data": orjson.loads(record(off))}
            for off in (1, 2, 3)
            for ch in ("alerts", "alerts:sym:600519.SH")
        ]
        assert [orjson.loads(line) for line in frame.split("\n")] == lines
        assert (hub.kept.top, hub.counters["alerts"]) == (Position(EPOCH, 3), 3)
        start = await hub.kept.locate("alerts", Position(EPOCH, 1))
        assert (start.recovered, start.replayed) == (True, 2)


async def test_who_subscribes_after_it_was_foreseen_is_told_it() -> None:
    async with standing() as stand:
        early, late = await stand.connect(), await stand.connect()
        await early.ask({"id": 1, "op": "subscribe", "args": ["alerts"]})
        hub, told = stand.gateway.hub, heard(1, 2)
        hub.foresee(EPOCH, [alert for _, alert in told])
        await late.ask({"id": 1, "op": "subscribe", "args": ["alerts:rule:brk"]})
        hub.hear(EPOCH, told)
        for talk, ch in ((early, "alerts"), (late, "alerts:rule:brk")):
            lines = (await talk.ws.receive()).data.split("\n")
            assert [(said["ch"], said["off"]) for said in map(orjson.loads, lines)] == [(ch, 1), (ch, 2)]


async def test_what_was_foreseen_and_came_by_the_channel_first_is_told_once() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "subscribe", "args": ["alerts"]})
        hub, told = stand.gateway.hub, heard(1, 2, 3)
        hub.foresee(EPOCH, [alert for _, alert in told])
        for off in (1, 2):
            hub.take(alertstream.Envelope(off, EPOCH, record(off)))
        hub.hear(EPOCH, told)
        hub.hear(EPOCH, told)
        hub.take(alertstream.Envelope(3, EPOCH, record(3)))
        hub.take(alertstream.Envelope(4, EPOCH, record(4)))
        assert [(await talk.hear())["off"] for _ in range(4)] == [1, 2, 3, 4]


async def test_another_publishers_alerts_between_are_told_in_order() -> None:
    """Its offsets are those that were foreseen for ours."""
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "subscribe", "args": ["alerts"]})
        hub, ours = stand.gateway.hub, heard(2, 3)
        hub.foresee(EPOCH, [alert for _, alert in ours])
        hub.take(alertstream.Envelope(1, EPOCH, record(1)))
        hub.hear(EPOCH, ours)
        said = [await talk.hear() for _ in range(3)]
        assert [(one["off"], one["data"]["id"]) for one in said] == [(n, f"al_{n}") for n in (1, 2, 3)]


async def test_what_is_foreseen_for_another_epoch_is_not_made_ready() -> None:
    hub = Hub(FakeAlerts(), ring_size=10)  # type: ignore[arg-type]
    task = await running(hub)
    alerts = [alert for _, alert in heard(1)]
    hub.foresee("other", alerts)
    hub.hear("other", heard(1))
    assert hub.kept.top == Position(EPOCH, 0)
    hub.foresee(EPOCH, alerts)
    hub.hear("other", heard(1))
    assert hub.kept.top == Position(EPOCH, 0)
    task.cancel()
