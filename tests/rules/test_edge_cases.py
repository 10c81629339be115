"""The table of edge cases, row by row, where it speaks of state mode, gaps, restarts and flapping.

What it says of the arming of edges, of dropped ticks and of limits stands in test_engine.py, of groups in
test_breadth.py; test_edge_case_table.py holds that there is a test of every row.
"""

from __future__ import annotations

import orjson
import pytest

from feeds.inputs import Control, ControlKind, Mark, MarkKind
from feeds.instruments import Board, Instrument, encode_table
from rules.engine import Engine
from tests.rules.ticks import SYMBOL, Watch, heartbeat, mark, ms, rules, said, tick

NEXT = 20230202
CROSS = 'id: cross, select: all, when: "CROSS(LAST, 10)", rearm: "LAST < 9.5", freq: always'
HOLD = 'id: hold, select: all, when: "LAST >= 10", mode: state, for: 30s, keep_firing: 20s, freq: always'
AT_ONCE = 'id: at-once, select: all, when: "LAST >= 10", mode: state, freq: always'


def of(watch: Watch, rule: str) -> list[str]:
    return said(one for one in watch.events if one.rule == rule)


def restarted(watch: Watch, *, away: bool = True) -> None:
    """Put the engine back from its checkpoint, and tell it that we were away."""
    arrays, header = watch.engine.checkpoint()
    watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
    if away:
        watch.take(Mark(MarkKind.GAP, watch.engine.market.clock_ms, "restart"))


# ── true already at start ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("on_start", ["suppress", "fire"])
def test_true_already_at_start_is_pending_or_firing_at_once_and_late(on_start: str) -> None:
    watch = Watch(f"{HOLD}, on_start: {on_start}", f"{AT_ONCE}, on_start: {on_start}")
    watch.prices(("10:00:00", 10.2), ("10:00:30", 10.2), ("10:00:31", 9.0), ("10:01:00", 10.2))
    watch.take(heartbeat("10:02:00"))
    assert of(watch, "at-once") == ["fire 10:00:00 #1", "resolve 10:00:31 #1", "fire 10:01:00 #2"]
    assert of(watch, "hold") == [
        "pending 10:00:00 #1", "fire 10:00:30 #1", "resolve 10:00:51 #1", "pending 10:01:00 #2", "fire 10:01:30 #2",
    ]  # fmt: skip
    assert all(one.late == (one.episode == 1) for one in watch.events)


def test_an_unknown_sample_is_no_start() -> None:
    watch = Watch(AT_ONCE)
    watch.prices(("10:00:00", float("nan")), ("10:00:03", 10.2))
    assert [one.late for one in watch.events] == [True]


# ── restart ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_restart_keeps_state_and_timers_as_they_were() -> None:
    watch = Watch(HOLD)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    restarted(watch)
    watch.take(heartbeat("10:00:25"))
    restarted(watch)
    watch.take(heartbeat("10:00:31"))
    watch.prices(("10:00:40", 9.0))
    restarted(watch)
    watch.take(heartbeat("10:01:01"))
    assert watch.said == ["pending 10:00:00 #1", "fire 10:00:30 #1", "resolve 10:01:00 #1"]


@pytest.mark.parametrize("rule", [CROSS, AT_ONCE])
@pytest.mark.parametrize(
    ("last_seen", "back", "sent"),
    [
        ("10:00:00", "10:00:20", True),
        ("10:00:00", "10:01:00", True),
        ("10:00:00", "10:01:01", False),
        ("11:29:30", "13:00:30", True),
        ("11:29:30", "13:00:31", False),
    ],
)
def test_restart_tells_a_rise_across_our_own_outage_late_within_a_minute_of_trading(
    rule: str, last_seen: str, back: str, sent: bool
) -> None:
    watch = Watch(rule)
    watch.prices((last_seen, 9.0))
    restarted(watch)
    watch.prices((back, 10.2))
    (event,) = watch.events
    assert (str(event.event), event.why) == (("fire", None) if sent else ("suppressed", "gap"))
    assert event.late
    assert event.gap == ("lunch" if back.startswith("13") else "feed")
    watch.prices(("13:10:00", 9.0), ("13:10:03", 10.2))
    assert str(watch.events[-1].event) == "fire"  # only the first sample after it lies across
    assert not watch.events[-1].late


