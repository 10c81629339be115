"""The feed of public quote pages over a page on this machine, in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from feeds.codes import market_codes, read_codes
from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.instruments import Board
from feeds.quotes_client import LONGEST_PAUSE_S, Unanswered, _retry_after_s
from feeds.quotes_http import WITNESS, QuotesHttpFeed, asked_from_ms
from feeds.sessions import Calendar, unix_ms
from feeds.tick import TickBatch
from tests.feeds.quote_page import DAY, FAILURES, NOT_OPENED, TEN, Page, Stock, sina, tencent
from tests.virtual_time import run

CALENDAR = Calendar([20241231, DAY, 20250103, 20250106])
SYMBOLS = ("600519.SH", "000001.SZ", "300750.SZ")
CODES = ("sh600519", "sz000001", "sz300750")

Value = TickBatch | Heartbeat | Mark


class Stand:
    """A page, a feed on it, and the market's clock: `TEN` when the loop's time is 0."""

    def __init__(self, *pages: Page, start_ms: int = TEN, **settings: Any) -> None:
        self.pages = pages
        self.start_ms = start_ms
        defaults = {"symbols": SYMBOLS, "provider": pages[0].vendor, "jitter": lambda: 1.0}
        self.settings: dict[str, Any] = defaults | settings
        self.seen: list[Value] = []

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[QuotesHttpFeed]:
        for page in self.pages:
            await page.start()
        urls = {f"{page.vendor}_url": page.url for page in self.pages}
        self.feed = QuotesHttpFeed(
            **urls,
            **self.settings,
            now=lambda: self.start_ms / 1000 + self.now_s,
            calendar=CALENDAR,
        )
        try:
            await self.feed.open()
            yield self.feed
        finally:
            await self.feed.close()
            for page in self.pages:
                await page.stop()

    async def until(self, seconds: float) -> None:
        """Take inputs until so many seconds of the loop have passed."""
        loop = asyncio.get_running_loop()
        loop.call_at(seconds, lambda: closing.append(loop.create_task(self.feed.close())))
        closing: list[asyncio.Task[None]] = []
        async for given in self.feed:
            assert given.offset == -1
            self.seen.append(given.value)

    def play(self, seconds: float) -> list[Value]:
        async def scenario() -> None:
            async with self.opened():
                await self.until(seconds)

        run(scenario())
        return self.seen


def page(vendor: str = "tencent", codes: tuple[str, ...] = CODES, **stocks: Stock) -> Page:
    return Page(vendor, {code: Stock(name=f"股{code[-2:]}") for code in codes} | stocks)


def moving(page: Page, *, by_s: float = 3.0) -> Page:
    """Let every stock trade once between two requests."""

    def move() -> None:
        page.stocks |= {code: stock.later(by_s) for code, stock in page.stocks.items()}

    page.on_request = move
    return page


def batches(seen: list[Value]) -> list[TickBatch]:
    return [value for value in seen if isinstance(value, TickBatch)]


def marks(seen: list[Value]) -> list[MarkKind]:
    return [value.kind for value in seen if isinstance(value, Mark)]


# ── what comes of an answer ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("vendor", ["tencent", "sina"])
def test_a_quote_becomes_a_tick_in_lots_and_yuan(vendor: str) -> None:
    stand = Stand(page(vendor))
    first, *_ = batches(stand.play(1))
    assert first.symbols == SYMBOLS
    assert first.ts_event_ms.tolist() == [TEN] * 3
    assert first.column("last").tolist() == [10.05] * 3
    lots = 12_345 if vendor == "tencent" else 12_345.67
    assert first.column("volume_lots").tolist() == pytest.approx([lots] * 3)
    assert first.column("amount_cny").tolist() == [12_345_670.0] * 3
    assert first.column("bid_price_1").tolist() == [10.04] * 3
    assert first.column("ask_lots_5").tolist() == pytest.approx([11.0] * 3)
    assert (first.recv_ms >= TEN).all()


def test_tencents_limits_are_columns_and_sinas_are_absent() -> None:
    (first,) = batches(Stand(page()).play(1))
    assert first.column("limit_up").tolist() == [10.89] * 3
    assert first.column("limit_down").tolist() == [8.91] * 3
    (first,) = batches(Stand(page("sina")).play(1))
    assert not first.has("limit_up")


def test_star_counts_shares_at_tencent_and_comes_in_lots() -> None:
    stand = Stand(page(codes=("sh688001",)), symbols=("688001.SH",))
    (first,) = batches(stand.play(1))
    assert first.column("volume_lots").tolist() == [12_345.67]


def test_a_board_whose_page_counts_otherwise_than_believed_is_found_out() -> None:
    odd = page(codes=("bj920001",))
    odd.record = lambda code, stock: tencent(code, stock, in_shares=True)
    (first,) = batches(Stand(odd, symbols=("920001.BJ",)).play(1))
    assert first.column("volume_lots").tolist() == [12_345.67]


@pytest.mark.parametrize("vendor", ["tencent", "sina"])
def test_units_that_can_be_neither_refuse_the_feed(vendor: str) -> None:
    codes = tuple(f"sh6000{number:02}" for number in range(8))
    wrong = page(vendor, codes, **{code: Stock(amount=1_234.567) for code in codes})
    stand = Stand(wrong, symbols=tuple(f"{code[2:]}.SH" for code in codes))
    with pytest.raises(FeedError, match=r"(tencent|sina): 8 of 8 ticks of board main .* use another provider"):
        stand.play(10)


def test_units_that_turn_wrong_later_end_the_feed() -> None:
    codes = tuple(f"sh6000{number:02}" for number in range(8))
    quiet = page("tencent", codes, **dict.fromkeys(codes, NOT_OPENED))

    def trade() -> None:
        quiet.stocks = dict.fromkeys(codes, Stock(amount=1_234.0, ts_ms=TEN + 3000))

    quiet.on_request = trade
    stand = Stand(quiet, symbols=tuple(f"{code[2:]}.SH" for code in codes))
    with pytest.raises(FeedError, match="board main"):
        stand.play(10)
    assert len(batches(stand.seen)) == 1, "nothing of the wrong ticks went on"


@pytest.mark.parametrize("vendor", ["tencent", "sina"])
def test_suspended_and_unopened_stocks_have_no_price(vendor: str) -> None:
    there = page(vendor, sh600519=Stock(status="suspended", last=9.9, shares=0, amount=0.0), sz000001=NOT_OPENED)
    (first,) = batches(Stand(there).play(1))
    assert np.isnan(first.column("last")).tolist() == [True, True, False]
    assert np.isnan(first.column("bid_price_1")).tolist()[1:] == [True, False]
    assert np.isnan(first.column("open")[1])
    assert first.column("prev_close").tolist() == [9.9] * 3
    assert first.column("volume_lots")[:2].tolist() == [0.0, 0.0]
    assert first.status.tolist() == [1, 0, 0]


def test_only_what_changed_goes_on() -> None:
    there = page()

    def move_one() -> None:
        there.stocks["sz000001"] = there.stocks["sz000001"].later(3)

    there.on_request = move_one
    stand = Stand(there)
    first, *later = batches(stand.play(10))
    assert first.symbols == SYMBOLS
    assert [batch.symbols for batch in later] == [("000001.SZ",)] * 3
    assert stand.feed.counters()["unchanged"] == 2 * len(later)


def test_a_quote_older_than_the_one_before_is_dropped() -> None:
    """The pages are served by many machines, and one may be behind another."""
    there = page(codes=("sh600519",))
    answers = [Stock(), Stock().later(6), Stock().later(3), Stock().later(9)]

    def turn() -> None:
        there.stocks["sh600519"] = answers.pop(0) if answers else there.stocks["sh600519"]

    turn()
    there.on_request = turn
    stand = Stand(there, symbols=("600519.SH",))
    assert [(batch.ts_event_ms[0] - TEN) / 1000 for batch in batches(stand.play(13))] == [0, 6, 9]
    assert stand.feed.counters()["stale"] == 1


def test_a_quote_ahead_of_our_clock_says_nothing() -> None:
    there = page(sh600519=Stock(ts_ms=TEN + 86_400_000))
    stand = Stand(there)
    assert [batch.symbols for batch in batches(stand.play(1))] == [SYMBOLS[1:]]
    assert stand.feed.counters()["ahead"] == 1


def test_a_garbled_record_among_good_ones_is_counted() -> None:
    there = page()
    there.record = lambda code, stock: b'v_sz000001="51~broken\n' if code == "sz000001" else tencent(code, stock)
    stand = Stand(there)
    assert [batch.symbols for batch in batches(stand.play(1))] == [("600519.SH", "300750.SZ")]
    assert stand.feed.counters()["garbled"] == 1


def test_a_number_that_is_none_costs_its_tick_alone() -> None:
    there = page()
    there.record = lambda code, stock: tencent(code, stock).replace(b"~10.50~", b"~x~") if code == "sz000001" else (
        tencent(code, stock)
    )  # fmt: skip
    stand = Stand(there)
    assert [batch.symbols for batch in batches(stand.play(1))] == [("600519.SH", "300750.SZ")]
    assert stand.feed.counters()["not_a_number"] == 1


@pytest.mark.parametrize("vendor", ["tencent", "sina"])
def test_unknown_codes_are_no_failure(vendor: str) -> None:
    stand = Stand(page(vendor, codes=CODES[:1]))
    assert batches(stand.play(10))[0].symbols == ("600519.SH",)
    assert stand.feed.counters()["failed_requests"] == 0


def test_a_page_that_knows_none_of_the_symbols_is_refused() -> None:
    with pytest.raises(FeedError, match="knows none of the symbols"):
        Stand(page(codes=())).play(1)


def test_instruments_are_the_names_the_page_told() -> None:
    async def scenario() -> None:
        async with stand.opened() as feed:
            table = {one.symbol: one for one in await feed.instruments()}
            assert set(table) == set(SYMBOLS), "the witness is none of ours"
            assert table["600519.SH"].name == "股19"
            assert table["300750.SZ"].board is Board.CHINEXT

    stand = Stand(page(sh000001=Stock(name="上证指数")))
    run(scenario())


# ── whom and how often it asks ────────────────────────────────────────────────────────────────────────────────────


def test_everything_is_asked_once_in_an_interval_and_never_faster() -> None:
    there = moving(page())
    Stand(there, interval_s=3.0).play(31)
    times = [moment for moment, _ in there.asked]
    assert np.diff(times).tolist() == pytest.approx([3.0] * 10)


def test_codes_go_in_batches_of_one_request_at_a_time() -> None:
    there = page()
    Stand(there, batch=2).play(2)
    assert [codes for _, codes in there.asked] == [["sh000001", "sh600519"], ["sz000001", "sz300750"]]
    assert there.asked[1][0] - there.asked[0][0] == pytest.approx(0.1)


def test_sina_is_told_where_we_come_from() -> None:
    """Without a Referer of its own it answers 403."""
    there = page("sina")
    Stand(there).play(1)
    assert there.headers[0]["Referer"].startswith("https://finance.sina.com.cn")


def test_the_whole_market_is_found_by_asking_for_every_code() -> None:
    there = moving(page(sh000001=Stock(name="上证指数")), by_s=0.0)
    stand = Stand(there, symbols=None)
    seen = stand.play(9)
    swept = [codes for _, codes in there.asked]
    whole = len(market_codes()) + 1
    assert sum(map(len, swept[: -(-whole // 800)])) == whole
    assert sorted(swept[-1]) == sorted(["sh000001", *CODES]), "then those that exist"
    assert {symbol for batch in batches(seen) for symbol in batch.symbols} == set(SYMBOLS)


def test_the_market_is_swept_again_on_the_next_day_for_new_shares() -> None:
    there = moving(page(), by_s=0.0)
    stand = Stand(there, symbols=None, start_ms=unix_ms(DAY, 55_800_000))  # 15:30

    async def scenario() -> None:
        async with stand.opened():
            there.stocks["sh603999"] = Stock(name="新股", ts_ms=unix_ms(20250103, 33_000_000))
            await stand.until(64_000)  # 09:16:40

    run(scenario())
    assert any("603999.SH" in batch.symbols for batch in batches(stand.seen))


def test_files_name_codes_a_line_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("symbol,name\n600519.SH,x\n\n# none\n000001.SZ  # ping an\n600519.SH\n", encoding="utf-8")
    assert read_codes([path]) == ["600519.SH", "000001.SZ"]
    there = page()
    Stand(there, symbols=None, files=[path]).play(1)
    assert there.asked[0][1] == ["sh000001", "sh600519", "sz000001"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("600519.SH\n60051\n", r"line 2: '60051' is no code"), ("", "holds no code"), (b"\xff\xfe6", "no UTF-8 text")],
)
def test_a_file_of_codes_that_is_none_is_named(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    path = tmp_path / "codes.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(FeedError, match=complaint):
        read_codes([path])
    with pytest.raises(FeedError, match="No such file"):
        read_codes([tmp_path / "none"])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"provider": "eastmoney"}, "there are: tencent, sina"),
        ({"symbols": ["600519"]}, "is no symbol"),
        ({"batch": 801}, "1 to 800"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FeedError, match=complaint):
        QuotesHttpFeed(**wrong)


@pytest.mark.parametrize(
    ("date", "clock", "then_date", "then"),
    [
        (DAY, "09:09:59", DAY, "09:10:00"),
        (DAY, "09:10:00", DAY, "09:10:00"),
        (DAY, "11:31:59", DAY, "11:31:59"),
        (DAY, "11:32:00", DAY, "12:58:00"),
        (DAY, "15:31:59", DAY, "15:31:59"),
        (DAY, "15:32:00", 20250103, "09:10:00"),
        (20250103, "15:32:00", 20250106, "09:10:00"),
        (20250104, "10:00:00", 20250106, "09:10:00"),
    ],
)
def test_pages_are_asked_around_the_sessions_of_trading_days(date: int, clock: str, then_date: int, then: str) -> None:
    assert asked_from_ms(at(date, clock), CALENDAR) == at(then_date, then)


def at(date: int, clock: str) -> int:
    hour, minute, second = map(int, clock.split(":"))
    return unix_ms(date, ((hour * 60 + minute) * 60 + second) * 1000)


def test_lunch_is_not_asked_about_and_the_clock_goes_on() -> None:
    there = moving(page(**{code: Stock(ts_ms=at(DAY, "11:31:00")) for code in CODES}))
    stand = Stand(there, start_ms=at(DAY, "11:31:00"))
    seen = stand.play(5400)  # 13:01
    times = np.array([moment for moment, _ in there.asked])
    assert np.diff(times).max() == pytest.approx(86 * 60, abs=4)
    beats = [value.ts_ms for value in seen if isinstance(value, Heartbeat)]
    assert len(beats) > 5100
    assert np.all(np.diff(beats) > 0)
    assert marks(seen) == []


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reason", sorted(FAILURES))
def test_after_every_kind_of_failure_quotes_come_again(reason: str) -> None:
    there = moving(page())
    stand = Stand(there)

    async def scenario() -> None:
        async with stand.opened():
            there.fails.append(reason)
            await stand.until(300)

    run(scenario())
    counters = stand.feed.counters()
    assert counters[f"failed_{reason}"] == counters["failed_requests"] == 1
    assert len(batches(stand.seen)) > 30


def test_a_failing_page_is_asked_less_and_less_often() -> None:
    there = moving(page())
    stand = Stand(there)

    async def scenario() -> None:
        async with stand.opened():
            there.always = "http_error"
            await stand.until(900)

    run(scenario())
    gaps = np.diff([moment for moment, _ in there.asked])
    assert gaps[:7].tolist() == pytest.approx([3, 3, 6, 12, 24, 48, 96])
    assert gaps.max() == pytest.approx(LONGEST_PAUSE_S)


@pytest.mark.parametrize(("reason", "least_s"), [("http_403", 30.0), ("http_429", 90.0)])
def test_a_page_that_sends_us_away_is_left_alone_for_as_long_as_it_says(reason: str, least_s: float) -> None:
    there = moving(page())
    stand = Stand(there)

    async def scenario() -> None:
        async with stand.opened():
            there.fails.append(reason)
            await stand.until(400)

    run(scenario())
    gaps = np.diff([moment for moment, _ in there.asked])
    assert gaps[0] == pytest.approx(3.0)
    assert gaps[1] >= least_s


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 3.0), (0.5, 4.5), (1.0, 6.0)])
def test_pauses_are_spread_by_half(jitter: float, pause_s: float) -> None:
    there = page()
    stand = Stand(there, jitter=lambda: jitter)

    async def scenario() -> None:
        async with stand.opened():
            there.always = "http_error"
            await stand.until(20)

    run(scenario())
    assert there.asked[3][0] - there.asked[2][0] == pytest.approx(pause_s)


def test_a_batch_that_always_fails_starves_no_other() -> None:
    there = moving(page(), by_s=1.0)
    stand = Stand(there, batch=2)
    inner = there.body

    def body(codes: list[str]) -> bytes:
        return b"<html>" if "sh600519" in codes else inner(codes)

    async def scenario() -> None:
        async with stand.opened():
            there.body = body  # type: ignore[method-assign]
            await stand.until(120)

    run(scenario())
    later = [batch for batch in batches(stand.seen) if batch.ts_event_ms[0] > TEN + 30_000]
    assert {batch.symbols for batch in later} == {("000001.SZ", "300750.SZ")}


def test_silence_in_trading_hours_is_said_once_and_its_end_after_the_gap() -> None:
    there = moving(page())
    stand = Stand(there)

    async def scenario() -> None:
        async with stand.opened():
            loop = asyncio.get_running_loop()
            loop.call_at(30, lambda: setattr(there, "always", "timeout"))
            loop.call_at(100, lambda: setattr(there, "always", None))
            await stand.until(200)

    run(scenario())
    assert marks(stand.seen) == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]
    silent, gap, alive = (value for value in stand.seen if isinstance(value, Mark))
    assert 30_000 < silent.ts_ms - TEN < 60_000
    assert "no answer within 5 s" in silent.reason
    assert gap.ts_ms == alive.ts_ms
    place = stand.seen.index(alive)
    assert isinstance(stand.seen[place + 1], TickBatch)
    assert stand.seen[place + 1].ts_event_ms.max() == gap.ts_ms  # type: ignore[union-attr]


def test_a_page_that_answers_but_stands_still_is_silent_too() -> None:
    stand = Stand(page())
    seen = stand.play(60)
    assert marks(seen) == [MarkKind.SILENT]
    assert "stood still" in next(value.reason for value in seen if isinstance(value, Mark))


def test_a_quiet_stock_is_no_silence_while_the_witness_moves() -> None:
    there = page(codes=("sh600519",), sh000001=Stock(name="上证指数"))

    def move() -> None:
        there.stocks["sh000001"] = there.stocks["sh000001"].later(3)

    there.on_request = move
    seen = Stand(there, symbols=("600519.SH",)).play(120)
    assert marks(seen) == []
    assert len(batches(seen)) == 1
    assert WITNESS not in {symbol for batch in batches(seen) for symbol in batch.symbols}


def test_nothing_is_silent_outside_of_continuous_trading() -> None:
    for clock in ("09:12:00", "11:29:50", "14:56:50", "15:10:00"):
        there = page(**{code: Stock(ts_ms=at(DAY, clock)) for code in CODES})
        assert marks(Stand(there, start_ms=at(DAY, clock)).play(60)) == [], clock
    holiday = page(**{code: Stock(ts_ms=at(20250104, "10:00:00")) for code in CODES})
    assert marks(Stand(holiday, start_ms=at(20250104, "10:00:00")).play(60)) == []


def test_after_a_prolonged_failure_the_other_provider_is_asked() -> None:
    first, other = moving(page()), moving(page("sina"))
    stand = Stand(first, other, fallback_after_s=30)

    async def scenario() -> None:
        async with stand.opened():
            loop = asyncio.get_running_loop()
            loop.call_at(20, lambda: setattr(first, "always", "http_403"))
            await stand.until(300)

    run(scenario())
    assert stand.feed.counters()["switches"] == 1
    assert other.asked[0][0] == pytest.approx(21 + 60, abs=1)
    assert marks(stand.seen) == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]
    lots = np.concatenate(
        [batch.column("volume_lots")[:1] for batch in batches(stand.seen) if batch.symbols == SYMBOLS]
    )
    assert np.all(np.diff(lots) >= 0), "what one page rounds, the other takes back"


def test_of_a_page_that_stands_still_the_other_provider_is_asked_too() -> None:
    first, other = page(), moving(page("sina"))
    stand = Stand(first, other, fallback_after_s=60)
    seen = stand.play(120)
    assert stand.feed.counters()["switches"] == 1
    assert other.asked[0][0] == pytest.approx(60, abs=4)
    assert marks(seen) == [MarkKind.SILENT, MarkKind.GAP, MarkKind.ALIVE]
    assert len(batches(seen)) > 10


def test_where_both_pages_stand_still_each_has_its_time() -> None:
    stand = Stand(page(), page("sina"), fallback_after_s=60)
    assert marks(stand.play(320)) == [MarkKind.SILENT]
    assert stand.feed.counters()["switches"] == 5


def test_of_a_page_that_stands_still_at_lunch_the_other_is_not_asked() -> None:
    there = page(**{code: Stock(ts_ms=at(DAY, "11:29:50")) for code in CODES})
    stand = Stand(there, page("sina"), start_ms=at(DAY, "11:29:50"), fallback_after_s=60)
    assert marks(stand.play(1800)) == []
    assert stand.feed.counters()["switches"] == 0


def test_without_a_fallback_the_provider_stays() -> None:
    first, other = moving(page()), moving(page("sina"))
    stand = Stand(first, other)

    async def scenario() -> None:
        async with stand.opened():
            first.always = "http_error"
            await stand.until(600)

    run(scenario())
    assert other.asked == []


@pytest.mark.parametrize(
    ("reason", "advice"),
    [("http_403", "refuses this machine"), ("timeout", "check the network"), ("empty", "may have changed")],
)
def test_a_page_that_does_not_answer_at_the_start_is_an_error_with_advice(reason: str, advice: str) -> None:
    there = page()
    there.always = reason
    with pytest.raises(FeedError, match=f"127.0.0.1.*{advice}") as error:
        Stand(there).play(1)
    assert "sh600519" not in str(error.value), "an address of 800 codes helps nobody"


def test_a_start_with_a_dead_provider_takes_the_other_one() -> None:
    first, other = page(), page("sina")
    first.always = "http_403"
    stand = Stand(first, other, fallback_after_s=30)
    assert batches(stand.play(1))[0].symbols == SYMBOLS
    assert stand.feed.counters()["switches"] == 1


def test_a_port_where_nobody_listens_is_said() -> None:
    with pytest.raises(FeedError, match=r"cannot be asked.*check the network"):
        run(QuotesHttpFeed(symbols=SYMBOLS, tencent_url="http://127.0.0.1:9/q=", calendar=CALENDAR).open())


def test_a_clock_far_behind_the_pages_is_said_at_once() -> None:
    with pytest.raises(FeedError, match="clock is 20 s behind the page's; set it by NTP"):
        Stand(page(), start_ms=TEN - 20_000).play(1)


def test_a_quote_that_was_ahead_comes_once_the_clock_has_come_so_far() -> None:
    there = page(sh600519=Stock(ts_ms=TEN + 20_000))
    seen = Stand(there).play(30)
    assert [one.symbols for one in batches(seen)][1:] == [("600519.SH",)]


# ── the real clock ────────────────────────────────────────────────────────────────────────────────────────────────


def test_on_a_clock_that_goes_on_by_itself_pages_are_asked_and_other_tasks_run() -> None:
    """In virtual time two readings of the clock are equal; a feed that relies on it stands still, and blocks, here."""
    there = moving(page(), by_s=1)
    begun_s = time.monotonic()
    others = 0
    seen: list[Value] = []

    def now() -> float:
        passed_s = time.monotonic() - begun_s
        assert passed_s < 1.8, "the feed keeps the loop from the task that closes it"
        return TEN / 1000 + passed_s

    async def scenario() -> None:
        nonlocal others
        await there.start()
        feed = QuotesHttpFeed(
            symbols=SYMBOLS, interval_s=0.1, tencent_url=there.url, now=now, calendar=CALENDAR, jitter=lambda: 1.0
        )
        await feed.open()

        async def close_after_some_turns() -> None:
            nonlocal others
            while feed.counters()["requests"] < 4:
                others += 1
                await asyncio.sleep(0.01)
            await feed.close()

        closing = asyncio.create_task(close_after_some_turns())
        seen.extend([given.value async for given in feed])
        await closing
        await there.stop()

    asyncio.run(scenario())
    assert len(batches(seen)) >= 3
    assert others >= 10


# ── life ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def life(scenario: Callable[[Stand, Page], Coroutine[Any, Any, None]]) -> None:
    there = moving(page())
    run(scenario(Stand(there), there))


def test_close_ends_a_request_under_way_at_once() -> None:
    async def scenario(stand: Stand, there: Page) -> None:
        async with stand.opened():
            there.always = "timeout"
            await stand.until(4.5)
            assert stand.now_s == pytest.approx(4.5)

    life(scenario)


def test_close_while_the_timeout_is_expiring_is_no_error() -> None:
    """Between the timeout's moment and the return of the request's task, it cannot be told to end earlier."""
    ended: list[BaseException] = []

    async def scenario(stand: Stand, there: Page) -> None:
        async with stand.opened():
            there.always = "timeout"
            client = stand.feed._client
            asking = asyncio.create_task(client.ask(SYMBOLS))
            await asyncio.sleep(0)
            assert client._under_way is not None
            session, client._session = client._session, None  # then `close` has nothing to wait for

            def close() -> None:
                assert "expiring" in repr(client._under_way)
                try:
                    client.close().send(None)
                except BaseException as error:
                    ended.append(error)

            when_s = client._under_way.when()
            assert when_s is not None
            asyncio.get_running_loop().call_at(when_s + 1e-10, close)
            with pytest.raises(Unanswered, match="no answer within"):
                await asking
            client._session = session

    life(scenario)
    assert [type(error) for error in ended] == [StopIteration]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("²", 0.0), ("①", 0.0), ("Thu, 02 Jan 2025", 0.0)])
def test_retry_after_is_seconds_or_nothing(text: str, seconds: float) -> None:
    assert _retry_after_s(SimpleNamespace(headers={"Retry-After": text})) == seconds  # type: ignore[arg-type]


def test_iterating_before_open_is_an_error() -> None:
    async def scenario() -> None:
        async for _ in QuotesHttpFeed(symbols=SYMBOLS):
            pass

    with pytest.raises(FeedError, match="open"):
        run(scenario())


def test_a_closed_feed_can_be_opened_again() -> None:
    async def scenario(stand: Stand, there: Page) -> None:
        async with stand.opened():
            await stand.until(10)
            before = len(stand.seen)
            await stand.feed.open()
            await stand.until(20)
            assert batches(stand.seen[before:])[0].symbols == SYMBOLS, "the first round is whole again"
            assert stand.feed.counters()["inputs"] == len(stand.seen) - before

    life(scenario)


def test_heartbeats_come_between_answers_and_never_overtake_quotes() -> None:
    seen = Stand(moving(page())).play(60)
    clock = 0
    beats = 0
    for value in seen:
        if isinstance(value, Heartbeat):
            beats += 1
            assert value.ts_ms > clock
            clock = value.ts_ms
        elif isinstance(value, TickBatch):
            assert value.ts_event_ms.min() >= clock - 0
    assert beats >= 20


def test_sinas_records_are_read_through_the_feed_as_tencents_are() -> None:
    there = page("sina")
    there.record = lambda code, stock: sina(code, stock)
    assert batches(Stand(there).play(1))[0].symbols == SYMBOLS
