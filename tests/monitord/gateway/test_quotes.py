"""The latest tick of every symbol, and the tick channels."""

from __future__ import annotations

import asyncio
import weakref

import numpy as np
import pytest

from feeds.tick import CORE, REST, TickBatch
from monitord.gateway.quotes import NEWER, TIDY_AFTER, QuoteBoard
from tests.monitord.gateway.stand import Stand, standing


def batch(ts_ms: int, loads: list[int] | None = None, **last: float) -> TickBatch:
    """Return a batch with these last prices; A_SH stands for A.SH."""
    symbols = tuple(name.replace("_", ".") for name in last)
    columns = {name: np.full(len(last), np.nan) for name in CORE}
    columns["last"] = np.array(list(last.values()))

    def load() -> dict[str, np.ndarray]:
        if loads is not None:
            loads.append(ts_ms)
        return {name: np.full(len(last), 7.0) for name in REST}

    return TickBatch(symbols, np.full(len(last), ts_ms), columns=columns, load=load)


def test_the_board_holds_the_latest_tick_of_each_symbol() -> None:
    board = QuoteBoard()
    assert board.quote("A.SH") is None
    board.update(batch(1, A_SH=1.0, B_SZ=2.0))
    board.update(batch(2, A_SH=1.5))
    quote = board.quote("A.SH")
    assert quote is not None
    assert (quote["symbol"], quote["last"], quote["ts_event_ms"], quote["recv_ms"]) == ("A.SH", 1.5, 2, 2)
    assert board.quote("B.SZ")["last"] == 2.0  # type: ignore[index]


def test_of_a_symbol_twice_in_a_batch_the_later_tick_counts() -> None:
    board = QuoteBoard()
    columns = {name: np.array([1.0, 2.0]) for name in CORE}
    board.update(TickBatch(("A.SH", "A.SH"), np.array([5, 6]), columns=columns))
    assert board.quote("A.SH")["last"] == 2.0  # type: ignore[index]


def test_the_lazy_columns_are_decoded_only_for_who_asks_for_the_book() -> None:
    board, loads = QuoteBoard(), list[int]()
    board.update(batch(1, loads, A_SH=1.0))
    assert "bid_price_1" not in board.quote("A.SH")  # type: ignore[operator]
    assert loads == []
    assert board.quote("A.SH", book=True)["bid_price_1"] == 7.0  # type: ignore[index]
    assert loads == [1]


def test_pushes_that_lack_a_symbol_each_keep_none_of_the_batches_before() -> None:
    board, symbols = QuoteBoard(), [f"S{i}" for i in range(100)]
    for push in range(100):
        board.update(batch(push, **{name: push + 0.5 for i, name in enumerate(symbols) if i != push}))
        assert board.quote("S50") is not None
    batches = {id(one): one for one, _ in board._latest.values()}
    assert sum(map(len, batches.values())) <= (TIDY_AFTER + 3) * len(symbols)
    assert not any(one.rest_waits for one in batches.values() if len(one) < 50), "a lazy copy would keep its batch"
    for i, name in enumerate(symbols):
        quote = board.quote(name, book=True)
        last = 98 if i == 99 else 99
        assert quote is not None
        assert (quote["last"], quote["ts_event_ms"], quote["bid_price_1"]) == (last + 0.5, last, 7.0)


def test_symbols_that_fall_silent_keep_their_own_tick_alone() -> None:
    board = QuoteBoard()
    for push in range(90):
        board.update(batch(push, **{f"S{i}": push + 0.5 for i in range(push, 100)}))
        assert board.quote(f"S{push}")["last"] == push + 0.5  # type: ignore[index]
    held = {id(one): len(one) for one, _ in board._latest.values()}
    assert sum(held.values()) <= (TIDY_AFTER + 3) * 100
    assert [board.quote(f"S{i}")["ts_event_ms"] for i in range(100)] == [min(i, 89) for i in range(100)]  # type: ignore[index]


