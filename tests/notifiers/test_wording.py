"""Alerts in words: what fits is told, what does not is said, and no id is ever lost."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifiers.feishu import entities
from notifiers.serverchan import backslashed
from notifiers.wording import (
    Language,
    Markup,
    TooLong,
    compose,
    full_width,
    json_bytes,
    plain,
    title_of,
    utf8_bytes,
    utf16_units,
)
from rules.alert import Event
from tests.notifiers.conftest import build_alert

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
ESCAPES = [plain, full_width, entities, backslashed]


def many(count: int, **changes: Any) -> list[Any]:
    return [build_alert(n, id=f"al_{n:020x}", **changes) for n in range(count)]


def test_one_alert_is_told_with_what_a_reader_needs() -> None:
    alert = build_alert(
        values={"LAST": 1849.0, "VOL": None}, labels={"desk": "A"}, why="limit", suppressed=3, provisional=True
    )
    told = compose([alert], Markup(limit=4000))
    assert told.title == "触发 brk 600519.SH 贵州茅台"
    assert told.text.split("\n") == [
        "触发 brk 600519.SH 贵州茅台",
        "突破",
        "2023-02-01 10:02:03 · warning · tick · 盘中未确认 · 此前抑制 3 次 · limit",
        "LAST=1849 VOL=-",
        "desk=A",
        "al_1",
    ]


def test_many_alerts_are_counted_by_event_and_told_a_line_each() -> None:
    alerts = [*many(2), build_alert(7, event=Event.RESOLVE)]
    told = compose(alerts, Markup(limit=4000), language="en")
    assert told.title == "3 alerts: fire 2 resolve 1"
    assert told.text.split("\n")[1:] == [
        "10:02:03 fire 600519.SH 贵州茅台 brk 突破 al_00000000000000000000",
        "10:02:03 fire 600519.SH 贵州茅台 brk 突破 al_00000000000000000001",
        "10:02:03 resolve 600519.SH 贵州茅台 brk 突破 al_7",
    ]


def test_what_does_not_fit_is_told_by_its_id_and_said() -> None:
    alerts = many(100)
    told = compose(alerts, Markup(limit=4096))
    lines = told.text.split("\n")
    assert utf8_bytes(told.text) <= 4096
    assert lines[-2].startswith("另有 ")
    left = int(lines[-2].split()[1])
    assert left == len(lines[-1].split()) == 100 - (len(lines) - 3)
    assert len(lines) > 10  # the room is used


def test_a_long_message_is_cut_between_characters_and_said() -> None:
    told = compose([build_alert(message="涨" * 5000)], Markup(limit=2048))
    assert 2048 - 200 < utf8_bytes(told.text) <= 2048
    cut = next(line for line in told.text.split("\n") if line.startswith("涨"))
    kept = cut.count("涨")
    assert cut.endswith(f"……(另有 {5000 - kept} 个字符放不下)")
    assert told.text.endswith("al_1")


def test_ids_that_do_not_fit_are_refused_not_dropped() -> None:
    with pytest.raises(TooLong, match="ids of 100 alerts"):
        compose(many(100), Markup(limit=2048))
    with pytest.raises(TooLong, match="id alone"):
        compose([build_alert(id="x" * 50)], Markup(limit=40))


@given(
    texts=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=30),
    escape=st.sampled_from(ESCAPES),
    size=st.sampled_from([utf8_bytes, json_bytes, utf16_units]),
    limit=st.integers(1200, 5000),
    language=st.sampled_from(["zh", "en"]),
    keyword=st.sampled_from(["", "监控", "*"]),
)
def test_every_id_stands_in_the_text_within_the_limit(
    texts: list[tuple[str, str, str]], escape: Any, size: Any, limit: int, language: Language, keyword: str
) -> None:
    alerts = [
        build_alert(n, id=f"al_{n:020x}", message=message, name=name, rule=rule, labels={name: rule})
        for n, (message, name, rule) in enumerate(texts)
    ]
    told = compose(alerts, Markup(limit=limit, size=size, escape=escape), language=language, keyword=keyword)
    assert size(told.text) <= limit
    words = told.text.split()
    assert all(alert.id in words for alert in alerts)
    assert len(told.title) <= 64
    assert "\n" not in told.title
    assert keyword in told.title


@given(TEXTS)
def test_escapes_leave_nothing_that_is_markup(text: str) -> None:
    assert not set("*_`[]<>#~|\\") & set(full_width(text))
    assert not set("*_`[]<>()~|\\") & set(entities(text))
    assert unescape(entities(text)) == unescape(unescape(entities(text))) or "&" in text


def test_nobody_is_called_by_the_text_of_an_alert() -> None:
    hostile = '<@all> <at user_id="all"></at> <at id=all></at>'
    for escape in (full_width, entities):
        told = compose([build_alert(message=hostile, name=hostile)], Markup(limit=4000, escape=escape))
        assert "<" not in told.text


def test_titles_stay_short() -> None:
    long = build_alert(name="很" * 500)
    assert len(compose([long], Markup(limit=4000)).title) == 64
    assert title_of([long], "zh").startswith("触发 brk 600519.SH 很")
