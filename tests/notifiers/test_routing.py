"""Routes, quiet hours, silences and inhibition: pure, against brute force, at their boundaries to the ms."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.instruments import Board, Instrument, instrument_of
from feeds.sessions import Calendar, Session, day_number, in_session, unix_ms
from notifiers.errors import DeliveryError
from notifiers.filters import AlertSource
from notifiers.inhibition import Inhibition, Inhibitor
from notifiers.matching import EVERYTHING, Matcher, Reach, value_of
from notifiers.notifier import BundleKind
from notifiers.quiet import Quiet, QuietThen, windows_of
from notifiers.reach import reachable
from notifiers.routing import (
    ALL,
    Bucket,
    Grouping,
    Placement,
    Route,
    Router,
    Routing,
    bundle_kind,
    group_due_ms,
    taken,
)
from notifiers.silences import Silence, SilenceError, Silences
from rules.alert import Alert, Event

H, MIN = 3_600_000, 60_000
RULES = ("brk", "brk-2", "up", "feed")
SYMBOLS = ("600519.SH", "688981.SH", "000001.SZ", None)
SEVERITIES = ("info", "warning", "critical")
TEAMS = ("a", "ab", None)
MESSAGES = ("涨停", "ST 跌停", "放量", "")
SECTORS = {"600519.SH": ("白酒",), "000001.SZ": ("银行", "深圳")}
EVENTS = (Event.FIRE, Event.RESOLVE, Event.SUPPRESSED)


def known(symbol: str) -> Instrument | None:
    return instrument_of(symbol, sectors=SECTORS[symbol]) if symbol in SECTORS else None


def alert(**changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": "al_1", "episode_id": "ep_1", "event": Event.FIRE, "rule": "brk", "rev": "1", "symbol": "600519.SH",
        "severity": "warning", "trade_date": "2023-02-01", "episode": 1, "ts_event_ms": 0, "period": "tick",
    }  # fmt: skip
    return Alert(**{**fields, **changes})


@st.composite
def alerts(draw: st.DrawFn) -> Alert:
    team = draw(st.sampled_from(TEAMS))
    return alert(
        rule=draw(st.sampled_from(RULES)), symbol=draw(st.sampled_from(SYMBOLS)), event=draw(st.sampled_from(EVENTS)),
        severity=draw(st.sampled_from(SEVERITIES)), message=draw(st.sampled_from(MESSAGES)),
        labels={} if team is None else {"team": team},
    )  # fmt: skip


def some(*values: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


matchers = st.builds(
    Matcher,
    rules=some("brk", "brk*", "up", "*"), symbols=some("600519.SH", "6*", "*.SZ"), boards=some(Board.MAIN, Board.STAR),
    sectors=some("白酒", "银行", "煤炭"), severities=some("info", "warn*"), events=some(*EVENTS),
    labels=some(("team", "a"), ("team", "a*"), ("team", "*"), ("none", ""), ("none", "x")),
    include=some("停", "ST"), exclude=some("ST", "放"),
)  # fmt: skip


def by_hand(matcher: Matcher, one: Alert) -> bool:
    """Match again, written down the long way."""
    if matcher.rules and not [glob for glob in matcher.rules if fnmatchcase(one.rule, glob)]:
        return False
    if matcher.severities and not [glob for glob in matcher.severities if fnmatchcase(one.severity, glob)]:
        return False
    if matcher.events and one.event not in matcher.events:
        return False
    code = one.symbol
    if matcher.symbols and (code is None or not [glob for glob in matcher.symbols if fnmatchcase(code, glob)]):
        return False
    board = None if code is None else Board.STAR if code.startswith("68") else Board.MAIN
    if matcher.boards and board not in matcher.boards:
        return False
    if matcher.sectors and not set(matcher.sectors) & set(SECTORS.get(code or "", ())):
        return False
    for name, glob in matcher.labels:
        if not fnmatchcase(dict(one.labels).pop(name, ""), glob):
            return False
    if matcher.include and not [text for text in matcher.include if one.message.find(text) >= 0]:
        return False
    return not [text for text in matcher.exclude if one.message.find(text) >= 0]


@given(matchers, alerts())
def test_a_matcher_matches_as_by_hand(matcher: Matcher, one: Alert) -> None:
    assert matcher.matches(one, known) == by_hand(matcher, one)


@given(matchers, alerts())
def test_what_is_said_of_a_rule_before_holds_for_each_of_its_alerts(matcher: Matcher, one: Alert) -> None:
    source = AlertSource(
        rule=one.rule, severity=one.severity, events=EVENTS, concerns=lambda symbol: symbol == one.symbol,
        labels=one.labels, has_symbols=one.symbol is not None,
    )  # fmt: skip
    reach = matcher.reach(source, one.event)
    if matcher.matches(one, known):
        assert reach is not Reach.NEVER
    else:
        assert reach is not Reach.ALWAYS


names = st.sampled_from(["a", "b", "c"])
leaves = st.builds(
    Route, name=st.uuids().map(str), matcher=matchers, receivers=st.lists(names, max_size=2).map(tuple),
    goes_on=st.booleans(),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        Route, name=st.uuids().map(str), matcher=matchers, receivers=st.lists(names, max_size=2).map(tuple),
        goes_on=st.booleans(), routes=st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=8,
)  # fmt: skip


def paths(routes: tuple[Route, ...], above: tuple[tuple[Route, int], ...] = ()) -> list[tuple[tuple[Route, int], ...]]:
    """Return the path of every route: (route, its number among its siblings) from the top."""
    found = []
    for number, route in enumerate(routes):
        path = (*above, (route, number))
        found += [path, *paths(route.routes, path)]
    return found


def taken_by_hand(routes: tuple[Route, ...], one: Alert) -> list[str]:
    """A route is taken if all on its path match, none before them on their level stops, and none inside matches."""
    found = []
    for path in paths(routes):
        level, is_taken = routes, True
        for route, number in path:
            before = [other for other in level[:number] if by_hand(other.matcher, one) and not other.goes_on]
            is_taken = is_taken and by_hand(route.matcher, one) and not before
            level = route.routes
        inside = [route for route in path[-1][0].routes if by_hand(route.matcher, one)]
        if is_taken and not inside:
            found.append(path[-1][0].name)
    return found


@given(st.lists(trees, max_size=4).map(tuple), alerts())
def test_routes_are_taken_as_by_hand(routes: tuple[Route, ...], one: Alert) -> None:
    found = taken(routes, lambda matcher: matcher.matches(one, known))
    assert sorted(route.name for route in found) == sorted(taken_by_hand(routes, one))


@given(st.lists(trees, max_size=4).map(tuple), alerts(), names)
def test_a_receiver_is_told_if_a_route_leads_to_it_or_none_names_it(
    routes: tuple[Route, ...], one: Alert, name: str
) -> None:
    place = Router(name, Routing(routes=routes), known=known).place(one, 0)
    all_paths = [path[-1][0] for path in paths(routes)]
    taken_names = taken_by_hand(routes, one)
    led = any(route.name in taken_names and name in route.receivers for route in all_paths)
    named = any(name in route.receivers for route in all_paths)
    assert (place is not None) == (led or not named)


def test_a_receiver_is_never_told_of_its_own_failure() -> None:
    news = alert(rule="delivery", symbol=None, labels={"receiver": "ops"})
    assert Router("ops").place(news, 0) is None
    assert Router("desk").place(news, 0) == Placement()


# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_may_say_that_no_receiver_is_told() -> None:
    quiet, loud = alert(labels={"deliver": "never"}), alert(labels={"deliver": "always"})
    placed = Router("ops").place(quiet, 0)
    assert placed is not None
    assert placed.withheld == "the rule's label deliver: never"
    assert Router("ops").place(loud, 0) == Placement(route="")


def test_groups_are_made_of_words_and_all_is_one() -> None:
    one = alert(labels={"team": "a"}, symbol="688981.SH")
    words = ("rule", "symbol", "group", "leg", "severity", "event", "board", "label.team", "label.x")
    assert [value_of(one, word) for word in words] == ["brk", "688981.SH", "", "", "warning", "fire", "star", "a", ""]
    assert Grouping(by=(ALL,)).values(one) == ("",)
    assert Grouping(by=("rule", "label.team")).values(one) == ("brk", "a")
    for by in ("colour", "label.", "message"):
        with pytest.raises(DeliveryError, match="group_by: an alert has no"):
            Grouping(by=(by,))
    with pytest.raises(DeliveryError, match="0 to 3 s"):
        Grouping(by=("rule",), wait_ms=3001)


@given(st.integers(0, 3000), st.integers(0, 100_000), st.integers(-200_000, 0))
def test_a_groups_message_waits_for_both(wait_ms: int, interval_ms: int, told_ms: int) -> None:
    bucket = Bucket(key="group:x", wait_ms=wait_ms, interval_ms=interval_ms)
    due_ms = group_due_ms(bucket, 0, open_ms=None, told_ms=told_ms)
    assert due_ms - 0 >= wait_ms
    assert due_ms - told_ms >= interval_ms
    assert due_ms in (wait_ms, told_ms + interval_ms)
    open_ms = max(wait_ms, interval_ms)
    assert group_due_ms(bucket, 0, open_ms=open_ms, told_ms=told_ms) == open_ms
    assert group_due_ms(bucket, 0, open_ms=None, told_ms=1) == wait_ms  # the wall clock was set back


def test_the_key_of_a_bucket_says_its_kind() -> None:
    routes = (Route(name="r", receivers=("a",), grouping=Grouping(by=("rule",))),)
    place = Router("a", Routing(routes=routes)).place(alert(), 0)
    assert place is not None
    assert place.bucket is not None
    assert bundle_kind(place.bucket.key) is BundleKind.GROUP


# ── quiet hours ───────────────────────────────────────────────────────────────────────────────────────────────────

HOLIDAY = 20230203
CALENDAR = Calendar([*range(20230130, 20230132), 20230201, 20230202, 20230206, 20230207, 20230208])


def quiet(active: tuple[str, ...] = (), hours: tuple[str, ...] = ()) -> Quiet:
    return Quiet(calendar=CALENDAR, active=windows_of(active), hours=windows_of(hours), then=QuietThen.DIGEST)


def at(day: int, clock: str) -> int:
    hours, minutes = clock.split(":")
    return unix_ms(day, int(hours) * H + round(float(minutes) * MIN))


@pytest.mark.parametrize("session", [one for one in Session if one is not Session.ALL_TRADING])
def test_sessions_are_those_of_the_trading_clock_to_the_ms(session: Session) -> None:
    only = quiet(active=(str(session),))
    clocks = ("9:15", "9:30", "11:30", "13:00", "14:57", "15:00", "15:30")
    edges = [at(20230201, clock) - unix_ms(20230201) for clock in clocks]
    for edge_ms in edges:
        for ms in (edge_ms - 1, edge_ms, edge_ms + 1):
            assert only.is_quiet(unix_ms(20230201, ms)) != in_session(unix_ms(20230201, ms), session)
            assert only.is_quiet(unix_ms(HOLIDAY, ms))


@pytest.mark.parametrize(
    ("active", "hours", "now", "end"),
    [
        (("continuous",), (), (20230201, "11:31"), (20230201, "13:00")),
        (("continuous",), (), (20230201, "14:57"), (20230202, "9:30")),
        (("continuous",), (), (20230202, "15:00"), (20230206, "9:30")),  # over a holiday and a weekend
        (("09:00-15:30",), ("11:30-13:00",), (20230201, "12:00"), (20230201, "13:00")),
        (("09:00-15:30",), ("09:00-09:30",), (20230202, "18:00"), (20230206, "9:30")),
        ((), ("22:00-06:00",), (20230202, "23:00"), (HOLIDAY, "6:00")),
        ((), ("22:00-06:00",), (HOLIDAY, "5:59"), (HOLIDAY, "6:00")),  # the night of the day before
        ((), ("00:00-24:00",), (20230201, "0:00"), (HOLIDAY, "0:00")),
    ],
)
def test_quiet_hours_end_at_the_first_ms_that_is_not(
    active: tuple[str, ...], hours: tuple[str, ...], now: tuple[int, str], end: tuple[int, str]
) -> None:
    one = quiet(active, hours)
    assert one.is_quiet(at(*now))
    assert one.is_quiet(at(*end) - 1)
    assert not one.is_quiet(at(*end))
    assert one.ends_ms(at(*now)) == at(*end)


@pytest.mark.parametrize("now", [(20230202, "21:59"), (HOLIDAY, "6:00"), (HOLIDAY, "23:00")])
def test_a_night_that_no_trading_day_begins_is_not_quiet(now: tuple[int, str]) -> None:
    assert not quiet(hours=("22:00-06:00",)).is_quiet(at(*now))


@given(
    st.integers(0, 9 * 24 * 60), st.sampled_from([("continuous",), ("09:00-15:30", "20:00-21:00"), ("22:00-02:00",)])
)
def test_no_minute_before_the_end_is_loud(minute: int, active: tuple[str, ...]) -> None:
    one = quiet(active, ("12:00-13:30",))
    now_ms = unix_ms(20230130) + minute * MIN
    end_ms = one.ends_ms(now_ms)
    assert end_ms is not None
    if one.is_quiet(now_ms):
        assert all(one.is_quiet(ms) for ms in range(now_ms, end_ms, 7 * MIN))
    assert not one.is_quiet(end_ms)
    assert day_number(end_ms) >= day_number(now_ms)


@pytest.mark.parametrize("word", ["lunch", "9:00-15:00", "25:00-26:00", "09:00-09:00", "09:00", "24:00-01:00"])
def test_a_time_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(DeliveryError, match=word):
        windows_of((word,))


def test_hours_that_are_always_quiet_are_refused() -> None:
    with pytest.raises(DeliveryError, match="at all times"):
        quiet(("10:00-11:00",), ("09:00-12:00",))


# ── silences ──────────────────────────────────────────────────────────────────────────────────────────────────────


def silence(start_ms: int, end_ms: int, *, number: int = 1, **fields: Any) -> Silence:
    given_fields: dict[str, Any] = {"matcher": Matcher(rules=("brk",)), "author": "li", "comment": "why", **fields}
    return Silence(id=number, start_ms=start_ms, end_ms=end_ms, **given_fields)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4), st.integers(0, 20))
def test_overlapping_silences_hold_while_any_does(spans: list[tuple[int, int]], now_ms: int) -> None:
    spans = [(min(span), max(span)) for span in spans]
    silences = Silences([silence(*span, number=n) for n, span in enumerate(spans)])
    silenced = silences.why(alert(), now_ms) is not None
    assert silenced == any(start <= now_ms < end for start, end in spans)
    assert silences.why(alert(rule="other"), now_ms) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"matcher": EVERYTHING}, "match"),
        ({"end_ms": -1}, "end"),
        ({"end_ms": 400 * 24 * H}, "end"),
        ({"author": " "}, "author"),
        ({"comment": ""}, "comment"),
    ],
)
def test_a_silence_that_cannot_be_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(SilenceError) as refused:
        silence(**{"start_ms": 0, "end_ms": 1, **fields})
    assert refused.value.field == field


def test_a_silence_of_a_label_nobody_has_silences_nobody() -> None:
    absent = Silences([silence(0, 10, matcher=Matcher(labels=(("team", "a"),)))])
    assert absent.why(alert(), 5) is None
    everybody_without = Silences([silence(0, 10, matcher=Matcher(labels=(("team", ""),)))])
    assert everybody_without.why(alert(), 5) is not None
    assert everybody_without.why(alert(labels={"team": "b"}), 5) is None


# ── inhibition ────────────────────────────────────────────────────────────────────────────────────────────────────


def inhibitor(*, equal: tuple[str, ...] = ("symbol",), hold_ms: int = 1000, **fields: Any) -> Inhibitor:
    given_fields: dict[str, Any] = {"source": Matcher(rules=("up",)), "target": Matcher(severities=("info",)), **fields}
    return Inhibitor([Inhibition(name="i", equal=equal, hold_ms=hold_ms, **given_fields)])


def source(ts_ms: int = 0, *, episode: str = "up1", **changes: Any) -> Alert:
    fields: dict[str, Any] = {"id": f"al_{episode}", "episode_id": episode, "rule": "up", "ts_event_ms": ts_ms}
    return alert(**{**fields, **changes})


def target(ts_ms: int, **changes: Any) -> Alert:
    return alert(**{"id": "al_t", "episode_id": "ep_t", "severity": "info", "ts_event_ms": ts_ms, **changes})


def test_a_source_inhibits_from_its_fire_for_so_long_and_no_ms_longer() -> None:
    one = inhibitor()
    one.note(source(100))
    withheld = [ms for ms in (99, 100, 1099, 1100) if one.why(target(ms)) is not None]
    assert withheld == [100, 1099]
    assert one.why(target(100, symbol="000001.SZ")) is None
    assert one.why(target(100, severity="warning")) is None


@pytest.mark.parametrize("event", [Event.RESOLVE, Event.WITHDRAWN, Event.EXPIRED])
def test_the_end_of_its_episode_ends_it(event: Event) -> None:
    one = inhibitor()
    one.note(source(0))
    one.note(source(500, event=event))
    assert one.why(target(499)) is not None
    assert one.why(target(500)) is None


def test_the_end_of_another_episode_does_not() -> None:
    one = inhibitor()
    one.note_all([source(0), source(10, episode="up2"), source(20, event=Event.RESOLVE)])
    assert one.why(target(700)) == "inhibited by al_up2 (i)"


def test_noting_again_changes_nothing() -> None:
    one = inhibitor()
    again = [source(0), source(500, event=Event.RESOLVE)]
    one.note_all(again * 3)
    assert one.why(target(500)) is None


def test_what_both_lack_is_equal_and_what_one_lacks_is_not() -> None:
    one = inhibitor(equal=("symbol", "label.team"))
    one.note(source(0))
    assert one.why(target(1)) is not None
    assert one.why(target(1, labels={"team": "a"})) is None
    groups = inhibitor()
    groups.note(source(0, symbol=None, group="银行"))
    assert groups.why(target(1, symbol=None)) is not None
    assert groups.why(target(1)) is None


def test_sources_that_are_targets_too_do_not_inhibit_each_other() -> None:
    both = inhibitor(target=Matcher(rules=("up", "x")))
    both.note_all([source(0), source(0, episode="up2")])
    assert both.why(source(1, episode="up2")) is None
    assert both.why(target(1, rule="x")) is not None


def test_an_episode_never_inhibits_itself() -> None:
    one = inhibitor(target=Matcher(events=(Event.FLAPPING,)))
    one.note(source(0))
    assert one.why(source(1, event=Event.FLAPPING)) is None
    assert one.why(source(1, event=Event.FLAPPING, episode="up2")) is not None


def test_a_word_there_is_not_is_refused() -> None:
    with pytest.raises(DeliveryError, match="inhibition i: equal: an alert has no 'colour'"):
        inhibitor(equal=("colour",))


def test_old_episodes_are_forgotten_and_lasting_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifiers.inhibition.TIDY_AFTER", 10)
    one = inhibitor(hold_ms=H)
    for number in range(50):
        one.note(source(number * H, episode=f"up{number}"))
    assert len(one._episodes) < 15
    assert one.why(target(49 * H + 1)) is not None


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["fire", "resolve"]), st.integers(0, 2)), max_size=12))
def test_inhibition_is_as_by_hand(history: list[tuple[int, str, int]]) -> None:
    history = sorted(history)
    one = inhibitor(hold_ms=10)
    spans: dict[int, list[int]] = {}
    for ts_ms, event, episode in history:
        one.note(source(ts_ms, episode=f"e{episode}", event=Event(event)))
        if event == "fire":
            spans.setdefault(episode, [ts_ms, ts_ms + 10])
        elif episode in spans:
            spans[episode][1] = min(spans[episode][1], ts_ms)
    for ts_ms in range(45):
        by_spans = any(start <= ts_ms < end for start, end in spans.values())
        assert (one.why(target(ts_ms)) is not None) == by_spans


# ── what can be said of routes before ─────────────────────────────────────────────────────────────────────────────


@given(st.lists(trees, max_size=4).map(tuple), alerts())
def test_a_route_that_an_alert_takes_was_called_reachable(routes: tuple[Route, ...], one: Alert) -> None:
    source = AlertSource(
        rule=one.rule, severity=one.severity, events=EVENTS, concerns=lambda symbol: symbol == one.symbol,
        labels=one.labels, has_symbols=one.symbol is not None,
    )  # fmt: skip
    said = {route.name for route in reachable(routes, source, one.event)[0]}
    assert {route.name for route in taken(routes, lambda matcher: matcher.matches(one, known))} <= said


def test_a_wall_clock_set_back_does_not_make_a_group_wait_by_the_step() -> None:
    bucket = Bucket(key="group:r", wait_ms=1000, interval_ms=30_000)
    assert group_due_ms(bucket, 5000, open_ms=3_600_000, told_ms=None) == 6000
    assert group_due_ms(bucket, 5000, open_ms=35_000, told_ms=None) == 35_000
