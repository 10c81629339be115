"""What the terminal does wrong, and that ticks flow again within 10 s of its being back, each subscribed once.

The vendor's own Python runs unmodified over a stand-in of its native client, which calls back on threads of its own.
Seconds are told, not waited for; a day that lasts is 2023-02-01, a Wednesday, from ten o'clock on.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.sessions import Calendar, unix_ms
from feeds.tick import TickBatch
from feeds.xt import XtFeed
from feeds.xtscope import PULSE
from tests.feeds.vendor_terminal import (
    TEN,
    Terminal,
    bson,
    load_vendor,
    on_terminal_thread,
    running_terminal,
    tick,
    until,
)

STOCK = "600519.SH"
"""One of the pulse."""
HOUR_S = 3600


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with running_terminal() as one:
        yield one


class Desk:
    """A feed at a terminal, and a clock that both live by."""

    def __init__(self, terminal: Terminal, **settings: Any) -> None:
        self.terminal = terminal
        self.passed_s = 0.0
        self.got: list[Any] = []
        clocks = {"monotonic": lambda: 50.0 + self.passed_s, "now": lambda: TEN / 1000 + self.passed_s}
        self.feed = XtFeed(**{"random": lambda: 0.5, "timeout_s": 3.0} | clocks | settings)

    async def open(self) -> None:
        await self.feed.open()
        self.feed._beat_timer.cancel()
        self.taking = asyncio.ensure_future(self._take())

    async def _take(self) -> None:
        async for given in self.feed:
            self.got.append(given.value)

    async def close(self) -> None:
        await self.feed.close()
        await self.taking

    @property
    def now_ms(self) -> int:
        return TEN + int(self.passed_s * 1000)

    def push(self, **changed: Any) -> None:
        """Let the terminal tell the newest tick to every subscriber."""
        self.terminal.push({STOCK: tick(time=self.now_ms, **changed)})

    async def second(self) -> None:
        """Let a second pass, and what it starts end."""
        self.passed_s += 1
        self.feed._on_second()
        self.feed._beat_timer.cancel()
        await asyncio.sleep(0)
        await until(lambda: self.feed._attempt is None and not self.feed._checking)

    async def seconds(self, count: int, *, pushing: bool = False) -> None:
        for _ in range(count):
            await self.second()
            if pushing:
                self.push()
        await self.taken()

    async def taken(self) -> None:
        """Let what has been pushed come out."""
        await until(lambda: not self.feed._inbox._queue)
        await asyncio.sleep(0)

    async def seconds_until_ticks(self) -> int:
        """Return how many seconds pass until a tick comes out, the terminal pushing every second from now on."""
        await self.taken()
        before = len(self.batches)
        for count in range(60):
            self.push()
            await self.taken()
            if len(self.batches) > before:
                return count
            await self.second()
        raise AssertionError("no tick within a minute")

    @property
    def batches(self) -> list[TickBatch]:
        return [value for value in self.got if isinstance(value, TickBatch)]

    @property
    def told(self) -> list[MarkKind]:
        return [value.kind for value in self.got if isinstance(value, Mark)]

    def is_subscribed_once(self) -> bool:
        live = [codes if isinstance(codes, str) else tuple(codes) for codes in self.terminal.live()]
        return bool(live) and len(live) == len(set(live)) == len(self.feed._standing.numbers)


@pytest.fixture
async def desk(terminal: Terminal) -> AsyncIterator[Callable[..., Any]]:
    desks: list[Desk] = []

    async def opened(**settings: Any) -> Desk:
        one = Desk(terminal, **settings)
        desks.append(one)
        await one.open()
        return one

    yield opened
    terminal.release.set()
    for one in desks:
        await one.close()


# ── the connection ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_connection_is_silence_until_newer_ticks_come(desk: Callable[..., Any]) -> None:
    one = await desk(pulse=())
    one.push()
    one.terminal.running = False
    one.terminal.drop_connection()
    await one.seconds(20)
    one.terminal.running = True
    assert await one.seconds_until_ticks() <= 7
    kinds = [type(value) if isinstance(value, TickBatch) else value.kind for value in one.got if not beat(value)]
    assert kinds == [TickBatch, MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE, TickBatch]
    assert one.is_subscribed_once()


def beat(value: Any) -> bool:
    return isinstance(value, Heartbeat)


async def test_a_terminal_that_was_restarted_without_a_word_is_found_by_asking(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.push()
    one.terminal.restart()
    assert await one.seconds_until_ticks() <= 2
    assert one.is_subscribed_once()
    assert one.feed.counters()["clients"] == 2
    assert one.told == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]


async def test_a_terminal_that_stays_away_is_asked_ever_more_seldom_but_within_ten_seconds(
    desk: Callable[..., Any],
) -> None:
    one = await desk()
    one.terminal.running = False
    one.terminal.restart()
    asked = []
    for second in range(120):
        before = one.feed.counters()["attempts"]
        await one.second()
        if one.feed.counters()["attempts"] > before:
            asked.append(second)
    gaps = [later - before for before, later in pairwise(asked)]
    assert gaps[:4] == sorted(gaps[:4])
    assert max(gaps) <= 6
    assert len(asked) <= 30
    one.terminal.running = True
    assert await one.seconds_until_ticks() <= 10


async def test_a_client_made_behind_our_back_gets_the_subscriptions_and_the_old_one_has_none(
    desk: Callable[..., Any],
) -> None:
    one = await desk()
    old, xtdata = one.feed._standing.client, load_vendor()
    old.connected = False
    fresh = xtdata.get_client()  # what any query of the vendor's does by itself
    old.connected = True  # and the old one comes back to life, and goes on pushing
    assert fresh is not old
    await one.seconds(2)
    assert one.is_subscribed_once()
    assert not old.connected
    assert await one.seconds_until_ticks() == 0


async def test_a_client_that_was_away_and_is_back_by_itself_is_subscribed_on_anew(desk: Callable[..., Any]) -> None:
    one = await desk()
    client = one.feed._standing.client
    client.lose()
    one.terminal.say("disconnected")
    client.connected = True
    one.terminal.say("connected")
    assert await one.seconds_until_ticks() <= 2
    assert one.is_subscribed_once()
    assert one.feed._standing.client is client
    assert one.feed._standing.generation == 1


async def test_word_of_an_older_connection_costs_no_client(desk: Callable[..., Any]) -> None:
    one = await desk()
    for _ in range(5):
        one.terminal.say("disconnected")
        await one.seconds(3, pushing=True)
    assert len(one.terminal.clients) == 1
    assert one.is_subscribed_once()


async def test_a_connection_lost_before_the_first_tick_silences_nothing(desk: Callable[..., Any]) -> None:
    one = await desk(pulse=())
    one.terminal.restart()
    await one.seconds(2)
    one.push()
    await until(lambda: one.batches)
    assert MarkKind.SILENT not in one.told
    assert MarkKind.GAP in one.told


@pytest.mark.parametrize("call", ["connect", "subscribe_whole_quote", "is_connected", "unsubscribe_quote"])
async def test_a_call_that_hangs_is_left_and_what_it_did_late_is_undone(call: str, desk: Callable[..., Any]) -> None:
    one = await desk(timeout_s=0.15)
    one.push()
    one.terminal.hanging = {call}
    if call == "connect":
        one.terminal.restart()
    else:
        one.terminal.say("disconnected")  # so that it is subscribed anew
    await one.seconds(5)
    assert one.feed.counters()["calls_abandoned"] >= 1
    one.terminal.hanging.clear()
    one.terminal.release.set()
    assert await one.seconds_until_ticks() <= 10
    await one.seconds(5, pushing=True)
    assert one.is_subscribed_once()


async def test_subscriptions_that_are_refused_for_a_while_are_asked_for_again(desk: Callable[..., Any]) -> None:
    one = await desk(symbols=["600000.SH", STOCK], pulse=())
    one.terminal.restart()
    one.terminal.grants = [50, -1, -1, 51, -1]  # the first of two is granted twice, and must be given back
    await one.seconds(4)
    assert one.feed.counters()["attempts_failed"] == 3
    assert await one.seconds_until_ticks() <= 10
    assert one.is_subscribed_once()
    assert {50, 51} & set(one.terminal.subscriptions) == set()


async def test_pushes_of_what_was_subscribed_before_are_ignored_and_counted(desk: Callable[..., Any]) -> None:
    one = await desk()
    old = next(iter(one.terminal.subscriptions.values())).callback
    one.terminal.restart()
    await one.seconds(2)
    payload = {STOCK: tick(time=one.now_ms)}
    on_terminal_thread(lambda: old(bson(payload)))
    await one.second()
    assert one.batches == []
    assert one.feed.counters()["old_callbacks"] == 1


async def test_closing_while_a_call_hangs_ends_in_time_and_leaves_nothing(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.terminal.hanging = {"connect"}
    one.terminal.restart()
    one.passed_s += 1
    one.feed._on_second()
    one.feed._beat_timer.cancel()
    await asyncio.to_thread(one.terminal.hung.acquire)
    await asyncio.wait_for(one.close(), 5)
    one.terminal.release.set()
    await until(lambda: not any(thread.name.startswith("xt-") for thread in threading.enumerate()))
    assert one.terminal.live() == []


# ── silence ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pushes_that_stop_without_a_word_are_noticed_and_mended(desk: Callable[..., Any]) -> None:
    """A quote-server switch: connected, subscribed, and nothing comes any more."""
    one = await desk()
    await one.seconds(30, pushing=True)
    one.terminal.subscriptions.clear()
    await one.seconds(9)
    assert one.told == []
    await one.seconds(3)
    assert one.told == [MarkKind.SILENT]
    await one.seconds(45)
    assert one.feed.counters()["attempts"] == 1
    assert await one.seconds_until_ticks() <= 5  # at 60 s of silence, on the same client
    assert one.feed.counters()["clients"] == 1
    assert one.told == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]
    assert one.is_subscribed_once()


async def test_if_a_renewal_does_not_help_new_clients_are_made_until_it_does(desk: Callable[..., Any]) -> None:
    one = await desk()
    await one.seconds(5, pushing=True)
    for _ in range(100):
        one.terminal.subscriptions.clear()
        await one.second()
    assert one.feed.counters()["clients"] >= 3
    assert await one.seconds_until_ticks() <= 10
    assert one.is_subscribed_once()


async def test_the_first_push_of_a_subscription_is_no_sign_of_life_if_it_is_old(desk: Callable[..., Any]) -> None:
    one = await desk()
    await one.seconds(5, pushing=True)
    last_ms = one.now_ms
    one.terminal.subscriptions.clear()
    for _ in range(80):
        await one.second()
        one.terminal.push({STOCK: tick(time=last_ms)})
    assert one.told == [MarkKind.SILENT]
    assert one.feed.counters()["clients"] >= 2


async def test_silence_over_lunch_and_after_the_close_is_none(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.passed_s = 1.5 * HOUR_S - 3
    one.push()
    for at_s in (1.5, 2.0, 2.5, 2.999):
        one.passed_s = at_s * HOUR_S
        await one.second()
    assert one.told == []
    one.passed_s = 3 * HOUR_S + 9
    one.feed._on_second()
    assert one.told == []
    await one.seconds(3)
    assert one.told == [MarkKind.SILENT]


async def test_silence_on_a_holiday_is_none(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.feed.use_calendar(Calendar([20230131, 20230202]))
    await one.seconds(90)
    assert one.feed.counters()["silences"] == 0
    assert one.feed.counters()["attempts"] == 1


async def test_a_few_named_symbols_are_watched_by_the_pulse_beside_them(desk: Callable[..., Any]) -> None:
    one = await desk(symbols=["600000.SH", STOCK])
    assert sorted(one.terminal.live()) == sorted({*PULSE, "600000.SH"})
    for _ in range(30):  # the named ones are quiet, the index ticks
        await one.second()
        number = next(n for n, each in one.terminal.subscriptions.items() if each.codes == "000001.SH")
        one.terminal.push({"000001.SH": [tick(time=one.now_ms)]}, number=number)
    assert one.told == []
    assert one.batches == [], "what is only watched for a sign of life is not handed on"
    await one.seconds(12)
    assert one.feed.counters()["silences"] == 1


async def test_a_pulse_that_the_account_may_not_have_leaves_the_others(desk: Callable[..., Any]) -> None:
    Terminal.current.grants = [1, 2, -1, *range(3, 40)]
    one = await desk(symbols=["600000.SH", STOCK])
    assert one.feed.counters()["pulse_refused"] == 1


async def test_a_pulse_that_never_ticks_makes_every_other_tick_a_sign_of_life(desk: Callable[..., Any]) -> None:
    one = await desk(pulse=["600001.SH"])
    await one.seconds(90, pushing=True)
    assert one.told == []
    await one.seconds(12)
    assert one.told == [MarkKind.SILENT]


async def test_ticks_of_others_do_not_end_a_silence_of_the_pulse(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.push()
    for _ in range(20):
        await one.second()
        one.terminal.push({"600000.SH": tick(time=one.now_ms)})
    await one.taken()
    assert one.told == [MarkKind.SILENT]
    assert len(one.batches) == 21


# ── what comes ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_repeated_and_old_ticks_come_out_in_order_of_arrival(desk: Callable[..., Any]) -> None:
    """Which of them are news is the engine's to say; the feed neither sorts nor drops."""
    one = await desk()
    times = [0, 3000, 3000, 1000, 6000]
    for offset in times:
        one.terminal.push({STOCK: tick(time=TEN + offset)})
    await until(lambda: len(one.batches) == len(times))
    assert [int(batch.ts_event_ms[0]) - TEN for batch in one.batches] == times


