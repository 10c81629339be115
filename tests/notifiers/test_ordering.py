"""Order intents on the side that trades: what goes through, once at most, what is reported; and the vendor's trader."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from monitord.xttrader import XtTrader
from notifiers.ordering import Fill, OrderDesk, OrderLimits, TradeError, TurnedDown
from notifiers.orders import STREAM, Intent
from notifiers.reports import REPORTS, Report
from tests.notifiers.trading_terminal import Terminal

NOW_MS = 1_675_216_930_000
PLACED = Report(
    id="or_1", state="placed", at_ms=NOW_MS, symbol="600519.SH", side="buy", quantity=100, price=18.5
)  # fmt: skip
INTENT = Intent("or_1", "al_1", "task-3.entry", "600519.SH", "buy", 100, 18.5, False, NOW_MS - 1, NOW_MS + 30_000)


class Trader:
    """One that notes orders. failure: raised by the next ones."""

    def __init__(self) -> None:
        self.orders: list[Intent] = []
        self.failure: Exception | None = None
        self.news: asyncio.Queue[Fill | TurnedDown] = asyncio.Queue()

    async def order(self, intent: Intent) -> str:
        self.orders.append(intent)
        if self.failure is not None:
            raise self.failure
        return str(len(self.orders))

    async def next_news(self) -> Fill | TurnedDown:
        return await self.news.get()


class Side:
    """The desk of the trading side over a Redis in memory."""

    def __init__(self, redis: Any, name: str = "pc") -> None:
        self.redis, self.trader = redis, Trader()
        limits = OrderLimits(quantity=100, max_cny=5000.0)
        self.desk = OrderDesk(redis, self.trader, limits=limits, name=name, clock_ms=lambda: NOW_MS)

    async def given(self, intent: Intent | bytes) -> None:
        text = intent if isinstance(intent, bytes) else intent.to_json()
        await self.redis.xadd(STREAM, {"intent": text})
        await self.work()

    async def work(self) -> None:
        """Take all there is, as `run` does: after a failure the place is taken again."""
        while True:
            try:
                await self.desk.open()
                while await self.desk.step(block_ms=0):
                    pass
                return
            except ConnectionError:
                pass

    async def reports(self) -> list[Report]:
        return [Report.from_json(fields[b"report"]) for _, fields in await self.redis.xrange(REPORTS)]


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    redis = FakeAsyncRedis()
    side = Side(redis)
    await side.desk.open()
    yield side
    await redis.aclose()


async def test_a_live_intent_is_ordered_once_whoever_reads_it_again(side: Side) -> None:
    await side.given(INTENT)
    await side.given(INTENT)
    other = Side(side.redis, "spare")
    await other.given(INTENT)
    assert (side.trader.orders, other.trader.orders) == ([INTENT], [])
    assert await side.reports() == [replace(PLACED, order="1")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dry_run": True}, "a dry run"),
        ({"dry_run": None}, "a dry run"),
        ({"expires_ms": NOW_MS}, "expired"),
        ({"quantity": 200}, "more than 100 shares"),
        ({"quantity": -100}, "more than 100 shares, or no order"),
        ({"side": "short"}, "no order"),
        ({"price": 50.1}, "more than 5000 yuan"),
        ({"price": 0.0}, "yuan"),
    ],
)
async def test_what_is_dry_late_or_beyond_this_sides_limits_is_not_ordered(
    side: Side, changes: dict[str, Any], why: str
) -> None:
    await side.given(replace(INTENT, **changes))
    (report,) = await side.reports()
    assert (side.trader.orders, report.state) == ([], "not_ordered")
    assert why in report.why
    assert report.dry_run is (changes.get("dry_run", False) is not False)


async def test_what_is_no_intent_stops_nobody(side: Side) -> None:
    odd = (replace(INTENT, expires_ms="soon"), replace(INTENT, id=7), replace(INTENT, quantity="100"))  # type: ignore[arg-type]
    for text in (b"", b"{", b"[]", b'{"id":"or_2"}', *odd):
        await side.given(text)
    await side.given(INTENT)
    assert side.trader.orders == [INTENT]


async def test_intents_of_before_the_start_are_reported_and_not_ordered() -> None:
    redis = FakeAsyncRedis()
    first, second, third = (replace(INTENT, id=f"or_{number}") for number in (1, 2, 3))
    await redis.xadd(STREAM, {"intent": first.to_json()})
    side = Side(redis)
    await side.work()
    assert (side.trader.orders, await side.reports()) == ([], [])  # before the group it was nobody's
    await redis.xadd(STREAM, {"intent": second.to_json()})
    again = Side(redis)  # the group is there already, and has not seen this one
    await again.work()
    assert [(one.id, one.state, one.why[:22]) for one in await again.reports()] == [
        ("or_2", "not_ordered", "older than the bridge,")
    ]
    await redis.xadd(STREAM, {"intent": third.to_json()})
    await again.work()  # opens again: Redis was away, and what came meanwhile is not lost
    assert (side.trader.orders, again.trader.orders) == ([], [third])
    await redis.aclose()


class Failing:
    """A Redis in memory whose n-th command fails, before it is carried out or with its answer lost."""

    def __init__(self, redis: Any, fails_at: int, *, answer_lost: bool, error: type[Exception]) -> None:
        self._redis, self.left, self._answer_lost, self._error = redis, fails_at, answer_lost, error

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._redis, name)

        async def sent(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self._answer_lost:
                raise self._error
            answer = await command(*arguments, **options)
            if self.left == 0:
                raise self._error
            return answer

        return sent


class Killed(Exception):
    """Here the process dies."""


TWO = [replace(INTENT, id=f"or_{number}") for number in (1, 2)]


@pytest.mark.parametrize("answer_lost", [False, True])
async def test_wherever_redis_fails_each_intent_is_ordered_and_reported_once(answer_lost: bool) -> None:
    for fails_at in range(1, 100):
        redis = FakeAsyncRedis()
        await Side(redis).desk.open()
        side = Side(Failing(redis, fails_at, answer_lost=answer_lost, error=ConnectionError))
        side.desk._newest_before = b"0-0"
        for one in [*TWO, TWO[0]]:
            await redis.xadd(STREAM, {"intent": one.to_json()})
        await side.work()
        assert side.trader.orders == TWO, fails_at
        assert [(one.id, one.state) for one in await Side(redis).reports()] == [(one.id, "placed") for one in TWO]
        assert (await redis.xpending(STREAM, "trade"))["pending"] == 0
        await redis.aclose()
        if side.redis.left > 0:
            break
    assert fails_at > 15


@pytest.mark.parametrize("dies", ["before the command", "after the command", "in the order"])
async def test_wherever_the_process_dies_each_intent_is_ordered_once_at_most_and_reported_once(dies: str) -> None:
    """The one in hand may be ordered with nobody to tell: then that is the report; those behind it are too old."""
    for fails_at in range(1, 100):
        redis = FakeAsyncRedis()
        await Side(redis).desk.open()
        side = Side(Failing(redis, fails_at, answer_lost=dies == "after the command", error=Killed))
        if dies == "in the order":
            side.desk._client, side.trader.failure = redis, Killed()
        side.desk._newest_before = b"0-0"
        for one in TWO:
            await redis.xadd(STREAM, {"intent": one.to_json()})
        with suppress(Killed):
            await side.work()
        next_life = Side(redis)
        await next_life.work()
        ordered = [one.id for one in side.trader.orders]
        reports = {one.id: one.state for one in await next_life.reports()}
        assert next_life.trader.orders == []
        assert len(ordered) == len(set(ordered))
        assert sorted(reports) == [one.id for one in TWO]
        assert len(await next_life.reports()) == 2
        for intent_id, state in reports.items():
            assert state in (("placed", "unknown") if intent_id in ordered else ("not_ordered", "unknown"))
        assert list(reports.values()).count("unknown") <= 1
        assert (await redis.xpending(STREAM, "trade"))["pending"] == 0
        await redis.aclose()
        if side.desk._client is redis or side.redis.left > 0:
            break


async def test_what_a_dead_consumer_left_is_reported_by_another_after_a_minute(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Side(side.redis, "gone")
    await gone.desk.open()
    gone.trader.failure = Killed()
    with pytest.raises(Killed):
        await gone.given(INTENT)
    await side.work()
    assert await side.reports() == []
    monkeypatch.setattr("notifiers.ordering.CLAIM_AFTER_MS", 0)
    await side.work()
    assert [one.state for one in await side.reports()] == ["unknown"]
    assert side.trader.orders == []


async def test_a_fill_whose_answer_was_lost_is_reported_once(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifiers.ordering.PAUSE_S", 0)
    lossy = Side(Failing(side.redis, 1, answer_lost=True, error=ConnectionError))
    for number in range(2):
        fill = Fill("or_1", "600519.SH", "buy", 100, 18.49, str(number), f"d{number}")
        await lossy.desk._tell(lossy.desk._reported(fill))
    assert [one.order for one in await side.reports()] == ["0", "1"]


@pytest.mark.parametrize(("failure", "state"), [(TradeError("no money"), "refused"), (TimeoutError(), "unknown")])
async def test_a_refusal_and_a_silence_are_reported_and_never_tried_again(
    side: Side, failure: Exception, state: str
) -> None:
    side.trader.failure = failure
    await side.given(INTENT)
    await side.given(INTENT)
    assert [report.state for report in await side.reports()] == [state]
    assert len(side.trader.orders) == 1


async def test_fills_and_orders_turned_down_are_reported(side: Side) -> None:
    side.trader.news.put_nowait(Fill("or_1", "600519.SH", "buy", 100, 18.49, "7", "d1"))
    side.trader.news.put_nowait(TurnedDown("or_2", "8", "suspended"))
    reporting = asyncio.create_task(side.desk.run_news())
    after: Any = "0"
    for _ in range(2):
        ((_, ((after, _),)),) = await side.redis.xread({REPORTS: after}, count=1, block=10_000)
    reporting.cancel()
    none = replace(PLACED, id="or_2", state="failed", symbol="", side="", quantity=0, price=0.0)
    assert await side.reports() == [
        replace(PLACED, state="filled", price=18.49, order="7", deal="d1"),
        replace(none, order="8", why="suspended"),
    ]


# ── the vendor's trader ───────────────────────────────────────────────────────────────────────────────────────────


def vendor(module: str) -> ast.Module:
    """Return the vendor's own source; importing it needs its Windows binaries."""
    spec = find_spec("xtquant")
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / f"{module}.py").read_text(encoding="utf-8"))