def test_what_is_left_of_a_batch_does_not_keep_the_whole_of_it_in_memory() -> None:
    board, wholes = QuoteBoard(), list[tuple[int, weakref.ref[np.ndarray]]]()
    for push in range(90):
        whole = batch(push, **{f"S{i}": push + 0.5 for i in range(push, 100)})
        wholes.append((len(whole), weakref.ref(whole.column("last"))))
        board.update(whole)
        assert board.quote(f"S{push}") is not None
    del whole
    assert sum(ticks for ticks, last in wholes if last() is not None) <= (TIDY_AFTER + 3) * 100


async def follow(stand: Stand, interval_ms: int) -> object:
    talk = await stand.connect()
    reply = await talk.ask({"id": 1, "op": "subscribe", "args": [{"ch": "tick:A.SH", "interval_ms": interval_ms}]})
    assert reply["result"] == [{"ch": "tick:A.SH", "interval_ms": interval_ms}]
    return talk


async def test_a_tick_channel_begins_with_the_latest_tick_and_writes_nan_as_null() -> None:
    async with standing() as stand:
        stand.board.update(batch(1, A_SH=1.0))
        talk = await follow(stand, 0)
        heard = await talk.hear()  # type: ignore[attr-defined]
        assert heard["ch"] == "tick:A.SH"
        assert (heard["data"]["last"], heard["data"]["open"]) == (1.0, None)


async def test_only_the_symbols_one_follows_come() -> None:
    async with standing() as stand:
        talk = await follow(stand, 0)
        stand.board.update(batch(1, B_SZ=9.0))
        stand.board.update(batch(2, A_SH=1.0))
        assert (await talk.hear())["data"]["last"] == 1.0  # type: ignore[attr-defined]


async def test_ticks_within_the_interval_are_replaced_by_the_latest_one() -> None:
    async with standing() as stand:
        talk = await follow(stand, 100)
        loop = asyncio.get_running_loop()
        stand.board.update(batch(0, A_SH=0.0))
        assert (await talk.hear())["data"]["last"] == 0.0  # type: ignore[attr-defined]
        started = loop.time()
        for n in range(1, 20):
            stand.board.update(batch(n, A_SH=float(n)))
            await asyncio.sleep(0)
        assert (await talk.hear())["data"]["last"] == 19.0  # type: ignore[attr-defined]
        assert loop.time() - started > 0.05


async def test_a_client_that_is_behind_gets_the_latest_tick_when_it_has_caught_up() -> None:
    async with standing(send_timeout_s=30) as stand:
        talk = await follow(stand, 0)
        await talk.ask({"id": 2, "op": "subscribe", "args": [{"ch": "alerts"}]})  # type: ignore[attr-defined]
        (follower,) = stand.gateway.hub.followers
        transport = talk.ws._response.connection.transport  # type: ignore[attr-defined]
        transport.pause_reading()
        while follower.outlet.behind_bytes == 0:
            stand.alerts.publish(100)
            await asyncio.sleep(0.002)
        for n in range(1, 50):
            stand.board.update(batch(n, A_SH=float(n)))
            await asyncio.sleep(0)
        transport.resume_reading()
        ticks = []
        while not ticks:
            heard = await talk.hear()  # type: ignore[attr-defined]
            if heard["ch"] == "tick:A.SH":
                ticks.append(heard["data"]["last"])
        assert ticks == [49.0]


async def test_unsubscribing_stops_a_tick_that_waits() -> None:
    async with standing() as stand:
        talk = await follow(stand, 50)
        stand.board.update(batch(0, A_SH=0.0))
        await talk.hear()  # type: ignore[attr-defined]
        stand.board.update(batch(1, A_SH=1.0))
        await talk.ask({"id": 3, "op": "unsubscribe", "args": ["tick:A.SH"]})  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            await talk.ws.receive(timeout=0.1)  # type: ignore[attr-defined]


def test_however_many_batches_come_unasked_the_latest_tick_counts() -> None:
    board = QuoteBoard()
    for ts_ms in range(1, 3 * NEWER):
        board.update(batch(ts_ms, A_SH=float(ts_ms), **{f"X{ts_ms}_SH": 1.0}))
        board.update(batch(ts_ms, B_SZ=float(ts_ms)))
    board.update(batch(99, A_SH=99.0))
    for symbol, last in (("A.SH", 99.0), ("B.SZ", 3.0 * NEWER - 1), ("X1.SH", 1.0)):
        assert board.quote(symbol)["last"] == last  # type: ignore[index]
