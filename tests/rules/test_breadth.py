"""Rules over groups: aggregates against loops over recorded and made-up markets, and the life of their alerts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feeds.inputs import Control, ControlKind, Heartbeat, Input
from feeds.instruments import Instrument, encode_table, instrument_of
from feeds.recording import inputs
from feeds.simulated import SimulatedFeed
from feeds.tick import CORE, TickBatch
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleFileError
from rules.rulefile import load
from tests.rules.test_rulefile import mutated
from tests.rules.ticks import Watch, batch, heartbeat, mark, ms, rules, tick

SYMBOLS = tuple(f"60000{n}.SH" for n in range(1, 6))
EVERY = "min_valid: 0%, freq: always, rearm: n >= 0, when: n >= 0"
FIRST = f"{EVERY}, on_start: fire"
WHOLE = "n: count(PCT > 0), up: share(PCT > 0), s: sum(AMTDAY), m: mean(PCT), lo: min(PCT), hi: max(PCT)"


def table(*instruments: Instrument) -> Control:
    return Control(ControlKind.INSTRUMENTS, encode_table(instruments))


def sectors(**members: Iterable[str]) -> Control:
    """Return the control record of instruments in these sectors."""
    found: dict[str, tuple[str, ...]] = {}
    for sector, symbols in members.items():
        for symbol in symbols:
            found[symbol] = (*found.get(symbol, ()), sector)
    return table(*(instrument_of(symbol, sectors=names) for symbol, names in found.items()))


def ticks(clock: str, *lasts: float, day: int = 20230201) -> TickBatch:
    """Return one tick of each of the first symbols."""
    rows = [tick(clock, last, symbol=symbol, day=day) for symbol, last in zip(SYMBOLS, lasts, strict=False)]
    return batch(*rows)


def said(events: Iterable[Alert]) -> list[str]:
    return [
        f"{one.event} {one.group} {(one.ts_event_ms + 8 * 3600_000) % 86_400_000 - 36_000_000} {one.values.get('N')}"
        for one in events
    ]


# ── the life of an alert over groups ──────────────────────────────────────────────────────────────────────────────────

EXAMPLE = (
    "id: limitup-50, over: {sector: 沪深A股, by: none}, agg: {n: count(SEALUP), up: share(PCT > 0)}, "
    "min_valid: 80%, when: n > 2, rearm: n < 2"
)


def sealed(clock: str, symbol: str, is_sealed: bool) -> dict[str, Any]:
    return tick(
        clock, 11.0 if is_sealed else 10.5, symbol=symbol, bid_price_1=11.0 if is_sealed else 10.49, bid_lots_1=5.0,
        ask_price_1=math.nan if is_sealed else 10.5, ask_lots_1=0.0 if is_sealed else 5.0,
    )  # fmt: skip


def test_the_example_of_the_reference_runs() -> None:
    watch = Watch(EXAMPLE)
    watch.take(sectors(沪深A股=SYMBOLS))
    watch.take(batch(*(sealed("10:00:00", symbol, False) for symbol in SYMBOLS)))
    watch.take(batch(*(sealed("10:00:03", symbol, True) for symbol in SYMBOLS[:3])), heartbeat("10:00:04"))
    (fire,) = watch.events
    assert (fire.event, fire.symbol, fire.group, fire.name, fire.tick) == ("fire", None, "沪深A股", "沪深A股", None)
    assert fire.ts_event_ms == ms("10:00:04")
    assert fire.values == {"N": 3.0, "UP": 1.0}
    assert fire.message == "沪深A股 limitup-50"


def test_a_group_is_sampled_when_the_second_after_a_change_begins() -> None:
    watch = Watch(f"id: r, over: all, agg: {{n: count(LAST > 0)}}, {EVERY}, on_start: fire")
    watch.take(ticks("10:00:00.200", 10.0), ticks("10:00:00.900", 10.0, 10.0))
    assert watch.events == []
    watch.take(heartbeat("10:00:01"), heartbeat("10:00:02"), ticks("10:00:09", 10.0, 10.0, 10.0), heartbeat("10:01:00"))
    assert said(watch.events) == ["fire all 1000 2.0", "fire all 10000 3.0"]


def test_what_does_not_tick_grows_old_with_the_clock() -> None:
    watch = Watch(
        "id: r, over: all, agg: {n: count(FEED_AGE > 10), old: max(FEED_AGE)}, freq: always, when: n > 0, rearm: n < 1"
    )
    watch.take(ticks("10:00:00", 10.0, 10.0))
    watch.take(*(heartbeat(f"10:00:{second:02}") for second in range(1, 12)))
    assert [(one.event, one.ts_event_ms, one.values) for one in watch.events] == [
        ("fire", ms("10:00:11"), {"N": 2.0, "OLD": 11.0})
    ]
    watch.take(ticks("10:00:12", 10.0, 10.0), *(heartbeat(f"10:00:{second}") for second in range(13, 30)))
    assert [one.ts_event_ms for one in watch.events[1:]] == [ms("10:00:23")]


def test_edges_over_groups_rearm_and_obey_freq_cooldown_and_session() -> None:
    watch = Watch(
        "id: r, over: all, agg: {n: count(LAST > 10)}, freq: always, cooldown: 10s, when: n >= 2, rearm: n < 1"
    )
    steps = [(0, 0), (2, 2), (3, 1), (4, 2), (5, 0), (6, 2), (20, 0), (21, 2)]
    for second, above in steps:
        watch.take(ticks(f"10:00:{second:02}", *([11.0] * above + [9.0] * (5 - above))))
    watch.take(heartbeat("10:00:30"))
    assert said(watch.events) == ["fire all 3000 2.0", "suppressed all 7000 2.0", "fire all 22000 2.0"]
    assert [one.why for one in watch.events] == [None, "cooldown", None]
    watch.take(ticks("14:57:00", 9.0, 9.0), ticks("14:57:03", 11.0, 11.0, 11.0), heartbeat("14:58:00"))
    assert len(watch.events) == 3


def test_the_last_second_of_a_session_still_counts() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 10)}, when: n > 0")
    watch.take(ticks("14:56:55", 9.0), ticks("14:56:59.500", 11.0), ticks("14:57:00", 9.0), ticks("14:57:02", 11.0))
    assert [one.ts_event_ms for one in watch.events] == [ms("14:57:00")]


def test_the_last_second_of_a_day_is_sampled_before_the_next_day() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 10)}, session: all_trading, when: n > 0")
    watch.take(ticks("14:59:50", 9.0), ticks("15:00:00", 11.0), ticks("09:31:00", 9.0, day=20230202))
    assert [(one.trade_date, one.ts_event_ms) for one in watch.events] == [("2023-02-01", ms("15:00:01"))]


def test_cross_looks_at_the_previous_sample() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 10)}, freq: always, when: 'CROSS(n, 1.5) AND REF(n,1) = 0'")
    for second, above in enumerate((2, 0, 1, 2, 0, 0, 3)):
        watch.take(ticks(f"10:00:0{second}", *([11.0] * above + [9.0] * (5 - above))))
    watch.take(heartbeat("10:00:30"))
    assert said(watch.events) == ["fire all 7000 3.0"]


def test_states_over_groups_have_for_and_resolve() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 10)}, mode: state, for: 5s, keep_firing: 3s, when: n > 1")
    watch.take(
        ticks("10:00:00", 9.0, 9.0), ticks("10:00:02", 11.0, 11.0), ticks("10:00:12", 9.0), heartbeat("10:01:00")
    )
    assert said(watch.events) == ["pending all 3000 2.0", "fire all 8000 2.0", "resolve all 16000 1.0"]
    assert len({one.episode_id for one in watch.events}) == 1


def test_breadth_with_members_missing_is_nodata_once_and_never_none_at_all() -> None:
    """Row of the table: below min_valid → one nodata per (rule, group) on entering, never "0 limit-ups"."""
    watch = Watch("id: r, over: {sector: 甲}, agg: {n: count(LAST > 10)}, min_valid: 60%, freq: always, when: n < 1")
    watch.take(sectors(甲=SYMBOLS))
    watch.take(ticks("10:00:00", 11.0, 11.0), ticks("10:00:01", 9.0, 9.0), heartbeat("10:00:02"))
    assert said(watch.events) == ["nodata 甲 1000 None"]
    assert (watch.events[0].why, watch.events[0].message) == ("min_valid", "甲 r 数据不足")
    watch.take(ticks("10:00:03", 11.0, 9.0, 9.0), ticks("10:00:05", 9.0), heartbeat("10:00:09"))
    assert said(watch.events)[1:] == ["fire 甲 6000 0.0"]
    watch.take(*(tick("10:00:10", math.nan, symbol=symbol) for symbol in SYMBOLS[:3]), heartbeat("10:00:20"))
    assert said(watch.events)[2:] == ["nodata 甲 11000 None"]
    assert [one.episode for one in watch.events] == [1, 2, 3]
    assert len({one.id for one in watch.events}) == 3


def test_the_least_known_aggregate_decides_whether_there_is_data() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 0), b: mean(BIDP1)}, on_start: fire, when: n > 0")
    watch.take(ticks("10:00:00", 10.0, 10.0), heartbeat("10:00:01"))
    assert [one.event for one in watch.events] == ["nodata"]


def test_nothing_is_sampled_in_a_marked_silence() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(LAST > 10)}, when: n > 0")
    watch.take(ticks("10:00:00", 9.0), ticks("10:00:03", 11.0), mark("silent", "10:00:03.900"))
    watch.take(heartbeat("10:00:10"))
    assert [one.rule for one in watch.events] == ["feed"]
    watch.take(mark("alive", "10:00:12"), ticks("10:00:13", 11.0, 11.0), heartbeat("10:00:15"))
    assert [(one.rule, str(one.event)) for one in watch.events[1:]] == [("feed", "resolve"), ("r", "fire")]


@pytest.mark.parametrize("together", [False, True])
def test_who_first_comes_in_a_batch_is_no_member_of_the_seconds_before(together: bool) -> None:
    """Else data would be missing in all of them, or not, by how ticks are cut into batches."""
    watch = Watch(
        "id: r, over: {board: main, by: none}, period: 1m, agg: {n: share(C > 10)}, min_valid: 50%, when: n >= 50%"
    )
    rows = tick("10:05:58", 8.0, symbol="300001.SZ"), tick("10:05:57", math.nan, symbol="000001.SZ")
    watch.take(heartbeat("10:00:34"), *([batch(*rows)] if together else rows), heartbeat("10:05:59"))
    assert said(watch.events) == ["nodata main 359000 None"]


def test_groups_by_sector_and_board_with_ranks() -> None:
    watch = Watch(
        f"id: s, over: {{all: true, by: sector}}, agg: {{n: count(LAST > 0), m: mean(PCT), r: rank(m)}}, {FIRST}",
        f"id: t, over: {{sector: [甲, 丙], by: sector}}, agg: {{n: count(LAST > 0), r: rank(max(PCT))}}, {FIRST}",
        f"id: b, over: {{all: true, by: board}}, agg: {{n: count(LAST > 0)}}, {FIRST}",
    )
    watch.take(sectors(甲=SYMBOLS[:2], 乙=SYMBOLS[1:3], 丙=SYMBOLS[3:4], 丁=["300750.SZ"]))
    watch.take(ticks("10:00:00", 11.0, 12.0, 10.0, 11.5, 9.0), heartbeat("10:00:01"))
    found = [
        (one.rule, one.group, one.values.get("N"), one.values.get("R")) for one in watch.events if one.event == "fire"
    ]
    # 甲 15 %, 乙 10 %, 丙 15 %: equal ones share the better place. 丁 has not ticked.
    assert found == [
        ("s", "丙", 1.0, 1.0), ("s", "乙", 2.0, 3.0), ("s", "甲", 2.0, 1.0),
        ("t", "丙", 1.0, 2.0), ("t", "甲", 2.0, 1.0), ("b", "main", 5.0, None),
    ]  # fmt: skip
    assert [(one.rule, one.group) for one in watch.events if one.event == "nodata"] == [("s", "丁"), ("b", "chinext")]


def test_members_of_bars_are_seen_with_the_forming_bar() -> None:
    watch = Watch("id: r, over: all, period: 1m, agg: {n: 'count(C > REF(C,1))'}, freq: always, when: n > 0")
    watch.take(ticks("10:00:10", 10.0, 10.0), ticks("10:01:10", 9.0, 9.0), ticks("10:01:20", 9.5, 10.5))
    watch.take(heartbeat("10:01:40"))
    # Before a bar has closed nobody knows the one before.
    assert said(watch.events) == ["nodata all 11000 None", "fire all 81000 1.0"]


def test_members_may_look_back_over_seconds_and_other_periods() -> None:
    watch = Watch("id: r, over: all, agg: {n: count(RISE(9) > 1)}, min_valid: 10%, freq: always, when: n > 0")
    watch.take(*(tick(f"10:00:{second:02}", 10 + second / 20) for second in range(0, 40, 3)))
    watch.take(heartbeat("10:01:00"))
    assert [one.event for one in watch.events] == ["nodata"]  # true from its first value on
    line = "id: r, over: all, agg: {n: 'count(ON(MIN1, C > REF(C,1)))'}, min_valid: 10%, freq: always, when: n > 0"
    watch = Watch(line)
    watch.take(*(tick(f"10:0{minute}:10", price) for minute, price in enumerate((10.0, 9.5, 9.0, 11.0))))
    watch.take(heartbeat("10:03:20"))
    assert said(watch.events) == ["nodata all 11000 None", "fire all 191000 1.0"]


def test_an_edited_rule_file_keeps_the_arming_of_unchanged_rules() -> None:
    line = "id: r, over: all, agg: {n: count(LAST > 10)}, freq: always, when: n > 0"
    watch = Watch(line)
    watch.take(ticks("10:00:00", 9.0), ticks("10:00:03", 11.0), heartbeat("10:00:05"))
    watch.take(rules("id: a, select: all, when: SEALUP", line))
    watch.take(ticks("10:00:06", 12.0), heartbeat("10:00:09"))
    assert len(watch.events) == 1
    watch.take(rules(line.replace("n > 0", "n > 0.5")), ticks("10:00:12", 13.0), heartbeat("10:00:15"))
    watch.take(ticks("10:00:16", 9.0), ticks("10:00:18", 13.0), heartbeat("10:00:20"))
    assert len(watch.events) == 2


def test_an_expired_rule_over_groups_says_so_and_rests() -> None:
    watch = Watch(
        'id: r, over: all, agg: {n: count(LAST > 10)}, freq: always, expires: "2023-02-01 10:00", when: n > 0'
    )
    watch.take(ticks("09:59:00", 9.0), ticks("10:00:00", 11.0), heartbeat("10:00:05"))
    assert [one.event for one in watch.events] == ["expired"]


# ── aggregates against loops ──────────────────────────────────────────────────────────────────────────────────────────


class Loop:
    """What aggregates are, by loops over the last ticks of symbols; knows nothing of the engine."""

    def __init__(self, group_of: Callable[[str], str]) -> None:
        self.group_of = group_of
        self.payload: dict[str, tuple[Any, ...]] = {}
        self.clock = 0
        self.changed = False
        self.samples: dict[tuple[int, str], dict[str, float]] = {}

    def enter(self, ts_ms: int) -> None:
        second = ts_ms // 1000 * 1000
        if second > self.clock:
            if self.changed:
                self.sample(self.clock + 1000)
            self.clock, self.changed = second, False

    def take(self, ticks: TickBatch) -> None:
        columns = [ticks.column(name).tolist() for name in CORE]
        rows = zip(ticks.symbols, ticks.ts_event_ms.tolist(), ticks.status.tolist(), *columns, strict=True)
        for symbol, ts_ms, *payload in rows:
            self.enter(ts_ms)
            known = self.payload.get(symbol)
            early = (ts_ms + 8 * 3600_000) % 86_400_000 < 33_900_000
            new = (ts_ms, *payload[:1], *(math.nan if early and 1 <= i <= 4 else x for i, x in enumerate(payload) if i))
            if known is not None and (ts_ms < known[0] or repr(new) == repr(known)):
                continue
            self.payload[symbol], self.changed = new, True

    def sample(self, ts_ms: int) -> None:
        clock = (ts_ms - 1000 + 8 * 3600_000) % 86_400_000
        if not (34_200_000 <= clock <= 41_400_000 or 46_800_000 <= clock < 53_820_000):
            return
        groups: dict[str, list[tuple[Any, ...]]] = {}
        for symbol, payload in self.payload.items():
            groups.setdefault(self.group_of(symbol), []).append(payload)
        for group, members in groups.items():
            change = [(one[2] / one[6] - 1) * 100 for one in members if one[6] == one[6] and one[2] == one[2]]
            amounts = [one[8] for one in members if one[8] == one[8]]
            if change and amounts:
                ups = sum(one > 1e-9 for one in change)
                self.samples[ts_ms, group] = {
                    "N": ups, "UP": ups / len(change), "S": math.fsum(amounts), "M": math.fsum(change) / len(change),
                    "LO": min(change), "HI": max(change),
                }  # fmt: skip


def played(values: Iterable[Input], line: str, loop: Loop, *before: Control) -> list[Alert]:
    engine = Engine()
    events: list[Alert] = []
    for value in (rules(line), *before, *values):
        events += engine.step(value)
        if isinstance(value, TickBatch):
            loop.take(value)
        elif isinstance(value, Heartbeat):
            loop.enter(value.ts_ms)
    return events


def agree(events: list[Alert], loop: Loop) -> None:
    fires = {(one.ts_event_ms, one.group): one.values for one in events if one.event == "fire" and one.rule != "feed"}
    assert fires.keys() == loop.samples.keys()
    for key, values in loop.samples.items():
        assert fires[key] == {name: pytest.approx(value, rel=1e-9, abs=1e-9) for name, value in values.items()}, key


def market(values: Iterable[Any], limit: int) -> Iterator[Input]:
    """Return the ticks and heartbeats of a session; marked silences are another test's."""
    for count, one in enumerate(values):
        if count >= limit:
            return
        if isinstance(one.value, (TickBatch, Heartbeat)):
            yield one.value


