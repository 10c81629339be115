"""Rules over positions: what ENTRY, QTY, PEAK and PNL are, and what an edited position does to the life of its legs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.inputs import Control, ControlKind
from rules.engine import Engine
from rules.errors import RuleError, RuleFileError
from rules.positions import Position, encode
from rules.rule import OnStart
from rules.rulefile import load
from tests.rules.ticks import Watch, batch, heartbeat, rules, tick

OTHER = "000001.SZ"
LEGS = (
    'stop: {when: "LAST <= ENTRY*(1-5%)"}, take: {when: "LAST >= ENTRY*(1+10%)"}, '
    'trail: {when: "PEAK >= ENTRY*(1+5%) AND LAST <= PEAK*(1-3%)"}'
)
STOPS = f"id: stops, select: {{positions: main}}, severity: critical, on_start: fire, freq: once, legs: {{{LEGS}}}"
SHOW = (
    "id: show, select: {positions: main}, freq: always, "
    'when: "E:ENTRY; Q:QTY; K:PEAK; P:PNL; LAST > 0", rearm: "LAST > 0"'
)


def held(*positions: tuple[str, float] | tuple[str, float, str], quantity: float = 100.0) -> Control:
    """Return the control record of positions as (symbol, entry) or (symbol, entry, book)."""
    rows = [Position(book[0] if book else "main", symbol, entry, quantity) for symbol, entry, *book in positions]
    return Control(ControlKind.POSITIONS, encode(rows))


def shown(watch: Watch) -> list[tuple[Any, ...]]:
    return [tuple(one.values[name] for name in ("E", "Q", "K", "P")) for one in watch.events if one.rule == "show"]


def legs(watch: Watch) -> list[str]:
    return [f"{one.event} {one.leg} {one.symbol}" for one in watch.events]


def test_the_stop_legs_of_the_reference_run() -> None:
    watch = Watch(STOPS)
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:00", 10.0), ("10:00:03", 10.6), ("10:00:06", 10.3), ("10:00:09", 10.28), ("10:00:12", 11.0))
    watch.prices(("10:00:15", 9.5), ("10:00:18", 9.6), ("10:00:21", 9.4))
    assert legs(watch) == [
        "fire trail 600519.SH", "fire take 600519.SH", "fire stop 600519.SH", "suppressed trail 600519.SH",
        "suppressed stop 600519.SH",
    ]  # fmt: skip
    assert {one.severity for one in watch.events} == {"critical"}
    assert watch.events[0].values == {
        "PEAK": 10.6, "ENTRY*(1+0.05)": 10.5, "LAST": 10.28, "PEAK*(1-0.03)": pytest.approx(10.282),
    }  # fmt: skip


def test_the_words_of_a_position() -> None:
    watch = Watch(SHOW)
    watch.prices(("10:00:00", 12.0), ("10:00:03", 11.0))
    assert watch.events == []
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:06", 10.5), ("10:00:09", 11.5), ("10:00:12", 9.0))
    # PEAK begins with the price at which the position was entered, not with an older one.
    assert shown(watch) == [
        (10.0, 100.0, 11.0, pytest.approx(5.0)), (10.0, 100.0, 11.5, pytest.approx(15.0)),
        (10.0, 100.0, 11.5, pytest.approx(-10.0)),
    ]  # fmt: skip


def test_a_rule_over_a_book_covers_just_what_it_holds() -> None:
    watch = Watch(
        'id: r, select: {positions: main}, when: "LAST > 10"', 'id: o, select: {positions: two}, when: "PNL > 5"'
    )
    watch.take(held(("600519.SH", 5.0), (OTHER, 10.0, "two")))
    watch.take(*(tick("10:00:00", 11.0, symbol=symbol) for symbol in ("600519.SH", OTHER, "300750.SZ")))
    assert [(one.rule, one.symbol, one.late) for one in watch.events] == [("r", "600519.SH", True), ("o", OTHER, True)]
    watch.take(held((OTHER, 10.0)))
    watch.take(tick("10:00:03", 12.0), tick("10:00:03", 12.0, symbol=OTHER))
    assert [(one.rule, one.symbol) for one in watch.events[2:]] == [("r", OTHER)]


def test_a_position_whose_symbol_has_not_ticked_yet_waits_for_it() -> None:
    watch = Watch(SHOW)
    watch.take(held((OTHER, 10.0), ("600519.SH", 5.0)))
    watch.prices(("10:00:00", 6.0))
    watch.take(tick("10:00:01", 9.0, symbol=OTHER))
    assert shown(watch) == [(5.0, 100.0, 6.0, pytest.approx(20.0)), (10.0, 100.0, 9.0, pytest.approx(-10.0))]


def test_another_entry_begins_anew_and_leaves_others_alone() -> None:
    watch = Watch(STOPS)
    watch.take(held(("600519.SH", 10.0), (OTHER, 10.0)))
    watch.take(tick("10:00:00", 9.4), tick("10:00:00", 9.4, symbol=OTHER))
    assert legs(watch) == ["fire stop 600519.SH", "fire stop 000001.SZ"]
    watch.take(held(("600519.SH", 10.2), (OTHER, 10.0)))
    watch.take(tick("10:00:03", 9.3), tick("10:00:03", 9.3, symbol=OTHER))
    assert legs(watch)[2:] == ["fire stop 600519.SH"]
    assert [one.episode for one in watch.events] == [1, 1, 2]


def test_another_quantity_changes_nothing_else() -> None:
    watch = Watch(STOPS, SHOW)
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:00", 10.9), ("10:00:03", 9.0))
    watch.take(held(("600519.SH", 10.0), quantity=50.0))
    watch.prices(("10:00:06", 9.1))
    assert [one.leg for one in watch.events if one.event == "fire" and one.rule == "stops"] == ["stop", "trail"]
    assert shown(watch)[-1] == (10.0, 50.0, 10.9, pytest.approx(-9.0))


def test_a_position_that_went_and_came_back_is_a_new_one() -> None:
    watch = Watch(STOPS, SHOW)
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:00", 10.4), ("10:00:03", 9.4))
    watch.take(held())
    watch.prices(("10:00:06", 9.0))
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:09", 9.2))
    assert [one.ts_event_ms % 60_000 for one in watch.events if one.rule == "stops"] == [3_000, 9_000]
    assert [row[2] for row in shown(watch)] == [10.4, 10.4, 9.2]


def test_a_book_that_no_rule_names_and_that_holds_nothing_has_no_columns() -> None:
    """Each name that a reload or an API ever said would cost memory, and time at every tick, for ever."""
    watch = Watch(SHOW)
    watch.prices(("10:00:00", 12.0))
    before = set(watch.engine.market.state.names())
    other = SHOW.replace("main", "other")
    watch.take(held(("600519.SH", 10.0), ("600519.SH", 11.0, "gone")), rules(other))
    watch.prices(("10:00:03", 13.0))
    assert watch.engine.market.books.names == ("main", "gone", "other")
    watch.take(held(("600519.SH", 10.0)), rules(SHOW))
    assert watch.engine.market.books.names == ("main",)
    assert set(watch.engine.market.state.names()) == before
    watch.prices(("10:00:06", 12.5))
    assert shown(watch)[-1] == (10.0, 100.0, 13.0, pytest.approx(25.0)), "what is held went on while no rule named it"
    watch.take(held(("600519.SH", 10.0), ("600519.SH", 11.0, "other")), rules(other))
    watch.prices(("10:00:09", 12.1))
    assert shown(watch)[-1] == (11.0, 100.0, 12.5, pytest.approx(10.0))


def test_peak_and_once_live_on_over_night() -> None:
    watch = Watch(STOPS, SHOW)
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("14:56:00", 10.5), ("14:56:03", 9.5))
    watch.prices(("09:31:00", 9.4), day=20230202)
    assert [str(one.event) for one in watch.events if one.rule == "stops"] == ["fire", "fire"]
    assert shown(watch)[-1][2] == 10.5


def test_a_closed_position_resolves_its_firing_state() -> None:
    watch = Watch('id: s, select: {positions: main}, mode: state, freq: always, when: "PNL < -5"')
    watch.take(held(("600519.SH", 10.0), (OTHER, 10.0)))
    watch.take(tick("10:00:00", 9.0), tick("10:00:00", 9.0, symbol=OTHER))
    watch.take(held((OTHER, 10.0)))
    watch.prices(("10:00:03", 8.0))
    assert [(str(one.event), one.symbol, one.why) for one in watch.events] == [
        ("fire", "600519.SH", None), ("fire", OTHER, None), ("resolve", "600519.SH", "position"),
    ]  # fmt: skip


def test_bars_know_positions_too() -> None:
    watch = Watch(
        'id: b, select: {positions: main}, period: 1m, eval: bar_close, when: "C > ENTRY AND PEAK > ENTRY*1.1"'
    )
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:10", 11.5), ("10:00:40", 10.5))
    watch.take(heartbeat("10:01:03"))
    assert watch.said == ["fire 10:01:00 #1"]


def test_bad_positions_are_refused_and_change_nothing() -> None:
    watch = Watch(SHOW)
    watch.take(held(("600519.SH", 10.0)))
    with pytest.raises(RuleError):
        watch.take(Control(ControlKind.POSITIONS, '{"v":1,"positions":[["main","600519",1.0,1.0]]}'))
    watch.prices(("10:00:00", 9.0))
    assert shown(watch) == [(10.0, 100.0, 9.0, pytest.approx(-10.0))]


# ── restarts and cuts: PEAK against a loop ────────────────────────────────────────────────────────────────────────────

steps = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(80, 130)),
        st.tuples(st.just("hold"), st.integers(0, 2), st.sampled_from([None, 90, 100])),
        st.tuples(st.just("restart"), st.just(0), st.none()),
        st.tuples(st.just("reload"), st.just(0), st.none()),
    ),
    max_size=40,
)
SYMBOLS = ("600519.SH", OTHER, "300750.SZ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_peak_is_the_highest_price_since_entry_whatever_happens(script: list[tuple[str, int, Any]]) -> None:
    engine = Engine()
    watch = Watch(SHOW, engine=engine)
    entries: dict[str, float] = {}
    last: dict[str, float] = {}
    peak: dict[str, float] = {}
    for second, (what, which, number) in enumerate(script):
        symbol = SYMBOLS[which]
        clock = f"10:{second // 60:02}:{second % 60:02}"
        if what == "tick":
            price = last[symbol] = number / 10
            if symbol in entries:
                peak[symbol] = max(price, peak.get(symbol, price))
            events = watch.take(batch(tick(clock, price, symbol=symbol)))
            assert [one.values["K"] for one in events] == ([peak[symbol]] if symbol in entries else [])
        elif what == "hold":
            entry = None if number is None else number / 10
            if entries.get(symbol) != entry:
                peak.pop(symbol, None)
                if entry is not None and symbol in last:
                    peak[symbol] = last[symbol]
            entries = {key: value for key, value in (entries | {symbol: entry}).items() if value is not None}
            watch.take(held(*entries.items()))
        elif what == "reload":
            watch.take(rules("id: other, select: all, when: SEALUP"), rules(SHOW))
        else:
            arrays, header = watch.engine.checkpoint()
            watch.engine = Engine.restore(arrays, header)
            again, header_again = watch.engine.checkpoint()
            assert header_again == header
            assert all(np.array_equal(again[name], arrays[name], equal_nan=True) for name in arrays if name in again)


# ── rule files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def one(line: str) -> Any:
    return load({"f": f"version: 1\ngroups:\n- name: g\n  rules:\n  - {{{line}}}\n"}).rules[0]


def test_rules_over_positions_fire_on_start_unless_told_otherwise() -> None:
    assert one(STOPS).on_start is OnStart.FIRE
    assert one('id: r, select: {positions: main}, when: "PNL < -5"').on_start is OnStart.FIRE
    assert one('id: r, select: {positions: main}, when: "PNL < -5", on_start: suppress').on_start is OnStart.SUPPRESS
    assert one("id: r, select: all, when: SEALUP").on_start is OnStart.SUPPRESS


def test_another_book_is_another_revision() -> None:
    assert one(STOPS).rev != one(STOPS.replace("main", "two")).rev


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ('id: r, select: all, when: "LAST < ENTRY"', "ENTRY is a word of positions"),
        ('id: r, select: all, when: SEALUP, message: "{PNL}"', "unknown name 'PNL' in the message"),
        ("id: r, select: {positions: main, board: main}, when: SEALUP", "board and positions can't stand together"),
        ("id: r, select: {positions: a b}, when: SEALUP", "'a b' is no name of a book"),
        ("id: r, select: {positions: [a]}, when: SEALUP", "a text is needed here, not a list"),
        ("id: r, select: {exclude: {positions: a}}, when: SEALUP", "select has no 'positions'"),
        ('id: r, select: {positions: main}, when: "ENTRYY > 1"', "unknown name 'ENTRYY'"),
    ],
)
def test_mistakes_about_positions(line: str, finding: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        one(line)
    assert [f.message for f in caught.value.findings] == [finding]


def test_a_message_may_name_words_of_positions() -> None:
    watch = Watch('id: r, select: {positions: main}, when: "PNL < -5", message: "{symbol} {ENTRY} {PNL:+.1f}%"')
    watch.take(held(("600519.SH", 10.0)))
    watch.prices(("10:00:00", 9.0))
    assert watch.events[0].message == "600519.SH 10 -10.0%"
    assert not math.isnan(watch.events[0].values["PNL"] or math.nan)
