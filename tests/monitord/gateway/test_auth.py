"""Who may come in."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import structlog
from aiohttp.test_utils import make_mocked_request

from monitord.gateway.auth import MAX_TICKETS, Gate, Grant, Token
from tests.monitord.gateway.stand import SECRET, bearer, standing, token


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def request(peer: str = "127.0.0.1", path: str = "/", **headers: str) -> Any:
    """Return a request from this address; underscores in header names stand for dashes."""
    named = {"Host": "127.0.0.1:8710", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return make_mocked_request("GET", path, headers=named).clone(remote=peer)


def test_only_the_very_secret_earns_its_grant() -> None:
    gate = Gate((token("alerts"), token("health", secret="other")))
    assert gate.by_token(SECRET) == Grant("desk", ("alerts",))
    assert gate.by_token("other") == Grant("desk", ("health",))
    for wrong in ("", SECRET.upper(), SECRET + " ", SECRET[:-1], token().sha256, "\ud800"):
        assert gate.by_token(wrong) is None


def test_an_expired_token_earns_nothing() -> None:
    clock = Clock()
    gate = Gate((token(expires_ms=1_000_500),), clock=clock)
    assert gate.by_token(SECRET) is not None
    clock.now = 1000.5
    assert gate.by_token(SECRET) is None


def test_patterns_are_globs_over_whole_channel_names() -> None:
    grant = Grant("desk", ("alerts:sym:6*", "tick:600519.SH", "health"))
    assert grant.allows("alerts:sym:600519.SH")
    assert grant.allows("health")
    for ch in ("alerts", "alerts:sym:000001.SZ", "tick:600519.SHX", "Health", "rules"):
        assert not grant.allows(ch)


def test_a_ticket_works_once_and_for_thirty_seconds() -> None:
    clock = Clock()
    gate = Gate((), clock=clock)
    ticket, late = gate.issue_ticket(Grant("desk")), gate.issue_ticket(Grant("late"))
    assert gate.by_ticket(ticket) == Grant("desk")
    assert gate.by_ticket(ticket) is None
    clock.now += 30
    assert gate.by_ticket(late) is None
    assert gate.by_ticket("made up") is None


def test_the_oldest_ticket_goes_when_there_are_too_many() -> None:
    gate = Gate((), clock=Clock())
    first = gate.issue_ticket(Grant("first"))
    second = gate.issue_ticket(Grant("second"))
    gate._tickets.update({str(n): (2000.0, Grant("x")) for n in range(MAX_TICKETS - 2)})
    gate.issue_ticket(Grant("last"))
    assert gate.by_ticket(first) is None
    assert gate.by_ticket(second) is not None


@pytest.mark.parametrize(
    ("allowed", "peer", "headers", "welcome"),
    [
        (True, "127.0.0.1", {}, True),
        (True, "::1", {"Host": "[::1]:8710"}, True),
        (True, "::ffff:127.0.0.1", {}, True),
        (True, "127.0.0.1", {"Host": "localhost:8710"}, True),
        (False, "127.0.0.1", {}, False),
        (True, "192.168.1.5", {}, False),
        (True, "192.168.1.5", {"Host": "localhost"}, False),
        (True, "127.0.0.1", {"X_Forwarded_For": "8.8.8.8"}, False),
        (True, "127.0.0.1", {"Forwarded": "for=8.8.8.8"}, False),
        (True, "127.0.0.1", {"Host": "rebound.example:8710"}, False),
        (True, "127.0.0.1", {"Host": "localhost.evil.example"}, False),
        (True, "127.0.0.1", {"Authorization": "Bearer wrong"}, False),
        (True, "127.0.0.1", {"Authorization": "Basic eA=="}, False),
        (True, "not an address", {}, False),
    ],
)
def test_loopback_comes_in_without_a_token_only_if_it_may_and_it_is_this_machine(
    allowed: bool, peer: str, headers: dict[str, str], welcome: bool
) -> None:
    gate = Gate((), allow_loopback=allowed)
    assert (gate.of_request(request(peer, **headers)) is not None) is welcome


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        ("http://127.0.0.1:8710", "127.0.0.1:8710", True),
        ("https://mon.example", "mon.example", True),
        ("https://mon.example:443", "mon.example", True),
        ("http://mon.example", "mon.example:80", True),
        ("HTTPS://MON.example", "mon.example", True),
        ("https://desk.example", "mon.example", True),
        ("https://desk.example.evil.example", "mon.example", False),
        ("http://desk.example", "mon.example", False),
        ("http://127.0.0.1:8711", "127.0.0.1:8710", False),
        ("null", "127.0.0.1:8710", False),
        ("", "127.0.0.1:8710", False),
        ("file://", "", False),
        ("http://[broken", "[broken", False),
    ],
)
def test_a_page_of_our_own_or_a_listed_origin_may_connect(origin: str, host: str, welcome: bool) -> None:
    gate = Gate((), origins=("https://desk.example/",))
    assert gate.admits_origin(request(Host=host, Origin=origin)) is welcome


def test_who_sends_no_origin_is_no_browser() -> None:
    assert Gate(()).admits_origin(request()) is True


async def test_rest_takes_the_same_tokens() -> None:
    async with standing(tokens=(token("alerts", "health"),)) as stand:
        for path, status, status_without in (
            ("/v1/health", 200, 401),
            ("/v1/alerts", 200, 401),
            ("/v1/rules", 403, 401),
            ("/v1/quotes/600519.SH", 403, 401),
            ("/livez", 200, 200),
            ("/readyz", 200, 200),
            ("/metrics", 200, 200),
            ("/", 200, 200),
            ("/v1/openapi.json", 200, 200),
        ):
            url = stand.gateway.address + path
            async with stand.session.get(url, headers=bearer()) as reply:
                assert reply.status == status, path
            for headers in ({}, bearer("wrong"), {"Authorization": SECRET}, {"Authorization": f"Basic {SECRET}"}):
                async with stand.session.get(url, headers=headers) as reply:
                    assert reply.status == status_without, (path, headers)
                    if status_without == 401:
                        assert (await reply.json())["error"]["code"] == "unauthorized"


async def test_rest_refuses_pages_of_foreign_origins() -> None:
    async with standing() as stand:
        url = stand.gateway.address + "/v1/rules/reload"
        async with stand.session.post(url, headers={"Origin": "https://evil.example"}) as reply:
            assert reply.status == 403
            assert (await reply.json())["error"]["code"] == "forbidden_origin"
        assert stand.rules.reloads == 0
        async with stand.session.post(url, headers={"Origin": stand.gateway.address}) as reply:
            assert reply.status == 200


async def test_a_browser_gets_from_its_token_to_a_socket_by_a_ticket() -> None:
    async with standing(tokens=(token("alerts"),)) as stand:
        async with stand.session.post(stand.gateway.address + "/v1/ticket", headers=bearer()) as reply:
            ticket = (await reply.json())["ticket"]
        talk = await stand.connect(f"?ch=alerts&ticket={ticket}")
        assert (await talk.hear())["ok"] is True
        again = await stand.connect(f"?ch=alerts&ticket={ticket}")
        assert await again.close_code() == 4501
        async with stand.session.post(stand.gateway.address + "/v1/ticket") as reply:
            assert reply.status == 401


async def test_no_secret_is_ever_logged_or_told(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    structlog.configure(
        processors=[
            lambda logger, method, event: heard.append(repr(event)) or event,
            structlog.processors.JSONRenderer(),
        ]
    )
    try:
        with caplog.at_level(logging.DEBUG):
            async with standing(tokens=(token(),)) as stand:
                for wrong in (SECRET + "x", SECRET[:-1]):
                    await (await stand.connect(headers=bearer(wrong))).close_code()
                    talk = await stand.connect()
                    heard.append(json.dumps(await talk.ask({"id": 1, "op": "auth", "token": wrong})))
                talk = await stand.connect()
                await talk.ws.send_str('{"op":"auth","token":"' + SECRET)  # not JSON
                heard.append(json.dumps(await talk.hear()))
                await stand.connect(f"?token={SECRET}")
                heard += [repr(stand.gateway._options), repr(Token.of(SECRET, name="x"))]
                async with stand.session.get(f"{stand.gateway.address}/v1/alerts?token={SECRET}") as reply:
                    heard.append(await reply.text())
    finally:
        structlog.reset_defaults()
    assert heard
    assert SECRET[:-1] not in "\n".join([*heard, caplog.text])
