"""Recorded sessions through the engine, event by event against loops that know nothing of it."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feeds.inputs import Control, ControlKind, Input, Mark
from feeds.recording import inputs
from feeds.tick import CORE, REST, TickBatch
from rules.alert import Alert
from rules.engine import Engine
from rules.rulefile import load
from tests.rules import sessions_by_hand as hand
from tests.rules.sessions_by_hand import MINUTE, Happened, Recorded
from tests.rules.whole_market import WHOLE

PLAYED: dict[str, tuple[str, ...]] = {
    "600519-000333": ("600519-000333-20230201", *(("600519-000333-20230202",) if WHOLE else ())),
    "sh30": ("sh30-20211201",),
    "000001": ("000001-20221230",),
    "ten-0116": ("ten-20190116",),
    "ten-0305": ("ten-20190305",),
}
"""What is played in one run: whole days in succession, the others each on its own."""
WATCHED = 6 if WHOLE else 2
"""Symbols of a session with rules of their own; each has fifteen, and a row costs the engine what its rules cost."""

BAR_RULE = "O1:O; H1:H; L1:L; C1:C; V1:V; A1:AMO; C>0"
PERIODS = ("1m", "5m", "15m", "30m", "60m", "1d")
LIVES: dict[str, dict[str, int | str]] = {
    "always": {},
    "cooldown": {"cooldown_ms": 10 * MINUTE},
    "twice": {"max_per_day": 2},
    "daily": {"freq": "once_per_day"},
    "slow-twice": {"cooldown_ms": 3 * MINUTE, "max_per_day": 2},
}
FIELDS = {"always": "", "cooldown": "cooldown: 10m", "twice": "max_per_day: 2", "daily": "freq: once_per_day",
          "slow-twice": "cooldown: 3m, max_per_day: 2"}  # fmt: skip


@dataclass
class Play:
    """One run of the engine over recorded sessions, with everything the oracles need."""

    session: Recorded
    source: str
    events: list[Alert] = field(default_factory=list)
    _bars: dict[tuple[str, str], list[hand.Bar]] = field(default_factory=dict)

    def of(self, rule: str, symbol: str) -> list[Alert]:
        return self._by_rule.get((rule, symbol), [])

    def bars(self, symbol: str, period: str) -> list[hand.Bar]:
        """Return a symbol's bars made by hand, once for all tests."""
        if (symbol, period) not in self._bars:
            self._bars[symbol, period] = hand.bars(self.session, symbol, period)
        return self._bars[symbol, period]

    def index(self) -> None:
        self._by_rule: dict[tuple[str, str], list[Alert]] = defaultdict(list)
        for event in self.events:
            self._by_rule[event.rule, event.symbol or ""].append(event)


def rule_set(lines: Iterable[str]) -> str:
    """Return the source of a rule set from rules in YAML flow style."""
    text = "version: 1\ngroups:\n- name: g\n  rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
    return load({"rules.yaml": text}).source


def run(source: str, paths: Iterable[Path]) -> list[Alert]:
    engine = Engine()
    events = engine.step(Control(ControlKind.RULES, source))
    for one in inputs(paths):
        events += engine.step(one.value, offset=one.offset)
    return events


