"""Does the feed connect, and do ticks come?"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib import import_module
from typing import Final

from feeds.errors import FeedError
from feeds.feed import Feed
from feeds.sessions import Calendar, Session, in_session, trade_date
from feeds.tick import TickBatch
from monitord.checks import Examined, Finding, Verdict, in_thread

DEADLINE_S: Final = 60.0
OPEN_S: Final = 40.0
FIRST_TICKS_S: Final = 12.0
"""Four snapshots of the market."""
ENOUGH_TICKS: Final = 5_000


async def check(examined: Examined) -> Finding:
    """Open the feed, take its first ticks, and close it."""
    from monitord.building import build_broker
    from monitord.choice import build_feed

    name = examined.settings.feed.name
    try:
        feed = await in_thread(lambda: build_feed(examined.settings, broker_url=build_broker(examined.settings).url))
        try:
            async with asyncio.timeout(OPEN_S):
                await feed.open()
            batches = await first_ticks(feed)
        finally:
            await feed.close()
    except FeedError as error:
        return Finding(Verdict.FAIL, str(error), explained(str(error)))
    except TimeoutError:
        return Finding(Verdict.FAIL, f"{name}: not open within {OPEN_S:g} s", "is the source there? See docs/feeds.md")
    examined.batches, examined.live = batches, not feed.has_offsets
    ticks, symbols = sum(map(len, batches)), {symbol for batch in batches for symbol in batch.symbols}
    if ticks:
        return Finding(Verdict.OK, f"{name}: open; {ticks:,} ticks of {len(symbols):,} symbols")
    return await _nothing_came(examined, name)


async def first_ticks(feed: Feed) -> list[TickBatch]:
    """Return the ticks that come within FIRST_TICKS_S, or the first ENOUGH_TICKS of them."""
    batches: list[TickBatch] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_TICKS_S):
            async for given in feed:
                if isinstance(given.value, TickBatch):
                    batches.append(given.value)
                if sum(map(len, batches)) >= ENOUGH_TICKS:
                    break
    return batches


async def _nothing_came(examined: Examined, name: str) -> Finding:
    now_ms = examined.now_ms()
    calendar = await in_thread(Calendar.xshg)
    if calendar.is_trading(trade_date(now_ms)) and in_session(now_ms, Session.CONTINUOUS):
        todo = "the market trades: is the account allowed to see quotes, and are the symbols right? See docs/feeds.md"
        return Finding(Verdict.FAIL, f"{name}: open, and no tick within {FIRST_TICKS_S:g} s", todo)
    return Finding(Verdict.WARN, f"{name}: open; no tick, and the market is closed", "ask again while it trades")


def explained(error: str) -> str:
    """Return what to do about a vendor's error, in plain words, where somebody has written them down."""
    try:
        explain = import_module("feeds.xtmessages").explain
    except ImportError:
        return "see docs/feeds.md for this feed"
    return str(explain(error)) or "see docs/feeds.md for this feed"
