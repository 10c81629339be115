"""The routes under /api/v1, over a real store and rule book: answers, envelopes, refusals, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.receivers import RedisList
from feeds.inputs import Control, ControlKind
from feeds.instruments import Instrument
from feeds.tick import CORE, TickBatch
from monitord.desk import Desk
from monitord.making import open_desks, open_rulebook
from monitord.positions import Listed
from monitord.routes.route import Made
from monitord.store import Store
from notifiers.delivery import Delivery
from notifiers.notifier import NotifierOptions, Verdict
from notifiers.pacing import NO_LIMIT
from notifiers.recorded import Arrival, Attempt, DeliveryState
from notifiers.retry import WEBHOOK_SCHEDULE
from notifiers.silences import Silences
from rules import rulefile
from rules.alert import Alert, Event
from rules.positions import Position
from rules.rule import RuleSet
from tests.monitord.gateway.stand import Stand, bearer, standing, token

SYMBOL = "600519.SH"
TASK: dict[str, Any] = {
    "stock_code": SYMBOL,
    "entry_min": 1790,
    "entry_max": 1800,
    "take_profit": 1900,
    "stop_loss": 1700,
}
NEW = {**TASK, "stock_code": "000002.SZ"}
RULE = {"select": [SYMBOL], "when": "LAST > 1", "rearm": "LAST < 1"}
MOUTAI = Instrument(symbol=SYMBOL, name="贵州茅台")
SECRET_URL = "redis://:hunter22@127.0.0.1:1/0"


class Notifier:
    """One that is never asked to send."""

    def __init__(self, name: str) -> None:
        self.options, self.schedule, self.pacing = NotifierOptions(name=name), WEBHOOK_SCHEDULE, NO_LIMIT


class Api:
    """The API on a stand."""

    def __init__(self, stand: Stand, store: Store, made: Made) -> None:
        self.stand, self.store, self.made = stand, store, made

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        url = f"{self.stand.gateway.address}/api/v1{path}"
        given = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        async with self.stand.session.request(method, url, **given, **options) as reply:
            answer = await reply.json()
            assert set(answer) == ({"code", "message", "data"} if reply.ok else {"code", "message", "data", "error"})
            assert answer["code"] == (20000 if reply.ok else reply.status * 100)
            return reply.status, answer["data"] if reply.ok else answer["error"]

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status == 200, answer
        return answer

    def in_force(self) -> list[str]:
        return [rule.id for rule in self.stand.rules.engine.rules.rules]

    def tick(self, last: float) -> None:
        prices = {"last": last, "prev_close": 1750.0}
        columns = {name: np.array([prices.get(name, np.nan)]) for name in CORE}
        self.stand.board.update(TickBatch((SYMBOL,), np.array([1_675_216_923_000]), columns=columns))


@asynccontextmanager
async def serving(store: Store, **options: Any) -> AsyncIterator[Api]:
    stands: list[Stand] = []

    async def change(decide: Callable[[], Awaitable[RuleSet]]) -> None:
        stands[0].rules.engine.step(Control(ControlKind.RULES, (await decide()).source))

    def in_force() -> RuleSet:
        return stands[0].rules.engine.rules

    book = await open_rulebook(store, dict, parse=rulefile.load, change=change, shared=False)
    receiver = RedisList(name="ops", url=SECRET_URL)  # type: ignore[arg-type]
    desk = Desk(
        [Delivery(Notifier("ops"), None, store.deliveries)],  # type: ignore[arg-type]
        stored=store.deliveries, silences=Silences(), kept=store.silences, events=store, receivers=[receiver],
        redact=lambda text: text.replace("hunter22", "***"),
    )  # fmt: skip

    def make(board: Any, hub: Callable[[], Any]) -> Awaitable[Made]:
        return open_desks(book, store, quotes=board, channels=hub, known={SYMBOL: MOUTAI}.get)

    async with standing(desk=desk, make=make, history=store, **options) as stand:
        stands.append(stand)
        stand.rules.rules = in_force  # type: ignore[method-assign]
        yield Api(stand, store, stand.made)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "monitord.db")
    yield opened
    await opened.close()


# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_tasks_whole_life(store: Store) -> None:
    async with serving(store) as api:
        made = await api.good("POST", "/monitor/tasks", TASK)
        assert (made["id"], made["status"], made["channel"], made["check_interval"]) == (1, "stopped", "task:1", 60)
        assert api.in_force() == []
        started = await api.good("POST", "/monitor/tasks/1/start")
        assert started == {
            "status": "started", "message": f"task 1 watches {SYMBOL}", "task_id": 1, "stock_code": SYMBOL,
        }  # fmt: skip
        assert (await api.good("POST", "/monitor/tasks/1/start"))["status"] == "already_running"
        assert api.in_force() == ["task-1.entry", "task-1.take_profit", "task-1.stop_loss"]
        changed = await api.good("PUT", "/monitor/tasks/1", {**made, "take_profit": None, "stop_loss": 1650})
        assert (changed["take_profit"], changed["stop_loss"], changed["status"]) == (None, 1650, "running")
        assert api.in_force() == ["task-1.entry", "task-1.stop_loss"]
        assert api.stand.rules.engine.rules.rules[1].legs[0].when.text == "LAST <= 1650"
        assert (await api.good("GET", "/monitor/tasks"))["tasks"] == [await api.good("GET", "/monitor/tasks/1")]
        assert (await api.good("POST", "/monitor/tasks/1/stop"))["status"] == "stopped"
        assert (await api.good("POST", "/monitor/tasks/1/stop"))["status"] == "already_stopped"
        assert api.in_force() == []
        assert (await api.good("DELETE", "/monitor/tasks/1"))["status"] == "deleted"
        assert (await api.good("GET", "/monitor/tasks"))["total"] == 0


async def test_a_stock_has_the_name_it_was_given_else_the_exchanges(store: Store) -> None:
    async with serving(store) as api:
        made = await api.good("POST", "/monitor/tasks", TASK)
        assert made["stock_name"] == "贵州茅台"
        moved = await api.good("PUT", "/monitor/tasks/1", {**made, "stock_code": "000001.SZ"})
        assert moved["stock_name"] == ""
        await api.good("PUT", "/monitor/tasks/1", {"stock_code": SYMBOL})
        assert (await api.good("POST", "/monitor/tasks", NEW))["stock_name"] == ""
        assert (await api.good("PUT", "/monitor/tasks/1", {"stock_name": "茅台"}))["stock_name"] == "茅台"
        assert (await api.good("GET", "/monitor/tasks/1/status"))["stock_name"] == "茅台"


async def test_of_two_changes_at_once_each_keeps_what_the_other_changed(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/monitor/tasks", TASK)
        half_sent = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b'{"take_profit":'
            await half_sent.wait()
            yield b"1950}"

        url = f"{api.stand.gateway.address}/api/v1/monitor/tasks/1"
        slow = asyncio.create_task(api.stand.session.put(url, data=slowly()))
        await asyncio.sleep(0)
        changes: list[dict[str, Any]] = [{"check_interval": 61}, {"stop_loss": 1651}, {"task_name": "x"}]
        await asyncio.gather(*(api.good("PUT", "/monitor/tasks/1", change) for change in changes))
        half_sent.set()
        (await slow).release()
        task = await api.good("GET", "/monitor/tasks/1")
        kept = (task["take_profit"], task["stop_loss"], task["check_interval"], task["task_name"])
        assert kept == (1950, 1651, 61, "x")


async def test_a_running_task_runs_on_after_a_restart(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/monitor/tasks", TASK)
        await api.good("POST", "/monitor/tasks/1/start")
    book = await open_rulebook(store, dict, parse=rulefile.load, change=None, shared=False)  # type: ignore[arg-type]
    assert [rule.id for rule in book.load().rules] == ["task-1.entry", "task-1.take_profit", "task-1.stop_loss"]


REFUSED: list[tuple[str, str, Any, int, str | None]] = [
    ("POST", "/monitor/tasks", b"{", 422, None),
    ("POST", "/monitor/tasks", rb'{"stock_code":"600519.SH","stock_name":"x\ud800"}', 422, None),
    ("POST", "/monitor/tasks", b"[]", 422, None),
    ("POST", "/monitor/tasks", b"\xff", 422, None),
    ("POST", "/monitor/tasks", {}, 422, "stock_code"),
    ("POST", "/monitor/tasks", {**TASK, "stock_code": "600519"}, 422, "stock_code"),
    ("POST", "/monitor/tasks", {**TASK, "colour": 1}, 422, "colour"),
    ("POST", "/monitor/tasks", {**TASK, "stop_loss": "cheap"}, 422, "stop_loss"),
    ("POST", "/monitor/tasks", {**TASK, "entry_max": None}, 422, "entry_max"),
    ("POST", "/monitor/tasks", {**NEW, "quant_config": {"when": "CORSS(1,2)"}}, 422, "quant_config.0.when"),
    ("POST", "/monitor/tasks", {"stock_code": "000001.SZ", "stop_loss": 1}, 409, "stock_code"),
    ("PUT", "/monitor/tasks/1", {"stop_loss": 9999}, 422, "stop_loss"),
    ("PUT", "/monitor/tasks/1", {"colour": 1}, 422, "colour"),
    ("PUT", "/monitor/tasks/1", {"quant_config": [{"when": "LAST >"}]}, 422, "quant_config.0.when"),
    ("PUT", "/monitor/tasks/1", {"stock_code": "000001.SZ"}, 409, "stock_code"),
    ("PUT", "/monitor/tasks/9", {}, 404, "id"),
    ("GET", "/monitor/tasks/x", None, 404, "id"),
    ("GET", f"/monitor/tasks/{'9' * 40}", None, 404, "id"),
    ("POST", "/monitor/tasks/9/start", None, 404, "id"),
    ("POST", "/monitor/tasks/9/stop", None, 404, "id"),
    ("GET", "/monitor/tasks/9/status", None, 404, "id"),
    ("DELETE", "/monitor/tasks/9", None, 404, "id"),
    ("GET", "/monitor/history?page=0", None, 400, "page"),
    ("GET", "/monitor/history?type=exit", None, 400, "type"),
    ("GET", "/monitor/history?stock_code=600519", None, 400, "stock_code"),
    ("GET", "/monitor/nothing", None, 404, None),
    ("PATCH", "/monitor/tasks", None, 405, None),
]


async def test_what_cannot_be_is_refused_with_its_field_and_changes_nothing(store: Store) -> None:
    async with serving(store) as api:
        for stock in (SYMBOL, "000001.SZ"):
            made = await api.good("POST", "/monitor/tasks", {**TASK, "stock_code": stock})
            await api.good("POST", f"/monitor/tasks/{made['id']}/start")
        before = api.in_force(), await api.good("GET", "/monitor/tasks")
        for method, path, body, status, field in REFUSED:
            got, error = await api.ask(method, path, body)
            assert (got, error.get("field")) == (status, field), (method, path, body, error)
        assert before == (api.in_force(), await api.good("GET", "/monitor/tasks"))


async def test_the_channel_of_a_task_carries_status_and_progress(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/monitor/tasks", TASK)
        talk = await api.stand.connect()
        refused = await talk.ask({"id": 1, "op": "subscribe", "args": ["task:2"]})
        assert (refused["error"]["code"], "no task" in refused["error"]["msg"]) == (102, True)
        assert (await talk.ask({"id": 2, "op": "subscribe", "args": ["task:1"]}))["ok"]

        async def told() -> Any:
            message = await talk.hear()
            assert message["ch"] == "task:1"
            return message["data"]

        assert ((first := await told())["type"], first["status"], first["progress"]) == ("status", "stopped", None)
        api.tick(1810.0)  # of a task that does not run nobody is told
        await api.good("POST", "/monitor/tasks/1/start")
        assert ((second := await told())["status"], second["progress"]["last"]) == ("running", 1810.0)
        api.tick(1795.0)
        progress = await told()
        assert (progress["type"], progress["last"], progress["in_entry_range"]) == ("progress", 1795.0, True)
        assert progress["to_take_profit_pct"] == pytest.approx((1900 / 1795 - 1) * 100)
        assert progress["change_pct"] == pytest.approx((1795 / 1750 - 1) * 100)
        await api.good("POST", "/realtime/stop")
        assert (await told())["problem"] == "the service is stopped"
        await api.good("POST", "/realtime/start")
        assert (await told())["problem"] is None
        await api.good("DELETE", "/monitor/tasks/1")
        assert (await told())["status"] == "deleted"


async def test_an_event_of_a_task_is_on_its_channel(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/monitor/tasks", TASK)
        talk = await api.stand.connect("?ch=task:1,alerts")
        assert (await talk.hear())["ok"]
        assert (await talk.hear())["data"]["type"] == "status"
        for rule in ("task-1.entry", "task-10.entry", "brk"):
            api.stand.alerts.publish(rule=rule)
        heard = [await talk.hear() for _ in range(4)]
        assert [(one["ch"], one["off"]) for one in heard if one["ch"] != "alerts"] == [("task:1", 1)]


async def test_status_tells_where_each_rule_is_and_the_newest_event(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/monitor/tasks", TASK)
        await api.good("POST", "/monitor/tasks/1/start")
        await store.commit(
            [event(1, "task-1.entry"), event(2, "task-1.stop_loss"), event(3, "task-10.entry")], offset=0
        )
        status = await api.good("GET", "/monitor/tasks/1/status")
        assert (status["status"], status["events"], status["last_event"]["type"]) == ("running", 2, "stop_loss")
        formulas = {rule["type"]: rule["when"] for rule in status["rules"]}
        assert formulas == {
            "entry": "BETWEEN(LAST,1790,1800)", "take_profit": "LAST >= 1900", "stop_loss": "LAST <= 1700",
        }  # fmt: skip


def event(number: int, rule: str, **fields: Any) -> Alert:
    given: dict[str, Any] = {
        "id": f"al_{number}", "episode_id": "ep", "event": Event.FIRE, "rule": rule, "rev": "r", "symbol": SYMBOL,
        "name": "贵州茅台", "trade_date": "2023-02-01", "episode": 1, "ts_event_ms": number, "period": "tick",
        "tick": {"last": 1800.0}, **fields,
    }  # fmt: skip
    return Alert(**given)


async def test_a_csv_is_whole_and_no_cell_of_it_is_a_formula(store: Store) -> None:
    events = [event(n, "task-1.entry", message='=HYPERLINK("x")') for n in range(1, 1202)]
    wide = event(1202, "task-1.entry", message='＝HYPERLINK("x")')
    await store.commit([*events, wide, event(5000, "other")], offset=0)
    async with serving(store) as api:
        url = f"{api.stand.gateway.address}/api/v1/monitor/history?format=csv&page_size=5"
        async with api.stand.session.get(url) as reply:
            text = await reply.text()
        assert reply.headers["Content-Type"].startswith("text/csv")
        lines = text.removeprefix("\ufeff").splitlines()
        assert (text[0], len(lines), lines[0].split(",")[:3]) == ("\ufeff", 1203, ["time", "task_id", "stock_code"])
        assert [line.rpartition(",")[2] for line in lines[1:]] == [f"al_{n}" for n in range(1202, 0, -1)]
        assert ("'＝HYPERLINK" in lines[1], "'=HYPERLINK" in lines[2]) == (True, True)


async def test_positions_are_at_the_latest_price(store: Store) -> None:
    async with serving(store) as api:

        async def positions() -> Any:
            return [Listed(Position("main", SYMBOL, 1700.0, 100.0), "api")]

        api.stand.rules.positions = positions  # type: ignore[attr-defined]
        await api.good("POST", "/monitor/tasks", TASK)
        (held,) = (await api.good("GET", "/monitor/positions"))["positions"]
        assert (held["cost"], held["last"], held["profit"], held["task_id"]) == (1700.0, None, None, 1)
        api.tick(1734.0)
        (held,) = (await api.good("GET", "/monitor/positions"))["positions"]
        assert (held["market_value"], held["profit"], held["profit_pct"]) == (173_400.0, 3400.0, pytest.approx(2.0))


async def test_a_token_that_may_read_tasks_may_not_make_them(store: Store) -> None:
    async with serving(store, tokens=(token("tasks"),)) as api:
        assert (await api.ask("GET", "/monitor/tasks", headers=bearer()))[0] == 200
        status, error = await api.ask("POST", "/monitor/tasks", TASK, headers=bearer())
        assert (status, error["code"]) == (403, "permission_denied")
        assert (await api.ask("POST", "/realtime/stop", headers=bearer()))[0] == 403


# ── realtime and channels ─────────────────────────────────────────────────────────────────────────────────────────


async def test_rules_by_api_are_made_changed_switched_and_forgotten(store: Store) -> None:
    async with serving(store) as api:
        made = await api.good("POST", "/realtime/monitors", {"name": "m", "rule": RULE})
        assert (made["id"], made["rule_id"], made["enabled"], made["rule"]) == (1, "monitor-1", True, RULE)
        await api.good("POST", "/realtime/monitors", {"rule": {**RULE, "id": "mine", "freq": {"step": "1%"}}})
        assert api.in_force() == ["monitor-1", "mine"]
        await api.good("PUT", "/realtime/monitors/1", {"enabled": False})
        assert api.in_force() == ["mine"]
        back = await api.good("PUT", "/realtime/monitors/1", {"enabled": True, "rule": {**RULE, "when": "LAST > 2"}})
        assert (back["rule"]["when"], back["name"]) == ("LAST > 2", "m")
        assert api.in_force() == ["mine", "monitor-1"]
        listed = await api.good("GET", "/realtime/monitors")
        assert (listed["service"], listed["total"], listed["since"]) == ("running", 2, None)
        assert (await api.good("POST", "/realtime/stop"))["status"] == "stopped"
        assert (await api.good("POST", "/realtime/stop"))["status"] == "already_stopped"
        assert api.in_force() == []
        assert [one["problem"] for one in (await api.good("GET", "/realtime/monitors"))["monitors"]] == [
            "the service is stopped"
        ] * 2
        await api.good("DELETE", "/realtime/monitors/2")
        assert (await api.good("POST", "/realtime/start"))["rules"] == 1
    book = await open_rulebook(store, dict, parse=rulefile.load, change=None, shared=False)  # type: ignore[arg-type]
    assert [rule.id for rule in book.load().rules] == ["monitor-1"]


REFUSED_RULES: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/realtime/monitors", {}, 422, "rule"),
    ("POST", "/realtime/monitors", {"rule": {}}, 422, "rule"),
    ("POST", "/realtime/monitors", {"rule": {**RULE, "id": 5}}, 422, "rule"),
    ("POST", "/realtime/monitors", {"rule": {"when": "LAST > 1"}}, 422, "rule"),
    ("POST", "/realtime/monitors", b'{"rule": {"labels": ' + b"[" * 300 + b"]" * 300 + b"}}", 422, "rule"),
    ("POST", "/realtime/monitors", {"rule": {**RULE, "id": "task-1.entry"}}, 422, "rule.id"),
    ("POST", "/realtime/monitors", {"rule": {**RULE, "when": "LAST > "}}, 422, "rule.when"),
    ("POST", "/realtime/monitors", {"rule": {**RULE, "cooldown": 5}}, 422, "rule.cooldown"),
    ("PUT", "/realtime/monitors/1", {"rule": {**RULE, "colour": "red"}}, 422, "rule.colour"),
    ("PUT", "/realtime/monitors/7", {"enabled": True}, 404, "id"),
    ("DELETE", "/realtime/monitors/7", None, 404, "id"),
    ("GET", "/realtime/notifications?state=lost", None, 400, "state"),
    ("GET", "/notification/channels/nobody", None, 404, "name"),
    ("POST", "/notification/channels/nobody/test", None, 404, "name"),
    ("PUT", "/notification/channels/ops", {"enabled": "perhaps"}, 422, "enabled"),
]


async def test_a_bad_rule_or_channel_is_refused_with_its_field(store: Store) -> None:
    async with serving(store) as api:
        await api.good("POST", "/realtime/monitors", {"rule": RULE})
        for method, path, body, status, field in REFUSED_RULES:
            got, error = await api.ask(method, path, body)
            assert (got, error.get("field")) == (status, field), (method, path, body, error)
        assert api.in_force() == ["monitor-1"]


async def test_notifications_tell_what_became_of_each(store: Store) -> None:
    await store.commit([event(1, "task-1.entry", message="进入买入区间")], offset=0)
    await store.deliveries.begin(
        "ops", [Arrival(alert_id="al_1", record=b"{}"), Arrival(alert_id="gone", record=b"{}")]
    )
    (first, _) = await store.deliveries.due("ops", 1 << 60, limit=9)
    attempt = Attempt(at_ms=1, latency_ms=12, verdict=Verdict.PERMANENT, code=400, text="keyword")
    await store.deliveries.settle(first.id, attempt, state=DeliveryState.DEAD)
    async with serving(store) as api:
        page = await api.good("GET", "/realtime/notifications?page_size=1&page=2")
        (one,) = page["notifications"]
        assert (page["total"], one["rule"], one["message"], one["state"]) == (2, "task-1.entry", "进入买入区间", "dead")
        assert (one["reason"], one["attempts"][0]["text"], one["stock_code"]) == ("keyword", "keyword", SYMBOL)
        (other,) = (await api.good("GET", "/realtime/notifications?state=pending"))["notifications"]
        assert (other["alert_id"], other["rule"], other["attempts"]) == ("gone", None, [])


async def test_channels_are_listed_tested_and_switched_and_show_no_secret(store: Store) -> None:
    async with serving(store) as api:
        listed = await api.good("GET", "/notification/channels")
        (one,) = listed["channels"]
        assert (one["name"], one["kind"], one["enabled"], one["health"]["status"]) == ("ops", "redis", True, "ok")
        assert "hunter22" not in str(listed)
        result = await api.good("POST", "/notification/channels/ops/test")
        assert (result["name"], result["ok"], result["result"]) == ("ops", False, "permanent")
        assert "hunter22" not in str(result)
        off = await api.good("PUT", "/notification/channels/ops", {"enabled": False, "reason": "holiday"})
        assert (off["enabled"], off["health"]["why"]) == (False, "holiday")
        assert (await api.good("PUT", "/notification/channels/ops", {"enabled": True}))["enabled"] is True


async def test_a_running_task_of_a_stock_that_nobody_knows_says_so_until_it_ticks(store: Store) -> None:
    unknown = {"stock_code": "600000.SH", "stop_loss": 5}
    async with serving(store) as api:
        for body in (unknown, TASK):
            number = (await api.good("POST", "/monitor/tasks", body))["id"]
            await api.good("POST", f"/monitor/tasks/{number}/start")
        problem = (await api.good("GET", "/monitor/tasks/1/status"))["problem"]
        assert problem.startswith("nothing is known of 600000.SH")
        assert (await api.good("GET", "/monitor/tasks/2/status"))["problem"] is None, "it is listed"
        columns = {name: np.array([5.5]) for name in CORE}
        api.stand.board.update(TickBatch(("600000.SH",), np.array([1_675_216_923_000]), columns=columns))
        assert (await api.good("GET", "/monitor/tasks/1/status"))["problem"] is None
