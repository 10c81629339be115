"""Arming over bits against one small state machine per symbol; and what each fire is allowed to do."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.sessions import Session, unix_ms
from rules.lifecycle import EdgeBits, Ledger, Moment
from rules.rule import Frequency, Rule

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
    """A rule with just the fields a ledger reads."""
    given = {"id": "r", "rev": "1", "session": (Session.CONTINUOUS,), "frequency": Frequency.ALWAYS}
    return cast(Rule, SimpleNamespace(**{**given, "cooldown_ms": None, "max_per_day": None, **fields}))


def moment(clock: str, *, date: int = 20250102, day: int = 1, bar_end_ms: int | None = None) -> Moment:
    hours, minutes, seconds = map(int, clock.split(":"))
    text = f"{date // 10000}-{date // 100 % 100:02}-{date % 100:02}"
    return Moment(unix_ms(date, ((hours * 60 + minutes) * 60 + seconds) * 1000), text, day, bar_end_ms)


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
    ledger, watched = Ledger(), rule(cooldown_ms=60_000)
    ledger.raise_to({("r", "", "600519.SH", "2025-01-02"): 3})
    for when in moments:
        ledger.judge(watched, "600519.SH", leg=None, moment=moment(when))
    assert Ledger.load(ledger.dump()) == ledger
