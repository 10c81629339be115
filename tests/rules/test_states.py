"""State mode: the engine against a machine by hand, on drawn streams and on recorded sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feeds.inputs import Heartbeat, Input, Mark, MarkKind
from feeds.recording import inputs
from rules.alert import Alert
from rules.engine import Engine
from tests.rules import sessions_by_hand as hand
from tests.rules.states_by_hand import ALL_TRADING, ByHand, Given, StateRule, Told
from tests.rules.ticks import Watch, batch, heartbeat, mark, ms, rules, tick
from tests.rules.whole_market import WHOLE

SECOND = 1000
SYMBOLS = ("600519.SH", "000333.SZ", "300001.SZ")
DAYS = (20230202, 20230203, 20230206)
"""Thursday, Friday, Monday."""
STARTS = ("09:24:50", "09:29:55", "11:29:40", "12:59:55", "14:56:40", "14:59:50")


def line(rule: StateRule) -> str:
    """Return the YAML of a rule by hand."""
    fields = [f'id: {rule.id}, select: all, when: "LAST >= {rule.level / 100:.2f}", mode: state, freq: {rule.freq}']
    if rule.for_ms:
        fields.append(f"for: {rule.for_ms // SECOND}s")
    if rule.keep_ms:
        fields.append(f"keep_firing: {rule.keep_ms // SECOND}s")
    if rule.cooldown_ms:
        fields.append(f"cooldown: {rule.cooldown_ms // SECOND}s")
    if rule.max_per_day < 100:
        fields.append(f"max_per_day: {rule.max_per_day}")
    if rule.spans is ALL_TRADING:
        fields.append("session: all_trading")
    return ", ".join([*fields, f"gap: {rule.gap}"])


@st.composite
def rule_sets(draw: st.DrawFn) -> list[StateRule]:
    count = draw(st.integers(1, 4))
    return [
        StateRule(
            f"r{order}",
            draw(st.sampled_from([1000, 1000, 1050])),
            for_ms=draw(st.sampled_from([0, 1, 3, 6, 30])) * SECOND,
            keep_ms=draw(st.sampled_from([0, 0, 2, 10, 30])) * SECOND,
            freq=draw(st.sampled_from(["always", "always", "once", "once_per_day", "once_per_session"])),
            cooldown_ms=draw(st.sampled_from([0, 0, 20, 300])) * SECOND,
            max_per_day=draw(st.sampled_from([1 << 30, 1 << 30, 2])),
            spans=draw(st.sampled_from([StateRule("", 0).spans, ALL_TRADING])),
            gap=draw(st.sampled_from(["tag", "tag", "suppress"])),
        )
        for order in range(count)
    ]


BACK = (0,) * 30 + (1, 999, 3000, 61_000, 3_600_000, 86_400_000)
"""How far clocks are put back, by a feed that dates all it says anew."""
STEPS = (0, 0, 1, 500, 999, 1000, 1000, 2000, 3000, 3000, 5999, 6000, 10_000, 31_000, 62_000)
KINDS = ("tick",) * 12 + ("beat",) * 5 + ("silent", "alive", "gap")


@st.composite
def streams(draw: st.DrawFn) -> list[Given]:
    """Draw ticks, heartbeats and marks of up to three days, ticks of one symbol now and then a little behind others.

    Now and then the clock that dates them all is put back.
    """
    found: list[Given] = []
    for day in DAYS[: draw(st.integers(1, 3))]:
        for start in STARTS:
            now = ms(start, day)
            for _ in range(draw(st.integers(0, 12))):
                now += draw(st.sampled_from(STEPS)) - draw(st.sampled_from(BACK))
                found.append(draw(inputs_at(now)))
    return found


@st.composite
def inputs_at(draw: st.DrawFn, now: int) -> Given:
    kind = draw(st.sampled_from(KINDS))
    if kind != "tick":
        return Given(kind, now)
    last = draw(st.sampled_from([None, 900, 999, 1000, 1000, 1049, 1050, 1100, 1100]))
    status = draw(st.sampled_from([13] * 9 + [16]))
    behind = draw(st.sampled_from([0, 0, 0, 700, 2500]))
    return Given("tick", now - behind, draw(st.sampled_from(SYMBOLS)), last, status)


def engine_input(number: int, one: Given) -> Input:
    """Return an input of the engine; its number in the stream stands in for volume, so no two ticks are alike."""
    if one.kind == "tick":
        return batch(tick_row(number, one))
    return Heartbeat(one.ts_ms) if one.kind == "beat" else Mark(MarkKind(one.kind), one.ts_ms, "test")


def tick_row(number: int, one: Given) -> dict[str, object]:
    last = math.nan if one.last is None else one.last / 100
    row = tick("00:00:00", last, symbol=one.symbol, status=one.status, volume_lots=float(number))
    return row | {"ts": one.ts_ms, "prev_close": math.nan}  # one that is not the last close would be an ex-rights day


def told(events: Iterable[Alert]) -> list[Told]:
    """Return what the engine told, as the machine by hand would say it; episodes of the feed itself are left out."""
    return [
        Told(
            one.ts_event_ms, str(one.event), one.rule, one.symbol or "", one.episode,
            ms("00:00:00", int(one.trade_date.replace("-", ""))), one.why, one.late, one.suppressed, one.gap,
        )
        for one in events
        if one.rule != "feed"
    ]  # fmt: skip


def by_hand(hand_rules: list[StateRule], stream: list[Given]) -> list[Told]:
    machine = ByHand(hand_rules)
    return [event for one in stream for event in machine.take(one)]


few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


BACK_BEFORE_IT_WENT = [
    Given("tick", ms("15:00:05"), SYMBOLS[0], 1100),
    Given("silent", ms("15:00:09")),
    Given("alive", ms("15:00:06")),
    Given("tick", ms("15:00:15"), SYMBOLS[0], 1000),
]
"""A silence whose end has the earlier time: the feed's clock was put back."""
DATED_BACK = [
    Given("tick", ms("10:00:00"), SYMBOLS[0], 1100),
    Given("silent", ms("13:00:02", 20230131)),
    Given("beat", ms("10:20:00")),
    Given("alive", ms("13:00:03", 20230131)),
    Given("tick", ms("10:20:01"), SYMBOLS[0], 1100),
    Given("tick", ms("10:20:40"), SYMBOLS[0], 1100),
]
"""A silence of twenty minutes, both ends of which are dated back to the day before: nothing pending outlives it."""


