"""Shares of the rules: each rule in one of them, whoever comes and goes, and together they decide what one does."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.inputs import Control, ControlKind
from feeds.instruments import encode_table
from feeds.simulated import Market
from rules.alert import Alert
from rules.engine import Engine
from rules.errors import RuleError, RuleFileError
from rules.rulefile import from_source, load
from rules.share import Share

RULES = Path(__file__).parents[2] / "config" / "rules"
OWN = """
version: 1
groups:
- name: g
  rules:
  - {id: wide, over: {all: true}, agg: {N: "count(PCT > 0.5)"}, when: N > 20, freq: always, cooldown: 5m}
  - {id: narrow, over: {all: true}, agg: {N: "share(PCT < -0.5)"}, when: N > 0.3, freq: always, cooldown: 5m}
  - {id: index, select: all, when: "C > O AND \\"SH600519$CLOSE\\" > 0", period: 1m, freq: once_per_bar}
  - {id: rise, select: all, when: PCT > 1, rearm: PCT < 0.9, freq: always}
  - {id: fall, select: all, when: PCT < -1, rearm: PCT > -0.9, freq: always}
"""
ids = st.text(st.characters(codec="ascii", categories=("Ll", "Nd")), min_size=1, max_size=20)


@given(st.sets(ids, min_size=1), st.integers(1, 7))
def test_every_rule_is_in_exactly_one_share(names: set[str], count: int) -> None:
    for name in names:
        assert [Share(number, count).takes(name) for number in range(count)].count(True) == 1


def test_where_a_rule_is_never_changes() -> None:
    """Its state is in that share's directory: a hash of another kind would let every rule begin anew."""
    taken = {name: Share(0, 2).takes(name) for name in ("rise", "fall", "rocket", "brk", "w1-ma5")}
    assert taken == {"rise": False, "fall": True, "rocket": False, "brk": True, "w1-ma5": False}


def test_shares_are_about_equal() -> None:
    mine = sum(Share(1, 4).takes(f"rule-{n}") for n in range(4000))
    assert 900 < mine < 1100


@pytest.mark.parametrize("text", ["", "0", "2/2", "1/0", "-1/2", "a/b", "0/2/3", " 0/2", "99999/100000"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(RuleError, match="write 0/2 and 1/2"):
        Share.parse(text)


def test_a_share_is_written_as_it_is_read() -> None:
    assert str(Share.parse("3/12")) == "3/12"


def texts() -> dict[str, str]:
    return {"pankou.yaml": (RULES / "pankou.yaml").read_text("utf-8"), "own.yaml": OWN}


def test_a_set_made_again_from_its_source_is_the_same_share() -> None:
    for share in (Share(0, 2), Share(1, 2)):
        half = load(texts(), share=share)
        assert [rule.id for rule in from_source(half.source).rules] == [rule.id for rule in half.rules]
        assert {rule.id for rule in half.rules} == {rule.id for rule in load(texts()).rules if share.takes(rule.id)}
    assert "share" not in orjson.loads(load(texts()).source)


def test_a_mistake_in_another_share_is_told_all_the_same() -> None:
    bad = "version: 1\ngroups:\n- name: g\n  rules:\n  - {id: rise, select: all, when: PCT >}\n"
    assert not Share(0, 2).takes("rise")
    with pytest.raises(RuleFileError):
        load({"f": bad}, share=Share(0, 2))


def decided(share: Share | None) -> list[Alert]:
    engine = Engine()
    market = Market(seed=3, symbols=60, date=20250102, interval_ms=3000, days=1)
    market.skip_to(next(place for place, one in enumerate(market.timetable) if one.clock_ms >= 33_600_000))
    engine.step(Control(ControlKind.INSTRUMENTS, encode_table(market.listing.instruments)))
    engine.step(Control(ControlKind.RULES, load(texts(), share=share).source))
    alerts: list[Alert] = []
    for _ in range(600):
        value = market.next()
        assert value is not None
        alerts += engine.step(value)
    return alerts


def test_two_halves_decide_together_exactly_what_one_engine_does() -> None:
    whole, halves = decided(None), [decided(Share(number, 2)) for number in (0, 1)]
    assert all(len(half) > 50 for half in halves)
    for number, half in enumerate(halves):
        mine = [alert for alert in whole if Share(number, 2).takes(alert.rule)]
        assert [alert.to_json() for alert in half] == [alert.to_json() for alert in mine]
    assert len(whole) == sum(map(len, halves))
    assert {"wide", "narrow", "index"} <= {alert.rule for alert in whole}, "rules that look at other symbols took part"
