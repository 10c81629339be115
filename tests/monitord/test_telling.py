"""Delivery over the real store on a clock that jumps: groups, digests, quiet hours, silences, rates, alarms, kills."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.sessions import Calendar, unix_ms
from monitord.deliveries import Deliveries, DeliveryFilter
from monitord.desk import Desk
from monitord.store import Store
from notifiers.consumer import GroupEntry
from notifiers.delivery import Clock, Delivery
from notifiers.inhibition import Inhibition
from notifiers.matching import Matcher
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import NO_LIMIT, Pacing, Rate
from notifiers.quiet import Quiet, QuietThen, windows_of
from notifiers.recorded import DeliveryState
from notifiers.retry import (
    CHAT_SCHEDULE,
    CHAT_STALE_AFTER_S,
    HEALTHY,
    WEBHOOK_SCHEDULE,
    ReceiverState,
    ReceiverStatus,
)
from notifiers.routing import NO_ROUTING, Grouping, Route, Router, Routing
from notifiers.silences import Silence, Silences
from rules.alert import Alert, Event

T0_MS = unix_ms(20230201, 10 * 3_600_000)  # a Wednesday
S, MIN, H = 1000, 60_000, 3_600_000
OK = Outcome(verdict=Verdict.OK, code=200)
AWAY = Outcome(verdict=Verdict.RETRY, code=500, text="500")
BAD = Outcome(verdict=Verdict.PERMANENT, code=310000, text="keyword")
CHAT = Pacing(rates=(Rate(20, 60.0),), bundle_alerts=500, stale_after_s=CHAT_STALE_AFTER_S)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who has nothing to do wait a minute of the moved clock, not two seconds: hours are gone in fewer steps."""
    monkeypatch.setattr("notifiers.delivery.BLOCK_MS", 60_000)


class Killed(BaseException):
    """Stands for kill -9."""


def alert(number: int, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": f"al_{number:05d}", "episode_id": f"ep_{number}", "event": Event.FIRE, "rule": "brk", "rev": "1",
        "symbol": "600519.SH", "severity": "warning", "trade_date": "2023-02-01", "episode": number,
        "ts_event_ms": T0_MS, "period": "tick", "message": f"突破 {number}",
    }  # fmt: skip
    return Alert(**{**fields, **changes})


class Wall:
    """A clock that stands still until somebody waits on it; told of a horizon, it calls `stop` there."""

    def __init__(self) -> None:
        self.ms, self.horizon_ms = T0_MS, T0_MS
        self.stop: Callable[[], None] = lambda: None

    def advance(self, ms: int) -> None:
        self.ms += ms
        if self.ms >= self.horizon_ms:
            self.stop()

    async def sleep(self, seconds: float) -> None:
        self.advance(round(seconds * 1000))
        await asyncio.sleep(0)


