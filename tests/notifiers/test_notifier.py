"""The registry and the options that every kind has; test_receivers.py holds the contract."""

from __future__ import annotations

from typing import Any

import pytest

from notifiers.errors import DeliveryError
from notifiers.filters import AlertFilter
from notifiers.notifier import (
    NotifierOptions,
    build_notifier,
    load_notifier,
)
from rules.alert import Event


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(DeliveryError, match="webhook"):
        load_notifier("pigeon")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"colour": "red"}, "no field colour"),
        ({"events": ["fire", "fires"]}, "fires.*events are: pending, fire"),
        ({"allow_networks": ["10.0.0.0/99"]}, "allow_networks"),
        ({"connect_timeout_s": 20}, "total_timeout_s"),
        ({"total_timeout_s": 61}, "total_timeout_s"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s"),
        ({"name": "a b"}, "receiver name"),
        ({"name": ""}, "receiver name"),
    ],
)
def test_bad_section_is_refused_with_what_to_do(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DeliveryError, match=complaint):
        build_notifier("webhook", **{"name": "hook", "url": "https://h.example/pl4nted", **fields})


def test_missing_url_is_named() -> None:
    with pytest.raises(DeliveryError, match="url"):
        build_notifier("webhook", name="hook")


def test_lists_and_names_of_a_parsed_section_become_what_options_hold() -> None:
    options = build_notifier("webhook", name="hook", url="https://h/", events=["fire"], rules=["brk"]).options
    assert (options.events, options.rules) == ((Event.FIRE,), ("brk",))


def test_the_filter_of_a_receiver_is_what_its_section_says() -> None:
    fields = {"events": (Event.RESOLVE,), "rules": ("brk",), "symbols": ("000001.SZ",), "severities": ("critical",)}
    assert NotifierOptions(name="hook", **fields).filter == AlertFilter(**fields)
    assert NotifierOptions(name="hook").filter == AlertFilter()