def test_restart_over_the_night_hides_nothing_if_nothing_was_traded() -> None:
    watch = Watch(CROSS)
    watch.prices(("14:56:59", 9.0))
    watch.take(heartbeat("15:30:00"))
    restarted(watch)
    watch.prices(("09:30:00", 10.2), day=NEXT)
    assert watch.said == ["fire 09:30:00 #1"]
    assert (watch.events[0].gap, watch.events[0].late) == ("session", False)


def test_restart_over_the_end_of_a_day_is_measured_in_trading_time() -> None:
    watch = Watch(CROSS)
    watch.prices(("14:30:00", 9.0))
    restarted(watch)
    watch.prices(("09:30:00", 10.2), day=NEXT)
    assert watch.said == ["suppressed 09:30:00 #1 gap"]


def test_restart_measures_our_outage_not_the_silence_of_a_stock_before_it() -> None:
    watch = Watch(CROSS)
    watch.prices(("10:00:00", 9.0))
    watch.take(heartbeat("10:10:00"))
    restarted(watch)
    watch.prices(("10:10:30", 10.2))
    assert watch.said == ["fire 10:10:30 #1"]
    assert watch.events[0].late


# ── reload ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reload_keeps_the_state_of_unchanged_rules_and_resets_an_edited_condition() -> None:
    watch = Watch(HOLD, AT_ONCE)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    edited = AT_ONCE.replace(">= 10", ">= 10.1")
    watch.take(rules(edited, HOLD.replace("freq: always", "freq: always, labels: {kind: new}")), heartbeat("10:00:40"))
    assert said(watch.events) == ["pending 10:00:00 #1", "fire 10:00:00 #1", "fire 10:00:30 #1"]
    assert watch.events[-1].labels == {"kind": "new"}
    watch.prices(("10:00:41", 10.2))
    assert said(watch.events[3:]) == ["fire 10:00:41 #2"]
    assert watch.events[3].late  # the edited rule starts anew


# ── feed marks silence ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("alive", "ends"), [("10:00:50", "10:01:10"), ("10:01:10", "10:01:30")])
def test_feed_marks_silence_freezes_every_timer(alive: str, ends: str) -> None:
    watch = Watch(HOLD)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    watch.take(mark("silent", "10:00:10"), heartbeat("10:00:45"), mark("alive", alive), heartbeat("10:05:00"))
    assert of(watch, "hold") == ["pending 10:00:00 #1", f"fire {ends} #1"]
    assert [str(one.event) for one in watch.events if one.rule == "feed"] == ["nodata", "resolve"]


def test_feed_marks_silence_of_over_a_minute_resets_pending_and_keeps_firing() -> None:
    watch = Watch(HOLD, AT_ONCE)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    watch.take(mark("silent", "10:00:10"), mark("alive", "10:01:11"), heartbeat("10:05:00"))
    watch.prices(("10:05:01", 10.2), ("10:05:02", 9.0))
    assert of(watch, "hold") == ["pending 10:00:00 #1", "pending 10:05:01 #2"]
    assert of(watch, "at-once") == ["fire 10:00:00 #1", "resolve 10:05:02 #1"]


def test_feed_marks_silence_over_lunch_counts_the_seconds_of_the_session() -> None:
    watch = Watch(HOLD)
    watch.prices(("11:29:20", 9.0), ("11:29:40", 10.2))
    watch.take(mark("silent", "11:29:50"), mark("alive", "13:00:20"), heartbeat("13:00:41"))
    assert of(watch, "hold") == ["pending 11:29:40 #1", "fire 13:00:40 #1"]