@few
@given(rule_sets(), streams())
@example([StateRule("r0", 1000, for_ms=6000, spans=ALL_TRADING)], BACK_BEFORE_IT_WENT)
@example([StateRule("r0", 1000, for_ms=30_000)], DATED_BACK)
def test_every_event_is_the_one_of_the_machine_by_hand(hand_rules: list[StateRule], stream: list[Given]) -> None:
    watch = Watch(*(line(rule) for rule in hand_rules))
    watch.take(*(engine_input(number, one) for number, one in enumerate(stream)))
    assert told(watch.events) == by_hand(hand_rules, stream)
    assert len({one.id for one in watch.events}) == len(watch.events)


# ── cut, restarted, reloaded ──────────────────────────────────────────────────────────────────────────────────────

MIXED = (
    'id: held, select: all, when: "LAST >= 10", mode: state, for: 3s, keep_firing: 6s, freq: always',
    'id: flaps, select: all, when: "LAST >= 10", mode: state, freq: always, flap: {over: 2, within: 1m}',
    'id: steps, select: all, when: "LAST >= 10", mode: state, freq: {step: 1%}, keep_firing: 2s',
    'id: bars, select: all, period: 1m, eval: bar_close, when: "C >= 10", mode: state, for: 30s, freq: always',
    'id: forms, select: all, period: 1m, when: "H >= 10.4", mode: state, keep_firing: 10s, freq: always',
    'id: sure, select: all, period: 1m, when: "C > 10.4", confirm: bar_close, freq: once_per_bar, session: all_trading',
    'id: ends, select: all, when: "LAST >= 10", mode: state, for: 6s, freq: always, expires: "2023-02-03 09:31"',
)


