"""State mode: the engine against a machine by hand, on drawn streams and on recorded sessions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.inputs import Heartbeat, Input, Mark, MarkKind
from rules.alert import Alert
from tests.rules.states_by_hand import ALL_TRADING, ByHand, Given, StateRule, Told
from tests.rules.ticks import Watch, batch, ms, tick

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


STEPS = (0, 0, 1, 500, 999, 1000, 1000, 2000, 3000, 3000, 5999, 6000, 10_000, 31_000, 62_000)
KINDS = ("tick",) * 12 + ("beat",) * 5 + ("silent", "alive", "gap")


@st.composite
def streams(draw: st.DrawFn) -> list[Given]:
    """Draw ticks, heartbeats and marks of up to three days, ticks of one symbol now and then a little behind others."""
    found: list[Given] = []
    for day in DAYS[: draw(st.integers(1, 3))]:
        for start in STARTS:
            now = ms(start, day)
            for _ in range(draw(st.integers(0, 12))):
                now += draw(st.sampled_from(STEPS))
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
    return row | {"ts": one.ts_ms}


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


@few
@given(rule_sets(), streams())
def test_every_event_is_the_one_of_the_machine_by_hand(hand_rules: list[StateRule], stream: list[Given]) -> None:
    watch = Watch(*(line(rule) for rule in hand_rules))
    watch.take(*(engine_input(number, one) for number, one in enumerate(stream)))
    assert told(watch.events) == by_hand(hand_rules, stream)
    assert len({one.id for one in watch.events}) == len(watch.events)