class Stream:
    """A stream in memory whose entries come at their time; an idle read takes its whole block time."""

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.coming: deque[tuple[int, GroupEntry]] = deque()
        self.unacked: dict[str, GroupEntry] = {}
        self.count = 0

    def add(self, *alerts: Alert, at_ms: int | None = None) -> None:
        for one in alerts:
            self.count += 1
            entry = GroupEntry(id=f"{self.count}-0", record=one.to_json())
            self.coming.append((self.wall.ms if at_ms is None else at_ms, entry))

    async def open(self, *, from_start: bool) -> None:
        pass

    async def close(self) -> None:
        pass

    async def read(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        if not self.coming or self.coming[0][0] > self.wall.ms:
            next_ms = self.coming[0][0] - self.wall.ms if self.coming else block_ms
            left_ms = self.wall.horizon_ms - self.wall.ms
            self.wall.advance(min(block_ms, next_ms, left_ms if left_ms > 0 else block_ms))
            await asyncio.sleep(0)
        taken = []
        while self.coming and len(taken) < limit and self.coming[0][0] <= self.wall.ms:
            taken.append(self.coming.popleft()[1])
        self.unacked.update((entry.id, entry) for entry in taken)
        return taken

    async def ack(self, ids: Sequence[str]) -> None:
        for entry_id in ids:
            self.unacked.pop(entry_id, None)

    def crash(self) -> None:
        self.coming.extendleft((self.wall.ms, entry) for entry in reversed(self.unacked.values()))
        self.unacked.clear()


class Bot:
    """A receiver that keeps what it accepted; with a limit it blocks for 10 minutes whoever exceeds it."""

    def __init__(self, wall: Wall, pacing: Pacing = NO_LIMIT, *, limit: int | None = None, **options: Any) -> None:
        self.options = NotifierOptions(**{"name": "bot", **options})
        self.pacing = pacing
        self.schedule = CHAT_SCHEDULE if pacing.stale_after_s else WEBHOOK_SCHEDULE
        self.wall, self.limit = wall, limit
        self.posts: list[tuple[int, str, tuple[str, ...]]] = []
        """(when, message id, alert ids) of every post."""
        self.accepted: list[tuple[int, str, tuple[str, ...]]] = []
        self.kinds: list[str] = []
        self.blocked = 0
        self.takes_ms = 30
        self.answer: Callable[[str], Outcome] = lambda _: OK
        self.answer_ids: Callable[[tuple[str, ...]], Outcome] | None = None

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, notification: Notification) -> Outcome:
        return await self._take(notification.alert.id, (notification.alert.id,), "alert")

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        assert len(bundle.alerts) <= self.pacing.bundle_alerts
        assert [one.to_json() for one in bundle.alerts] == list(bundle.records)
        return await self._take(bundle.id, tuple(one.id for one in bundle.alerts), str(bundle.kind))

    async def _take(self, message_id: str, ids: tuple[str, ...], kind: str) -> Outcome:
        self.wall.advance(self.takes_ms)
        await asyncio.sleep(0)
        self.posts.append((self.wall.ms, message_id, ids))
        times = [ms for ms, _, _ in self.posts]
        if self.limit is not None and len(times) - bisect_left(times, self.wall.ms - MIN) > self.limit:
            self.blocked += 1
            return Outcome(verdict=Verdict.RETRY, code=410100, retry_after_s=600)
        outcome = self.answer_ids(ids) if self.answer_ids is not None else self.answer(message_id)
        if outcome.verdict is Verdict.OK:
            self.accepted.append((self.wall.ms, message_id, ids))
            self.kinds.append(kind)
        return outcome

    def told(self) -> list[tuple[int, tuple[str, ...]]]:
        """Return (ms since T0, alert ids) of what was accepted."""
        return [(ms - T0_MS, ids) for ms, _, ids in self.accepted]


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def store(tmp_path: Path, wall: Wall) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.db", clock_ms=lambda: wall.ms)
    yield opened
    await opened.close()


@pytest.fixture
def stream(wall: Wall) -> Stream:
    return Stream(wall)


def delivery_of(
    bot: Bot, stream: Stream, kept: Deliveries, routing: Routing = NO_ROUTING, silences: Silences | None = None
) -> Delivery:
    clock = Clock(lambda: bot.wall.ms, bot.wall.sleep)
    router = Router(bot.options.name, routing, silences=silences)
    return Delivery(bot, stream, kept, router=router, clock=clock, random=lambda: 0.5)


async def run_for(delivery: Delivery, wall: Wall, ms: int) -> None:
    wall.horizon_ms = wall.ms + ms
    wall.stop = lambda: delivery.stop(60)
    await asyncio.wait_for(delivery.run(), 100)
    wall.stop = lambda: None


def grouped(**grouping: Any) -> Routing:
    route = Route(name="r", receivers=("bot",), grouping=Grouping(**{"by": ("rule",), **grouping}))
    return Routing(routes=(route,))