def inputs_of(stream: list[Given], cuts: set[int]) -> list[Input]:
    """Return a stream with neighbouring ticks as one batch, but for cuts before the inputs of these numbers."""
    found: list[Input] = []
    rows: list[dict[str, object]] = []
    for number, one in enumerate(stream):
        if rows and (one.kind != "tick" or number in cuts):
            found.append(batch(*rows))
            rows = []
        if one.kind == "tick":
            rows.append(tick_row(number, one))
        else:
            found.append(engine_input(number, one))
    return [*found, batch(*rows)] if rows else found


def written(events: Iterable[Alert]) -> list[bytes]:
    return [one.to_json() for one in events]


def one_by_one(stream: list[Given]) -> list[bytes]:
    watch = Watch(*MIXED)
    watch.take(*inputs_of(stream, set(range(len(stream)))))
    return written(watch.events)


fewer = settings(few, max_examples=8)


@fewer
@given(streams(), st.sets(st.integers(0, 150), max_size=12))
def test_cuts_of_batches_change_nothing(stream: list[Given], cuts: set[int]) -> None:
    watch = Watch(*MIXED)
    watch.take(*inputs_of(stream, cuts))
    assert written(watch.events) == one_by_one(stream)


@fewer
@given(streams(), st.sets(st.integers(0, 150), min_size=1, max_size=5))
def test_a_restart_keeps_phases_timers_and_provisional_fires(stream: list[Given], cuts: set[int]) -> None:
    watch = Watch(*MIXED)
    for number, one in enumerate(stream):
        if number in cuts:
            arrays, header = watch.engine.checkpoint()
            watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
        watch.take(engine_input(number, one))
    assert written(watch.events) == one_by_one(stream)


@fewer
@given(streams(), st.sets(st.integers(0, 150), min_size=1, max_size=5))
def test_a_reload_keeps_unchanged_episodes_whatever_comes_and_goes(stream: list[Given], cuts: set[int]) -> None:
    watch = Watch(*MIXED)
    for number, one in enumerate(stream):
        if number in cuts:
            extra = f'id: extra{number}, select: all, when: "LAST >= 9.5", mode: state, for: 1s, freq: always'
            watch.take(rules(extra, *MIXED))
        watch.take(engine_input(number, one))
    assert written(one for one in watch.events if not one.rule.startswith("extra")) == one_by_one(stream)


def test_a_removed_rule_takes_its_episodes_and_timers_along() -> None:
    held = 'id: held, select: all, when: "LAST >= 10", mode: state, for: 6s, keep_firing: 6s, freq: always'
    watch = Watch(held, MIXED[1])
    watch.prices(("10:00:00", 10.0), ("10:00:06", 10.0), ("10:00:08", 9.0), symbol="000333.SZ")
    watch.prices(("10:00:09", 10.0))
    before = len(watch.events)
    watch.take(rules(MIXED[1]), heartbeat("10:01:00"), rules(held, MIXED[1]), heartbeat("10:02:00"))
    assert len(watch.events) == before
    watch.prices(("10:02:01", 10.0))
    assert watch.said[before:] == ["pending 10:02:01 #2"]  # numbers go on, the state is new
    assert watch.events[-1].late


# ── the rule reference and the timers' order ──────────────────────────────────────────────────────────────────────

BOX = 'id: box-exit, select: all, when: "LAST > 21.50 OR LAST < 19.80", mode: state, for: 30s, keep_firing: 60s'


def test_for_30_seconds_sleeps_over_lunch() -> None:
    watch = Watch(BOX)
    watch.prices(("11:29:48", 21.4), ("11:29:51", 21.6), ("11:29:54", 21.6), ("11:29:57", 21.6), ("13:00:00", 21.6))
    watch.take(*(heartbeat(f"13:00:{second:02}") for second in range(3, 30, 3)))
    watch.prices(*((f"13:{second // 60:02}:{second % 60:02}", 21.0) for second in range(30, 105, 3)))
    assert watch.said == ["pending 11:29:51 #1", "fire 13:00:21 #1", "resolve 13:01:30 #1"]
    assert [one.ts_event_ms for one in watch.events[1:]] == [ms("13:00:21"), ms("13:01:30")]
    assert watch.events[1].values["LAST"] == 21.6
    assert len({one.episode_id for one in watch.events}) == 1