@pytest.mark.parametrize("session", ["sh30-20211201", "ten-20190226"])
def test_aggregates_of_recorded_sessions_equal_loops(market_data: Path, session: str) -> None:
    loop = Loop(lambda symbol: symbol[:3])
    values = list(market(inputs([market_data / "sessions" / f"{session}.parquet"]), 2_500))
    symbols = {symbol for one in values if isinstance(one, TickBatch) for symbol in one.symbols}
    groups = table(*(instrument_of(symbol, sectors=(symbol[:3],)) for symbol in symbols))
    line = f"id: r, over: {{all: true, by: sector}}, agg: {{{WHOLE}}}, {EVERY}, on_start: fire"
    events = played(values, line, loop, groups)
    agree(events, loop)
    assert len(loop.samples) > 500


async def simulated(count: int, symbols: int) -> tuple[list[Input], list[Instrument]]:
    feed = SimulatedFeed(symbols=symbols, speed=None, start="09:30:00", days=1)
    await feed.open()
    values: list[Input] = []
    async for one in feed:
        values.append(one.value)
        if len(values) == count:
            break
    return values, list(await feed.instruments())


async def test_aggregates_of_the_simulated_market_equal_loops() -> None:
    values, instruments = await simulated(60, 600)
    sector = {one.symbol: one.sectors[0] for one in instruments}
    plain = [instrument_of(one.symbol, sectors=one.sectors[:1]) for one in instruments]
    loop = Loop(sector.__getitem__)
    line = f"id: r, over: {{all: true, by: sector}}, agg: {{{WHOLE}}}, {EVERY}, on_start: fire"
    agree(played(values, line, loop, table(*plain)), loop)
    assert len(loop.samples) > 500