def test_feed_marks_silence_after_a_deadline_of_that_very_second() -> None:
    watch = Watch(HOLD)
    watch.prices(("09:59:57", 9.0), ("10:00:00.100", 10.2))
    watch.take(mark("silent", "10:00:30.500"))
    assert watch.said[:2] == ["pending 10:00:00 #1", "fire 10:00:30 #1"]


# ── day roll ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_feed_marks_silence_dated_back_to_a_day_that_is_over_is_an_episode_of_its_own() -> None:
    watch = Watch('id: any, select: all, when: "LAST > 10"')
    for day, says in ((20230201, 20230201), (20230202, 20230202), (20230202, 20230201)):
        watch.take(heartbeat("10:00:00", day), mark("silent", "10:00:10", says), mark("alive", "10:00:30", says))
    assert [(str(one.event), one.trade_date, one.episode) for one in watch.events] == [
        ("nodata", "2023-02-01", 1), ("resolve", "2023-02-01", 1),
        ("nodata", "2023-02-02", 1), ("resolve", "2023-02-02", 1),
        ("nodata", "2023-02-02", 2), ("resolve", "2023-02-02", 2),
    ]  # fmt: skip
    assert len({one.id for one in watch.events}) == 6  # whom the store knows already it tells nobody
    assert [one.ts_event_ms for one in watch.events[4:]] == [ms("10:00:30", 20230202)] * 2


def test_day_roll_ends_what_fires_at_the_old_days_last_second_and_is_a_start() -> None:
    watch = Watch(HOLD, AT_ONCE)
    watch.prices(("14:56:00", 9.0), ("14:56:40.500", 10.2))
    watch.take(heartbeat("14:59:59.900"), heartbeat("09:15:00", NEXT))
    watch.prices(("09:30:00", 10.3), day=NEXT)
    assert of(watch, "at-once") == ["fire 14:56:40 #1", "resolve 14:59:59 #1 day_end", "fire 09:30:00 #1"]
    assert of(watch, "hold") == ["pending 14:56:40 #1", "pending 09:30:00 #1"]
    resolve = next(one for one in watch.events if one.why == "day_end")
    assert (resolve.trade_date, resolve.ts_event_ms) == ("2023-02-01", ms("14:59:59"))
    new = [one for one in watch.events if one.trade_date == "2023-02-02"]
    assert all(one.late and one.gap == "session" for one in new)
    assert len({one.id for one in watch.events}) == len(watch.events)


def test_day_roll_ends_timers_whatever_bars_others_ask_for() -> None:
    """Bars that the old day has left close when the new one begins; no timer runs on until then."""
    stream = (heartbeat("14:56:50"), heartbeat("09:15:00", NEXT))
    alone, beside = Watch(HOLD), Watch(HOLD, 'id: bar, select: all, period: 1m, eval: bar_close, when: "C > 99"')
    for watch in (alone, beside):
        watch.prices(("14:56:00", 9.0), ("14:56:28", 10.2))
        watch.take(*stream)
        assert watch.said == ["pending 14:56:28 #1"]


def test_day_roll_says_nothing_of_a_suppressed_episode() -> None:
    watch = Watch(AT_ONCE.replace("always", "once_per_day"))
    watch.prices(("10:00:00", 9.0), ("10:00:03", 10.2), ("10:00:06", 9.0), ("10:00:09", 10.2))
    watch.take(heartbeat("09:15:00", NEXT))
    assert watch.said == ["fire 10:00:03 #1", "resolve 10:00:06 #1", "suppressed 10:00:09 #2 freq"]


# ── one stock silent ──────────────────────────────────────────────────────────────────────────────────────────────