def test_a_breakout_honours_its_cooldown() -> None:
    watch = Watch('id: brk, select: all, when: "CROSS(LAST, 1800)", rearm: "LAST < 1782", freq: always, cooldown: 10m')
    prices = [1795, 1799, 1801, 1799, 1801, 1803, 1781, 1801, *[1780] * 203, 1801]
    start = ms("10:00:00")
    watch.take(
        *(tick("10:00:00", last, volume_lots=float(n)) | {"ts": start + 3000 * n} for n, last in enumerate(prices))
    )
    assert watch.said == ["fire 10:00:06 #1", "suppressed 10:00:21 #2 cooldown", "fire 10:10:33 #3"]


def test_timers_of_one_second_ring_by_deadline_then_rule_then_symbol() -> None:
    watch = Watch(
        'id: slow, select: all, when: "LAST >= 10", mode: state, for: 6s, freq: always',
        'id: fast, select: all, when: "LAST >= 10", mode: state, for: 5s, freq: always',
    )
    for clock, symbol in (("10:00:00.900", "600519.SH"), ("10:00:00.900", "000333.SZ"), ("10:00:01.100", "000001.SZ")):
        watch.prices((clock, 10.0), symbol=symbol)
    watch.events.clear()
    watch.take(heartbeat("10:00:20"))
    assert [(one.rule, one.symbol, one.ts_event_ms - ms("10:00:00")) for one in watch.events] == [
        ("fast", "000333.SZ", 5900), ("fast", "600519.SH", 5900), ("fast", "000001.SZ", 6100),
        ("slow", "000333.SZ", 6900), ("slow", "600519.SH", 6900), ("slow", "000001.SZ", 7100),
    ]  # fmt: skip


def test_bars_close_before_timers_and_timers_end_before_ticks() -> None:
    watch = Watch(
        'id: held, select: all, when: "LAST >= 10", mode: state, for: 30s, freq: always',
        'id: bar, select: all, period: 1m, eval: bar_close, when: "C >= 10", freq: always, on_start: fire',
        'id: tick, select: all, when: "LAST >= 10.5", freq: always',
    )
    watch.prices(("10:00:32.500", 10.0), ("10:01:03.200", 10.5))
    # In 10:01:03 first the bar of 10:01:00 closes, then the timer of 10:01:02.500 ends, then the tick comes.
    assert [(one.rule, str(one.event)) for one in watch.events] == [
        ("held", "pending"), ("bar", "fire"), ("held", "fire"), ("tick", "fire"),
    ]  # fmt: skip


def test_a_tick_of_the_deadlines_own_second_comes_before_it() -> None:
    watch = Watch('id: held, select: all, when: "LAST >= 10", mode: state, for: 5s, freq: always')
    watch.prices(("10:00:00.100", 10.0), ("10:00:05.900", 9.0))
    watch.take(heartbeat("10:01:00"))
    assert watch.said == ["pending 10:00:00 #1"]


# ── confirmation at the bar's close ───────────────────────────────────────────────────────────────────────────────

SURE = 'id: sure, select: all, period: 1m, when: "C > 10", confirm: bar_close, freq: once_per_bar'