async def test_a_whole_market_from_many_threads_with_faults_among_it_loses_only_the_faulty(
    desk: Callable[..., Any],
) -> None:
    one = await desk()
    market = [f"{600000 + place}.SH" for place in range(4000)]
    good = {code: tick(time=TEN) for code in market}
    bad = good | {"60000X.SH": tick(), market[7]: {"time": "soon"}, market[8]: None}
    payloads = [good, bad, good, b"\x05\x00\x00\x00junk", bad]
    threads = [threading.Thread(target=one.terminal.push, args=(payload,)) for payload in payloads]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    await until(lambda: len(one.batches) == 4)
    assert sorted(map(len, one.batches)) == [3998, 3998, 4000, 4000]
    counts = one.feed.counters()
    assert (counts["bad_symbol"], counts["missing_field"], counts["not_a_tick"]) == (2, 2, 2)


async def test_whole_markets_never_stall_the_loop_for_50_ms(desk: Callable[..., Any], monkeypatch: Any) -> None:
    one = await desk()
    market = {f"{number:06d}.SZ": tick(time=TEN) for number in range(1, 3000)}
    market |= {f"{600000 + number}.SH": tick(time=TEN) for number in range(2501)}
    encoded = bson(market)
    gc.collect()
    gc.freeze()  # as the daemon does after its start, and its switch interval
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    try:
        stalls = [await longest_stall_s(one, encoded) for _ in range(3)]
    finally:
        sys.setswitchinterval(interval_s)
        gc.unfreeze()
    assert min(stalls) < 0.05, stalls