# ── cuts and restarts ─────────────────────────────────────────────────────────────────────────────────────────────────

LIVES = (
    f"id: every, over: {{all: true, by: sector}}, agg: {{{WHOLE}, r: rank(m)}}, {EVERY}",
    "id: edge, over: {all: true, by: sector}, agg: {n: share(PCT > 0)}, freq: always, cooldown: 30s, "
    "when: 'CROSS(n, 50%)'",
    "id: hold, over: {all: true, by: board}, agg: {n: mean(PCT)}, mode: state, for: 6s, keep_firing: 4s, when: n > 0.1",
    "id: bars, over: all, period: 1m, agg: {n: 'count(C > REF(C,1))'}, freq: always, when: n > 250, rearm: n < 240",
    "id: short, over: all, agg: {n: count(LAST > PRECLOSE*1.02)}, min_valid: 99%, when: n > 10",
)


def outcome(values: Iterable[Input], instruments: Iterable[Instrument], restart_at: Iterable[int] = ()) -> list[bytes]:
    engine, events = Engine(), []
    for value in (rules(*LIVES), table(*instruments)):
        events += engine.step(value)
    for place, value in enumerate(values):
        if place in restart_at:
            engine = Engine.restore(*engine.checkpoint())
        events += engine.step(value)
    return [one.to_json() for one in events]


