"""The routes and commands of receivers, deliveries and silences, over a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitord.__main__ import main
from monitord.deliveries import DeliveryFilter
from monitord.desk import Desk
from monitord.store import Store
from notifiers.delivery import Delivery
from notifiers.notifier import NotifierOptions, Verdict
from notifiers.pacing import NO_LIMIT
from notifiers.recorded import Arrival, Attempt, DeliveryState
from notifiers.retry import WEBHOOK_SCHEDULE, ReceiverState
from notifiers.silences import Silences
from rules.alert import Alert, Event
from tests.monitord.gateway.stand import Stand, bearer, standing, token

H = 3_600_000
SOON_MS = time.time_ns() // 1_000_000 + 24 * H


class Notifier:
    """One that is never asked to send."""

    def __init__(self, name: str) -> None:
        self.options, self.schedule, self.pacing = NotifierOptions(name=name), WEBHOOK_SCHEDULE, NO_LIMIT


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.db")
    yield opened
    await opened.close()


@asynccontextmanager
async def desk_standing(store: Store, **options: Any) -> AsyncIterator[tuple[Stand, Silences]]:
    deliveries = [Delivery(Notifier(name), None, store.deliveries) for name in ("ops", "desk")]  # type: ignore[arg-type]
    silences = Silences()
    desk = Desk(deliveries, stored=store.deliveries, silences=silences, kept=store.silences)
    async with standing(desk=desk, **options) as stand:
        yield stand, silences


async def ask(stand: Stand, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    async with stand.session.request(method, stand.gateway.address + path, **kwargs) as reply:
        return reply.status, await reply.json()


async def command(stand: Stand, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, [*words, "--url", stand.gateway.address])
    out, err = capsys.readouterr()
    return code, out, err


async def dead_letters(store: Store, *numbers: int) -> None:
    await store.deliveries.begin("ops", [Arrival(alert_id=f"al_{n}", record=b"{}") for n in numbers])
    for one in await store.deliveries.due("ops", 1 << 60, limit=99):
        attempt = Attempt(at_ms=1_675_216_923_000, latency_ms=12, verdict=Verdict.PERMANENT, code=400, text="keyword")
        await store.deliveries.settle(one.id, attempt, state=DeliveryState.DEAD)


def alert(**changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": "al_1", "episode_id": "ep_1", "event": Event.FIRE, "rule": "brk", "rev": "1", "symbol": "600519.SH",
        "severity": "warning", "trade_date": "2023-02-01", "episode": 1, "ts_event_ms": 0, "period": "tick",
    }  # fmt: skip
    return Alert(**{**fields, **changes})


# ── deliveries ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_dead_letters_are_listed_shown_and_replayed(store: Store) -> None:
    await dead_letters(store, 1, 2, 3)
    async with desk_standing(store) as (stand, _):
        status, page = await ask(stand, "GET", "/v1/deliveries?state=dead&receiver=ops&page_size=2")
        assert (status, page["total"], [one["alert_id"] for one in page["deliveries"]]) == (200, 3, ["al_3", "al_2"])
        _, some = await ask(stand, "GET", "/v1/deliveries?alert_ids=al_1,al_3,al_9")
        assert [one["alert_id"] for one in some["deliveries"]] == ["al_3", "al_1"]
        one = page["deliveries"][0]
        assert (one["kind"], one["reason"], one["attempts"], one["bundle"]) == ("alert", "keyword", 1, None)
        status, detail = await ask(stand, "GET", f"/v1/deliveries/{one['id']}")
        assert (status, detail["alert_ids"]) == (200, [])
        assert detail["attempts"] == [
            {"at_ms": 1_675_216_923_000, "latency_ms": 12, "result": "permanent", "code": 400, "text": "keyword"}
        ]
        assert await ask(stand, "POST", "/v1/deliveries/replay", json={"ids": [one["id"], 99]}) == (
            200,
            {"replayed": 1},
        )
        assert await ask(stand, "POST", "/v1/deliveries/replay", json={"receiver": "ops"}) == (200, {"replayed": 2})
        assert (await ask(stand, "GET", "/v1/deliveries?state=dead"))[1]["total"] == 0
        until = {"receiver": "ops", "until": 1000}
        assert await ask(stand, "POST", "/v1/deliveries/replay", json=until) == (200, {"replayed": 0})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/v1/deliveries?state=lost", None, 400, "state"),
        ("GET", "/v1/deliveries?since=yesterday", None, 400, "since"),
        ("GET", "/v1/deliveries?page_size=1001", None, 400, "page_size"),
        ("GET", "/v1/deliveries?colour=red", None, 400, "colour"),
        ("GET", "/v1/deliveries?alert_ids=al_1,,al_2", None, 400, "alert_ids.1"),
        ("GET", f"/v1/deliveries?alert_ids={','.join(['a'] * 201)}", None, 400, "alert_ids"),
        ("GET", "/v1/deliveries/x", None, 404, "id"),
        ("GET", "/v1/deliveries/7", None, 404, "id"),
        ("GET", f"/v1/deliveries/{'9' * 40}", None, 404, "id"),
        ("POST", "/v1/deliveries/replay", {}, 400, None),
        ("POST", "/v1/deliveries/replay", {"ids": None}, 400, None),
        ("POST", "/v1/deliveries/replay", {"receiver": None, "until": None}, 400, None),
        ("POST", "/v1/deliveries/replay", {"ids": ["x"]}, 400, "ids.0"),
        ("POST", "/v1/deliveries/replay", {"ids": [1], "more": 1}, 400, "more"),
        ("POST", "/v1/deliveries/replay", {"since": "2023-13-01"}, 400, "since"),
        ("POST", "/v1/receivers/nobody/enable", {}, 404, "name"),
        ("POST", "/v1/receivers/ops/disable", {}, 400, "reason"),
        ("POST", "/v1/receivers/ops/disable", {"reason": ""}, 400, "reason"),
        ("POST", "/v1/receivers/ops/enable", {"replay": "yes"}, 400, "replay"),
        ("POST", "/v1/silences", {}, 400, "match"),
        ("POST", "/v1/silences", {"match": {}, "end": SOON_MS, "author": "a", "comment": "c"}, 400, "match"),
        ("POST", "/v1/silences", {"match": {"rules": ["x"]}, "end": 5, "author": "a", "comment": "c"}, 400, "end"),
        (
            "POST", "/v1/silences",
            {"match": {"rules": ["x"]}, "start": "2999-01-02", "end": "2999-01-01", "author": "a", "comment": "c"},
            400, "end",
        ),
        ("POST", "/v1/silences", {"match": {"boards": ["nasdaq"]}}, 400, "match.boards.0"),
        ("POST", "/v1/silences", {"match": {"events": ["sneeze"]}}, 400, "match.events.0"),
        ("POST", "/v1/silences", {"match": {"rule": "x"}}, 400, "match.rule"),
        (
            "POST", "/v1/silences",
            {"match": {"rules": ["x"]}, "end": SOON_MS, "author": " ", "comment": "c"}, 400, "author",
        ),
        ("POST", "/v1/silences/7/expire", None, 404, "id"),
        ("GET", "/v1/silences?state=gone", None, 400, "state"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_with_its_field(
    store: Store, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    async with desk_standing(store) as (stand, _):
        got, answer = await ask(stand, method, path, **({} if body is None else {"json": body}))
        assert (got, answer["error"]["field"]) == (status, field), answer
        assert answer["error"]["msg"]
    assert await store.silences.alive() == []


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/v1/deliveries", "deliveries"),
        ("POST", "/v1/deliveries/replay", "deliveries:write"),
        ("GET", "/v1/receivers", "receivers"),
        ("POST", "/v1/receivers/ops/enable", "receivers:write"),
        ("GET", "/v1/silences", "silences"),
        ("POST", "/v1/silences", "silences:write"),
        ("POST", "/v1/silences/1/expire", "silences:write"),
    ],
)
async def test_a_token_needs_the_permission(store: Store, method: str, path: str, needs: str) -> None:
    async with desk_standing(store, tokens=(token("alerts", f"{needs}:no"),)) as (stand, _):
        assert (await ask(stand, method, path))[0] == 401
        assert (await ask(stand, method, path, headers=bearer()))[0] == 403
    async with desk_standing(store, tokens=(token(needs),)) as (stand, _):
        assert (await ask(stand, method, path, headers=bearer()))[0] in (200, 400, 404)


# ── receivers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_receivers_are_listed_and_switched_and_their_dead_letters_delivered_again(store: Store) -> None:
    await dead_letters(store, 1, 2)
    await store.deliveries.set_receiver_state("ops", ReceiverState(failures=1, failing_since_ms=5, refusals=3))
    async with desk_standing(store) as (stand, _):
        off = await ask(stand, "POST", "/v1/receivers/ops/disable", json={"reason": "holiday"})
        assert (off[1]["status"], off[1]["why"], off[1]["dead"]) == ("disabled", "holiday", 2)
        listed = await ask(stand, "GET", "/v1/receivers")
        assert [(one["name"], one["status"]) for one in listed[1]["receivers"]] == [("ops", "disabled"), ("desk", "ok")]
        status, on = await ask(stand, "POST", "/v1/receivers/ops/enable", json={"replay": True})
        assert (status, on["replayed"], on["receiver"]["status"]) == (200, 2, "ok")
        assert (on["receiver"]["pending"], on["receiver"]["dead"]) == (2, 0)
    events = [Alert.from_json(row.record) for row in await store.pending(limit=9)]
    assert [(one.event, one.why) for one in events] == [(Event.FIRE, "holiday"), (Event.RESOLVE, None)]
    kept = await store.deliveries.receiver_state("ops")
    assert kept is not None
    assert (kept.disabled, kept.failures, kept.alarms, kept.alarmed) == (None, 0, 1, False)


# ── silences ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_silence_is_made_listed_and_expired(store: Store) -> None:
    now_ms = time.time_ns() // 1_000_000
    body = {
        "match": {"rules": ["b*"], "labels": {"team": "a"}, "boards": ["main"], "events": ["fire"]},
        "end": now_ms + H, "author": "li", "comment": "halt",
    }  # fmt: skip
    async with desk_standing(store) as (stand, silences):
        status, made = await ask(stand, "POST", "/v1/silences", json=body)
        assert (status, made["state"], made["end_ms"], made["match"]) == (200, "active", now_ms + H, body["match"])
        labelled = alert(labels={"team": "a"})
        assert silences.why(labelled, now_ms + H - 1) == f"silence {made['id']} by li: halt"
        assert silences.why(labelled, now_ms + H) is None
        assert silences.why(alert(), now_ms + 1000) is None
        later = {**body, "start": "2999-01-01T09:30:00", "end": "2999-01-02"}
        assert (await ask(stand, "POST", "/v1/silences", json=later))[1]["state"] == "pending"
        status, ended = await ask(stand, "POST", f"/v1/silences/{made['id']}/expire")
        assert (status, ended["state"]) == (200, "expired")
        assert ended["end_ms"] < now_ms + H
        assert silences.why(labelled, now_ms + 60_000) is None
        listed = (await ask(stand, "GET", "/v1/silences"))[1]
        assert [one["state"] for one in listed["silences"]] == ["pending", "expired"]
        assert (await ask(stand, "GET", "/v1/silences?state=pending"))[1]["total"] == 1


async def test_one_silence_too_many_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitord.silences.MOST", 1)
    body = {"match": {"rules": ["x"]}, "end": SOON_MS, "author": "li", "comment": "c"}
    async with desk_standing(store) as (stand, _):
        assert (await ask(stand, "POST", "/v1/silences", json=body))[0] == 200
        status, answer = await ask(stand, "POST", "/v1/silences", json=body)
        assert (status, answer["error"]["field"]) == (400, "match")


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_commands_of_deliveries(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    await dead_letters(store, 1, 2)
    async with desk_standing(store) as (stand, _):
        code, out, _ = await command(stand, capsys, "deliveries", "list", "--state", "dead")
        assert code == 0
        assert out.splitlines()[-1] == "2 of 2"
        assert "ops              al_2 dead, 1 attempts: keyword" in out
        code, out, _ = await command(stand, capsys, "deliveries", "show", "1")
        assert out.splitlines()[1] == "  2023-02-01 10:02:03 permanent 400 in 12 ms keyword"
        code, out, _ = await command(stand, capsys, "deliveries", "list", "--json")
        assert orjson.loads(out)["total"] == 2
        for words in (("1",), ("--receiver", "ops")):
            code, out, _ = await command(stand, capsys, "deliveries", "replay", *words)
            assert (code, out.splitlines()[-1]) == (0, "1 alerts are delivered again")
        code, _, err = await command(stand, capsys, "deliveries", "replay")
        assert (code, "name ids, receiver" in err) == (2, True)
        code, _, err = await command(stand, capsys, "deliveries", "show", "9")
        assert (code, err) == (2, "monitord: the daemon refuses: there is no delivery '9' (field id)\n")


async def test_the_commands_of_receivers(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk_standing(store) as (stand, _):
        assert (await command(stand, capsys, "receivers", "list"))[0] == 0
        code, out, _ = await command(stand, capsys, "receivers", "disable", "ops", "--reason", "holiday")
        assert (code, "disabled" in out, "holiday" in out) == (0, True, True)
        assert (await command(stand, capsys, "receivers", "list"))[0] == 1
        assert (await command(stand, capsys, "receivers", "enable", "ops", "--replay"))[0] == 0
        code, _, err = await command(stand, capsys, "receivers", "enable", "a/b")
        assert (code, "there is no receiver" in err or "refuses" in err) == (2, True)


async def test_the_commands_of_silences(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk_standing(store) as (stand, _):
        words = ("silence", "add", "rule=b*", "rule=up", "label.team=a", "--for", "1h30m", "--comment", "halt")
        code, out, err = await command(stand, capsys, *words, "--author", "li")
        assert code == 0, err
        assert "rules=b*,up label.team=a (li: halt)" in out
        (kept,) = await store.silences.alive()
        assert kept.end_ms - kept.start_ms == pytest.approx(1.5 * H, abs=60_000)
        assert "active" in (await command(stand, capsys, "silence", "list"))[1]
        assert "expired" in (await command(stand, capsys, "silence", "expire", "1"))[1]
        for bad, why in (("colour=red", "is no FIELD=VALUE"), ("rule", "is no FIELD=VALUE")):
            code, _, err = await command(stand, capsys, "silence", "add", bad, "--for", "1h", "--comment", "x")
            assert (code, why in err) == (2, True)
        code, _, err = await command(stand, capsys, "silence", "add", "rule=x", "--for", "soon", "--comment", "x")
        assert (code, "is no duration" in err) == (2, True)


def test_without_a_daemon_the_commands_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["silence", "list", "--url", "http://127.0.0.1:1"]) == 2
    assert "no daemon answers at http://127.0.0.1:1" in capsys.readouterr().err


async def test_the_commands_show_a_token_of_the_settings_that_may(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with desk_standing(store, tokens=(token("silences*"),)) as (stand, _):
        assert (await command(stand, capsys, "silence", "list"))[0] == 2
        file = tmp_path / "token"
        file.write_text("s3cret-of-the-desk\n")
        assert (await command(stand, capsys, "silence", "list", "--token-file", str(file)))[0] == 0
        held = 'gateway.tokens=[{"name":"a","token":"x","channels":["alerts"]},' + (
            '{"name":"b","token":"s3cret-of-the-desk","channels":["silences*"]}]'
        )
        assert (await command(stand, capsys, "silence", "list", "--set", held))[0] == 0


# ── the store of an older program ─────────────────────────────────────────────────────────────────────────────────


async def test_deliveries_and_attempts_of_the_schema_before_are_kept(tmp_path: Path) -> None:
    import sqlite3

    from monitord.schema import MIGRATIONS

    path = tmp_path / "old.db"
    db = sqlite3.connect(path, isolation_level=None)
    for script in MIGRATIONS[:3]:
        db.executescript(script)
    db.executescript(
        "PRAGMA user_version = 3;"
        "INSERT INTO deliveries VALUES (4, 'ops', 'al_4', x'7b7d', 'dead', 2, NULL, 'gone', 77);"
        "INSERT INTO deliveries VALUES (9, 'ops', 'al_9', x'7b7d', 'pending', 0, 99, NULL, 78);"
        "DELETE FROM deliveries WHERE id = 9;"
        "INSERT INTO deliveries VALUES (8, 'ops', 'al_8', x'7b7d', 'pending', 1, 99, NULL, 78);"
        "INSERT INTO attempts VALUES (4, 1, 5, 6, 'retry', 500, 'x'), (4, 2, 7, 8, 'permanent', 400, 'gone');"
        "INSERT INTO receivers VALUES ('ops', 2, 5, 0, NULL);"
    )
    db.close()
    store = await Store.open(path)
    rows = (await store.deliveries.listing(DeliveryFilter())).rows
    assert [(one.id, one.state, one.attempts, one.reason) for one in rows] == [
        (8, "pending", 0, None),
        (4, "dead", 2, "gone"),
    ]
    assert [one.text for one in await store.deliveries.attempts(4)] == ["x", "gone"]
    assert await store.deliveries.receiver_state("ops") == ReceiverState(failures=2, failing_since_ms=5)
    await store.deliveries.begin("ops", [Arrival(alert_id="al_10", record=b"{}")])
    assert max(one.id for one in (await store.deliveries.listing(DeliveryFilter())).rows) == 10
    await store.close()
