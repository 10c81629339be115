"""The engine on ticks written by hand: the life of edges row by row of the table of edge cases, cuts, restarts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.inputs import Control, ControlKind
from feeds.instruments import Board, Instrument, Limits, encode_table
from feeds.sessions import date_text
from feeds.tick import TickBatch
from rules import rulefile
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleError
from tests.rules.ticks import DAY, SYMBOL, Watch, batch, heartbeat, mark, ms, rules, said, tick

nan = math.nan
LEVEL = 'id: level, select: all, when: "LAST >= 10", rearm: "LAST < 9.5", freq: always'
CROSS = 'id: cross, select: all, when: "CROSS(LAST, 10)", rearm: "LAST < 9.5", freq: always'
NEXT = 20230202


# ── arming ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_true_already_at_start_does_not_fire_until_it_rearms() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 10.2), ("10:00:03", 9.8), ("10:00:06", 10.3), ("10:00:09", 9.4), ("10:00:12", 10.0))
    assert watch.said == ["fire 10:00:12 #1"]


def test_true_already_at_start_fires_late_where_the_rule_says_so() -> None:
    watch = Watch(f"{LEVEL}, on_start: fire")
    watch.prices(("10:00:00", 10.2), ("10:00:03", 10.3), ("10:00:06", 9.4), ("10:00:09", 10.0))
    assert watch.said == ["fire 10:00:00 #1", "fire 10:00:09 #2"]
    assert [one.late for one in watch.events] == [True, False]


def test_start_inside_the_dead_band_of_rearm_is_armed() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.8), ("10:00:03", 10.0))
    assert watch.said == ["fire 10:00:03 #1"]


def test_a_tick_may_rearm_and_fire_at_once() -> None:
    watch = Watch('id: r, select: all, when: "LAST > 10", rearm: "LAST > 10.5", freq: always, on_start: fire')
    watch.prices(("10:00:00", 10.1), ("10:00:03", 10.2), ("10:00:06", 10.6), ("10:00:09", 10.7))
    assert watch.said == ["fire 10:00:00 #1", "fire 10:00:06 #2", "fire 10:00:09 #3"]


def test_a_tie_with_the_level_is_not_above_it() -> None:
    """8.03 + 0.01 is a hair above 8.04 in binary."""
    watch = Watch('id: r, select: all, when: "CROSS(LAST, 8.03+0.01)", freq: always')
    watch.prices(("10:00:00", 8.0), ("10:00:03", 8.04), ("10:00:06", 8.05), ("10:00:09", 8.04), ("10:00:12", 8.05))
    assert watch.said == ["fire 10:00:06 #1", "fire 10:00:12 #2"]


# ── what may be sent ──────────────────────────────────────────────────────────────────────────────────────────────

WAVES = [(f"10:{minute:02}:{second:02}", price) for minute in range(8) for second, price in ((0, 9.0), (30, 10.5))]


@pytest.mark.parametrize(
    ("fields", "sent", "why"),
    [
        ("freq: always", [0, 1, 2, 3, 4, 5, 6, 7], None),
        ("freq: once", [0], "freq"),
        ("freq: once_per_day", [0], "freq"),
        ("freq: always, max_per_day: 3", [0, 1, 2], "max_per_day"),
        ("freq: always, cooldown: 3m", [0, 3, 6], "cooldown"),
        ("freq: always, cooldown: 179s", [0, 3, 6], "cooldown"),
        ("freq: always, cooldown: 181s", [0, 4], "cooldown"),
    ],
)
def test_a_suppressed_fire_is_an_event_and_counted_on_the_next(fields: str, sent: list[int], why: str | None) -> None:
    watch = Watch(f'id: r, select: all, when: "LAST > 10", {fields}')
    watch.prices(*WAVES)
    assert [one.episode for one in watch.events] == list(range(1, 9))
    assert [n for n, one in enumerate(watch.events) if one.event == "fire"] == sent
    assert {one.why for one in watch.events if one.event == "suppressed"} == ({why} - {None})
    fires = [one for one in watch.events if one.event == "fire"]
    assert [one.suppressed for one in fires] == [0, *(b - a - 1 for a, b in pairwise(sent))]


def test_cooldown_runs_on_the_clock_of_the_session() -> None:
    """9 s before lunch and 21 s after are 30 s."""
    watch = Watch('id: r, select: all, when: "LAST > 10", freq: always, cooldown: 30s')
    watch.prices(("11:29:48", 9), ("11:29:51", 11), ("13:00:05", 9), ("13:00:20.999", 11), ("13:00:20.999", 9))
    watch.prices(("13:00:21", 11))
    assert watch.said == ["fire 11:29:51 #1", "suppressed 13:00:20 #2 cooldown", "fire 13:00:21 #3"]


def test_cooldown_stands_still_in_a_marked_silence() -> None:
    watch = Watch('id: r, select: all, when: "LAST > 10", freq: always, cooldown: 60s')
    watch.prices(("10:00:00", 9), ("10:00:10", 11), ("10:00:11", 9))
    watch.take(mark("silent", "10:00:21"), mark("alive", "10:05:21"))
    watch.prices(("10:05:30", 11), ("10:05:40", 9), ("10:06:09", 11), ("10:06:10", 9), ("10:06:11", 11))
    assert [one for one in watch.said if "#" in one and "nodata" not in one and "resolve" not in one] == [
        "fire 10:00:10 #1", "suppressed 10:05:30 #2 cooldown", "suppressed 10:06:09 #3 cooldown", "fire 10:06:11 #4",
    ]  # fmt: skip


def test_the_reason_told_is_freq_before_cooldown_before_the_days_maximum() -> None:
    watch = Watch('id: r, select: all, when: "LAST > 10", cooldown: 1h, max_per_day: 1, freq: once_per_day')
    watch.prices(("10:00:00", 9), ("10:00:03", 11), ("10:00:06", 9), ("10:00:09", 11))
    assert watch.said == ["fire 10:00:03 #1", "suppressed 10:00:09 #2 freq"]


def test_flips_inside_one_bar_fire_once_per_bar() -> None:
    watch = Watch('id: r, select: all, period: 1m, when: "C > 10", freq: once_per_bar')
    watch.prices(
        ("10:00:01", 9), ("10:00:04", 11), ("10:00:07", 9), ("10:00:10", 11), ("10:01:00", 9), ("10:01:01", 11)
    )
    assert watch.said == ["fire 10:00:04 #1", "suppressed 10:00:10 #2 freq", "fire 10:01:01 #3"]
    assert [one.bar_end_ms for one in watch.events] == [ms("10:01:00"), ms("10:01:00"), ms("10:02:00")]


# ── ticks that are none ───────────────────────────────────────────────────────────────────────────────────────────


def test_price_0_before_open_never_fell_below() -> None:
    watch = Watch('id: r, select: all, when: "LAST < 9", session: all_trading, freq: always')
    watch.prices(("09:14:57", 8.0), ("09:20:00", nan), ("09:24:57", 8.0), ("09:25:01", nan), ("09:26:00", nan))
    watch.prices(("09:30:00", 9.2), ("09:30:03", 8.9))
    assert watch.said == ["fire 09:30:03 #1"]


def test_an_unknown_price_is_as_if_no_tick_came() -> None:
    watch = Watch('id: fell, select: all, when: "CROSS(10, LAST)", freq: always', LEVEL)
    watch.prices(("10:00:00", 10.2), ("10:00:03", nan), ("10:00:06", 9.9), ("10:00:09", nan), ("10:00:12", 10.1))
    assert [(one.rule, one.episode) for one in watch.events] == [("fell", 1)]
    watch.prices(("10:00:15", 9.4), ("10:00:18", nan), ("10:00:21", 10.1))
    assert [(one.rule, one.episode) for one in watch.events[1:]] == [("fell", 2), ("level", 1)]


def test_out_of_order_tick_is_dropped_and_counted() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:03", 9.8), ("10:00:02.999", 10.4))
    assert watch.engine.market.dropped["out_of_order"] == 1
    assert watch.said == []
    watch.take(tick("10:00:02", 9.0, symbol="000333.SZ"), tick("10:00:03", 10.4, symbol="000333.SZ"))
    assert watch.said == ["fire 10:00:03 #1"]  # older than another symbol's, not than its own


@pytest.mark.parametrize("status", [13, 15, 0])
@pytest.mark.parametrize("together", [True, False])
def test_a_tick_of_a_day_that_is_over_is_dropped_and_counted_whatever_it_comes_with(
    status: int, together: bool
) -> None:
    """The first push of a feed holds the last tick of days past for what has not ticked today."""
    opened = 'id: opened, select: all, period: 1d, when: "O > 0 AND C >= 9.5", freq: always, on_start: fire'
    strong = 'id: strong, select: all, when: "PCT <= -5", freq: always, on_start: fire, session: all_trading'
    watch = Watch(opened, strong)
    today = tick("10:00:00", 10.2, symbol="000333.SZ", day=DAY + 1)
    past = tick("15:00:05", 9.0, status=status, volume_lots=50_000.0)
    watch.take(*([batch(today, past)] if together else [today, past]))
    assert watch.engine.market.dropped == {"old_day": 1}
    watch.take(tick("10:00:03", 9.6, day=DAY + 1, open=9.6, volume_lots=300.0))
    mine = [one for one in watch.events if one.symbol == SYMBOL]
    assert [(one.rule, one.trade_date) for one in mine] == [("opened", date_text(ms("10:00:00", DAY + 1)))]
    row = watch.engine.market.universe.row(SYMBOL)
    bars = watch.engine.market.bars["1d"]
    assert [float(bars.fields[name].array[row]) for name in ("O", "L", "C")] == [9.6, 9.6, 9.6]


def test_duplicate_tick_is_an_identical_payload_and_an_equal_time_stamp_is_none() -> None:
    watch = Watch('id: r, select: all, when: "LAST = REF(LAST,1)", freq: always, on_start: fire')
    first = tick("10:00:00", 9.8)
    watch.take(first, first, batch(first, first))
    assert watch.engine.market.dropped["duplicate"] == 3
    assert watch.said == []
    watch.take(tick("10:00:00", 9.8, volume_lots=1.0))
    assert watch.said == ["fire 10:00:00 #1"]
    assert watch.engine.market.dropped["duplicate"] == 3


def test_two_ticks_of_one_time_in_one_batch_both_count() -> None:
    watch = Watch(CROSS)
    watch.take(batch(tick("10:00:00", 9.0), tick("10:00:00", 10.5), tick("10:00:00", 9.0), tick("10:00:00", 10.5)))
    assert watch.said == ["fire 10:00:00 #1", "fire 10:00:00 #2"]


def test_a_tick_far_ahead_of_its_arrival_is_dropped() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.0))
    watch.take(tick("10:00:14", 10.5, recv=ms("10:00:03.999")), tick("10:00:13", 10.5, recv=ms("10:00:03")))
    assert watch.said == ["fire 10:00:13 #1"]
    assert watch.engine.market.dropped["future"] == 1


# ── limits and instruments ────────────────────────────────────────────────────────────────────────────────────────

LIMIT = 'id: limit, select: all, when: "LAST >= LIMITUP", freq: always, on_start: fire'
SEAL = "id: seal, select: all, when: SEALUP, freq: always, on_start: fire"


def at_limit(clock: str, last: float, **columns: object) -> dict[str, object]:
    """Return a tick whose bid stands at its last price with nothing asked."""
    return tick(clock, last, **{"bid_price_1": last, "bid_lots_1": 5.0, "ask_lots_1": 0.0, **columns})


def test_limits_are_the_feeds_else_those_of_the_board() -> None:
    watch = Watch(LIMIT, SEAL)
    watch.take(at_limit("10:00:00", 11.0), at_limit("10:00:03", 11.0, symbol="688001.SH"))
    watch.take(
        at_limit("10:00:06", 12.0, symbol="688001.SH"), at_limit("10:00:09", 10.5, symbol="600000.SH", limit_up=10.5)
    )
    assert [(one.rule, one.symbol) for one in watch.events] == [
        (rule, symbol) for symbol in ("600519.SH", "688001.SH", "600000.SH") for rule in ("limit", "seal")
    ]


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (Limits(10.7, 9.3, 10.0), 10.7),
        (Limits(10.7, 9.3, 10.0, 20230201), 10.7),
        (Limits(0.0, 0.0, 10.0), None),
        (Limits(10.7, 9.3, 10.0, 20230131), 11.0),
        (Limits(10.7, 9.3, 9.9), 11.0),
        (None, 11.0),
    ],
)
def test_limits_of_the_table_win_on_their_day_and_with_their_close(given: Limits | None, limit: float | None) -> None:
    watch = Watch(LIMIT)
    known = Instrument("600519.SH", "贵州茅台", Board.MAIN, limits=given)
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([known])))
    watch.take(tick("10:00:00", 10.2))
    assert watch.engine.values("600519.SH")["limit"]["LIMITUP"] == limit
    watch.take(tick("10:00:03", 10.3, limit_up=10.3))
    assert watch.engine.values("600519.SH")["limit"]["LIMITUP"] == 10.3, "a tick's own wins over both"


@pytest.mark.parametrize(("symbol", "prev_close"), [("600519.SH", nan), ("000001.SH", 10.0), ("777777.SH", 10.0)])
def test_limits_are_unknown_without_prev_close_or_board(symbol: str, prev_close: float) -> None:
    watch = Watch(LIMIT, SEAL, 'id: not, select: all, when: "NOT(LAST >= LIMITUP)", on_start: fire')
    watch.take(
        at_limit("10:00:00", 11.0, symbol=symbol, prev_close=prev_close),
        at_limit("10:00:03", 99.0, symbol=symbol, prev_close=prev_close),
    )
    assert watch.said == []
    assert watch.engine.values(symbol)["limit"]["LIMITUP"] is None


@pytest.mark.parametrize(
    "instrument",
    [
        Instrument("688001.SH", "N新股", Board.STAR),
        Instrument("688001.SH", "C新股", Board.STAR),
        Instrument("688001.SH", None, Board.STAR, list_date=20230131),
    ],
)
def test_a_new_listing_has_no_limit_and_is_never_sealed(instrument: Instrument) -> None:
    watch = Watch(LIMIT, SEAL)
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([instrument])))
    watch.take(at_limit("10:00:00", 12.0, symbol="688001.SH"), at_limit("10:00:03", 30.0, symbol="688001.SH"))
    assert watch.said == []


def test_a_stock_listed_long_ago_has_its_limit_again() -> None:
    watch = Watch(LIMIT, SEAL)
    known = Instrument("688001.SH", "老股", Board.STAR, list_date=20230116)
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([known])), at_limit("10:00:00", 12.0, symbol="688001.SH"))
    assert [one.rule for one in watch.events] == ["limit", "seal"]
    assert watch.events[0].name == "老股"


def test_instrument_unknown_is_included_by_select_all() -> None:
    watch = Watch(LEVEL, 'id: main, select: {board: [main]}, when: "LAST >= 10", freq: always')
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([Instrument("600519.SH", "茅台", Board.MAIN)])))
    for symbol in ("600519.SH", "777777.SH"):
        watch.prices(("10:00:00", 9.0), ("10:00:03", 10.0), symbol=symbol)
    assert [(one.rule, one.symbol) for one in watch.events] == [
        ("level", "600519.SH"), ("main", "600519.SH"), ("level", "777777.SH"),
    ]  # fmt: skip


def test_a_seal_needs_its_own_side_and_an_empty_other_one() -> None:
    watch = Watch(SEAL)
    watch.take(
        at_limit("10:00:00", 10.9),
        at_limit("10:00:03", 11.0, ask_lots_1=3.0),
        at_limit("10:00:06", 11.0, bid_price_1=10.99),
    )
    watch.take(at_limit("10:00:09", 11.0, bid_lots_1=0.0))
    assert watch.said == []
    watch.take(
        at_limit("10:00:12", 11.0),
        at_limit("10:00:15", 11.0),
        at_limit("10:00:18", 11.0, ask_lots_1=1.0),
        at_limit("10:00:21", 11.0),
    )
    assert watch.said == ["fire 10:00:12 #1", "fire 10:00:21 #2"]


# ── sessions, days, expiry ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("session", "inside"),
    [
        ("continuous", ["09:30:00", "11:30:00", "13:00:00", "14:56:59"]),
        ("close_auction", ["14:57:00", "14:58:00", "15:00:00"]),
        ("after_hours", ["15:00:01", "15:29:00", "15:30:00"]),
        (
            "[continuous, close_auction]",
            ["09:30:00", "11:30:00", "13:00:00", "14:56:59", "14:57:00", "14:58:00", "15:00:00"],
        ),
        ("open_auction", ["09:25:00", "09:29:59"]),
    ],
)
def test_outside_its_sessions_a_rule_is_paused(session: str, inside: list[str]) -> None:
    clocks = [
        "09:10:00",
        "09:24:59",
        "09:25:00",
        "09:29:59",
        "09:30:00",
        "11:30:00",
        "11:30:01",
        "12:30:00",
        "12:59:59",
        "13:00:00",
    ]
    clocks += [
        "14:56:59",
        "14:57:00",
        "14:58:00",
        "15:00:00",
        "15:00:01",
        "15:29:00",
        "15:30:00",
        "15:30:01",
        "15:40:00",
    ]
    watch = Watch(
        f'id: r, select: all, when: "LAST > 0", rearm: "LAST > 0", session: {session}, freq: always, on_start: fire'
    )
    watch.prices(*((clock, 10.0) for clock in clocks))
    assert [one.split()[1] for one in watch.said] == inside


def test_the_opening_auctions_virtual_price_is_seen_in_its_session_alone() -> None:
    watch = Watch('id: r, select: all, when: "CROSS(AUCP, 10)", session: open_auction, freq: always')
    for clock, price in (("09:20:00", 9.9), ("09:20:03", 10.1), ("09:20:06", 9.8), ("09:24:59", 10.2)):
        watch.take(tick(clock, nan, bid_price_1=price, ask_price_1=price))
    watch.take(
        tick("09:25:00", 9.8, bid_price_1=9.8, ask_price_1=9.8),
        tick("09:25:03", 10.2, bid_price_1=10.2, ask_price_1=10.2),
    )
    assert watch.said == ["fire 09:20:03 #1", "fire 09:24:59 #2"]


def test_a_cross_over_lunch_fires() -> None:
    watch = Watch(CROSS)
    watch.prices(("11:29:57", 9.8), ("12:00:00", 10.4), ("12:30:00", 9.9), ("13:00:01", 10.4))
    assert watch.said == ["fire 13:00:01 #1"]


@pytest.mark.parametrize("session", ["continuous", "all_trading"])
def test_a_cross_over_night_fires(session: str) -> None:
    watch = Watch(f"{CROSS}, session: {session}")
    watch.prices(("14:56:00", 9.8), ("15:00:01", 9.9))
    watch.prices(("09:15:00", nan), ("09:24:57", nan), ("09:25:01", 10.4), ("09:30:00", 10.5), day=NEXT)
    assert watch.said == [f"fire {'09:30:00' if session == 'continuous' else '09:25:01'} #1"]
    assert watch.events[0].trade_date == "2023-02-02"


def test_over_the_night_arming_is_kept_counts_start_anew() -> None:
    watch = Watch(
        'id: r, select: all, when: "LAST >= 10", rearm: "LAST < 9.5"',
        'id: for-good, select: all, when: "LAST >= 10", rearm: "LAST < 9.5", freq: once',
    )
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.0), ("10:00:06", 9.0), ("10:00:09", 10.0))
    assert said(one for one in watch.events if one.rule == "r") == ["fire 10:00:03 #1", "suppressed 10:00:09 #2 freq"]
    watch.events.clear()
    watch.prices(
        ("09:30:00", 10.2), ("09:30:03", 9.4), ("09:30:06", 10.1), ("09:30:09", 9.4), ("09:30:12", 10.1), day=NEXT
    )
    assert said(one for one in watch.events if one.rule == "r") == ["fire 09:30:06 #1", "suppressed 09:30:12 #2 freq"]
    assert {one.event for one in watch.events if one.rule == "for-good"} == {"suppressed"}
    assert watch.events[0].suppressed == 1  # held back yesterday, told today


def test_ids_of_two_days_differ_where_episodes_are_numbered_alike() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.0))
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.0), day=NEXT)
    assert [one.episode for one in watch.events] == [1, 1]
    assert len({one.id for one in watch.events} | {one.episode_id for one in watch.events}) == 4


def test_an_expired_rule_says_so_once_and_is_not_evaluated_after() -> None:
    watch = Watch(f'{LEVEL}, expires: "2023-02-01 10:00"', 'id: other, select: all, when: "LAST >= 10", freq: always')
    watch.prices(
        ("09:59:57", 9.0),
        ("09:59:59", 10.0),
        ("09:59:59.500", 9.0),
        ("10:00:00", 10.0),
        ("10:00:03", 9.0),
        ("10:00:06", 10.0),
    )
    assert said(one for one in watch.events if one.rule == "level") == ["fire 09:59:59 #1", "expired 10:00:00 #1"]
    assert len([one for one in watch.events if one.rule == "other"]) == 3
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.0), day=NEXT)
    assert [one.event for one in watch.events if one.rule == "level"] == ["fire", "expired"]


# ── halts and silences ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_halted_stock_is_frozen() -> None:
    watch = Watch(LEVEL, CROSS)
    watch.prices(("10:00:00", 9.0))
    watch.prices(("10:01:00", 10.5), ("10:02:00", 9.0), status=16)
    assert watch.said == []
    watch.prices(("10:05:00", 10.5))
    assert [one.rule for one in watch.events] == ["level", "cross"]


def test_a_marked_silence_is_one_episode_and_freezes_all_other_rules() -> None:
    watch = Watch(
        LEVEL,
        'id: bar, select: all, period: 1m, eval: bar_close, when: "C>0", rearm: "C>0", freq: always, on_start: fire',
    )
    watch.prices(("10:00:01", 9.0))
    watch.take(heartbeat("10:01:03"), mark("silent", "10:01:20"), mark("silent", "10:01:30"), heartbeat("10:04:10"))
    watch.prices(("10:04:20", 10.5))
    assert watch.said == ["fire 10:01:00 #1", "nodata 10:01:20 #1 test"]
    watch.take(mark("alive", "10:04:30"), mark("alive", "10:04:31"))
    watch.prices(("10:04:33", 10.6), ("10:05:01", 10.6))
    assert watch.said[2:] == ["resolve 10:04:30 #1 test", "fire 10:04:33 #1", "fire 10:05:00 #2"]
    assert watch.events[1].why == "test"
    watch.take(mark("silent", "10:06:00"))
    assert watch.said[-1].startswith("nodata 10:06:00 #2")
    assert watch.events[-1].rule == "feed"


# ── rule sets come and go ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_reload_keeps_the_state_of_unchanged_rules() -> None:
    watch = Watch(LEVEL, CROSS)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.5))
    watch.take(rules(LEVEL.replace("freq: always", "freq: always, labels: {kind: new}"), CROSS, SEAL))
    watch.prices(("10:00:06", 10.6), ("10:00:09", 9.4), ("10:00:12", 10.5))
    assert [(one.rule, one.episode) for one in watch.events] == [("level", 1), ("cross", 1), ("level", 2), ("cross", 2)]
    assert watch.events[2].labels == {"kind": "new"}
    assert watch.events[2].rev == watch.events[0].rev


def test_an_edited_condition_starts_anew_but_its_episodes_count_on() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.5))
    watch.take(rules(LEVEL.replace(">= 10", ">= 10.2")))
    watch.prices(("10:00:06", 10.6), ("10:00:09", 9.4), ("10:00:12", 10.5))
    assert watch.said == ["fire 10:00:03 #1", "fire 10:00:12 #2"]
    assert watch.events[0].rev != watch.events[1].rev


def test_a_rule_that_was_away_counts_its_episodes_on() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.5))
    watch.take(rules(CROSS))
    watch.prices(("10:00:06", 9.0))
    watch.take(rules(LEVEL))
    watch.prices(("10:00:09", 9.0), ("10:00:12", 10.5))
    assert [(one.rule, one.episode) for one in watch.events] == [("level", 1), ("level", 2)]


def test_a_bad_rule_set_never_replaces_a_good_one() -> None:
    watch = Watch(LEVEL)
    watch.prices(("10:00:00", 9.0))
    bad = orjson.dumps({"v": 1, "files": [["rules.yaml", "version: 1\ngroups: 3\n"]]}).decode()
    for text in ("{", "[]", bad):
        with pytest.raises(RuleError):
            watch.take(Control(ControlKind.RULES, text))
    with pytest.raises(FeedError):
        watch.take(Control(ControlKind.INSTRUMENTS, "{"))
    watch.prices(("10:00:03", 10.5))
    assert watch.said == ["fire 10:00:03 #1"]


def test_episodes_that_the_store_holds_are_never_numbered_again() -> None:
    watch = Watch(LEVEL)
    watch.engine.raise_episodes(
        {("level", "", "600519.SH", "2023-02-01"): 7, ("level", "", "600519.SH", "2023-01-31"): 9}
    )
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.5), ("10:00:06", 9.0), ("10:00:09", 10.5))
    assert watch.said == ["fire 10:00:03 #8", "fire 10:00:09 #9"]


def test_a_checkpoint_is_put_back_whose_windows_share_what_was_made_for_others_before() -> None:
    short = 'id: short, select: all, period: 1m, when: "C > REF(EMA(C,5),3)"'
    long = 'id: long, select: all, period: 1m, when: "C > REF(EMA(C,5),12)"'
    watch = Watch(long)
    watch.prices(*((f"10:{minute:02}:03", 10 + minute % 7 / 10) for minute in range(20)))
    watch.take(rules(short, long))  # the short one reads the long one's ring
    arrays, header = watch.engine.checkpoint()
    again, _ = Engine.restore(arrays, header).checkpoint()
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_an_engine_that_has_no_rules_yet_goes_on_from_its_checkpoint() -> None:
    rows = [("10:00:00", 9.0), ("10:00:03", 10.5), ("10:00:06", 9.0), ("10:00:09", 10.5)]
    restarted, through = Watch(), Watch()
    table = encode_table([Instrument(SYMBOL, "贵州茅台", Board.MAIN)])
    for watch in (restarted, through):
        watch.take(Control(ControlKind.INSTRUMENTS, table), mark("silent", "09:31:00"))
        watch.take(mark("alive", "09:32:00"))
        watch.prices(rows[0])
    arrays, header = restarted.engine.checkpoint()
    restarted.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
    again, header_again = restarted.engine.checkpoint()
    assert (header_again, again.keys()) == (header, arrays.keys())
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    for watch in (restarted, through):
        watch.take(rules(LEVEL, CROSS))
        watch.prices(*rows[1:])
    assert lines(restarted.events) == lines(through.events)
    assert [one.rule for one in restarted.events] == ["feed", "feed", "level", "cross"]


def test_an_engine_without_rules_has_the_rule_set_of_no_files() -> None:
    assert Engine().rules == rulefile.load({}) == rulefile.from_source(Engine().rules.source)


# ── cuts, restarts and reloads change nothing ─────────────────────────────────────────────────────────────────────

PROPERTY_RULES = (
    CROSS,
    'id: down, select: all, when: "LAST < 9.9", cooldown: 20s, freq: always, session: all_trading',
    'id: back, select: all, when: "LAST > REF(LAST,1)", freq: always, max_per_day: 9',
    'id: bar, select: all, period: 1m, eval: bar_close, when: "S:=MA(C,2); VV:V; C > S", freq: always',
    'id: form, select: all, period: 1m, when: "HH:H; C > MA(C,3) OR V > 30", freq: once_per_bar',
    'id: five, select: all, period: 5m, eval: bar_close, when: "CROSS(C, REF(C,1))", freq: once_per_bar',
    'id: lim, select: all, when: "LAST >= LIMITUP OR SEALUP", freq: always, on_start: fire',
)
ADDED = 'id: added, select: all, period: 1m, when: "MID:=MA(C,4); X:REF(V,2); CROSS(C, MID)", freq: always'
SYMBOLS = ("600519.SH", "000333.SZ", "688001.SH", "300001.SZ")
STARTS = ("09:24:50", "09:29:55", "11:29:40", "14:56:50", "14:59:50")


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, object]]:
    """Draw ticks in order of time: several symbols, stretches of a day or two with jumps between, repeats, halts."""
    rows: list[dict[str, object]] = []
    volumes = dict.fromkeys(SYMBOLS, 0)
    for day in (20230201, 20230202)[: draw(st.integers(1, 2))]:
        for start in STARTS:
            clock = ms(start, day)
            for step in draw(st.lists(st.sampled_from([0, 0, 0, 500, 1000, 2999, 3000, 20_000, 61_000]), max_size=9)):
                clock += step
                symbol = draw(st.sampled_from(SYMBOLS))
                volumes[symbol] += draw(st.sampled_from([0, 0, 1, 7, 40]))
                last = draw(st.sampled_from([nan, 9.0, 9.4, 9.89, 9.9, 10.0, 10.0, 10.01, 10.5, 11.0, 12.0]))
                status = draw(st.sampled_from([13, 13, 13, 13, 16])) if clock < ms("15:00:00", day) else 15
                rows.append(
                    tick("00:00:00", last, symbol=symbol, status=status, volume_lots=float(volumes[symbol]))
                    | {"ts": clock}
                )
        volumes = dict.fromkeys(SYMBOLS, 0)
    return rows


def cut(rows: list[dict[str, object]], places: set[int]) -> list[TickBatch]:
    """Cut rows into batches at these places (those that lie inside)."""
    edges = [0, *sorted(place for place in places if 0 < place < len(rows)), len(rows)]
    return [batch(*rows[a:b]) for a, b in pairwise(edges) if b > a]


def lines(events: list[Alert]) -> list[bytes]:
    return [one.to_json() for one in events]


def reference(rows: list[dict[str, object]]) -> list[bytes]:
    """Return the events of the stream played tick by tick."""
    watch = Watch(*PROPERTY_RULES)
    watch.take(*rows)
    return lines(watch.events)


few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@few
@given(streams(), st.sets(st.integers(1, 140), max_size=20))
def test_chunk_invariance(rows: list[dict[str, object]], places: set[int]) -> None:
    watch = Watch(*PROPERTY_RULES)
    watch.take(*cut(rows, places))
    assert lines(watch.events) == reference(rows)


@few
@given(streams(), st.sets(st.integers(1, 140), min_size=1, max_size=4))
def test_a_restart_from_a_checkpoint_changes_nothing(rows: list[dict[str, object]], places: set[int]) -> None:
    watch = Watch(*PROPERTY_RULES)
    for part in cut(rows, places):
        watch.take(part)
        arrays, header = watch.engine.checkpoint()
        watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
    assert lines(watch.events) == reference(rows)


@few
@given(streams(), st.sets(st.integers(1, 140), min_size=1, max_size=4))
def test_a_reload_of_the_same_rules_changes_nothing(rows: list[dict[str, object]], places: set[int]) -> None:
    watch = Watch(*PROPERTY_RULES)
    for part in cut(rows, places):
        watch.take(part, rules(*PROPERTY_RULES))
    assert lines(watch.events) == reference(rows)


@few
@given(streams(), st.integers(1, 140))
def test_a_rule_added_leaves_the_events_of_the_others_as_they_are(rows: list[dict[str, object]], place: int) -> None:
    watch = Watch(*PROPERTY_RULES)
    for part in cut(rows, {place}):
        watch.take(part, rules(ADDED, *PROPERTY_RULES))
    assert lines([one for one in watch.events if one.rule != "added"]) == reference(rows)


def test_a_rule_set_that_is_expected_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: a, select: all, when: LAST > 1, rearm: LAST < 1}\n"
    expected = rulefile.load({"f": text})
    other = Control(ControlKind.RULES, rulefile.load({"g": text}).source)
    read: list[str] = []
    from_source = rulefile.from_source
    monkeypatch.setattr(rulefile, "from_source", lambda source: [read.append(source), from_source(source)][1])
    engine = Engine()
    engine.expect(expected)
    engine.check(Control(ControlKind.RULES, expected.source))
    engine.step(Control(ControlKind.RULES, expected.source))
    assert (engine.rules is expected, read) == (True, [])
    engine.expect(expected)
    engine.step(other)  # another one than was expected is read
    assert (engine.rules.source, read) == (other.text, [other.text])


def test_a_checkpoint_of_another_version_is_refused() -> None:
    arrays, header = Watch(LEVEL).engine.checkpoint()
    with pytest.raises(RuleError, match="checkpoint version 99"):
        Engine.restore(arrays, header | {"version": 99})


def test_a_checkpoint_that_lacks_an_array_is_refused() -> None:
    watch = Watch(LEVEL, CROSS)
    watch.prices(("10:00:00", 9.0))
    arrays, header = watch.engine.checkpoint()
    below = next(name for name in arrays if name.endswith("/below"))
    with pytest.raises(RuleError, match="below"):
        Engine.restore({name: array for name, array in arrays.items() if name != below}, header)


def test_a_checkpoint_shares_nothing_with_the_engine_that_goes_on() -> None:
    watch = Watch(*PROPERTY_RULES)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 9.5))
    arrays, header = watch.engine.checkpoint()
    before = {name: array.copy() for name, array in arrays.items()}
    text = orjson.dumps(header)
    watch.prices(("10:01:00", 10.5), ("10:02:03", 9.0), ("10:07:00", 10.5))
    assert orjson.dumps(header) == text
    for name, array in before.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
