"""Which alerts a filter lets through, and which rules might have such."""

from __future__ import annotations

from typing import Any

import pytest

from notifiers.filters import DEFAULT_EVENTS, AlertFilter
from rules.alert import Event


def test_a_receiver_is_told_of_everything_decided_unless_it_says_otherwise(alert: Any) -> None:
    told = [event for event in Event if AlertFilter().passes(alert(event=event))]
    assert sorted(told) == sorted(set(Event) - {Event.PENDING, Event.SUPPRESSED}) == sorted(DEFAULT_EVENTS)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, True),
        ({"rules": ("brk",)}, True),
        ({"rules": ("other",)}, False),
        ({"symbols": ("000001.SZ", "600519.SH")}, True),
        ({"symbols": ("000001.SZ",)}, False),
        ({"severities": ("warning",)}, True),
        ({"severities": ("critical",)}, False),
        ({"events": (Event.RESOLVE,)}, False),
        ({"rules": ("brk",), "symbols": ("600519.SH",), "severities": ("critical",)}, False),
    ],
)
def test_filters_must_all_pass(fields: dict[str, Any], wanted: bool, alert: Any) -> None:
    assert AlertFilter(**fields).passes(alert()) is wanted


def test_an_alert_of_a_group_has_no_symbol_to_match(alert: Any) -> None:
    assert not AlertFilter(symbols=("600519.SH",)).passes(alert(symbol=None, group="board"))
    assert AlertFilter().passes(alert(symbol=None, group="board"))