async def test_cuts_and_restarts_change_no_event() -> None:
    values, instruments = await simulated(90, 400)
    whole = outcome(values, instruments)
    assert {b'"every"', b'"edge"', b'"hold"', b'"bars"'} <= {
        one[one.index(b'"rule":') + 7 :].split(b",")[0] for one in whole
    }
    chance = random.Random(7)
    assert outcome(values, instruments, {chance.randrange(90) for _ in range(12)}) == whole
    pieces: list[Input] = []
    for value in values:
        if not isinstance(value, TickBatch):
            pieces.append(value)
            continue
        cuts = sorted({0, len(value), *(chance.randrange(len(value) + 1) for _ in range(3))})
        pieces += [value.take(slice(a, b)) for a, b in pairwise(cuts)]
    assert outcome(pieces, instruments) == whole


# ── rule files ────────────────────────────────────────────────────────────────────────────────────────────────────────

BASE = "id: r, over: {sector: 甲, by: none}, agg: {n: count(SEALUP), m: mean(PCT)}, min_valid: 80%, when: n > 50"


def read(line: str) -> Any:
    return load({"f": f"version: 1\ngroups:\n- name: g\n  rules:\n  - {{{line}}}\n"}).rules[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [("甲", "乙"), ("by: none", "by: sector"), ("SEALUP", "SEALDOWN"), ("mean", "sum"), ("80%", "81%"),
     ("n > 50", "n > 51"), ("m: mean", "k: mean"), ("over: {sector: 甲, by: none}", "over: all")],
)  # fmt: skip
def test_what_changes_the_meaning_changes_the_revision(old: str, new: str) -> None:
    assert read(BASE).rev != read(BASE.replace(old, new)).rev


