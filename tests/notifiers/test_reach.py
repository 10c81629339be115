"""Rules that no receiver is told of, and filters that no rule can reach."""

from __future__ import annotations

import pytest

from feeds.instruments import instrument_of
from notifiers.filters import AlertFilter
from notifiers.matching import Matcher
from notifiers.reach import unheard, unreachable, unreached
from notifiers.routing import Route, Routing
from rules.alert import Event
from rules.rule import events_of
from rules.rulefile import load

RULES = load(
    {
        "r.yaml": """\
version: 1
groups:
- name: g
  rules:
  - {id: moutai, select: [600519.SH], when: SEALUP, severity: critical, mode: state}
  - {id: banks, select: {sector: [银行]}, when: SEALUP}
  - {id: st, select: {name: ['*ST*'], exclude: {board: [star]}}, when: SEALUP}
  - {id: held, select: {positions: main}, when: LAST < ENTRY}
  - {id: crowd, over: all, agg: {n: count(SEALUP)}, when: n > 50, rearm: n < 45}
  - use: rocket
"""
    }
)


def deaf(**filters: AlertFilter) -> list[tuple[str | None, int]]:
    found = unheard(RULES, filters)
    assert all(one.severity == "warning" and one.file == "r.yaml" and one.hint for one in found)
    return [(one.rule, one.line) for one in found]


def vain(wanted: AlertFilter, **known: object) -> list[tuple[str | None, str | None, str]]:
    found = unreached(RULES.rules, {"ops": wanted}, **known)  # type: ignore[arg-type]
    assert all(one.receiver == "ops" and one.hint for one in found)
    return [(one.field, one.value, one.message) for one in found]


def test_where_nobody_listens_nobody_is_missed() -> None:
    assert deaf() == []


def test_a_receiver_without_filters_hears_every_rule() -> None:
    assert deaf(all=AlertFilter()) == []
    assert vain(AlertFilter()) == []


def test_a_rule_that_no_receiver_names_is_warned_of_at_its_id() -> None:
    some = AlertFilter(rules=("moutai", "crowd", "rocket"))
    assert deaf(some=some) == [("banks", 6), ("st", 7), ("held", 8)]
    assert deaf(some=some, other=AlertFilter(severities=("info",))) == []


@pytest.mark.parametrize(
    ("symbol", "unheard_rules"),
    [
        ("600519.SH", ["crowd"]),
        ("688981.SH", ["moutai", "st", "crowd"]),
        ("000001.SZ", ["moutai", "crowd"]),
    ],
)
def test_a_symbol_may_have_any_name_and_sector_and_be_held_and_a_group_has_no_symbol(
    symbol: str, unheard_rules: list[str]
) -> None:
    assert [rule for rule, _ in deaf(one=AlertFilter(symbols=(symbol,)))] == unheard_rules


def test_where_names_and_sectors_are_known_they_decide() -> None:
    known = [
        instrument_of("000001.SZ", name="平安银行", sectors=("银行",)),
        instrument_of("600519.SH", name="贵州茅台"),
    ]
    found = unheard(RULES, {"one": AlertFilter(symbols=("000001.SZ",))}, instruments=known)
    assert [one.rule for one in found] == ["moutai", "st", "crowd"]
    found = unheard(RULES, {"one": AlertFilter(symbols=("600519.SH",))}, instruments=known)
    assert [one.rule for one in found] == ["st", "crowd"]  # its sectors are not known


def test_who_is_told_of_missing_data_alone_does_not_hear_the_rule() -> None:
    assert "crowd" in [rule for rule, _ in deaf(ops=AlertFilter(events=(Event.NODATA, Event.EXPIRED)))]


def test_only_a_state_ever_ends() -> None:
    assert [rule for rule, _ in deaf(ops=AlertFilter(events=(Event.RESOLVE,)))] == [
        "banks",
        "st",
        "held",
        "crowd",
        "rocket",
    ]


def test_a_filter_that_names_no_rule() -> None:
    assert vain(AlertFilter(rules=("moutai", "bank"))) == [("rules", "bank", "there is no rule 'bank'")]
    assert vain(AlertFilter(rules=("feed",))) == []  # the feed's own health


def test_a_severity_that_no_rule_has() -> None:
    assert vain(AlertFilter(severities=("warning",))) == []  # the feed's own health
    only = unreached(RULES.rules[:1], {"ops": AlertFilter(severities=("critical", "info"))})
    assert [(one.field, one.value) for one in only] == [("severities", "info")]


