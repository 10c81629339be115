"""The routes of positions: what they list, take and refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from monitord.positions import Listed
from rules.errors import RuleError
from rules.positions import Position, encode
from tests.monitord.gateway.stand import Stand, bearer, standing, token

FILE = Listed(Position("main", "600519.SH", 10.0, 100.0), "file")
TWO: dict[str, Any] = {"book": "two", "symbol": "600519.SH", "entry": 5.0, "quantity": 1.0}


class Book:
    """Stands for the pipeline's positions."""

    def __init__(self, stand: Stand) -> None:
        self.held: list[Position] = []
        self.why = ""
        stand.rules.positions = self.positions  # type: ignore[attr-defined]
        stand.rules.hold = self.hold  # type: ignore[attr-defined]

    async def positions(self) -> Sequence[Listed]:
        if self.why:
            raise RuleError(self.why)
        return (FILE, *(Listed(one, "api") for one in self.held))

    async def hold(self, held: Sequence[Position]) -> None:
        encode(held)
        self.held = list(held)


async def ask(stand: Stand, method: str = "GET", **kwargs: Any) -> tuple[int, Any]:
    async with stand.session.request(method, f"{stand.gateway.address}/v1/positions", **kwargs) as reply:
        return reply.status, await reply.json()


async def test_positions_are_listed_with_their_origin_and_replaced_by_api() -> None:
    async with standing() as stand:
        Book(stand)
        of_file = {"book": "main", "symbol": "600519.SH", "entry": 10.0, "quantity": 100.0, "origin": "file"}
        assert await ask(stand) == (200, {"total": 1, "positions": [of_file]})
        both = {"total": 2, "positions": [of_file, {**TWO, "origin": "api"}]}
        assert await ask(stand, "PUT", json={"positions": [TWO]}) == (200, both)
        assert await ask(stand) == (200, both)
        assert await ask(stand, "PUT", json={"positions": []}) == (200, {"total": 1, "positions": [of_file]})


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "the body: Invalid JSON"),
        (b"[]", 400, "the body: "),
        (rb'{"positions":[{"book":"\ud800"}]}', 400, "the body: Invalid JSON"),
        (b"{}", 400, "positions: Field required"),
        (b'{"positions":[{"book":"m"}]}', 400, "positions.0.symbol: Field required"),
        (b'{"positions":[],"more":1}', 400, "more: Extra inputs"),
        (b'{"positions":[{"book":"m","symbol":"600519.SH","entry":"1","quantity":1}]}', 400, "positions.0.entry: "),
        (b'{"positions":[{"book":"m","symbol":"600519","entry":1,"quantity":1}]}', 422, "no symbol such as 600519.SH"),
        (b'{"positions":[{"book":"m","symbol":"600519.SH","entry":-1,"quantity":1}]}', 422, "entry must be above 0"),
        (b'{"positions":[{"book":"m","symbol":"600519.SH","entry":NaN,"quantity":1}]}', 422, "not nan"),
    ],
)
async def test_a_bad_body_is_refused_with_its_reason(body: bytes, status: int, told: str) -> None:
    async with standing() as stand:
        book = Book(stand)
        got, answer = await ask(stand, "PUT", data=body)
        assert got == status, answer
        assert told in answer["error"]["msg"]
        assert book.held == []


async def test_a_bad_file_is_told() -> None:
    async with standing() as stand:
        Book(stand).why = "p.yaml:3:1: error"
        status, answer = await ask(stand)
        assert (status, answer["error"]["code"]) == (422, "bad_positions")


async def test_reading_does_not_allow_writing() -> None:
    async with standing(tokens=(token("positions"),)) as stand:
        Book(stand)
        assert (await ask(stand, headers=bearer()))[0] == 200
        status, answer = await ask(stand, "PUT", json={"positions": []}, headers=bearer())
        assert (status, answer["error"]["code"]) == (403, "permission_denied")