@pytest.mark.parametrize(("last", "outcome"), [(10.2, "confirmed"), (9.9, "withdrawn"), (10.0, "withdrawn")])
def test_a_provisional_fire_is_confirmed_or_withdrawn_at_the_close(last: float, outcome: str) -> None:
    watch = Watch(SURE)
    watch.prices(("10:00:01", 9.9), ("10:00:10", 10.1), ("10:00:50", last))
    watch.take(heartbeat("10:01:02"))
    assert watch.said == ["fire 10:00:10 #1"]
    watch.take(heartbeat("10:01:03"))
    assert watch.said[1:] == [f"{outcome} 10:01:00 #1"]
    fire, close = watch.events
    assert (fire.provisional, close.provisional) == (True, False)
    assert fire.episode_id == close.episode_id
    assert fire.id != close.id
    assert fire.bar_end_ms == close.bar_end_ms == close.ts_event_ms == ms("10:01:00")
    assert close.values["C"] == last
    watch.take(heartbeat("10:05:00"))
    assert len(watch.events) == 2


def test_confirmation_goes_out_outside_the_session_and_in_a_silence() -> None:
    watch = Watch(SURE.replace("1m", "5m"), SURE.replace("sure", "minute"))
    watch.prices(("14:56:50", 9.9), ("14:56:55", 10.1), ("14:58:00", 10.2))
    watch.take(mark("silent", "14:58:10"), heartbeat("15:02:00"))
    assert [(one.rule, str(one.event), one.ts_event_ms) for one in watch.events if one.rule != "feed"] == [
        ("sure", "fire", ms("14:56:55")), ("minute", "fire", ms("14:56:55")),
        ("minute", "confirmed", ms("14:57:00")), ("sure", "confirmed", ms("15:00:00")),
    ]  # fmt: skip


def test_a_suppressed_fire_is_neither_confirmed_nor_withdrawn() -> None:
    watch = Watch(SURE.replace("once_per_bar", "once"))
    watch.prices(("10:00:01", 9.9), ("10:00:10", 10.1), ("10:01:01", 9.9), ("10:01:10", 10.1))
    watch.take(heartbeat("10:03:00"))
    assert watch.said == ["fire 10:00:10 #1", "confirmed 10:01:00 #1", "suppressed 10:01:10 #2 freq"]


def test_a_late_tick_that_fires_in_a_closed_bar_is_settled_at_once() -> None:
    watch = Watch(SURE)
    watch.prices(("10:00:01", 9.9))
    watch.take(heartbeat("10:01:05"))
    watch.prices(("10:00:59", 10.1))
    assert watch.said == ["fire 10:00:59 #1", "confirmed 10:01:00 #1"]
    watch.prices(("10:01:20", 9.0), ("10:02:20", 9.0))
    assert len(watch.events) == 2


# ── recorded sessions ─────────────────────────────────────────────────────────────────────────────────────────────

TEN = ("0116", "0212", "0214", "0221", "0222", "0225", "0226", "0304", "0305") if WHOLE else ("0116", "0225", "0305")
"""All nine days are played against the same table by the catalog's seals."""
SEALS = tuple(
    f"id: {side}-{name}, select: all, when: SEAL{side.upper()}, mode: state, freq: always{more}"
    for side in ("up", "down")
    for name, more in (("at-once", ""), ("held", ", for: 6s"), ("kept", ", keep_firing: 1m"))
)


@cache
def seals(folder: Path, day: str) -> list[Alert]:
    """Play a session of ten stocks and the first second of the morning after it."""
    watch = Watch(*SEALS)
    for one in inputs([folder / "sessions" / f"ten-2019{day}.parquet"]):
        watch.take(one.value)
    watch.take(heartbeat("09:15:00", 20190401))
    return watch.events


def spells_of(folder: Path, day: str, side: str) -> dict[str, list[tuple[str, str | None]]]:
    """Return (first sealed, first unsealed row) of every spell of a day by symbol, from the table."""
    table = pd.read_csv(folder / "tables" / "ten_seal_spells.csv", dtype=str)
    table = table[(table.day == f"2019{day}") & (table.side == side)]
    found: dict[str, list[tuple[str, str | None]]] = {}
    for one in table.itertuples():
        found.setdefault(one.symbol, []).append((one.start, None if pd.isna(one.broken_at) else one.broken_at))
    return found