def test_one_stock_silent_carries_its_last_value_and_its_timers_evaluate() -> None:
    watch = Watch(HOLD)
    watch.prices(("10:00:00", 9.0), ("10:00:01.250", 10.2))
    watch.prices(("10:00:40", 5.0), symbol="000333.SZ")
    assert [(one.symbol, one.ts_event_ms) for one in watch.events] == [
        (SYMBOL, ms("10:00:01.250")), (SYMBOL, ms("10:00:31.250")),
    ]  # fmt: skip
    assert watch.events[1].values["LAST"] == 10.2


# ── cross over night, lunch, halt, feed outage ────────────────────────────────────────────────────────────────────

PERIODS = {
    "tick": 'period: tick, when: "CROSS(LAST, 10)"',
    "1m": 'period: 1m, when: "CROSS(C, 10)"',
    "60m": 'period: 60m, when: "CROSS(C, 10)"',
    "1d": 'period: 1d, when: "CROSS(C, 10)"',
}
OVER = {
    "session": [tick("14:56:00", 9.0), tick("09:25:03", 10.2, day=NEXT), tick("09:30:01", 10.3, day=NEXT)],
    "lunch": [tick("11:29:50", 9.0), tick("13:00:01", 10.2)],
    "halt": [tick("10:58:00", 9.0), tick("10:58:30", 9.0, status=16), tick("11:10:00", 10.2)],
    "feed": [tick("10:29:30", 9.0), mark("gap", "10:29:40"), tick("10:31:10", 10.2)],
}


def over(gap: str, period: str, more: str = "") -> Watch:
    """Return what a rule of this period says of a rise over this gap; a day and a tick lie before it."""
    watch = Watch(f"id: r, select: all, freq: always, {PERIODS[period]}{more}")
    watch.prices(("10:00:00", 9.0), ("10:00:03", 9.1), day=20230131)
    watch.prices(("09:30:00", 9.0), ("10:00:00", 9.1))
    watch.take(*OVER[gap])
    return watch


@pytest.mark.parametrize("gap", OVER)
@pytest.mark.parametrize("period", ["tick", "1m", "60m"])
def test_cross_over_night_lunch_halt_or_feed_outage_fires_and_is_tagged(gap: str, period: str) -> None:
    watch = over(gap, period)
    assert [(str(one.event), one.gap, one.late) for one in watch.events] == [("fire", gap, False)]


@pytest.mark.parametrize("gap", OVER)
def test_cross_over_night_lunch_halt_or_feed_outage_is_not_tagged_on_days(gap: str) -> None:
    watch = over(gap, "1d")
    assert [(str(one.event), one.gap) for one in watch.events] == [("fire", None)]


@pytest.mark.parametrize("gap", OVER)
@pytest.mark.parametrize("period", ["tick", "1m", "60m"])
def test_cross_over_night_lunch_halt_or_feed_outage_is_held_back_where_the_rule_says_so(gap: str, period: str) -> None:
    watch = over(gap, period, ", gap: suppress")
    assert [(str(one.event), one.why, one.gap) for one in watch.events] == [("suppressed", "gap", gap)]


@pytest.mark.parametrize(("gap", "end"), [("session", "09:31:00"), ("lunch", "13:01:00"), ("feed", "10:32:00")])
def test_cross_over_a_gap_at_a_bars_close_is_tagged_in_its_first_bar_alone(gap: str, end: str) -> None:
    watch = Watch('id: r, select: all, period: 1m, eval: bar_close, when: "C > 0", rearm: "C > 0", freq: always, '
                  "on_start: fire")  # fmt: skip
    day = NEXT if gap == "session" else 20230201
    watch.prices(("09:30:00", 9.0), ("10:00:00", 9.1))
    watch.take(*OVER[gap])
    last = watch.engine.market.clock_ms
    watch.take(heartbeat("13:05:00", day) if gap != "session" else heartbeat("09:36:00", day))
    tagged = [(one.ts_event_ms, one.gap) for one in watch.events if one.ts_event_ms > last - 60_000 and one.gap]
    assert tagged[0] == (ms(end, day), gap)
    assert {tag for _, tag in tagged[1:]} <= {"lunch"} - {gap}