def refuse(bot: Bot, alert_id: str, outcome: Outcome, *, outage_ms: int = 0) -> None:
    """Let the bot answer so to what tells this alert, and take all else; it is away for the first outage_ms."""

    def answer(ids: tuple[str, ...]) -> Outcome:
        if bot.wall.ms - T0_MS < outage_ms:
            return AWAY
        return outcome if alert_id in ids else OK

    bot.answer_ids = answer


async def states(store: Store) -> Counter[str]:
    return Counter({state: count for (_, state), count in (await store.deliveries.counts()).items()})


# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_group_waits_for_its_others_and_its_next_message_for_the_interval(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall)
    bot.takes_ms = 0
    for number, at_ms in enumerate([0, 400, 999, 1000, 5000, 31_999, 80_000]):
        stream.add(alert(number), at_ms=T0_MS + at_ms)
    stream.coming.insert(1, (T0_MS + 10, GroupEntry(id="o", record=alert(9, rule="other").to_json())))
    await run_for(delivery_of(bot, stream, store.deliveries, grouped(wait_ms=1000, interval_ms=30_000)), wall, 2 * MIN)
    ids = [f"al_{n:05d}" for n in range(10)]
    assert bot.told() == [
        (1000, (ids[0], ids[1], ids[2], ids[3])),
        (1010, (ids[9],)),
        (31_000, (ids[4],)),
        (61_000, (ids[5],)),
        (91_000, (ids[6],)),
    ]
    assert set(bot.kinds) == {"group", "alert"}
    assert (await states(store))["delivered"] == 8 + 1


async def test_a_group_larger_than_a_message_is_told_in_several(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall, Pacing(bundle_alerts=4))
    stream.add(*(alert(n) for n in range(9)))
    await run_for(delivery_of(bot, stream, store.deliveries, grouped()), wall, MIN)
    assert [len(ids) for _, ids in bot.told()] == [4, 4, 1]
    assert [one for _, ids in bot.told() for one in ids] == [f"al_{n:05d}" for n in range(9)]


async def test_the_interval_of_a_group_outlives_a_restart(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    bot.takes_ms = 0
    routing = grouped(wait_ms=0, interval_ms=30_000)
    stream.add(alert(1))
    await run_for(delivery_of(bot, stream, store.deliveries, routing), wall, 5 * S)
    stream.add(alert(2))
    await run_for(delivery_of(bot, stream, store.deliveries, routing), wall, MIN)
    (first, _), (second, _) = bot.told()
    assert second - first == 30_000


# ── rates and digests ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rate_of_the_settings_paces_whoever_has_none(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall, limit=3, per_minute=3)
    stream.add(*(alert(n) for n in range(50)))
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * MIN)
    assert bot.blocked == 0
    assert [len(ids) for _, ids in bot.told()] == [1, 1, 48]


async def test_a_short_wait_for_the_rate_is_better_than_a_digest(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall, Pacing(rates=(Rate(100, 60.0), Rate(5, 1.0)), bundle_alerts=100))
    stream.add(*(alert(n) for n in range(30)))
    await run_for(delivery_of(bot, stream, store.deliveries), wall, MIN)
    assert set(bot.kinds) == {"alert"}
    times = [ms for ms, _ in bot.told()]
    assert all(b - a >= S for a, b in zip(times, times[5:], strict=False))
    assert times[-1] < 8 * S


async def test_the_rate_is_kept_over_a_restart(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall, CHAT, limit=20)
    for life in range(4):
        stream.add(*(alert(n + life * 15) for n in range(15)))
        await run_for(delivery_of(bot, stream, store.deliveries), wall, 5 * S)
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * MIN)
    assert bot.blocked == 0
    assert sorted(one for _, ids in bot.told() for one in ids) == [f"al_{n:05d}" for n in range(60)]