def test_spelling_and_defaults_keep_the_revision() -> None:
    same = "id: r, over: {sector: [甲]}, agg: {N: COUNT( sealup ), M: Mean(pct)}, when: 'N>50'"
    assert read(same).rev == read(BASE).rev
    assert read(BASE.replace("80%", "0.8")).rev == read(BASE).rev


@pytest.mark.parametrize(
    ("old", "new", "findings"),
    [
        ("n > 50", "LAST > 50", ["LAST is of one symbol, and this is a condition over groups"]),
        ("n > 50", "ENTRY > 50", ["ENTRY is of one symbol, and this is a condition over groups"]),
        ("n > 50", "nn > 50", ["unknown name 'NN'"]),
        ("n > 50", '"MA(n,5) > 50"', ["MA looks back over bars, and period tick has none"]),
        ("n > 50", "'DYNAINFO(7) > n'", ["this is of one symbol, and here is a condition over groups"]),
        ("n > 50", "'C#DAY > n'", ["this is of one symbol, and here is a condition over groups"]),
        ("count(SEALUP)", "SEALUP", ["this is no measure of a group"]),
        ("count(SEALUP)", "cuont(SEALUP)", ["this is no measure of a group"]),
        ("count(SEALUP)", "'count(SEALUP,5)'", ["count takes 1 argument here, not 2"]),
        ("count(SEALUP)", "count(SEELUP)", ["unknown name 'SEELUP'"]),
        ("count(SEALUP)", "'x:=1; count(SEALUP)'", ["an entry of agg is one measure of one expression"]),
        ("count(SEALUP)", "count(ENTRY > 1)", ["ENTRY is a word of positions"]),
        ("count(SEALUP)", "'count(CROSS(LAST,10))'", ["CROSS compares ticks, and a group is looked at once a second"]),
        ("count(SEALUP)", "rank(mean(PCT))", ["rank needs several groups"]),
        ("count(SEALUP)", "[a]", ["a text is needed here, not a list"]),
        ("n: count", "LAST: count", ["LAST is a word of the market"]),
        ("n: count", "a-b: count", ["'a-b' is no name"]),
        ("m: mean", "N: mean", ["N is given twice"]),
        ("agg: {n: count(SEALUP), m: mean(PCT)}, ", "", ["agg is missing"]),
        ("agg: {n: count(SEALUP), m: mean(PCT)}", "agg: {}", ["agg has 1 to 50 entries"]),
        ("over: {sector: 甲, by: none}, ", "select: all, ", ["agg goes with over", "min_valid goes with over"]),
        ("over: {", "select: all, over: {", ["select and over can't stand together"]),
        ("{sector: 甲, by: none}", "{positions: main}", ["over has no 'positions'"]),
        ("{sector: 甲, by: none}", "{by: sector}", ["no members are given"]),
        ("by: none", "by: sectr", ["by can't be 'sectr'"]),
        ("80%", "80", ["min_valid is a share from 0% to 100%"]),
        ("80%", "101%", ["min_valid is a share from 0% to 100%"]),
        ("80%", "many", ["min_valid is a share from 0% to 100%"]),
        ("80%", "80%, period: 1m, eval: bar_close", ["eval: bar_close does not go with over"]),
        ("80%", "80%, period: 1m, freq: once_per_bar", ["freq: once_per_bar does not go with over"]),
        ("80%", "80%, freq: {step: 1%}", ["freq: {step: …} does not go with over"]),
        ("80%", '80%, message: "{LAST}"', ["unknown name 'LAST' in the message"]),
    ],
)
def test_mistakes_about_groups(old: str, new: str, findings: list[str]) -> None:
    assert old in BASE
    with pytest.raises(RuleFileError) as caught:
        read(BASE.replace(old, new, 1))
    assert [f.message for f in caught.value.findings] == findings
    assert all(f.hint and f.line == 5 for f in caught.value.findings)