def levels(session: Recorded, symbol: str) -> list[tuple[int, int]]:
    """Return (threshold, rearm) in cents at three places of the prices that the continuous session saw."""
    seen = sorted(row.last for row in session.rows[symbol] if row.last and hand.is_continuous(row.ts_ms))
    places = (seen[len(seen) * part // 10] for part in (3, 6, 9))
    return [(level, level - max(1, level // 1000)) for level in dict.fromkeys(places)]


def watched(session: Recorded) -> list[str]:
    """Return some symbols of a session, spread over it."""
    symbols = sorted(session.rows)
    return symbols[:: max(1, len(symbols) // WATCHED)][:WATCHED]


def lines_of(session: Recorded) -> list[str]:
    lines = []
    for symbol in watched(session):
        for place, (level, back) in enumerate(levels(session, symbol)):
            when = f'select: [{symbol}], when: "CROSS(LAST, {level / 100:.2f})", rearm: "LAST < {back / 100:.2f}"'
            for life, fields in FIELDS.items():
                freq = "" if life == "daily" else "freq: always, "
                lines.append(f"id: {life}-{place}-{symbol}, {when}, {freq}{fields}".rstrip(", "))
    for period in PERIODS:
        common = f"select: all, period: {period}, eval: bar_close, session: all_trading"
        lines.append(f'id: bars-{period}, {common}, on_start: fire, freq: always, when: "{BAR_RULE}", rearm: "C>0"')
    ma = "MA5:=MA(C,5); MA10:=MA(C,10); CROSS(MA5,MA10)"
    for period in ("1m", "5m"):
        lines.append(
            f'id: ma-{period}, select: all, period: {period}, eval: bar_close, freq: once_per_bar, when: "{ma}"'
        )
    burst = 'when: "V > 3*MA(REF(V,1),5)"'
    lines.append(f"id: burst-close, select: all, period: 1m, eval: bar_close, freq: once_per_bar, {burst}")
    lines.append(f"id: burst-tick, select: all, period: 1m, freq: once_per_bar, {burst}")
    lines.append("id: seal, select: all, when: SEALUP, freq: always, on_start: fire")
    lines.append("id: seal-down, select: all, when: SEALDOWN, freq: always, on_start: fire")
    lines.append('id: limit, select: all, when: "LAST >= LIMITUP", freq: always, on_start: fire')
    return lines


@cache
def play(folder: Path, name: str) -> Play:
    """Play sessions once for all tests of this module."""
    paths = [folder / "sessions" / f"{one}.parquet" for one in PLAYED[name]]
    session = hand.read(*paths)
    source = rule_set(lines_of(session))
    played = Play(session, source, run(source, paths))
    played.index()
    return played


def told(events: Iterable[Alert]) -> list[Happened]:
    return [Happened(str(one.event), one.ts_event_ms, one.episode, one.why, one.late, one.suppressed) for one in events]


sessions = pytest.mark.parametrize("name", PLAYED)


@sessions
def test_crosses_of_a_price_with_rearm_are_those_counted_by_hand(name: str, market_data: Path) -> None:
    played = play(market_data, name)
    total = 0
    for symbol in watched(played.session):
        rows = played.session.rows[symbol]
        for place, (level, back) in enumerate(levels(played.session, symbol)):
            samples = list(hand.tick_samples(rows, hand.crosses(level), hand.falls_below(back)))
            for life, limits in LIVES.items():
                expected = hand.live(samples, silences=played.session.silences, **limits)
                assert told(played.of(f"{life}-{place}-{symbol}", symbol)) == expected, (life, symbol, level, back)
                total += len(expected)
    assert total > 20


@sessions
@pytest.mark.parametrize("period", PERIODS)
def test_every_bar_is_the_one_made_by_hand(name: str, period: str, market_data: Path) -> None:
    played = play(market_data, name)
    for symbol in played.session.rows:
        expected = [bar for bar in played.bars(symbol, period) if hand.is_heard(bar, played.session.silences)]
        found = played.of(f"bars-{period}", symbol)
        assert [hand.at(one.ts_event_ms) for one in found] == [hand.at(bar.end_ms) for bar in expected], symbol
        for one, bar in zip(found, expected, strict=True):
            assert one.ts_event_ms == one.bar_end_ms == bar.end_ms
            assert _same(one.values, bar), (symbol, hand.at(bar.end_ms), one.values, bar)


def _same(values: dict[str, float | None], bar: hand.Bar) -> bool:
    """Compare prices to the cent, volume to the share, amount to the cent."""
    opened, high, low, close, shares, amount = bar.told
    prices = [round(values[name] * 100, 6) for name in ("O1", "H1", "L1", "C1")]  # type: ignore[operator]
    volume = None if values["V1"] is None else round(values["V1"] * 100, 4)
    cny = values["A1"]
    same_amount = cny is amount if cny is None or amount is None else abs(cny - amount) < 0.005
    return prices == [opened, high, low, close] and volume == shares and same_amount


@sessions
@pytest.mark.parametrize("period", ["1m", "5m"])
def test_crosses_of_moving_averages_are_those_of_whole_cents(name: str, period: str, market_data: Path) -> None:
    played = play(market_data, name)
    for symbol in played.session.rows:
        found = played.bars(symbol, period)
        samples = hand.ma_cross_samples(found, hand.PERIODS[period], played.session.silences)
        assert told(played.of(f"ma-{period}", symbol)) == hand.live(samples, freq="once_per_bar"), symbol


@sessions
def test_bursts_of_volume_are_those_of_whole_shares(name: str, market_data: Path) -> None:
    played = play(market_data, name)
    for symbol, rows in played.session.rows.items():
        found = played.bars(symbol, "1m")
        at_close = hand.live(hand.burst_at_close(found, 1, played.session.silences), freq="once_per_bar")
        assert told(played.of("burst-close", symbol)) == at_close, symbol
        on_ticks = hand.live(hand.burst_on_ticks(rows, found, 1), freq="once_per_bar")
        assert told(played.of("burst-tick", symbol)) == on_ticks, symbol


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────


@sessions
def test_touches_and_seals_of_the_limit_are_those_counted_by_hand(name: str, market_data: Path) -> None:
    played = play(market_data, name)
    for symbol, rows in played.session.rows.items():
        if any(row.limit_up is None for row in rows):
            continue  # reckoned from the previous close: see the table of limits below
        for rule, condition in (("limit", hand.at_limit), ("seal", hand.sealed_up)):
            samples = hand.tick_samples(rows, condition, None)
            assert told(played.of(rule, symbol)) == hand.live(samples, on_start="fire"), (rule, symbol)


@pytest.mark.parametrize("name", [name for name in PLAYED if name.startswith("ten")])
@pytest.mark.parametrize(("side", "rule"), [("up", "seal"), ("down", "seal-down")])
def test_seals_begin_when_the_table_of_spells_says(name: str, side: str, rule: str, market_data: Path) -> None:
    played = play(market_data, name)
    spells = pd.read_csv(market_data / "tables" / "ten_seal_spells.csv", dtype=str)
    day = PLAYED[name][0].removeprefix("ten-")
    spells = spells[(spells.day.str.replace("-", "") == day) & (spells.side == side)]
    counts = pd.read_csv(market_data / "tables" / "ten_seals.csv", dtype={"day": str})
    counts = counts[(counts.day.str.replace("-", "") == day) & (counts.side == side)].set_index("symbol")
    for symbol in played.session.rows:
        seals = [hand.at(one.ts_event_ms) for one in played.of(rule, symbol)]
        assert seals == spells[spells.symbol == symbol].start.tolist(), symbol
        assert len(seals) == counts.spells[symbol], symbol


def test_600103_touches_its_limit_and_never_seals(market_data: Path) -> None:
    played = play(market_data, "sh30")
    touches = played.of("limit", "600103.SH")
    assert hand.at(touches[0].ts_event_ms) == "09:41:35"
    assert all(one.values["LAST"] == one.values["LIMITUP"] == 2.99 for one in touches)
    assert [one.symbol for one in played.events if one.rule in ("limit", "seal")] == ["600103.SH"] * len(touches)


def test_limits_that_the_feed_does_not_bring_are_those_of_the_reference_table(market_data: Path) -> None:
    reference = pd.read_csv(market_data / "tables" / "session_reference.csv")
    checked = 0
    for one in reference.itertuples():
        if one.session != "sh30-20211201":
            continue
        engine = limits_engine(market_data)
        values = engine.values(one.symbol)["limits"]
        assert (values["UP"], values["DOWN"]) == (one.limit_up, one.limit_down), one.symbol
        checked += 1
    assert checked == 30


@cache
def limits_engine(folder: Path) -> Engine:
    """Return an engine after the first minutes of the thirty Shanghai stocks, whose feed brings no limits."""
    source = rule_set(['id: limits, select: all, when: "UP:LIMITUP; DOWN:LIMITDOWN; LAST > UP"'])
    engine = Engine()
    engine.step(Control(ControlKind.RULES, source))
    for one in inputs([folder / "sessions" / "sh30-20211201.parquet"]):
        if one.offset == 2000:
            break
        engine.step(one.value, offset=one.offset)
    return engine


# ── truths known from elsewhere ───────────────────────────────────────────────────────────────────────────────────


def test_the_day_of_600519_adds_up(market_data: Path) -> None:
    played = play(market_data, "600519-000333")
    first = hand.midnight(played.session.clock[0])
    for period in PERIODS:
        day = [
            one.values for one in played.of(f"bars-{period}", "600519.SH") if hand.midnight(one.ts_event_ms) == first
        ]
        assert round(sum(one["V1"] for one in day), 2) == 33_973.89  # type: ignore[misc]
        assert round(sum(one["A1"] for one in day), 2) == 6_244_678_924.61  # type: ignore[misc]
        assert max(one["H1"] for one in day) == 1859.0  # type: ignore[type-var]
        assert min(one["L1"] for one in day) == 1811.4  # type: ignore[type-var]
        assert (day[0]["O1"], day[-1]["C1"]) == (1854.98, 1844.97)


def test_a_high_between_two_snapshots_reaches_its_bar(market_data: Path) -> None:
    """600519: the last prices seen stay below the day's true high by far, the bars' highs don't."""
    played = play(market_data, "600519-000333")
    rows = played.session.rows["600519.SH"]
    for day in {hand.midnight(row.ts_ms) for row in rows}:
        seen = max(row.last for row in rows if row.last and hand.midnight(row.ts_ms) == day)
        true = max(row.high for row in rows if row.high and hand.midnight(row.ts_ms) == day)
        found = [one for one in played.of("bars-1m", "600519.SH") if hand.midnight(one.ts_event_ms) == day]
        assert max(one.values["H1"] for one in found) == true / 100 >= seen / 100  # type: ignore[type-var]


def test_marked_silences_are_episodes_of_the_feed(market_data: Path) -> None:
    played = play(market_data, "ten-0305")
    marks = [(str(one.event), hand.at(one.ts_event_ms), one.episode) for one in played.events if one.rule == "feed"]
    assert marks == [("nodata", "11:20:07", 1), ("resolve", "13:10:03", 1)]
    ids = {one.episode_id for one in played.events if one.rule == "feed"}
    assert len(ids) == 1
    quiet = [one for one in played.events if "11:20:07" < hand.at(one.ts_event_ms) < "13:10:03"]
    assert not quiet


@sessions
def test_ids_are_unique_and_events_stand_in_order_of_their_causes(name: str, market_data: Path) -> None:
    played = play(market_data, name)
    assert len({one.id for one in played.events}) == len(played.events)
    on_ticks = [one.ts_event_ms for one in played.events if one.bar_end_ms is None]
    assert on_ticks == sorted(on_ticks)


# ── twice, cut anew, restarted ────────────────────────────────────────────────────────────────────────────────────


def written(events: Iterable[Alert]) -> bytes:
    return b"\n".join(one.to_json() for one in events)


def test_a_second_run_is_the_same_to_the_byte(market_data: Path) -> None:
    played = play(market_data, "000001")
    again = run(played.source, [market_data / "sessions" / "000001-20221230.parquet"])
    assert written(again) == written(played.events)


@pytest.mark.parametrize(("name", "seed"), [("sh30", 1), ("ten-0305", 2)])
def test_cuts_restarts_and_reloads_leave_every_byte_as_it_is(name: str, seed: int, market_data: Path) -> None:
    """Ticks between marks are cut into batches of 1 to 4,000 rows; in between the engine is restored or reloaded."""
    played = play(market_data, name)
    chance = random.Random(seed)
    engine = Engine()
    events = engine.step(Control(ControlKind.RULES, played.source))
    values = [one.value for one in inputs([market_data / "sessions" / f"{PLAYED[name][0]}.parquet"])]
    restored = reloaded = 0
    for value in recut(values, chance):
        events += engine.step(value)
        if isinstance(value, Mark) or chance.random() < 0.08:
            arrays, header = engine.checkpoint()
            engine = Engine.restore(arrays, json.loads(json.dumps(header)))
            restored += 1
        if chance.random() < 0.08:
            events += engine.step(Control(ControlKind.RULES, played.source))
            reloaded += 1
    assert restored > 3
    assert reloaded > 3
    assert written(events) == written(played.events)


def recut(values: Iterable[Input], chance: random.Random) -> Iterator[Input]:
    """Join the ticks between other inputs and cut them where chance will."""
    for ticks, group in groupby(values, key=lambda value: isinstance(value, TickBatch)):
        if not ticks:
            yield from group
            continue
        whole = joined([value for value in group if isinstance(value, TickBatch)])
        start = 0
        while start < len(whole):
            stop = start + int(4000 ** chance.random())
            yield whole.take(slice(start, stop))
            start = stop


def joined(batches: list[TickBatch]) -> TickBatch:
    return TickBatch(
        tuple(symbol for one in batches for symbol in one.symbols),
        np.concatenate([one.ts_event_ms for one in batches]),
        columns={name: np.concatenate([one.column(name) for one in batches]) for name in (*CORE, *REST)},
        recv_ms=np.concatenate([one.recv_ms for one in batches]),
        status=np.concatenate([one.status for one in batches]),
    )