def test_a_symbol_outside_of_all_scopes() -> None:
    only = unreached(RULES.rules[:1], {"ops": AlertFilter(symbols=("600519.SH", "000001.SZ"))})
    assert [(one.field, one.value, one.message) for one in only] == [
        ("symbols", "000001.SZ", "no rule watches 000001.SZ")
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        AlertFilter(rules=("banks",), severities=("critical",)),
        AlertFilter(rules=("crowd",), symbols=("600519.SH",)),
        AlertFilter(rules=("banks",), events=(Event.RESOLVE,)),
        AlertFilter(events=()),
    ],
)
def test_filters_that_let_nothing_through_together(wanted: AlertFilter) -> None:
    assert vain(wanted) == [(None, None, "no rule gets through all of its filters")]


def test_the_events_of_a_rule_are_those_its_life_can_have() -> None:
    by_id = {rule.id: events_of(rule) for rule in RULES.rules}
    assert by_id["banks"] == {Event.FIRE, Event.SUPPRESSED}
    assert by_id["moutai"] == {Event.FIRE, Event.SUPPRESSED, Event.RESOLVE}
    assert by_id["crowd"] == {Event.FIRE, Event.SUPPRESSED, Event.NODATA}


def astray(*routes: Route) -> list[tuple[str, int, str]]:
    found = unreachable(RULES.rules, Routing(routes=routes))
    assert all(one.hint for one in found)
    return [(one.route, one.number, one.message) for one in found]


TAKEN, NONE = "routes before it take all of its alerts", "no rule has alerts that match it"


def test_a_route_behind_one_that_takes_everything_is_warned_of() -> None:
    all_of_it, moutai = Route(name="all"), Route(name="moutai", matcher=Matcher(rules=("moutai",)))
    assert astray(all_of_it, moutai) == [("moutai", 1, TAKEN)]
    assert astray(moutai, all_of_it) == []
    assert astray(Route(name="all", goes_on=True), moutai) == []
    fires = Route(name="fires", matcher=Matcher(events=(Event.FIRE,)))
    assert astray(fires, moutai) == []  # its resolves come through
    perhaps = Route(name="perhaps", matcher=Matcher(include=("涨停",)))
    assert astray(perhaps, moutai) == []


def test_routes_that_together_take_everything_are_seen_through() -> None:
    halves = (
        Route(name="critical", matcher=Matcher(severities=("critical",))),
        Route(name="others", matcher=Matcher(severities=("info", "warning"))),
    )
    assert astray(*halves, Route(name="rest")) == [("rest", 2, TAKEN)]


@pytest.mark.parametrize(
    "matcher",
    [
        Matcher(rules=("mooutai", "x*")),
        Matcher(severities=("fatal",)),
        Matcher(labels=(("team", "a"),)),
        Matcher(rules=("crowd",), symbols=("600519.SH",)),
        Matcher(rules=("moutai",), symbols=("000001.SZ",)),
        Matcher(rules=("banks",), events=(Event.EXPIRED,)),
    ],
)
def test_a_route_that_asks_for_what_no_rule_has_is_warned_of(matcher: Matcher) -> None:
    assert astray(Route(name="r", matcher=matcher), Route(name="rest")) == [("r", 0, NONE)]


def test_of_routes_inside_the_outermost_is_told() -> None:
    inner = Route(name="inner", matcher=Matcher(rules=("moutai",)))
    assert astray(Route(name="outer", matcher=Matcher(rules=("banks",)), routes=(inner,))) == [("inner", 0, NONE)]
    lost = Route(name="outer", matcher=Matcher(rules=("gone",)), routes=(inner,))
    assert astray(Route(name="first", matcher=Matcher(rules=("st",))), lost) == [("outer", 1, NONE)]
    whole = Route(name="whole", routes=(Route(name="inside"),))
    assert astray(whole, Route(name="behind")) == [("behind", 1, TAKEN)]  # what is inside takes it all


def test_the_news_of_feed_and_receivers_have_routes_too() -> None:
    assert astray(Route(name="ops", matcher=Matcher(rules=("feed", "delivery")))) == []


def test_a_rule_whose_route_leads_to_nobody_who_wants_it_is_unheard() -> None:
    routing = Routing(routes=(Route(name="r", matcher=Matcher(rules=("moutai",)), receivers=("ops",)),))
    found = unheard(RULES, {"ops": AlertFilter()}, routing=routing)
    assert [one.rule for one in found] == ["banks", "st", "held", "crowd", "rocket"]
    assert "no route and no receiver's filters" in found[0].message
    assert unheard(RULES, {"ops": AlertFilter(), "desk": AlertFilter()}, routing=routing) == []
    crossed = unheard(RULES, {"ops": AlertFilter(rules=("banks",))}, routing=routing)
    assert [one.rule for one in crossed] == ["moutai", "banks", "st", "held", "crowd", "rocket"]
