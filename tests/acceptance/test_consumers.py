"""The consumer of docs/consumers.md, run as it stands there against a real broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from monitord.broker import EmbeddedBroker
from notifiers.alertstream import Outgoing, connect_to
from notifiers.channel import AlertChannel
from rules.alert import Alert, Event
from tests.faults.followers import loaded

pytestmark = pytest.mark.acceptance

ALERTS = 30
POISON = "al_7"


def program(*, claim_after_ms: int = 60_000) -> ModuleType:
    """Load the documented code as a module."""
    module = loaded("docs/consumers.md")
    module.CLAIM_AFTER_MS = claim_after_ms  # type: ignore[attr-defined]
    module.BLOCK_MS = 50  # type: ignore[attr-defined]
    return module


async def publish(url: str, numbers: range) -> None:
    """Publish alerts with these numbers in a new epoch."""
    channel = AlertChannel(url)
    epoch, acked = await channel.begin_epoch(acked=0)
    alerts = [alert(number) for number in numbers]
    outgoing = [Outgoing(id=a.id, json=a.to_json(), symbol=a.symbol, rule=a.rule, severity=a.severity) for a in alerts]
    await channel.publish(outgoing, epoch=epoch, acked=acked)
    await channel.close()


def alert(number: int) -> Alert:
    return Alert(
        id=f"al_{number}", episode_id=f"ep_{number}", event=Event.FIRE, rule="brk", rev="1", symbol="600519.SH",
        trade_date="2023-02-01", episode=number, ts_event_ms=1_675_216_923_000 + number, period="tick",
    )  # fmt: skip


def done(consumer: Any) -> list[str]:
    return [alert_id for (alert_id,) in consumer.done.execute("SELECT id FROM alerts ORDER BY rowid")]


def ids(numbers: range) -> list[str]:
    return [f"al_{number}" for number in numbers]


async def test_the_documented_consumer_buries_what_fails_five_times_and_does_all_else_in_order(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await publish(broker.url, range(ALERTS))
    module = program(claim_after_ms=1)
    tries: Counter[str] = Counter()

    class Careless(module.Consumer):  # type: ignore[name-defined, misc]
        def work(self, alert: dict[str, Any], *, off: int, epoch: str) -> None:
            tries[alert["id"]] += 1
            if alert["id"] == POISON:
                raise ValueError("cannot work on this one")
            super().work(alert, off=off, epoch=epoch)

    def run() -> list[str]:
        consumer = Careless(broker.url, str(tmp_path / "done.sqlite"))
        consumer.join()
        consumer.take_pending()
        for _ in range(12):
            consumer.step()
        return done(consumer)

    assert await asyncio.to_thread(run) == [one for one in ids(range(ALERTS)) if one != POISON]
    redis = connect_to(broker.url)
    (entry,) = await redis.xrange("mon:dead:example")
    assert entry[1][b"alert"] == alert(7).to_json()
    assert entry[1][b"entry"] == b"8-0"
    assert (await redis.xpending("mon:{alerts}:stream", "example"))["pending"] == 0
    await redis.aclose()
    assert tries == {**dict.fromkeys(ids(range(ALERTS)), 1), POISON: 5}


async def test_the_documented_consumer_finishes_what_one_that_never_came_back_had_begun(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await publish(broker.url, range(ALERTS))
    module = program(claim_after_ms=1)

    def run() -> list[str]:
        lost = module.Consumer(broker.url, str(tmp_path / "lost.sqlite"), name="lost")
        lost.join()
        assert len(lost.read(">")) == ALERTS
        heir = module.Consumer(broker.url, str(tmp_path / "done.sqlite"), name="heir")
        heir.join()
        heir.take_pending()
        for _ in range(3):
            heir.step()
        return done(heir)

    assert await asyncio.to_thread(run) == ids(range(ALERTS))


async def test_the_documented_consumer_does_not_repeat_what_a_new_epoch_repeats(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    module = program()
    await publish(broker.url, range(10))

    def run(steps: int) -> list[str]:
        again = module.Consumer(broker.url, str(tmp_path / "done.sqlite"))
        again.join()
        again.take_pending()
        for _ in range(steps):
            again.step()
        return done(again)

    assert await asyncio.to_thread(run, 2) == ids(range(10))
    redis = connect_to(broker.url)
    await redis.flushall()  # the group is gone with the stream
    await redis.aclose()
    await publish(broker.url, range(20))
    assert await asyncio.to_thread(run, 2) == ids(range(20))