async def longest_stall_s(one: Desk, encoded: bytes) -> float:
    """Push a whole market five times from a thread of the terminal; return the longest the loop was held up.

    Counted in CPU time of this process: what holds the loop up spends it, and other programs of a busy machine do not.
    """
    thread = threading.Thread(target=lambda: [one.terminal.push(encoded) for _ in range(5)])
    thread.start()
    longest_s = 0.0
    while thread.is_alive() or one.feed._inbox._queue:
        began_s = time.process_time()
        await asyncio.sleep(0.002)
        longest_s = max(longest_s, time.process_time() - began_s)
        one.feed._on_second()
        one.feed._beat_timer.cancel()
        one.got.clear()  # nobody keeps the markets that were: the collector would look through all of them
    return longest_s


async def test_a_download_that_hangs_holds_up_neither_ticks_nor_other_questions(desk: Callable[..., Any]) -> None:
    one = await desk()
    one.terminal.hanging = {"supply_history_data2"}
    download = asyncio.ensure_future(
        one.feed.query(lambda xtdata: xtdata.download_history_data2([STOCK], "1d"), doing="downloading", timeout_s=0.05)
    )
    assert await one.seconds_until_ticks() == 0
    with pytest.raises(FeedError, match=r"downloading took over 0\.05 s"):
        await download
    assert await one.feed.query(lambda xtdata: xtdata.get_sector_list(), doing="asking") == []
    assert one.feed.counters()["calls_abandoned"] == 1
    one.terminal.release.set()


async def test_each_push_wakes_the_loop_once_at_most(desk: Callable[..., Any]) -> None:
    one = await desk()
    for _ in range(10):
        one.push()
        await until(lambda: True)
    await until(lambda: len(one.batches) == 10)
    assert one.feed.counters()["inbox_wakes"] <= 10


def test_the_day_of_these_tests_is_a_trading_day() -> None:
    assert unix_ms(20230201, 10 * HOUR_S * 1000) == TEN
    assert not Calendar([20230131, 20230202]).is_trading(20230201)
