"""What the events of one leg share, and what each adds."""

from __future__ import annotations

from typing import Any

import pytest

from feeds.sessions import unix_ms
from rules.alert import Alert, Event, identities
from rules.imprint import Imprint
from rules.lifecycle import Moment
from rules.rule import Rule
from rules.rulefile import load

TS_MS = unix_ms(20230201, 10 * 3_600_000)
MOMENT = Moment(TS_MS, "2023-02-01", 1, TS_MS + 60_000, last=11.0, gap="lunch")
VALUES: dict[str, float | None] = {"LAST": 11.0, "PCT": None}
TICK: dict[str, float | None] = {"last": 11.0}


def rule(line: str) -> Rule:
    text = "version: 1\ngroups:\n- name: g\n  labels: {kind: price}\n  rules:\n  - {" + line + "}\n"
    return load({"rules.yaml": text}).rules[0]


def told(event: Event, line: str, *, key: str, name: str | None, leg: str | None = None, **more: Any) -> Alert:
    given: dict[str, Any] = {"date": "2023-01-31", "episode": 3, "values": VALUES, "tick": TICK, "gap": "feed"}
    return Imprint.of(rule(line), leg).alert(event, key, name, MOMENT, late=True, **{**given, **more})


def test_an_event_of_a_symbol_is_the_alert_of_its_parts() -> None:
    line = 'id: r, select: all, when: LAST > 10, cooldown: 1m, severity: warning, message: "{name} {LAST:.2f} {PCT}"'
    made = told(Event.FIRE, line, key="600519.SH", name="茅台", provisional=True, suppressed=2)
    watched = rule(line)
    alert_id, episode_id = identities("r", watched.rev, None, "600519.SH", "2023-01-31", 3, event=Event.FIRE)
    assert made == Alert(
        id=alert_id, episode_id=episode_id, event=Event.FIRE, rule="r", rev=watched.rev, leg=None, symbol="600519.SH",
        group=None, name="茅台", severity="warning", labels={"kind": "price"}, trade_date="2023-01-31", episode=3,
        ts_event_ms=TS_MS, period="tick", bar_end_ms=TS_MS + 60_000, provisional=True, gap="feed", late=True,
        values=VALUES, tick=TICK, suppressed=2, why=None, message="茅台 11.00 -", stamps=None,
    )  # fmt: skip


def test_an_event_of_a_leg_bears_its_name_and_why_it_was_held_back() -> None:
    line = "id: r, select: all, cooldown: 1m, legs: {up: {when: LAST > 10}, down: {when: LAST < 9}}"
    made = told(Event.SUPPRESSED, line, key="600519.SH", name=None, leg="down", why="cooldown")
    rev = rule(line).rev
    assert (made.leg, made.why, made.message) == ("down", "cooldown", "600519.SH r")
    assert made.id == identities("r", rev, "down", "600519.SH", "2023-01-31", 3, event=Event.SUPPRESSED)[0]


@pytest.mark.parametrize(("event", "text"), [(Event.FIRE, "main r"), (Event.NODATA, "main r 数据不足")])
def test_an_event_of_a_group_bears_no_symbol_and_no_tick(event: Event, text: str) -> None:
    line = "id: r, over: {glob: ['*'], by: board}, agg: {n: count(PCT > 3)}, when: n > 5, rearm: n < 3"
    made = told(event, line, key="main", name="main", tick=None)
    assert (made.symbol, made.group, made.name, made.tick, made.message) == (None, "main", "main", None, text)