def test_cross_over_lunch_is_tagged_on_the_first_bar_of_a_stock_without_trades() -> None:
    watch = Watch('id: r, select: all, period: 1m, eval: bar_close, when: "C > 0", rearm: "C > 0", freq: always, '
                  "on_start: fire")  # fmt: skip
    watch.prices(("11:29:50", 9.0))
    watch.take(heartbeat("13:03:10"))
    assert [(one.gap, one.ts_event_ms) for one in watch.events if one.ts_event_ms >= ms("13:01:00")] == [
        ("lunch", ms("13:01:00")), (None, ms("13:02:00")), (None, ms("13:03:00")),
    ]  # fmt: skip


def test_cross_over_night_is_tagged_though_the_auctions_result_came_before() -> None:
    """The auction's ticks are none of the continuous session's: its previous value is last night's."""
    watch = Watch(CROSS)
    watch.prices(("14:56:00", 9.0))
    watch.prices(("09:25:03", 10.1), ("09:27:00", 10.1), ("09:30:00", float("nan")), ("09:30:03", 10.2), day=NEXT)
    assert [(one.ts_event_ms, one.gap) for one in watch.events] == [(ms("09:30:03", NEXT), "session")]


def test_a_cross_after_the_first_tick_behind_a_gap_is_not_tagged() -> None:
    watch = Watch(CROSS)
    watch.prices(("11:29:50", 9.0), ("13:00:01", 9.9), ("13:00:04", 10.2))
    assert [one.gap for one in watch.events] == [None]


@pytest.mark.parametrize("says", ["10:00:16", "09:00:00"])
def test_a_rise_knows_no_price_of_before_a_gap_whatever_its_time_says(says: str) -> None:
    """A feed's clock that is put back dates its marks before ticks that came: these are behind the gap no less."""
    watch = Watch('id: fast, select: all, when: "RISE(9) >= 1", freq: always, on_start: fire')
    watch.prices(*((f"10:00:{second:02}", 10.0) for second in range(0, 18, 3)))
    watch.take(mark("gap", says), *(heartbeat(f"10:00:{second}") for second in range(18, 30, 3)))
    watch.prices(("10:00:30", 12.0))
    assert watch.said == []


def test_a_pending_episode_over_a_gap_is_tagged_and_its_fire_by_the_timer_is_not() -> None:
    watch = Watch(f"{HOLD}, gap: suppress")
    watch.prices(("11:29:50", 9.0), ("13:00:01", 10.2))
    watch.take(heartbeat("13:01:00"))
    assert [(str(one.event), one.gap) for one in watch.events] == [("pending", "lunch"), ("fire", None)]


# ── halted stock ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [1, 16, 17, 20])
def test_halted_stock_is_frozen_and_its_first_tick_after_is_tagged(status: int) -> None:
    watch = Watch(AT_ONCE, HOLD)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    watch.prices(("10:00:10", 10.2), ("10:05:00", 9.0), status=status, volume_lots=1.0)
    watch.take(heartbeat("10:20:00"))
    assert watch.said == ["fire 10:00:00 #1", "pending 10:00:00 #1"]
    watch.prices(("10:30:00", 10.2), volume_lots=2.0)
    watch.take(heartbeat("10:30:21"))
    assert watch.said[2:] == ["fire 10:30:20 #1"]
    watch.prices(("10:30:30", 10.1), ("10:30:31", 9.0))
    assert watch.said[3:] == ["resolve 10:30:31 #1"]


