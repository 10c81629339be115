"""Arming over bits against one small state machine per symbol; and what each fire is allowed to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.sessions import Session, unix_ms
from rules.lifecycle import EdgeBits, Ledger, Moment
from rules.rule import Flap, Frequency, Gap, Rule
from rules.selector import Selector

N_SYMBOLS = 11
FULL = np.full((1, 2), 255, np.uint8)


@dataclass
class Machine:
    """One (slot, symbol) by the book."""

    started: bool = False
    armed: bool = False

    def sample(self, condition: bool | None, *, rearm: bool, fire_on_start: bool) -> tuple[bool, bool]:
        if condition is None:
            return False, False
        if not self.started:
            self.started = True
            self.armed = not condition
            return condition and fire_on_start, condition and fire_on_start
        if not self.armed and rearm:
            self.armed = True
        if self.armed and condition:
            self.armed = False
            return True, False
        return False, False


samples = st.lists(
    st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), min_size=N_SYMBOLS, max_size=N_SYMBOLS),
    min_size=1,
    max_size=25,
)


def bits(mask: list[bool]) -> np.ndarray[Any, Any]:
    return np.packbits(np.array([mask], np.bool_), axis=1)


@given(samples, st.booleans())
def test_bits_fire_exactly_when_one_machine_per_symbol_would(
    rounds: list[list[tuple[bool | None, bool]]], fire_on_start: bool
) -> None:
    edge = EdgeBits([("r", "1", "")])
    edge.grow(N_SYMBOLS)
    machines = [Machine() for _ in range(N_SYMBOLS)]
    for row in rounds:
        fires, late = edge.sample(
            bits([c is True for c, _ in row]),
            bits([c is False for c, _ in row]),
            rearm=bits([r for _, r in row]),
            enabled=FULL,
            fire_on_start=np.array([[255 * fire_on_start]], np.uint8),
        )
        expected = [m.sample(c, rearm=r, fire_on_start=fire_on_start) for m, (c, r) in zip(machines, row, strict=True)]
        assert np.unpackbits(fires)[:N_SYMBOLS].tolist() == [fire for fire, _ in expected]
        assert np.unpackbits(late)[:N_SYMBOLS].tolist() == [is_late for _, is_late in expected]


def test_a_slot_that_is_not_enabled_keeps_its_state() -> None:
    edge = EdgeBits([("r", "1", "")])
    edge.grow(8)
    true, false, nothing = np.full((1, 1), 255, np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)
    edge.sample(false, true, rearm=true, enabled=true, fire_on_start=nothing)
    assert edge.armed.all()
    fires, _ = edge.sample(true, false, rearm=nothing, enabled=nothing, fire_on_start=nothing)
    assert not fires.any()
    fires, _ = edge.sample(true, false, rearm=nothing, enabled=true, fire_on_start=nothing)
    assert fires.all()


def test_an_unchanged_slot_keeps_its_arming_and_a_changed_one_starts_anew() -> None:
    old = EdgeBits([("a", "1", ""), ("b", "1", "")])
    old.grow(8)
    old.armed[:], old.started[:] = 0b10100000, 0b11110000
    new = EdgeBits([("b", "2", ""), ("a", "1", "")])
    new.grow(8)
    new.adopt(old)
    assert new.armed.tolist() == [[0], [0b10100000]]
    assert new.started.tolist() == [[0], [0b11110000]]


def rule(**fields: Any) -> Rule:
    """A rule without legs: a ledger looks at none."""
    given: dict[str, Any] = {"id": "r", "rev": "1", "legs": (), "select": Selector(every=True)}
    return Rule(**{**given, "frequency": Frequency.ALWAYS, **fields})


def moment(clock: str, *, date: int = 20250102, day: int = 1, bar_end_ms: int | None = None, **more: Any) -> Moment:
    hours, minutes, seconds = map(int, clock.split(":"))
    text = f"{date // 10000}-{date // 100 % 100:02}-{date % 100:02}"
    return Moment(unix_ms(date, ((hours * 60 + minutes) * 60 + seconds) * 1000), text, day, bar_end_ms, **more)


def judged(ledger: Ledger, watched: Rule, *moments: Moment) -> list[str | None]:
    return [ledger.judge(watched, "600519.SH", leg=None, moment=when).why for when in moments]


def test_once_a_day_is_sent_again_the_next_day() -> None:
    moments = moment("10:00:00"), moment("10:00:03"), moment("09:31:00", date=20250103, day=2)
    assert judged(Ledger(), rule(frequency=Frequency.ONCE_PER_DAY), *moments) == [None, "freq", None]


def test_once_is_for_good() -> None:
    moments = moment("10:00:00"), moment("10:00:03", date=20250106, day=3)
    assert judged(Ledger(), rule(frequency=Frequency.ONCE), *moments) == [None, "freq"]


def test_once_per_bar_looks_at_the_bar() -> None:
    moments = [moment("10:00:00", bar_end_ms=end) for end in (1, 1, 2)]
    assert judged(Ledger(), rule(frequency=Frequency.ONCE_PER_BAR), *moments) == [None, "freq", None]


def test_once_per_session_tells_half_days_and_auctions_apart() -> None:
    clocks = ("09:20:00", "09:31:00", "11:29:00", "13:00:00", "14:56:00", "14:57:00")
    watched = rule(frequency=Frequency.ONCE_PER_SESSION, session=(Session.ALL_TRADING,))
    assert judged(Ledger(), watched, *map(moment, clocks)) == [None, None, "freq", None, "freq", None]


def test_a_step_is_measured_from_the_last_fire_in_the_direction_of_the_day() -> None:
    watched = rule(step=0.01)
    up = [moment("10:00:00", last=price) for price in (100.0, 100.9, 101.0, 100.0, 102.01)]
    assert judged(Ledger(), watched, *up) == [None, "freq", None, "freq", None]
    down = [moment("10:00:00", last=price, prev_close=102.0) for price in (100.0, 99.1, 99.0, 101.0)]
    assert judged(Ledger(), watched, *down) == [None, "freq", None, "freq"]


def test_a_gap_holds_back_only_where_the_rule_says_so() -> None:
    over_lunch = moment("13:00:03", gap="lunch")
    assert judged(Ledger(), rule(gap=Gap.SUPPRESS), over_lunch) == ["gap"]
    assert judged(Ledger(), rule(), over_lunch) == [None]


def test_a_rise_across_our_own_outage_is_told_up_to_a_minute_late() -> None:
    moments = [moment("10:00:00", gap="feed", away_ms=away_ms) for away_ms in (60_000, 60_001)]
    assert judged(Ledger(), rule(), *moments) == [None, "gap"]


def test_flapping_is_told_once_and_ends_after_a_quiet_stretch() -> None:
    watched = rule(flap=Flap(over=2, within_ms=60_000))
    clocks = ("10:00:00", "10:00:10", "10:00:20", "10:00:30", "10:01:29", "10:02:29", "10:02:30")
    verdicts = [
        ledger.judge(watched, "600519.SH", leg=None, moment=moment(clock)) for ledger in [Ledger()] for clock in clocks
    ]
    assert [str(verdict.event) for verdict in verdicts] == [
        "fire", "fire", "flapping", "suppressed", "suppressed", "fire", "fire",
    ]  # fmt: skip
    assert {verdict.why for verdict in verdicts[2:5]} == {"flapping"}


def test_cooldown_runs_from_the_last_sent_fire_and_sleeps_over_lunch() -> None:
    watched = rule(cooldown_ms=600_000)
    moments = moment("11:25:00"), moment("11:29:59"), moment("13:04:59"), moment("13:05:00"), moment("13:14:59")
    assert judged(Ledger(), watched, *moments) == [None, "cooldown", "cooldown", None, "cooldown"]


def test_cooldown_sleeps_over_the_night() -> None:
    moments = moment("14:56:00"), moment("09:38:59", date=20250103, day=2), moment("09:39:00", date=20250103, day=2)
    assert judged(Ledger(), rule(cooldown_ms=600_000), *moments) == [None, "cooldown", None]


def test_max_per_day_counts_sent_fires_only() -> None:
    watched = rule(max_per_day=2, cooldown_ms=60_000)
    moments = moment("10:00:00"), moment("10:00:30"), moment("10:01:00"), moment("10:02:00")
    assert judged(Ledger(), watched, *moments) == [None, "cooldown", None, "max_per_day"]


def test_the_next_sent_fire_counts_those_held_back() -> None:
    ledger, watched = Ledger(), rule(cooldown_ms=60_000)
    for when in ("10:00:00", "10:00:10", "10:00:20"):
        ledger.judge(watched, "600519.SH", leg=None, moment=moment(when))
    assert ledger.judge(watched, "600519.SH", leg=None, moment=moment("10:01:00")).held_back == 2


def test_episodes_count_per_day_and_never_go_back_when_a_rule_changes() -> None:
    ledger = Ledger()
    first = ledger.judge(rule(), "600519.SH", leg=None, moment=moment("10:00:00"))
    ledger.forget(set())
    second = ledger.judge(rule(rev="2"), "600519.SH", leg=None, moment=moment("10:00:03"))
    third = ledger.judge(rule(rev="2"), "600519.SH", leg=None, moment=moment("10:00:03", date=20250103, day=2))
    assert [first.episode, second.episode, third.episode] == [1, 2, 1]


def test_episodes_begin_above_what_the_store_holds() -> None:
    ledger = Ledger()
    ledger.raise_to({("r", "", "600519.SH", "2025-01-02"): 7})
    assert ledger.judge(rule(), "600519.SH", leg=None, moment=moment("10:00:00")).episode == 8
    assert ledger.judge(rule(), "000001.SZ", leg=None, moment=moment("10:00:00")).episode == 1


@pytest.mark.parametrize("moments", [("10:00:00",), ("10:00:00", "10:00:30", "10:02:00")])
def test_a_ledger_comes_back_from_its_dump(moments: tuple[str, ...]) -> None:
    ledger, watched = Ledger(), rule(cooldown_ms=60_000, flap=Flap(over=2, within_ms=60_000))
    ledger.raise_to({("r", "", "600519.SH", "2025-01-02"): 3})
    for when in moments:
        ledger.judge(watched, "600519.SH", leg=None, moment=moment(when))
    assert Ledger.load(orjson.loads(orjson.dumps(ledger.dump()))) == ledger
