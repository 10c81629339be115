"""The delivery loop on a clock that jumps: order, schedule, breaker, dead letters, crashes and stopping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from notifiers.consumer import BLOCK_MS, MAX_DELIVERIES, GroupEntry
from notifiers.delivery import Delivery, place_of, read_alert
from notifiers.notifier import Outcome, Verdict
from notifiers.retry import HEALTHY, ReceiverState

OK = Outcome(verdict=Verdict.OK, code=200)
AWAY = Outcome(verdict=Verdict.RETRY, code=500, text="500")
BAD = Outcome(verdict=Verdict.PERMANENT, code=400, text="bad request")
GONE = Outcome(verdict=Verdict.DISABLE, code=410, text="gone")
S, MIN, H = 1000, 60_000, 3_600_000


class Killed(BaseException):
    """Stands for kill -9: not an Exception, so that no guard catches it."""


@pytest.fixture
def new_delivery(clock: Any, reader: Any, store: Any, new_notifier: Any) -> Callable[..., tuple[Delivery, Any]]:
    def build(**options: Any) -> tuple[Delivery, Any]:
        notifier = new_notifier(clock, **options)
        return Delivery(notifier, reader, store, clock=clock.clock, random=lambda: 0.5), notifier

    return build


async def run_for(delivery: Delivery, clock: Any, ms: int) -> None:
    """Run until the fake clock has gone this far, then stop and drain."""
    clock.horizon_ms = clock.ms + ms
    clock.at_horizon = lambda: delivery.stop(5)
    await asyncio.wait_for(delivery.run(), 10)
    clock.at_horizon = lambda: None


def t(clock_ms: int, sent: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(ms - clock_ms, alert_id) for ms, alert_id in sent]


async def test_alerts_arrive_once_in_stream_order(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    reader.add(*(alert(n) for n in range(100)))
    await run_for(delivery, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == [f"al_{n}" for n in range(100)]
    assert set(store.states_of()) == {"delivered"}
    assert reader.unacked == {}
    counters = delivery.counters()
    assert (counters["received"], counters["sent"], counters["in_flight"]) == (100, 100, 0)


async def test_what_the_receiver_does_not_want_is_acknowledged_unrecorded(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery(rules=("brk",))
    reader.add(alert(1, rule="other"), alert(2, event="pending"), alert(3), alert(4, event="suppressed"))
    await run_for(delivery, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_3"]
    assert len(store.rows) == 1
    assert reader.unacked == {}
    assert delivery.counters()["filtered"] == 3


async def test_a_failing_delivery_follows_the_schedule_and_dies(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda _: AWAY
    reader.add(alert(1))
    start = clock.ms
    await run_for(delivery, clock, 30 * H)
    gaps = [b - a for (a, _), (b, _) in zip(notifier.sent, notifier.sent[1:], strict=False)]
    assert notifier.sent[0][0] == start
    assert gaps == [5 * S, 30 * S, 2 * MIN, 10 * MIN, 30 * MIN, 2 * H, 6 * H, 12 * H]
    (row,) = store.rows
    assert (str(row.state), row.reason, len(row.attempts)) == ("dead", "500", 9)
    assert delivery.counters()["retried"] == 8
    assert delivery.counters()["dead"] == 1


async def test_a_failed_delivery_steps_aside_for_the_next(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    start = clock.ms
    notifier.answer = lambda n: AWAY if n.alert.id == "al_1" and clock.ms < start + 4 * S else OK
    reader.add(alert(1), alert(2), alert(3))
    await run_for(delivery, clock, MIN)
    assert t(start, notifier.sent) == [(0, "al_1"), (0, "al_2"), (0, "al_3"), (5 * S, "al_1")]
    assert store.states_of() == ["delivered"] * 3


async def test_permanent_refusal_is_a_dead_letter_at_once_and_can_be_replayed(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda n: BAD if n.alert.id == "al_1" else OK
    reader.add(alert(1), alert(2))
    with structlog.testing.capture_logs() as logs:
        await run_for(delivery, clock, MIN)
    assert store.states_of() == ["dead", "delivered"]
    assert len(notifier.sent) == 2
    assert [e["alert_id"] for e in logs if e["event"] == "delivery_dead"] == ["al_1"]

    again, notifier = new_delivery()
    assert await again.replay() == 1
    await run_for(again, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1"]
    assert store.states_of() == ["delivered", "delivered"]


async def test_replayed_delivery_has_the_whole_schedule_again(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda _: AWAY
    reader.add(alert(1))
    await run_for(delivery, clock, 30 * H)
    await delivery.replay([0])
    again, notifier = new_delivery()
    notifier.answer = lambda _: AWAY
    await again.enable()
    await run_for(again, clock, 30 * H)
    assert len(notifier.sent) == 9
    assert len(store.rows[0].attempts) == 18


async def test_asked_pause_holds_every_delivery_of_the_receiver(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    start = clock.ms
    pause = replace(AWAY, code=429, retry_after_s=90.0)
    notifier.answer = lambda _: pause if clock.ms == start else OK
    reader.add(alert(1), alert(2))
    await run_for(delivery, clock, 5 * MIN)
    assert t(start, notifier.sent) == [(0, "al_1"), (90 * S, "al_1"), (90 * S, "al_2")]


async def test_breaker_opens_after_ten_failures_and_probes_once_a_minute(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    start = clock.ms
    notifier.answer = lambda _: AWAY if clock.ms < start + 170 * S else OK
    reader.add(*(alert(n) for n in range(30)))
    await run_for(delivery, clock, 20 * MIN)
    times = Counter(ms - start for ms, _ in notifier.sent)
    assert times[0] == 10
    assert (times[60 * S], times[120 * S]) == (1, 1)
    assert [ms for ms in sorted(times) if ms < 170 * S] == [0, 60 * S, 120 * S]
    assert times[180 * S] > 10
    assert set(store.states_of()) == {"delivered"}
    assert delivery.state == replace(HEALTHY, alarms=1)
    assert [str(one.event) for one in store.alarms] == ["fire", "resolve"]


async def test_breaker_is_remembered_over_a_restart(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    store.states["hook"] = ReceiverState(failures=10, failing_since_ms=clock.ms, hold_until_ms=clock.ms + 45 * S)
    delivery, notifier = new_delivery()
    start = clock.ms
    reader.add(alert(1))
    await run_for(delivery, clock, 2 * MIN)
    assert t(start, notifier.sent) == [(45 * S, "al_1")]


async def test_410_switches_off_at_once_and_later_alerts_become_dead_letters(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda _: GONE
    reader.add(alert(1), alert(2))
    clock.horizon_ms, clock.at_horizon = clock.ms + MIN, lambda: None
    await run_for(delivery, clock, MIN)
    assert len(notifier.sent) == 1
    assert store.states_of() == ["dead", "pending"]

    off, notifier = new_delivery()
    reader.add(alert(3))
    await run_for(off, clock, MIN)
    assert notifier.sent == []
    assert store.states_of() == ["dead", "pending", "dead"]
    assert "410" in store.rows[2].reason
    assert "410" in (off.state.disabled or "")

    on, notifier = new_delivery()
    await on.enable()
    assert await on.replay() == 2
    await run_for(on, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1", "al_2", "al_3"]


async def test_five_days_without_success_switch_it_off(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    since_ms = clock.ms - 119 * H
    store.states["hook"] = ReceiverState(failures=30, failing_since_ms=since_ms)
    delivery, notifier = new_delivery()
    notifier.answer = lambda _: AWAY
    reader.add(alert(1))
    await run_for(delivery, clock, 6 * H)
    assert delivery.state.disabled == "off by itself: failing for 121 h without one success"
    assert [ms - since_ms >= 120 * H for ms, _ in notifier.sent] == [False] * 6 + [True]
    assert store.states_of() == ["pending"]
    assert store.states["hook"] == delivery.state


async def test_switched_off_by_hand_sends_nothing(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    await delivery.disable("holiday")
    reader.add(alert(1))
    await run_for(delivery, clock, MIN)
    assert notifier.sent == []
    assert store.rows[0].reason == "receiver is off: holiday"


async def test_one_receiver_failing_or_hanging_never_delays_another(
    clock: Any, store: Any, new_reader: Any, new_notifier: Any, alert: Any
) -> None:
    readers = {name: new_reader(clock) for name in ("bad", "good")}
    hang = asyncio.Event()
    notifiers = {name: new_notifier(clock, name=name) for name in readers}

    async def never(_: Any) -> Outcome:
        await hang.wait()
        return OK

    notifiers["bad"].send = never
    deliveries = [Delivery(notifiers[name], readers[name], store, clock=clock.clock) for name in readers]
    for each in readers.values():
        each.add(*(alert(n) for n in range(50)))
    bad = asyncio.create_task(deliveries[0].run())
    await run_for(deliveries[1], clock, MIN)
    assert len(notifiers["good"].sent) == 50
    assert deliveries[0].counters()["in_flight"] == 1
    bad.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bad
    assert store.states_of("bad") == ["pending"] * 50


async def test_a_defect_in_a_notifier_is_one_failed_attempt(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()

    def answer(note: Any) -> Outcome:
        if note.alert.id == "al_1" and len(notifier.sent) == 1:
            raise KeyError("https://h.example/pl4nted")
        return OK

    notifier.answer = answer
    reader.add(alert(1), alert(2))
    with structlog.testing.capture_logs() as logs:
        await run_for(delivery, clock, MIN)
    assert store.states_of() == ["delivered", "delivered"]
    assert store.rows[0].attempts[0].text == "defect in the notifier: KeyError"
    (defect,) = [e for e in logs if e["event"] == "notifier_defect"]
    assert "test_delivery.py" in defect["place"]
    assert "pl4nted" not in repr(logs)


async def test_an_alert_published_twice_is_sent_once(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    reader.add(alert(1), alert(2), alert(1), alert(1))
    await run_for(delivery, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1", "al_2"]
    assert delivery.counters()["duplicates"] == 2


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b"null", b'{"v":2}', b'{"v":1}', b'{"v":1,"event":"sneeze"}'])
async def test_an_unreadable_entry_is_a_dead_letter_with_its_bytes(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any, record: bytes
) -> None:
    delivery, notifier = new_delivery()
    reader.new.append(GroupEntry(id="7-0", record=record))
    reader.add(alert(1))
    await run_for(delivery, clock, MIN)
    assert store.states_of() == ["dead", "delivered"]
    assert (store.rows[0].arrival.alert_id, store.rows[0].arrival.record) == ("entry 7-0", record)
    assert reader.unacked == {}
    assert await delivery.replay() == 1
    again, notifier = new_delivery()
    await run_for(again, clock, MIN)
    assert (notifier.sent, store.states_of()) == ([], ["dead", "delivered"])


async def test_an_entry_handed_out_too_often_is_a_dead_letter(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    reader.new.append(GroupEntry(id="1-0", record=alert(1).to_json(), deliveries=5))
    reader.new.append(GroupEntry(id="2-0", record=alert(2).to_json(), deliveries=6))
    await run_for(delivery, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1"]
    assert "6 times" in store.rows[1].reason


async def test_a_trimmed_entry_is_counted_and_let_go(new_delivery: Any, clock: Any, reader: Any, store: Any) -> None:
    delivery, _ = new_delivery()
    reader.new.append(GroupEntry(id="1-0", record=None))
    await run_for(delivery, clock, MIN)
    assert delivery.counters()["trimmed"] == 1
    assert (reader.unacked, store.rows) == ({}, [])


async def test_deliveries_go_on_while_the_broker_is_away(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    start = clock.ms

    def answer(_: Any) -> Outcome:
        reader.down = True
        return AWAY if clock.ms < start + 100 * S else OK

    notifier.answer = answer
    reader.add(alert(1))
    with structlog.testing.capture_logs() as logs:
        await run_for(delivery, clock, 10 * MIN)
    assert [ms for ms, _ in t(start, notifier.sent)] == [0, 5 * S, 35 * S, 155 * S]
    assert store.states_of() == ["delivered"]
    assert 100 < delivery.counters()["broker_failures"] < 200
    assert len([e for e in logs if e["event"] == "delivery_broker_away"]) == 1


async def test_a_broker_that_is_away_at_the_start_is_waited_for(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    reader.down = True
    clock.horizon_ms = clock.ms + 20 * S

    def back() -> None:
        reader.down = False
        if not reader.last:
            reader.add(alert(1))
            clock.horizon_ms = clock.ms + MIN
            clock.at_horizon = lambda: delivery.stop(5)

    clock.at_horizon = back
    await asyncio.wait_for(delivery.run(), 10)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1"]


async def test_each_outage_of_the_broker_is_told_once_and_begins_with_short_pauses(
    new_delivery: Any, clock: Any, reader: Any
) -> None:
    delivery, _ = new_delivery()
    failures = []
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            before = delivery.counters()["broker_failures"]
            reader.down = True
            clock.horizon_ms = clock.ms + 2 * S

            def back() -> None:
                reader.down = False
                clock.horizon_ms = clock.ms + 30 * S
                clock.at_horizon = lambda: delivery.stop(5)

            clock.at_horizon = back
            await asyncio.wait_for(delivery.run(), 10)
            failures.append(delivery.counters()["broker_failures"] - before)
            delivery._stopping, delivery._deadline_at_s = False, None
    assert [e["event"] for e in logs] == ["delivery_broker_away"] * 2
    assert failures[0] == failures[1] == 5  # after 100, 200, 400, 800 and 1600 ms


async def test_a_new_receiver_begins_at_the_end_and_a_known_one_at_what_is_left(
    new_delivery: Any, clock: Any, reader: Any, store: Any
) -> None:
    delivery, _ = new_delivery()
    await delivery.open()
    assert reader.opened_from_start is False
    again, _ = new_delivery()
    await again.open()
    assert reader.opened_from_start is True


async def test_reads_never_block_longer_than_the_limit_nor_past_the_next_attempt(
    new_delivery: Any, clock: Any, reader: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda _: AWAY
    reader.add(alert(1))
    await run_for(delivery, clock, 10 * S)
    assert max(reader.blocks_ms) == BLOCK_MS
    assert 1000 in reader.blocks_ms
    assert notifier.sent[1][0] - notifier.sent[0][0] == 5 * S


STEPS = ["begin", "begin done", "ack", "send", "settle", "settle done", "set_receiver_state"]


class Killer:
    """Raises Killed the n-th time that a step is reached."""

    def __init__(self, step: str, nth: int) -> None:
        self.step, self.left = step, nth

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                raise Killed(step)


async def deliver_with_kills(parts: Any, kills: list[tuple[str, int]], alerts: list[Any]) -> Counter[str]:
    """Deliver while dying at each kill in turn; return how often each alert was posted."""
    clock, reader, store, new_notifier = parts
    posted: Counter[str] = Counter()
    reader.add(*alerts)
    for kill in [*kills, None]:
        killer = Killer(*kill) if kill else Killer("", 0)
        store.before = reader.before = killer
        store.after = lambda step, killer=killer: killer(f"{step} done")
        notifier = new_notifier(clock)

        async def send(note: Any, killer: Killer = killer) -> Outcome:
            posted[note.alert.id] += 1
            killer("send")
            return AWAY if posted[note.alert.id] == 1 and note.alert.episode % 5 == 0 else OK

        notifier.send = send
        delivery = Delivery(notifier, reader, store, clock=clock.clock)
        try:
            await run_for(delivery, clock, 5 * MIN)
        except Killed:
            reader.crash()
    return posted


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
async def test_killed_at_any_step_loses_nothing(
    step: str, nth: int, clock: Any, reader: Any, store: Any, new_notifier: Any, alert: Any
) -> None:
    alerts = [alert(n) for n in range(12)]
    posted = await deliver_with_kills((clock, reader, store, new_notifier), [(step, nth)], alerts)
    assert set(posted) == {a.id for a in alerts}
    assert store.states_of() == ["delivered"] * 12
    assert reader.unacked == {}
    assert sum(posted.values()) <= 12 + 3 + 1  # each alert, the three that failed once, the one in flight at the kill


@settings(max_examples=60, deadline=None)
@given(kills=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 8)), max_size=4))
def test_killed_again_and_again_loses_nothing(
    new_clock: Any, new_store: Any, new_reader: Any, new_notifier: Any, alert: Any, kills: list[tuple[str, int]]
) -> None:
    clock, store = new_clock(), new_store()
    reader = new_reader(clock)
    alerts = [alert(n) for n in range(12)]
    posted = asyncio.run(deliver_with_kills((clock, reader, store, new_notifier), kills, alerts))
    assert set(posted) == {a.id for a in alerts}
    assert store.states_of() == ["delivered"] * 12
    assert sum(posted.values()) <= 12 + 3 + len(kills)


async def test_stop_interrupts_an_idle_read_at_once(store: Any, clock: Any, reader: Any, new_notifier: Any) -> None:
    """The race of `stop` against a blocked read: the read is cancelled, what it may have taken is read again."""
    blocked = asyncio.Event()

    async def read(*, block_ms: int, limit: int) -> list[GroupEntry]:
        if block_ms == 0:
            return []
        blocked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    reader.read = read
    delivery = Delivery(new_notifier(clock), reader, store, clock=clock.clock)
    task = asyncio.create_task(delivery.run())
    await blocked.wait()
    delivery.stop(30)
    await asyncio.wait_for(task, 2)


async def test_stop_drains_what_is_there_and_leaves_retries_to_the_store(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    notifier.answer = lambda n: AWAY if n.alert.id == "al_5" else OK
    reader.add(*(alert(n) for n in range(600)))
    delivery.stop(30)
    await asyncio.wait_for(delivery.run(), 5)
    assert len(notifier.sent) == 600
    assert Counter(store.states_of()) == {"delivered": 599, "pending": 1}


async def test_the_deadline_cuts_a_hanging_attempt_which_is_made_again_later(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    hanging = asyncio.Event()

    async def hang(_: Any) -> Outcome:
        hanging.set()
        await asyncio.Event().wait()
        return OK

    notifier.send = hang
    reader.add(alert(1))
    task = asyncio.create_task(delivery.run())
    await hanging.wait()
    delivery.stop(0.01)
    await asyncio.wait_for(task, 2)
    assert store.states_of() == ["pending"]
    assert delivery.counters()["in_flight"] == 0
    again, notifier = new_delivery()
    await run_for(again, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1"]


async def test_a_store_failure_ends_the_run_and_the_next_one_loses_nothing(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, notifier = new_delivery()
    store.before = Killer("begin", 1)
    reader.add(alert(1))
    with pytest.raises(Killed):
        await run_for(delivery, clock, MIN)
    reader.crash()
    await run_for(delivery, clock, MIN)
    assert [alert_id for _, alert_id in notifier.sent] == ["al_1"]


async def test_a_notifier_timeout_is_no_deadline(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, _ = new_delivery()

    def fail(_: str) -> None:
        raise TimeoutError("store")

    store.before = fail
    reader.add(alert(1))
    with pytest.raises(TimeoutError, match="store"):
        await run_for(delivery, clock, MIN)


def test_place_of_an_error_that_was_never_raised_is_empty() -> None:
    assert place_of(KeyError("x")) == ""


@pytest.mark.parametrize(
    "changes", [{"labels": None}, {"message": None}, {"rule": 3}, {"severity": None}, {"symbol": 600519}]
)
def test_a_record_that_something_would_stumble_over_is_not_readable(changes: dict[str, Any], alert: Any) -> None:
    assert read_alert(alert(1).to_json()) is not None
    assert read_alert(replace(alert(1), **changes).to_json()) is None


async def test_a_record_that_breaks_what_places_it_ends_as_a_dead_letter(
    new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, _ = new_delivery()
    delivery._router.place = None  # whatever it does, it is not asked
    reader.new.append(GroupEntry(id="1-0", record=alert(1).to_json(), deliveries=MAX_DELIVERIES + 1))
    await run_for(delivery, clock, MIN)
    assert store.states_of() == ["dead"]


@pytest.mark.parametrize("outcome", [OK, AWAY])
async def test_switching_off_while_an_attempt_ends_is_not_undone(
    outcome: Outcome, new_delivery: Any, clock: Any, reader: Any, store: Any, alert: Any
) -> None:
    delivery, _ = new_delivery()
    store.states["hook"] = ReceiverState(failures=1, failing_since_ms=clock.ms)
    keep = store.set_receiver_state

    async def slow(*args: Any, **options: Any) -> None:
        await asyncio.sleep(0)
        await keep(*args, **options)

    store.set_receiver_state = slow
    await delivery.open()
    await asyncio.gather(delivery.disable("holiday"), delivery._health.judge(outcome, clock.ms))
    assert delivery.state.disabled == store.states["hook"].disabled == "holiday"