def test_halted_stock_tells_its_rise_as_of_a_halt() -> None:
    watch = Watch(AT_ONCE)
    watch.prices(("10:00:00", 9.0))
    watch.prices(("10:00:10", 9.0), status=16, volume_lots=1.0)
    watch.prices(("13:00:10", 10.2), ("13:00:13", 9.0), ("13:00:16", 10.2))
    assert [one.gap for one in watch.events] == ["halt", None, None]


def test_a_halt_of_an_hour_a_hair_before_a_deadline_is_no_hour_of_work() -> None:
    watch = Watch(HOLD)
    watch.prices(("09:59:57", 9.0), ("10:00:00", 10.2))
    watch.prices(("10:00:29.999", 10.2), status=16, volume_lots=1.0)
    timers = watch.engine._episodes.timers
    started = timers._started
    watch.take(heartbeat("10:00:40"), heartbeat("10:59:40"))
    assert timers._started - started <= 2
    watch.prices(("11:00:00", 10.2), volume_lots=2.0)
    watch.take(heartbeat("11:00:05"))
    assert watch.events[-1].ts_event_ms == ms("11:00:00.001")


# ── flapping ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["edge", "state"])
def test_flapping_is_one_event_and_silence_until_a_quiet_stretch_of_the_same_length(mode: str) -> None:
    watch = Watch(f'id: r, select: all, when: "LAST >= 10", mode: {mode}, freq: always, flap: {{over: 2, within: 1m}}')
    for clock in ("10:00:00", "10:00:10", "10:00:20", "10:01:00", "10:01:59", "10:02:59", "10:03:58"):
        watch.prices((clock, 9.0), (clock + ".500", 10.2))
    fires = [one.split()[0] for one in watch.said if not one.startswith("resolve")]
    assert fires == ["fire", "fire", "flapping", "suppressed", "suppressed", "fire", "fire"]
    assert {one.why for one in watch.events if str(one.event) in ("suppressed", "flapping")} == {"flapping"}
    if mode == "state":
        assert len([one for one in watch.said if one.startswith("resolve")]) == 3  # of those that were sent
    assert [one.suppressed for one in watch.events if str(one.event) == "fire"] == [0, 0, 3, 0]


# ── steps and half-days ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_needs_the_price_to_go_on_in_the_same_direction() -> None:
    watch = Watch('id: up, select: all, when: "LAST >= 10", mode: state, freq: {step: 1%}')
    for clock, last in (("10:00:00", 10.1), ("10:01:00", 10.15), ("10:02:00", 10.201), ("10:03:00", 10.0)):
        watch.prices((clock, 9.0), (clock + ".500", last))
    assert [one.split()[0] for one in watch.said if not one.startswith("resolve")] == [
        "fire", "suppressed", "fire", "suppressed",
    ]  # fmt: skip


def test_once_per_session_is_once_in_each_half_day_and_auction() -> None:
    watch = Watch(f"{AT_ONCE.replace('always', 'once_per_session')}, session: all_trading")
    for clock in ("09:26:00", "09:27:00", "09:31:00", "11:00:00", "13:01:00", "14:00:00", "14:58:00", "15:10:00"):
        watch.prices((clock, 9.0), (clock + ".500", 10.2))
    fires = [one.split()[1] for one in watch.said if one.startswith("fire")]
    assert fires == ["09:26:00", "09:31:00", "13:01:00", "14:58:00", "15:10:00"]


# ── expiry and selection ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_expired_rule_lets_no_timer_end() -> None:
    watch = Watch(f'{HOLD}, expires: "2023-02-01 10:00"')
    watch.prices(("09:59:00", 9.0), ("09:59:40", 10.2))
    watch.take(heartbeat("10:01:00"), heartbeat("09:15:00", NEXT))
    assert watch.said == ["pending 09:59:40 #1", "expired 10:00:00 #1"]