def parameters(tree: ast.Module, owner: str, name: str) -> tuple[list[str], int]:
    """Return a method's parameters without self, and how many of them have defaults."""
    (found,) = (
        method for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.name == owner
        for method in one.body if isinstance(method, ast.FunctionDef) and method.name == name
    )  # fmt: skip
    return [argument.arg for argument in found.args.args][1:], len(found.args.defaults)


def test_the_vendor_has_what_is_called_with_the_parameters_that_are_passed() -> None:
    trader = vendor("xttrader")
    assert parameters(trader, "XtQuantTrader", "__init__")[0] == ["path", "session", "callback"]
    assert parameters(trader, "XtQuantTrader", "subscribe")[0] == ["account"]
    for name in ("start", "stop", "connect"):
        assert parameters(trader, "XtQuantTrader", name)[0] == []
    assert parameters(trader, "XtQuantTrader", "order_stock") == (
        [
            "account", "stock_code", "order_type", "order_volume", "price_type", "price", "strategy_name",
            "order_remark",
        ],
        2,
    )  # fmt: skip
    for name, given in (("on_stock_trade", ["trade"]), ("on_order_error", ["order_error"]), ("on_disconnected", [])):
        assert parameters(trader, "XtQuantTraderCallback", name)[0] == given
    fields = set(parameters(vendor("xttype"), "XtTrade", "__init__")[0])
    assert fields >= {
        "stock_code", "order_type", "traded_volume", "traded_price", "order_id", "traded_id", "strategy_name",
        "order_remark",
    }  # fmt: skip
    fields = set(parameters(vendor("xttype"), "XtOrderError", "__init__")[0])
    assert fields >= {"order_id", "error_msg", "order_remark"}
    names = {target.id for one in vendor("xtconstant").body if isinstance(one, ast.Assign) for target in one.targets
             if isinstance(target, ast.Name)}  # fmt: skip
    assert names >= {"STOCK_BUY", "STOCK_SELL", "FIX_PRICE"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    for name, module in terminal.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return terminal


async def test_the_trader_orders_at_a_limit_and_hears_its_own_fills(terminal: Terminal) -> None:
    trader = XtTrader(path="C:/qmt", account="123", session=1)
    await trader.open()
    assert await trader.order(INTENT) == "1"
    assert terminal.orders == [("600519.SH", 23, 100, 11, 18.5, "monitord", "or_1")]
    terminal.fill("by hand", strategy="")
    terminal.fill("or_1")
    assert await trader.next_news() == Fill("or_1", "600519.SH", "sell", 100, 18.4, "7", "0012")
    terminal.refuse("by hand")
    terminal.refuse("or_1")
    assert await trader.next_news() == TurnedDown("or_1", "8", "停牌")
    terminal.number = -1
    with pytest.raises(TradeError, match="refuses"):
        await trader.order(INTENT)
    await trader.close()


async def test_a_terminal_that_is_away_or_an_account_it_has_not_is_told(terminal: Terminal) -> None:
    with pytest.raises(TradeError, match=r"bridge\.trade\.account"):
        await XtTrader(path="C:/qmt", account="9", session=1).open()
    terminal.reachable = -1
    with pytest.raises(TradeError, match=r"bridge\.trade\.path"):
        await XtTrader(path="C:/qmt", account="123", session=1).open()