def test_a_mistake_in_an_aggregate_stands_at_its_place() -> None:
    with pytest.raises(RuleFileError) as caught:
        read("id: r, over: all, agg: {n: count(LAST > NOPE)}, when: n > 5")
    (finding,) = caught.value.findings
    assert (finding.line, finding.column, finding.width) == (5, 46, 4)


def test_a_message_names_aggregates_and_the_group() -> None:
    watch = Watch(
        'id: r, over: all, agg: {n: count(LAST > 10)}, on_start: fire, when: n > 0, message: "{name} {n:.0f} 家"'
    )
    watch.take(ticks("10:00:00", 11.0, 11.0), heartbeat("10:00:01"))
    assert watch.events[0].message == "all 2 家"


def test_the_cost_of_a_sample_grows_with_distinct_aggregates_not_with_rules() -> None:
    engine = Engine()
    lines = [f"id: r{n}, over: all, agg: {{n: count(PCT > 1), m: mean(PCT)}}, when: n > {n}" for n in range(10)]
    engine.step(rules(*lines))
    names = [name for name in engine._breadth.state.names() if name.startswith("agg/")]
    assert len(names) == 2
    assert np.isnan(engine._breadth.state.columns("agg/")[names[0]].array).all()


MUTATED = """version: 1
groups:
- name: g
  rules:
  - id: stops
    select: {positions: main}
    severity: critical
    freq: once
    legs:
      stop:  {when: "LAST <= ENTRY*(1-5%)"}
      trail: {when: "PEAK >= ENTRY*(1+5%) AND LAST <= PEAK*(1-3%)"}
  - id: limitup-50
    over: {sector: 沪深A股, by: sector}
    agg: {n: count(SEALUP), up: share(PCT > 0), r: rank(mean(PCT)), lo: min(PCT)}
    min_valid: 80%
    when: n > 50 AND r <= 3
    rearm: n < 45
"""


def test_300_slips_are_refused_at_their_place_or_run() -> None:
    refused = 0
    for seed in range(300):
        text = mutated(MUTATED, random.Random(seed))
        try:
            source = load({"x": text}).source
        except RuleFileError as error:
            refused += 1
            lines = text.split("\n")
            for finding in error.findings:
                assert finding.hint, finding
                assert 1 <= finding.line <= len(lines)
                assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        else:
            engine = Engine()
            engine.step(Control(ControlKind.RULES, source))
            engine.step(ticks("10:00:00", 10.0, 11.0))
            engine.step(heartbeat("10:00:01"))
    assert 100 < refused < 300