def test_cooldown_leaves_out_the_silences_of_yesterday() -> None:
    """Neither one before the fire, which it does not span, nor one after it, in which the clock stood."""
    watch = Watch(f"{AT_ONCE}, cooldown: 30m")
    watch.prices(("13:00:00", 9.0))
    watch.take(mark("silent", "13:10:00"), mark("alive", "13:40:00"))
    watch.prices(("14:31:00", 9.0), ("14:32:00", 10.2), ("14:32:03", 9.0))
    watch.take(mark("silent", "14:37:00"), mark("alive", "14:47:00"), heartbeat("15:00:00"))
    # 15 of the 25 minutes to 14:57 have run.
    watch.prices(("09:30:00", 9.0), ("09:44:59", 10.2), ("09:44:59.500", 9.0), ("09:45:00", 10.2), day=NEXT)
    assert [one for one in of(watch, "at-once") if "resolve" not in one] == [
        "fire 14:32:00 #1", "suppressed 09:44:59 #1 cooldown", "fire 09:45:00 #2",
    ]  # fmt: skip


# ── ex-rights day ─────────────────────────────────────────────────────────────────────────────────────────────────


def over_the_night(watch: Watch, close: float, first: float, *, reference: float) -> None:
    """Let a stock close at one price and start at another, with this previous close."""
    for clock, number in (("09:30:00", 1.0), ("14:56:57", 2.0), ("15:00:02", 3.0)):
        watch.prices((clock, close), volume_lots=number, prev_close=close)
    watch.prices(("09:30:00", first), day=NEXT, volume_lots=1.0, prev_close=reference)


@pytest.mark.parametrize("period", ["tick", "1m", "60m", "1d"])
def test_ex_rights_day_crosses_nothing_over_the_night(period: str) -> None:
    when = 'when: "CROSS(10, LAST)"' if period == "tick" else 'when: "CROSS(MA(C,1)*0+10, C)"'
    watch = Watch(f"id: r, select: all, freq: always, period: {period}, {when}")
    over_the_night(watch, 10.4, 9.3, reference=9.36)
    assert watch.events == []


def test_ex_rights_day_rebuilds_history_from_adjusted_bars() -> None:
    watch = Watch('id: r, select: all, period: 1d, when: "M: REF(C,1); C > 0"')
    over_the_night(watch, 20.0, 10.1, reference=10.0)
    assert watch.engine.values(SYMBOL)["r"]["M"] == 10.0


@pytest.mark.parametrize("period", ["tick", "1m"])
def test_ex_rights_day_tags_rules_of_absolute_prices_and_no_others(period: str) -> None:
    word = "LAST" if period == "tick" else "C"
    watch = Watch(
        f'id: price, select: all, period: {period}, when: "{word} >= 10", mode: state, freq: always',
        f'id: share, select: all, period: {period}, when: "PCT >= 1", mode: state, freq: always',
    )
    over_the_night(watch, 9.0, 8.0, reference=8.0)
    watch.prices(("10:00:00", 10.2), ("10:05:00", 7.9), day=NEXT, volume_lots=2.0, prev_close=8.0)
    assert [(one.rule, str(one.event), one.gap) for one in watch.events] == [
        ("price", "fire", "exright"), ("share", "fire", None),
        ("price", "resolve", "exright"), ("share", "resolve", None),
    ]  # fmt: skip


# ── new listing ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_listing_without_limit_is_neither_sealed_nor_unsealed_and_short_windows_are_warming() -> None:
    watch = Watch(
        "id: sealed, select: all, when: SEALUP, mode: state, freq: always",
        'id: not-sealed, select: all, when: "NOT(SEALUP)", mode: state, freq: always',
        'id: long, select: all, period: 1m, when: "C > MA(C,5)", mode: state, freq: always',
    )
    new = Instrument("688001.SH", "N新股", Board.STAR, list_date=20230201)
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([new])))
    for minute in range(4):
        watch.prices((f"10:0{minute}:00", 30.0 + minute), symbol="688001.SH", bid_price_1=33.0, bid_lots_1=1.0)
    assert watch.said == []
