"""Every route: what it answers, what it refuses, and that it is in the OpenAPI document."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitord.routes import ROUTES
from monitord.routes.alerts import AlertQuery
from monitord.routes.openapi import document
from monitord.routes.route import ApiError
from monitord.store import HistoryFilter
from monitord.warmup import Progress
from rules.errors import Finding, RuleError
from tests.monitord.gateway.stand import EPOCH, Stand, bearer, standing, token
from tests.monitord.gateway.test_quotes import batch
from tests.rules import ticks


async def get(stand: Stand, path: str, *, method: str = "GET", **kwargs: Any) -> tuple[int, Any]:
    async with stand.session.request(method, stand.gateway.address + path, **kwargs) as reply:
        return reply.status, await reply.json()


# ── health ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ready_or_503_with_the_reasons() -> None:
    async with standing() as stand:
        assert await get(stand, "/readyz") == (200, {"ready": True, "reasons": []})
        stand.health.why = ["the outbox grows: the broker is down"]
        assert await get(stand, "/readyz") == (503, {"ready": False, "reasons": stand.health.why})
        assert await get(stand, "/livez") == (200, {"status": "alive"})
        assert await get(stand, "/v1/health") == (200, {"ready": False, "reasons": stand.health.why, "ticks": 7})


async def test_metrics_are_what_they_render() -> None:
    async with (
        standing(metrics=b"monitord_ticks_total 5.0\n") as stand,
        stand.session.get(stand.gateway.address + "/metrics") as reply,
    ):
        assert await reply.text() == "monitord_ticks_total 5.0\n"
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def rule(number: int) -> Any:
    leg = SimpleNamespace(name=None, when=SimpleNamespace(text="CLOSE > 10"), rearm=None)
    return SimpleNamespace(
        id=f"r{number}", rev="a1", group="g", severity="info", labels={"kind": "price"}, legs=(leg,), period="1m",
        evaluation="tick", mode="edge", session=("continuous",), frequency="once_per_day", cooldown_ms=None,
        max_per_day=3, expires_ms=None, on_start="suppress", file="rules.yaml", line=number,
    )  # fmt: skip


async def test_the_rules_in_force_are_listed_with_their_formulas() -> None:
    async with standing() as stand:
        stand.rules.in_force = (rule(1), rule(2))
        status, body = await get(stand, "/v1/rules")
        assert (status, body["total"], [listed["id"] for listed in body["rules"]]) == (200, 2, ["r1", "r2"])
        assert body["rules"][0]["legs"] == [{"name": None, "when": "CLOSE > 10", "rearm": None}]
        assert (body["rules"][0]["max_per_day"], body["rules"][0]["cooldown_ms"]) == (3, None)


async def test_a_rule_says_how_warm_it_is_and_when_it_will_be_ready() -> None:
    async with standing() as stand:
        stand.rules.engine.step(ticks.rules("id: ma, select: all, period: 5m, when: 'C > MA(C,20)'"))
        stand.rules.in_force = stand.rules.engine.rules.rules

        async def warmth() -> Any:
            return (await get(stand, "/v1/rules"))[1]["rules"][0]["warmth"]

        assert (await warmth())["state"] == "waiting"
        stand.rules.engine.step(ticks.batch(ticks.tick("10:00:03", 10.0)))
        lacks_19 = {"symbols": 1, "ready": 0, "missing": [{"period": "5m", "bars": 19}]}
        assert await warmth() == {"state": "warming", **lacks_19, "eta_s": 19 * 300.0}
        stand.rules.search = Progress(50, 100, "the vendor's history", 12.5)
        assert await warmth() == {"state": "warming", **lacks_19, "eta_s": 12.5}


async def test_a_reload_answers_with_what_is_in_force() -> None:
    async with standing() as stand:
        stand.rules.in_force = (rule(1),)
        assert await get(stand, "/v1/rules/reload", method="POST") == (200, {"rules": 1})
        assert stand.rules.reloads == 1
        status, body = await get(stand, "/v1/rules/reload")
        assert (status, body["error"]["code"]) == (405, "method_not_allowed")


async def test_a_reload_of_bad_rules_answers_422_with_the_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    from rules import errors

    class Failure(errors.RuleFileError):
        def __init__(self, findings: list[Finding]) -> None:
            self.findings = findings

    async with standing() as stand:
        stand.rules.failure = Failure([Finding("rules.yaml", 3, 7, "unknown function MAA", hint="MA")])
        status, body = await get(stand, "/v1/rules/reload", method="POST")
        assert (status, body["error"]["code"]) == (422, "bad_rules")
        (finding,) = body["error"]["findings"]
        assert (finding["file"], finding["line"], finding["column"]) == ("rules.yaml", 3, 7)
        assert (finding["message"], finding["hint"]) == ("unknown function MAA", "MA")
        for failure in (RuleError("too many rules"), FileNotFoundError(2, "No such file")):
            stand.rules.failure = failure
            status, body = await get(stand, "/v1/rules/reload", method="POST")
            assert status == 422
            assert "the old rules stay in force" in body["error"]["msg"]


async def test_reading_rules_does_not_allow_reloading_them() -> None:
    async with standing(tokens=(token("rules"),)) as stand:
        assert (await get(stand, "/v1/rules", headers=bearer()))[0] == 200
        assert (await get(stand, "/v1/rules/reload", method="POST", headers=bearer()))[0] == 403
        assert stand.rules.reloads == 0


# ── alerts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_filter_and_the_page_reach_the_history() -> None:
    async with standing() as stand:
        query = (
            "rule=brk&symbol=600519.SH&severity=info&event=fire&trade_date=2023-02-01&since=1675216923000"
            "&until=2023-02-01T15:00:00%2B08:00&page=3&page_size=7"
        )
        status, body = await get(stand, f"/v1/alerts?{query}")
        assert status == 200
        assert stand.history.asked == [
            (
                HistoryFilter(
                    rule="brk",
                    symbol="600519.SH",
                    severity="info",
                    event="fire",
                    trade_date="2023-02-01",
                    since_ms=1_675_216_923_000,
                    until_ms=1_675_234_800_000,
                ),
                3,
                7,
            )
        ]
        assert (body["total"], body["page"], body["page_size"]) == (3, 3, 7)
        first = body["alerts"][-1]
        assert (first["epoch"], first["off"], first["data"]["id"], first["data"]["name"]) == (
            EPOCH, 1, "al_1", "贵州茅台",
        )  # fmt: skip


async def test_without_a_query_the_first_page_of_everything_comes() -> None:
    async with standing() as stand:
        assert (await get(stand, "/v1/alerts"))[0] == 200
        assert stand.history.asked == [(HistoryFilter(), 1, 100)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("page=99999999999999999999", "page"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
        ("event=explode", "event"),
        ("trade_date=yesterday", "trade_date"),
        ("since=-5", "since"),
        ("since=soon", "since"),
        ("until=99999999999999999999999999", "until"),
        ("until=9999-12-31T23:59:59-23:59", "until"),
        ("since=2023-02-01T10:00:00+08:00", "since"),
        ("symbol=", "symbol"),
        ("rule=" + "x" * 201, "rule"),
        ("colour=red", "colour"),
        ("page=1&page=2", "page"),
    ],
)
async def test_a_bad_parameter_is_named_in_a_400(query: str, field: str) -> None:
    async with standing() as stand:
        status, body = await get(stand, f"/v1/alerts?{query}")
        assert (status, body["error"]["code"], body["error"]["field"]) == (400, "bad_request", field)
        assert stand.history.asked == []


async def test_one_alert_by_its_id() -> None:
    async with standing() as stand:
        status, body = await get(stand, "/v1/alerts/al_2")
        assert (status, body["data"]["id"], body["off"]) == (200, "al_2", 2)
        status, body = await get(stand, "/v1/alerts/al_99")
        assert (status, body["error"]["code"], body["error"]["field"]) == (404, "not_found", "id")


async def test_a_token_for_one_symbol_lists_that_symbol_alone() -> None:
    async with standing(tokens=(token("alerts:sym:600519.SH"),)) as stand:
        for query, status in (("", 403), ("?symbol=000001.SZ", 403), ("?rule=brk", 403), ("?symbol=600519.SH", 200)):
            assert (await get(stand, f"/v1/alerts{query}", headers=bearer()))[0] == status, query
        assert (await get(stand, "/v1/alerts/al_1", headers=bearer()))[0] == 200
    async with standing(tokens=(token("alerts:sym:000001.SZ"),)) as stand:
        assert (await get(stand, "/v1/alerts/al_1", headers=bearer()))[0] == 403


async def test_a_time_without_an_offset_is_shanghais() -> None:
    assert AlertQuery.model_validate({"since": "2023-02-01T10:02:03"}).since == 1_675_216_923_000
    assert AlertQuery.model_validate({"since": "2023-02-01T02:02:03Z"}).since == 1_675_216_923_000
    assert AlertQuery.model_validate({"since": "2023-02-01"}).since == 1_675_180_800_000


# ── quotes ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_quote_has_the_latest_columns_and_the_indicators() -> None:
    async with standing() as stand:
        stand.board.update(batch(5, A_SH=1.25))
        stand.rules.values = {"brk": {"MA5": 1.2, "RSI": None}}
        status, body = await get(stand, "/v1/quotes/A.SH")
        assert status == 200
        assert body["indicators"] == {"brk": {"MA5": 1.2, "RSI": None}}
        assert (body["tick"]["last"], body["tick"]["bid_price_1"], body["tick"]["open"]) == (1.25, 7.0, None)
        status, body = await get(stand, "/v1/quotes/B.SZ")
        assert (status, body["error"]["field"]) == (404, "symbol")


# ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_route_is_in_the_openapi_document_with_its_models() -> None:
    described = document(ROUTES)
    assert sum(len(operations) for operations in described["paths"].values()) == len(ROUTES)
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        assert operation["summary"] == route.summary
        assert ("401" in operation["responses"]) is not route.anyone
        if route.reply is not None:
            ref = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
            assert ref.rpartition("/")[2] in described["components"]["schemas"]
    names = {parameter["name"] for parameter in described["paths"]["/v1/alerts"]["get"]["parameters"]}
    assert names == {
        "rule", "symbol", "severity", "event", "trade_date", "since", "until", "page", "page_size",
    }  # fmt: skip


def test_no_reference_of_the_openapi_document_dangles() -> None:
    described = document(ROUTES)
    schemas = described["components"]["schemas"]

    def refs(part: Any) -> list[str]:
        if isinstance(part, dict):
            found = [part["$ref"]] if "$ref" in part else []
            return found + [ref for value in part.values() for ref in refs(value)]
        return [ref for value in part for ref in refs(value)] if isinstance(part, list) else []

    assert refs(described)
    for ref in refs(described):
        assert ref.removeprefix("#/components/schemas/") in schemas


def test_operations_have_names_of_their_own() -> None:
    names = [route.handler.__name__ for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/alerts", "/v1/alerts/", "/%00", "/v1/alerts/%ff%fe"])
async def test_what_is_not_there_is_a_404_in_json(path: str) -> None:
    async with standing() as stand:
        status, body = await get(stand, path)
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_a_failure_of_our_own_is_a_500_that_tells_nothing_and_the_next_request_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with standing() as stand:

        async def broken(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the secret place of the database")

        monkeypatch.setattr(stand.history, "history", broken)
        status, body = await get(stand, "/v1/alerts")
        assert (status, body["error"]["code"]) == (500, "internal")
        assert "secret" not in str(body)
        assert (await get(stand, "/v1/rules"))[0] == 200


text = st.text(max_size=30)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(list(AlertQuery.model_fields)) | text, text, max_size=4))
def test_whatever_the_query_it_parses_or_is_refused(query: dict[str, str]) -> None:
    from monitord.gateway.server import _query

    class Given:
        class query(dict):  # type: ignore[type-arg]
            def getall(self, name: str) -> list[str]:
                return [self[name]]

    request = SimpleNamespace(query=Given.query(query))
    try:
        parsed = _query(AlertQuery, request)  # type: ignore[arg-type]
    except ApiError as error:
        refusal = (error.status, error.error["field"] in query)
    else:
        refusal = None
        assert isinstance(parsed, AlertQuery)
    assert refusal in (None, (400, True))


async def test_the_page_is_served_and_loads_nothing_from_elsewhere() -> None:
    async with standing() as stand, stand.session.get(stand.gateway.address + "/") as reply:
        page = await reply.text()
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert 'type="module" src="page/main.js"' in page
        assert "https://" not in page
        assert "innerHTML" not in page