async def test_after_15_minutes_of_trying_a_chat_is_told_in_one_digest(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall, CHAT)
    bot.answer = lambda _: OK if wall.ms >= T0_MS + 2 * H else AWAY
    stream.add(*(alert(n) for n in range(6)))
    stream.add(alert(6), at_ms=T0_MS + 2 * H - 2 * MIN)
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * H)
    by_size = sorted(bot.told(), key=lambda one: -len(one[1]))
    assert [len(ids) for _, ids in by_size][-1] == 1
    assert ("al_00006",) in [ids for _, ids in bot.told()]
    assert sorted(one for _, ids in bot.told() for one in ids) == [f"al_{n:05d}" for n in range(7)]
    late = [(ms - T0_MS, ids) for ms, _, ids in bot.posts if ms - T0_MS > 20 * MIN and "al_00006" not in ids]
    assert late
    assert all(len(ids) > 1 for _, ids in late)
    assert bot.told()[-1][0] < 2 * H + 6 * MIN


# ── quiet hours, silences, inhibition ─────────────────────────────────────────────────────────────────────────────


def quiet(then: QuietThen, active: str = "continuous", **fields: Any) -> Routing:
    hours = Quiet(calendar=Calendar(()), active=windows_of((active,)), then=then)
    return Routing(routes=(Route(name="desk", receivers=("bot",), quiet=hours, **fields),))


