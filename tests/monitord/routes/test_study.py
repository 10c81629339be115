"""The routes of names, bars and try-outs, over a study that remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
import pytest

from feeds.history import COLUMNS, BarTable, table_of
from feeds.instruments import Instrument
from monitord.tryout import TryOutError, Wish
from tests.monitord.gateway.stand import Stand, bearer, standing, token

ELEVEN = [f"6000{n:02d}.SH" for n in range(11)]
TRYOUT = {"formula": "C > O", "symbols": ["600519.SH", "600519.SH"], "period": "5m"}


class SlowStudy:
    """One whose try-out takes until it is cancelled."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def try_out(self, wish: Wish) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError


class FakeStudy:
    def __init__(self, failure: TryOutError | None = None) -> None:
        self.failure = failure
        self.wishes: list[Wish] = []

    async def instruments(self, words: str, *, limit: int) -> Sequence[Instrument]:
        return [Instrument(f"60000{n}.SH", words) for n in range(limit)]

    async def bars(self, symbol: str, period: str, *, count: int) -> BarTable:
        columns = {name: np.array([1.5, np.nan]) for name in COLUMNS}
        return table_of(period, np.array([symbol] * 2), np.array([60_000, 120_000]), columns=columns)

    async def try_out(self, wish: Wish) -> bytes:
        self.wishes.append(wish)
        if self.failure is not None:
            raise self.failure
        return b'{"ok":true}'


async def ask(stand: Stand, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
    async with stand.session.request(method, stand.gateway.address + path, **kwargs) as reply:
        return reply.status, await reply.json()


async def test_names_bars_and_a_try_out_are_answered() -> None:
    study = FakeStudy()
    async with standing(study=study) as stand:
        status, found = await ask(stand, "GET", "/v1/instruments?q=mao&limit=2")
        assert (status, len(found["instruments"])) == (200, 2)
        assert found["instruments"][0] == {"symbol": "600000.SH", "name": "mao", "board": "unknown"}
        status, bars = await ask(stand, "GET", "/v1/bars/600519.SH?period=5m&count=9")
        assert (status, bars["period"], bars["bars"]["close"]) == (200, "5m", [1.5, None])
        assert await ask(stand, "POST", "/v1/tryout", json=TRYOUT) == (200, {"ok": True})
    assert study.wishes == [Wish("C > O", ("600519.SH",), "5m", on="bars", count=250)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/v1/instruments?limit=101", None, 400, "limit"),
        ("GET", "/v1/bars/600519", None, 404, "symbol"),
        ("GET", "/v1/bars/600519.SH?period=2m", None, 400, "period"),
        ("GET", "/v1/bars/600519.SH?count=1001", None, 400, "count"),
        ("POST", "/v1/tryout", {}, 400, "formula"),
        ("POST", "/v1/tryout", {**TRYOUT, "formula": "C" * 4001}, 400, "formula"),
        ("POST", "/v1/tryout", {**TRYOUT, "symbols": []}, 400, "symbols"),
        ("POST", "/v1/tryout", {**TRYOUT, "symbols": ["x"]}, 400, "symbols.0"),
        ("POST", "/v1/tryout", {**TRYOUT, "symbols": ELEVEN}, 400, "symbols"),
        ("POST", "/v1/tryout", {**TRYOUT, "count": 1001}, 400, "count"),
        ("POST", "/v1/tryout", {**TRYOUT, "period": "tick"}, 422, "period"),
        ("POST", "/v1/tryout", {**TRYOUT, "more": 1}, 400, "more"),
    ],
)  # fmt: skip
async def test_what_is_out_of_bounds_is_refused_with_its_field(
    method: str, path: str, body: Any, status: int, field: str
) -> None:
    async with standing(study=FakeStudy()) as stand:
        found, told = await ask(stand, method, path, json=body)
        assert (found, told["error"]["field"]) == (status, field)


@pytest.mark.parametrize(("code", "status"), [("bad_formula", 422), ("no_past", 422), ("too_slow", 422), ("busy", 503)])
async def test_a_try_out_that_fails_says_why_with_its_findings(code: str, status: int) -> None:
    failure = TryOutError(code, "why", findings=[{"line": 1}])
    async with standing(study=FakeStudy(failure)) as stand:
        found, told = await ask(stand, "POST", "/v1/tryout", json=TRYOUT)
    assert (found, told["error"]["code"], told["error"]["msg"]) == (status, code, "why")
    assert told["error"]["findings"] == [{"line": 1}]


async def test_tokens_need_the_resource_and_a_gateway_without_a_study_says_so() -> None:
    async with standing(study=FakeStudy(), tokens=(token("tick:600519.SH"),)) as stand:
        assert (await ask(stand, "POST", "/v1/tryout", json=TRYOUT, headers=bearer()))[0] == 403
        assert (await ask(stand, "GET", "/v1/instruments", headers=bearer()))[0] == 403
        assert (await ask(stand, "GET", "/v1/bars/000001.SZ", headers=bearer()))[0] == 403
        assert (await ask(stand, "GET", "/v1/bars/600519.SH", headers=bearer()))[0] == 200
    async with standing() as stand:
        assert (await ask(stand, "GET", "/v1/instruments"))[0] == 503


async def test_a_try_out_ends_when_its_client_leaves_and_the_next_is_answered() -> None:
    study = SlowStudy()
    async with standing(study=study) as stand:
        async with aiohttp.ClientSession() as session:
            asking = asyncio.create_task(session.post(stand.gateway.address + "/v1/tryout", json=TRYOUT))
            async with asyncio.timeout(30):
                await study.begun.wait()
            asking.cancel()
        async with asyncio.timeout(30):
            await study.ended.wait()
        assert (await ask(stand, "GET", "/v1/instruments?limit=101"))[0] == 400


async def test_a_connection_may_ask_for_several_try_outs_one_after_the_other() -> None:
    study = FakeStudy()
    async with standing(study=study) as stand:
        for _ in range(3):
            assert await ask(stand, "POST", "/v1/tryout", json=TRYOUT) == (200, {"ok": True})
    assert len(study.wishes) == 3