def moved(events: Iterable[Alert], rule: str) -> dict[str, list[tuple[str, str, str | None, int]]]:
    found: dict[str, list[tuple[str, str, str | None, int]]] = {}
    for one in events:
        if one.rule == rule:
            moves = found.setdefault(one.symbol or "", [])
            moves.append((str(one.event), hand.at(one.ts_event_ms), one.why, one.episode))
    return found


def later(clock: str, seconds: int) -> str:
    """Return a clock so many seconds later; no spell of the table begins right before the midday hole."""
    return hand.at(ms(clock) + seconds * SECOND)


each_day = pytest.mark.parametrize("day", TEN)
each_side = pytest.mark.parametrize("side", ["up", "down"])


@each_day
@each_side
def test_seals_fire_and_resolve_when_the_table_of_spells_says(day: str, side: str, market_data: Path) -> None:
    expected = {
        symbol: [
            move
            for number, (start, broken) in enumerate(spells, 1)
            for move in (
                ("fire", start, None, number),
                ("resolve", broken or "14:49:57", None if broken else "day_end", number),
            )
        ]
        for symbol, spells in spells_of(market_data, day, side).items()
    }
    events = seals(market_data, day)
    assert ends_of_day(moved(events, f"{side}-at-once")) == expected


@each_day
@each_side
def test_seals_held_for_six_seconds_are_pending_from_their_first_row(day: str, side: str, market_data: Path) -> None:
    expected: dict[str, list[tuple[str, str, str | None, int]]] = {}
    for symbol, spells in spells_of(market_data, day, side).items():
        moves = expected.setdefault(symbol, [])
        for number, (start, broken) in enumerate(spells, 1):
            moves.append(("pending", start, None, number))
            if broken is None or later(start, 6) < broken:
                moves.append(("fire", later(start, 6), None, number))
                moves.append(("resolve", broken or "14:49:57", None if broken else "day_end", number))
    assert ends_of_day(moved(seals(market_data, day), f"{side}-held")) == expected


@each_day
@each_side
def test_breaks_shorter_than_a_minute_are_none_for_who_waits_so_long(day: str, side: str, market_data: Path) -> None:
    expected: dict[str, list[tuple[str, str, str | None, int]]] = {}
    for symbol, spells in spells_of(market_data, day, side).items():
        moves, number = expected.setdefault(symbol, []), 0
        for place, (start, broken) in enumerate(spells):
            again = spells[place + 1][0] if place + 1 < len(spells) else None
            if not moves or moves[-1][0] == "resolve":
                number += 1
                moves.append(("fire", start, None, number))
            if broken is None:
                moves.append(("resolve", "14:49:57", "day_end", number))
            elif again is None or later(broken, 60) < again:
                moves.append(("resolve", later(broken, 60), None, number))
    assert ends_of_day(moved(seals(market_data, day), f"{side}-kept")) == expected


def ends_of_day(
    found: dict[str, list[tuple[str, str, str | None, int]]],
) -> dict[str, list[tuple[str, str, str | None, int]]]:
    """Return moves with the session's last row for the day's last second, which may lie a little behind it."""
    return {
        symbol: [(event, "14:49:57" if why == "day_end" else at, why, number) for event, at, why, number in moves]
        for symbol, moves in found.items()
    }


def test_a_spell_sealed_at_the_first_row_is_late_and_the_day_ends_it(market_data: Path) -> None:
    events = [one for one in seals(market_data, "0225") if one.rule == "up-at-once"]
    fires = {(one.symbol, hand.at(one.ts_event_ms)): one for one in events if str(one.event) == "fire"}
    assert {key for key, one in fires.items() if one.late} == {("000725.SZ", "09:40:03"), ("609004.SH", "09:40:03")}
    assert fires["600030.SH", "13:10:03"].gap == "lunch"  # was seen unsealed in the morning
    last = [one for one in events if one.why == "day_end"]
    assert {one.trade_date for one in last} == {"2019-02-25"}
    assert {one.ts_event_ms for one in last} == {max(one.ts_event_ms for one in last)}
    fired = {one.episode_id for one in events if str(one.event) == "fire"}
    assert {one.episode_id for one in last} <= fired
