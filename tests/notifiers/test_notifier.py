"""The registry, the filters, and the contract that every kind of receiver must keep."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from notifiers.errors import DeliveryError
from notifiers.filters import AlertFilter
from notifiers.notifier import (
    NOTIFIERS,
    Notification,
    NotifierOptions,
    Verdict,
    build_notifier,
    load_notifier,
)
from rules.alert import Event

LOOPBACK = ["127.0.0.0/8"]
SLOW = {"connect_timeout_s": 0.2, "total_timeout_s": 0.4}


def note(alert: Any) -> Notification:
    built = alert()
    return Notification(alert=built, record=built.to_json(), now_ms=1_675_216_925_000)


@pytest.fixture(params=sorted(NOTIFIERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def outcome_of(kind: str, url: str, alert: Any, **options: Any) -> Any:
    notifier = build_notifier(kind, **{"name": "contract", "url": url, "allow_networks": LOOPBACK, **SLOW, **options})
    await notifier.open()
    try:
        return await notifier.send(note(alert))
    finally:
        await notifier.close()


async def test_delivers_and_reports_success(kind: str, hook: Any, alert: Any) -> None:
    server, url = hook
    server.answer_body = load_notifier(kind).accepted  # type: ignore[attr-defined]
    assert (await outcome_of(kind, f"{url}/200", alert)).verdict is Verdict.OK
    assert len(server.received) == 1
    assert server.received[0].body


@pytest.mark.parametrize("path", ["500", "502", "503", "429", "301", "hang", "reset", "huge", "bomb"])
async def test_trouble_that_may_pass_is_tried_again(kind: str, path: str, hook: Any, alert: Any) -> None:
    _, url = hook
    assert (await outcome_of(kind, f"{url}/{path}", alert)).verdict is Verdict.RETRY


async def test_a_closed_port_is_tried_again(kind: str, alert: Any) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    assert (await outcome_of(kind, f"http://127.0.0.1:{port}/x", alert)).verdict is Verdict.RETRY


async def test_private_addresses_are_refused_unless_allowed(kind: str, hook: Any, alert: Any) -> None:
    server, url = hook
    assert (await outcome_of(kind, f"{url}/200", alert, allow_networks=[])).verdict is Verdict.PERMANENT
    assert server.received == []


@pytest.mark.parametrize("path", ["400", "500", "hang", "200"])
async def test_outcome_and_options_never_show_the_url(kind: str, path: str, hook: Any, alert: Any) -> None:
    server, url = hook
    server.echo = True
    secret_url = f"{url}/pl4nted/{path}?key=pl4nted"
    notifier = build_notifier(kind, name="contract", url=secret_url, allow_networks=LOOPBACK, **SLOW)
    assert "pl4nted" not in repr(notifier.options)
    await notifier.open()
    assert "pl4nted" not in repr(await notifier.send(note(alert)))
    await notifier.close()


async def test_close_is_idempotent_and_open_works_again(kind: str, hook: Any, alert: Any) -> None:
    server, url = hook
    server.answer_body = load_notifier(kind).accepted  # type: ignore[attr-defined]
    notifier = build_notifier(kind, name="contract", url=f"{url}/200", allow_networks=LOOPBACK)
    await notifier.close()
    for _ in range(2):
        await notifier.open()
        assert (await notifier.send(note(alert))).verdict is Verdict.OK
        await notifier.close()
        await notifier.close()


def test_schedule_begins_at_once_and_grows(kind: str) -> None:
    delays = build_notifier(kind, name="contract", url="https://h.example/").schedule.delays_s
    assert delays[0] == 0
    assert list(delays) == sorted(delays)


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