async def test_what_comes_over_lunch_is_told_together_at_13_00(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    bot.takes_ms = 0
    noon_ms = T0_MS + 90 * MIN  # 11:30
    for number, at_ms in enumerate([noon_ms, noon_ms + 1, noon_ms + 60 * MIN, noon_ms + 90 * MIN]):
        stream.add(alert(number), at_ms=at_ms)
    await run_for(delivery_of(bot, stream, store.deliveries, quiet(QuietThen.DIGEST)), wall, 4 * H)
    assert bot.told() == [
        (90 * MIN, ("al_00000",)),
        (180 * MIN, ("al_00001", "al_00002")),
        (180 * MIN, ("al_00003",)),
    ]
    assert bot.kinds.count("digest") == 1


async def test_quiet_hours_survive_a_restart(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    routing = quiet(QuietThen.DIGEST)
    wall.ms = T0_MS + 100 * MIN
    for life in range(3):
        stream.add(alert(life))
        await run_for(delivery_of(bot, stream, store.deliveries, routing), wall, MIN)
    assert bot.told() == []
    await run_for(delivery_of(bot, stream, store.deliveries, routing), wall, 2 * H)
    assert [ids for _, ids in bot.told()] == [("al_00000", "al_00001", "al_00002")]


async def test_dropped_in_quiet_hours_is_recorded_with_the_reason(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    wall.ms = T0_MS + 100 * MIN
    stream.add(alert(1))
    await run_for(delivery_of(bot, stream, store.deliveries, quiet(QuietThen.DROP)), wall, 3 * H)
    assert bot.posts == []
    (row,) = (await store.deliveries.listing(DeliveryFilter())).rows
    assert (row.state, row.reason, row.route) == (DeliveryState.WITHHELD, "quiet hours of route desk", "desk")


async def test_a_silence_holds_to_the_ms_and_outlives_a_restart(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    bot.takes_ms = 0
    silences = Silences()
    desk = Desk([], stored=store.deliveries, silences=silences, kept=store.silences, clock_ms=lambda: wall.ms)
    added = await desk.silence(
        Silence(
            matcher=Matcher(rules=("b*",)), start_ms=T0_MS + 10, end_ms=T0_MS + 20, author="li", comment="halt"
        )
    )  # fmt: skip
    again = Silences(await store.silences.alive())
    for number, at_ms in enumerate([9, 10, 19, 20]):
        stream.add(alert(number), at_ms=T0_MS + at_ms)
    await run_for(delivery_of(bot, stream, store.deliveries, silences=again), wall, MIN)
    assert [ids for _, ids in bot.told()] == [("al_00000",), ("al_00003",)]
    rows = (await store.deliveries.listing(DeliveryFilter(state=DeliveryState.WITHHELD))).rows
    assert {row.reason for row in rows} == {f"silence {added.id} by li: halt"}
    assert await store.silences.alive() == []


async def test_a_silence_that_is_expired_ends_at_once(wall: Wall, store: Store, stream: Stream) -> None:
    bot, silences = Bot(wall), Silences()
    desk = Desk([], stored=store.deliveries, silences=silences, kept=store.silences, clock_ms=lambda: wall.ms)
    fields: dict[str, Any] = {"matcher": Matcher(rules=("*",)), "author": "li", "comment": "x"}
    one = await desk.silence(Silence(start_ms=T0_MS, end_ms=T0_MS + H, **fields))
    two = await desk.silence(Silence(start_ms=T0_MS, end_ms=T0_MS + H, **fields))
    assert silences.why(alert(1), wall.ms) is not None
    await desk.expire(one.id)
    assert silences.why(alert(1), wall.ms) is not None  # the other still holds
    ended = await desk.expire(two.id)
    assert ended is not None
    assert (ended.end_ms, silences.why(alert(1), wall.ms)) == (wall.ms, None)
    assert await desk.expire(99) is None
    stream.add(alert(1))
    await run_for(delivery_of(bot, stream, store.deliveries, silences=silences), wall, MIN)
    assert len(bot.told()) == 1


async def test_an_inhibited_alert_is_recorded_as_such(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    sealed = Inhibition(name="sealed", source=Matcher(rules=("up",)), target=Matcher(severities=("info",)))
    stream.add(alert(1, rule="up"), alert(2, severity="info"), alert(3, severity="info", symbol="000001.SZ"))
    await run_for(delivery_of(bot, stream, store.deliveries, Routing(inhibitions=(sealed,))), wall, MIN)
    assert [ids for _, ids in bot.told()] == [("al_00001",), ("al_00003",)]
    (row,) = (await store.deliveries.listing(DeliveryFilter(state=DeliveryState.WITHHELD))).rows
    assert row.reason == "inhibited by al_00001 (sealed)"


# ── dead letters ──────────────────────────────────────────────────────────────────────────────────────────────────


UNKNOWN = Outcome(verdict=Verdict.RETRY, code=45002, text="errcode 45002", unknown=True)


@pytest.mark.parametrize("poison", [0, 25, 49])
async def test_one_refused_alert_takes_no_other_of_its_bundle_with_it(
    poison: int, wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall, CHAT)
    refuse(bot, f"al_{poison:05d}", BAD)
    stream.add(*(alert(n) for n in range(50)))
    delivery = delivery_of(bot, stream, store.deliveries, grouped())
    await run_for(delivery, wall, H)
    told = [one for _, ids in bot.told() for one in ids]
    assert sorted(told) == [f"al_{n:05d}" for n in range(50) if n != poison]
    dead = await store.deliveries.listing(DeliveryFilter(alert_id=f"al_{poison:05d}"))
    assert [(one.state, one.reason) for one in dead.rows] == [(DeliveryState.DEAD, "keyword")]
    assert await outbox(store) == []
    assert len(bot.posts) < 20

    bot.answer_ids = lambda _: OK
    assert await delivery.replay() == 1
    await run_for(delivery_of(bot, stream, store.deliveries), wall, MIN)
    assert bot.told()[-1][1] == (f"al_{poison:05d}",)


async def test_a_receiver_that_refuses_all_is_not_asked_about_each_alert(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall, CHAT)
    bot.answer = lambda _: BAD
    stream.add(*(alert(n) for n in range(500)))
    delivery = delivery_of(bot, stream, store.deliveries, grouped())
    await run_for(delivery, wall, H)
    assert len(bot.posts) < 64  # halves are tried in batches, so several levels go by before three alerts are refused
    assert delivery.state.status(wall.ms) is ReceiverStatus.MISCONFIGURED
    assert set(await states(store)) == {"dead"}


@pytest.mark.parametrize("outage_ms", [0, 20 * MIN])
async def test_an_alert_refused_by_an_unknown_code_ends_and_takes_no_other_with_it(
    outage_ms: int, wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall, CHAT)
    refuse(bot, "al_00025", UNKNOWN, outage_ms=outage_ms)
    stream.add(*(alert(n) for n in range(50)))
    for n in range(50, 100):
        stream.add(alert(n), at_ms=T0_MS + outage_ms + (n - 49) * 2 * MIN)
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 4 * H)
    told = Counter(one for _, ids in bot.told() for one in ids)
    assert told == Counter(f"al_{n:05d}" for n in range(100) if n != 25)
    dead = await store.deliveries.listing(DeliveryFilter(alert_id="al_00025"))
    assert [one.state for one in dead.rows] == [DeliveryState.DEAD]


async def test_a_receiver_that_answers_all_with_an_unknown_code_loses_nothing(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall, CHAT)
    bot.answer = lambda _: UNKNOWN if MIN < wall.ms - T0_MS < 3 * H else OK
    for n in range(100):
        stream.add(alert(n), at_ms=T0_MS + n * MIN)
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 5 * H)
    assert Counter(one for _, ids in bot.told() for one in ids) == Counter(f"al_{n:05d}" for n in range(100))


async def test_a_refused_bundle_is_a_dead_letter_that_is_replayed_whole_or_in_part(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall)
    # A receiver that refuses whatever it is sent; else the bundle would be divided.
    await store.deliveries.set_receiver_state("bot", ReceiverState(refusals=3))
    bot.answer = lambda _: BAD
    stream.add(*(alert(n) for n in range(5)))
    await run_for(delivery_of(bot, stream, store.deliveries, grouped()), wall, MIN)
    assert await states(store) == {"dead": 6}
    rows = (await store.deliveries.listing(DeliveryFilter(state=DeliveryState.DEAD))).rows
    (bundle,) = [row for row in rows if row.kind is not None]
    assert {row.bundle for row in rows if row.kind is None} == {bundle.id}
    assert await store.deliveries.alert_ids(bundle.id) == [f"al_{n:05d}" for n in range(5)]
    assert [one.verdict for one in await store.deliveries.attempts(bundle.id)] == [Verdict.PERMANENT]

    bot.answer = lambda _: OK
    assert await store.deliveries.replay_all(DeliveryFilter(alert_id="al_00002")) == 1
    await run_for(delivery_of(bot, stream, store.deliveries, grouped()), wall, MIN)
    assert await store.deliveries.replay_all(DeliveryFilter(ids=(bundle.id,))) == 4
    await run_for(delivery_of(bot, stream, store.deliveries, grouped()), wall, MIN)
    assert [ids for _, ids in bot.told()] == [
        ("al_00002",),
        ("al_00000", "al_00001", "al_00003", "al_00004"),
    ]
    assert await states(store) == {"delivered": 6}
    assert await store.deliveries.replay_all(DeliveryFilter(receiver="bot")) == 0


async def test_dead_letters_are_replayed_by_query(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    bot.answer = lambda _: BAD
    for number in range(4):
        stream.add(alert(number), at_ms=T0_MS + number * S)
    await run_for(delivery_of(bot, stream, store.deliveries), wall, MIN)
    since = DeliveryFilter(receiver="bot", since_ms=T0_MS + 1 * S, until_ms=T0_MS + 3 * S)
    assert await store.deliveries.replay_all(DeliveryFilter(receiver="nobody")) == 0
    assert await store.deliveries.replay_all(since) == 2


# ── alarms ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def outbox(store: Store) -> list[Alert]:
    return [Alert.from_json(row.record) for row in await store.pending(limit=1000)]


async def test_a_failing_receiver_is_an_alert_once_and_its_recovery_too(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall)
    bot.answer = lambda _: AWAY if wall.ms < T0_MS + H else OK
    stream.add(*(alert(n) for n in range(30)))
    store.committed.clear()
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * H)
    fired, resolved = await outbox(store)
    assert (fired.event, fired.rule, fired.labels, fired.why) == (Event.FIRE, "delivery", {"receiver": "bot"}, "500")
    assert (resolved.event, resolved.episode_id) == (Event.RESOLVE, fired.episode_id)
    assert store.lag_rows == 2
    assert store.committed.is_set()

    bot.answer = lambda _: AWAY
    stream.add(*(alert(n) for n in range(30, 60)))
    await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * H)
    third = (await outbox(store))[2]
    assert third.episode == 2
    assert third.id != fired.id


async def test_alarms_of_two_stores_are_two_alerts_whatever_their_count(tmp_path: Path) -> None:
    """Two state directories, or two shares, whose receivers have the same name publish into one stream."""
    ids = []
    for name in ("a", "b", "a"):  # opened again, a store is the same
        wall = Wall()
        store = await Store.open(tmp_path / f"{name}.db", clock_ms=lambda wall=wall: wall.ms)  # type: ignore[misc]
        bot, stream = Bot(wall), Stream(wall)
        bot.answer = lambda _: AWAY
        stream.add(*(alert(n) for n in range(30)))
        await run_for(delivery_of(bot, stream, store.deliveries), wall, 3 * H)
        ids.append((await store.deliveries.origin(), [one.id for one in await outbox(store)]))
        await store.close()
    (first, alarms), (second, others), (third, again) = ids
    assert first == third != second
    assert len(alarms) == len(others) == 1
    assert alarms == again != others


async def test_the_news_of_a_receivers_failure_goes_to_all_but_itself(wall: Wall, store: Store) -> None:
    news = alert(1, rule="delivery", symbol=None, labels={"receiver": "bot"})
    for name, told in (("bot", 0), ("other", 1)):
        stream, bot = Stream(wall), Bot(wall, name=name)
        stream.add(news)
        await run_for(delivery_of(bot, stream, store.deliveries), wall, MIN)
        assert len(bot.posts) == told
        assert stream.unacked == {}


async def test_two_receivers_that_both_fail_make_two_alerts_and_no_loop(wall: Wall, store: Store) -> None:
    streams = {name: Stream(wall) for name in ("a", "b")}
    bots = {name: Bot(wall, name=name) for name in streams}
    for name, bot in bots.items():
        bot.answer = lambda _: AWAY
        streams[name].add(*(alert(n) for n in range(20)))
    published = 0
    for _ in range(3):
        for name, bot in bots.items():
            await run_for(delivery_of(bot, streams[name], store.deliveries), wall, H)
        events = await outbox(store)
        for stream in streams.values():
            stream.add(*events[published:])
        published = len(events)
    assert [(one.labels["receiver"], one.event) for one in await outbox(store)] == [
        ("a", Event.FIRE), ("b", Event.FIRE),
    ]  # fmt: skip


async def test_three_refusals_in_a_row_are_a_misconfigured_receiver(wall: Wall, store: Store, stream: Stream) -> None:
    bot = Bot(wall)
    bot.answer = lambda _: BAD
    delivery = delivery_of(bot, stream, store.deliveries)
    stream.add(alert(1), alert(2), alert(3))
    await run_for(delivery, wall, MIN)
    assert delivery.state.status(wall.ms) is ReceiverStatus.MISCONFIGURED
    assert [one.why for one in await outbox(store)] == ["keyword"]
    again = delivery_of(bot, stream, store.deliveries)
    bot.answer = lambda _: OK
    stream.add(alert(4))
    await run_for(again, wall, MIN)
    assert again.state.status(wall.ms) is ReceiverStatus.OK
    assert [one.event for one in await outbox(store)] == [Event.FIRE, Event.RESOLVE]


async def test_what_our_own_limits_refuse_says_nothing_of_the_receiver(
    wall: Wall, store: Store, stream: Stream
) -> None:
    """Twelve orders beyond the limits: dead letters each, but no misconfiguration and no open breaker."""
    bot = Bot(wall)
    bot.answer = lambda _: Outcome(verdict=Verdict.PERMANENT, text="no order: 11 orders today", own=True)
    delivery = delivery_of(bot, stream, store.deliveries)
    stream.add(*(alert(number) for number in range(12)))
    await run_for(delivery, wall, MIN)
    assert await states(store) == {"dead": 12}
    assert delivery.state == HEALTHY
    assert await outbox(store) == []


async def test_an_alarm_whose_storing_failed_is_raised_with_the_next_failure(
    wall: Wall, store: Store, stream: Stream
) -> None:
    bot = Bot(wall)
    bot.answer = lambda _: BAD
    kept = Deliveries(store.file.run, clock_ms=lambda: wall.ms, tell=store._tell, on_told=store._on_told)
    delivery = delivery_of(bot, stream, kept)
    keep, failed = kept.set_receiver_state, []

    async def fail_once(receiver: str, state: Any, *, alarm: Alert | None = None) -> None:
        if alarm is not None and not failed:
            failed.append(alarm.id)
            raise OSError("disk full")
        await keep(receiver, state, alarm=alarm)

    kept.set_receiver_state = fail_once  # type: ignore[method-assign]
    stream.add(*(alert(n) for n in range(5)))
    with pytest.raises(OSError, match="disk full"):
        await run_for(delivery, wall, MIN)
    await run_for(delivery, wall, MIN)
    assert [one.id for one in await outbox(store)] == failed


# ── kills ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def killing(run: Callable[..., Awaitable[Any]], kill: tuple[int, bool] | None) -> Callable[..., Awaitable[Any]]:
    """Wrap the store's `run`: die before (or, True, after) the n-th transaction."""
    left = [kill[0] if kill else -1]

    async def dying(work: Any, on_done: Any = None) -> Any:
        left[0] -= 1
        if left[0] == 0 and not kill[1]:  # type: ignore[index]
            raise Killed
        result = await run(work, on_done)
        if left[0] == 0:
            raise Killed
        return result

    return dying


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=5),
    paced=st.booleans(), wait_ms=st.sampled_from([0, 1000]),
)  # fmt: skip
def test_killed_at_any_transaction_groups_and_digests_lose_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory, kills: list[tuple[int, bool]], paced: bool, wait_ms: int
) -> None:
    asyncio.run(_live_through(tmp_path_factory.mktemp("kills"), kills, paced, wait_ms))


async def _live_through(folder: Path, kills: list[tuple[int, bool]], paced: bool, wait_ms: int) -> None:
    wall = Wall()
    stream = Stream(wall)
    bot = Bot(wall, Pacing(rates=(Rate(3, 60.0),), bundle_alerts=10) if paced else NO_LIMIT)
    for number in range(24):
        stream.add(alert(number, rule=f"r{number % 3}"), at_ms=T0_MS + number * 700)
    for kill in [*kills, None]:
        store = await Store.open(folder / "store.db", clock_ms=lambda: wall.ms)
        kept = Deliveries(killing(store.file.run, kill), clock_ms=lambda: wall.ms, tell=store._tell)
        try:
            await run_for(delivery_of(bot, stream, kept, grouped(wait_ms=wait_ms, interval_ms=5000)), wall, 10 * MIN)
        except Killed:
            stream.crash()
        counts = await states(store)
        await store.close()
    assert set(counts) == {"delivered"}
    distinct = {(message_id, ids) for _, message_id, ids in bot.accepted}
    told = Counter(one for _, ids in distinct for one in ids)
    assert set(told) == {f"al_{number:05d}" for number in range(24)}
    # An attempt that a kill cut off may have arrived: what it carried is sent again, in one message at most.
    cut_off = len(bot.accepted) - len(distinct)
    assert sum(count > 1 for count in told.values()) <= 10 * len(kills)
    assert cut_off <= len(kills)
    if not kills:
        assert set(told.values()) == {1}
