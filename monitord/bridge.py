"""`Bridge`: any feed → spool on the disk → tick stream in Redis. A process of its own, on Windows as well.

Every input goes to the spool first, whatever Redis does; the sender follows behind. One bridge at a time holds a
stream: who is not allowed to write is a spare, keeps the last minutes, and takes over from the newest frame's time when
the holder's heart has stopped, or when the holder says that its own feed is silent.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import structlog

from config.settings import Settings
from feeds.connection import connect
from feeds.errors import FeedError
from feeds.feed import Feed
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.known import Known
from feeds.sessions import day_number
from feeds.spool import Spool
from feeds.tick import TickBatch
from feeds.tickstream import (
    BEAT_TTL_S,
    UNKNOWN,
    Head,
    Kind,
    Outcome,
    Spooled,
    StreamDown,
    TickStreamWriter,
    encode,
    newest_ts_ms,
)
from monitord.choice import build_feed
from monitord.errors import DaemonError
from monitord.reference import Reference
from monitord.signals import on_stop_signals
from monitord.systemd import notify
from monitord.xttrader import XtTrader
from notifiers.ordering import OrderDesk, OrderLimits, TradeError

BEAT_S: Final = 2.0
BEAT_TIMEOUT_S: Final = 2.0
"""The heart has a connection of its own, so a frozen server is noticed although a large frame may take longer."""
SPARE_OWES_S: Final = 120.0
"""What is older nobody will miss from a spare: it is more than the time until a holder's heart counts as stopped."""
SPARE_LOOK_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
REFUSED_PAUSE_S: Final = 5.0
DRAIN_S: Final = 10.0
ORDERS_TIMEOUT_S: Final = 5.0
"""Above the time that a read of orders waits."""
LARGEST_SKEW_S: Final = 5.0
PROGRESS_S: Final = 60.0
FAILED: Final = 1
"""Exit code of a bridge whose feed broke: start it again."""
_OUR_OWN: Final = (Kind.MARK, Kind.REFERENCE)

log = structlog.get_logger(__name__)
T = TypeVar("T")


class BridgeError(DaemonError):
    """The bridge cannot start; the text says what to change."""


def main(settings: Settings) -> int:
    """Run the bridge until a signal or the end of its feed; return the exit code, FAILED if the feed broke.

    Raises BridgeError for what a person must mend first.
    """
    try:
        return asyncio.run(_run(settings))
    except (FeedError, OSError) as error:
        raise BridgeError(str(error)) from error
    except ExceptionGroup as failures:  # each was logged with its traceback at its task's top
        log.error("bridge_failed", why=[str(failure) or type(failure).__name__ for failure in failures.exceptions])
        return FAILED


async def _run(settings: Settings) -> int:
    url, name, stream = _address(settings), bridge_name(settings), settings.bridge.stream
    feed = build_feed(settings, broker_url=url)
    folder = settings.state_dir / "bridge" / name / stream
    keep_s = settings.bridge.keep_s
    spool = Spool(folder, source=feed.source_id, max_bytes=settings.bridge.spool_mb << 20, keep_s=keep_s)
    writer = TickStreamWriter(url, bridge=name, stream=stream, keep_s=keep_s)
    heart = TickStreamWriter(url, bridge=name, stream=stream, timeout_s=BEAT_TIMEOUT_S)
    try:
        reference = Reference(feed, folder=folder)
        async with trading(settings, url=url, name=name) as orders:
            bridge = Bridge(feed, spool, reference=reference, writer=writer, heart=heart, name=name, orders=orders)
            return await bridge.run()
    finally:
        await writer.close()
        await heart.close()
        spool.close()


@asynccontextmanager
async def trading(settings: Settings, *, url: str, name: str) -> AsyncIterator[OrderDesk | None]:
    """Open what carries order intents out, None where the settings want nothing traded; raises BridgeError."""
    wanted = settings.bridge.trade
    if not wanted.enabled:
        yield None
        return
    trader = XtTrader(path=wanted.path, account=wanted.account, session=wanted.session)
    try:
        await trader.open()
    except TradeError as error:
        raise BridgeError(f"bridge.trade: {error}") from None
    client = connect(url, timeout_s=ORDERS_TIMEOUT_S)
    try:
        limits = OrderLimits(quantity=wanted.max_quantity, max_cny=wanted.max_cny)
        yield OrderDesk(client, trader, limits=limits, name=name)
    finally:
        await client.aclose()
        await trader.close()


def _address(settings: Settings) -> str:
    url = settings.bridge.url or settings.broker.url
    if url is None:
        raise BridgeError(
            "bridge.url is not set: name the Redis of the daemon, "
            "MONITORD_BRIDGE__URL=rediss://bridge:PASSWORD@HOST:6379/0"
        )
    reads = settings.feed.redis
    if settings.feed.name == "redis" and reads.stream == settings.bridge.stream and (reads.url or url) == url:
        raise BridgeError("feed.redis and bridge are the same stream; the bridge would read what it writes")
    return url.get_secret_value()


def bridge_name(settings: Settings) -> str:
    """Return the name of this bridge: as set, else the host's, with nothing in it that a key cannot have."""
    host = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in platform.node()
    )
    return settings.bridge.name or host[:64] or "bridge"


class Bridge:
    """Carries one feed into one stream. `run` is called once; event-loop thread, the spool has a thread of its own."""

    def __init__(
        self,
        feed: Feed,
        spool: Spool,
        *,
        reference: Reference,
        writer: TickStreamWriter,
        heart: TickStreamWriter,
        name: str,
        orders: OrderDesk | None = None,
    ) -> None:
        """orders: carries order intents out; None: nothing is traded here."""
        self._orders = orders
        self._feed, self._spool, self._writer, self._heart = feed, spool, writer, heart
        self._reference = reference
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._head: Head = UNKNOWN
        self._role = ""
        self._told_ms: int | None = None
        """Exchange time up to which another bridge has told the stream, until our own feed is past it."""
        self._passed_over = 0
        self._spooled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._draining = False
        self._silent = False
        self._doubts_silence = False
        """Whether a gap was the last thing the feed said of itself."""
        self._hole = False
        self._told: Known | None = None
        """The instruments and trading days spooled last, as input `_told_at`; None = nothing yet."""
        self._told_at = 0
        self._told_day = -1
        """Day of the exchange's time at which a feed that has no times for it was asked for its instruments last."""
        self._failed = False
        self._pause_s, self._down = FIRST_PAUSE_S, False
        self._counts = dict.fromkeys(("ticks", "inputs", "lost_ticks", "sent", "retries"), 0)

    def counters(self) -> dict[str, int]:
        """Return ticks and inputs taken, ticks lost before the spool, inputs sent, retries, and the spool's counts."""
        spool = self._spool
        return {**self._counts, "waiting": spool.waiting, "dropped_ticks": spool.dropped_ticks}

    async def run(self) -> int:
        """Carry until a signal or the feed's end; return the exit code.

        Raises FeedError where the feed cannot be opened, or Redis refuses us at the start.
        """
        try:
            with suppress(StreamDown):  # then the spool takes what comes
                await self._beat()
            await self._open()
            on_stop_signals(self._stopping.set)
            async with asyncio.TaskGroup() as tasks:
                heart = tasks.create_task(self._keep("heart", self._run_heart), name="heart")
                sender = tasks.create_task(self._keep("sender", self._run_sender), name="sender")
                taker = tasks.create_task(self._keep("feed", self._take_all), name="feed")
                stop = tasks.create_task(_until(self._stopping), name="stop")
                asking = self._keep("reference", lambda: self._reference.run(self._tell))
                reference = tasks.create_task(asking, name="reference")
                ordering = (
                    []
                    if self._orders is None
                    else [
                        tasks.create_task(self._keep("orders", self._orders.run), name="orders"),
                        tasks.create_task(self._keep("order_news", self._orders.run_news), name="order_news"),
                    ]
                )
                await asyncio.wait([taker, stop], return_when=asyncio.FIRST_COMPLETED)
                await self._stop(taker, sender)
                for task in (heart, stop, reference, *ordering):
                    task.cancel()
            await self._leave()
        finally:
            await self._feed.close()
            self._thread.shutdown()
        return FAILED if self._failed else 0

    async def _open(self) -> None:
        """Open the feed behind what the spool has of it; what a live feed said while we were away is missing."""
        spool, feed = self._spool, self._feed
        await feed.open(after=spool.feed_offset if feed.has_offsets else -1)
        if not feed.has_offsets and spool.newest:
            self._hole = not await self._put_gap("the bridge was started again")
        await self._reference.start()
        await self._tell()
        notify("READY=1")
        log.info("bridge_opened", source=feed.source_id, bridge=self.name, waiting=spool.waiting)

    async def _stop(self, taker: asyncio.Task[None], sender: asyncio.Task[None]) -> None:
        """Stop the feed, then the sender when it has sent everything or its time is over."""
        notify("STOPPING=1")
        log.info("stopping", **self.counters())
        await self._feed.close()
        await asyncio.wait([taker])
        self._draining = True
        self._spooled.set()
        done, _ = await asyncio.wait([sender], timeout=DRAIN_S)
        if not done:
            log.warning("left_in_spool", inputs=self._spool.waiting, hint="the next start sends it")
            sender.cancel()

    async def _leave(self) -> None:
        """Let a spare take over at once."""
        with suppress(FeedError):
            await self._heart.beat({}, spool=self._spool.id, ttl_s=0)
        log.info("stopped", **self.counters())

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        except Exception:
            log.exception("task_failed", task=name)
            raise

    # ── feed → spool ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_all(self) -> None:
        """Spool what the feed yields until it ends; a feed that breaks ends it as well, and the bridge with FAILED."""
        try:
            async for given in self._feed:
                await self._look_for_news(given)
                await self._in_thread(lambda given=given: self._put(given))  # type: ignore[misc]
                self._spooled.set()
        except FeedError as error:
            log.error("feed_failed", why=str(error))
            self._failed = True

    async def _look_for_news(self, given: FeedInput) -> None:
        """Spool what is new of instruments and days before the input that comes: names change overnight."""
        value = given.value
        if given.known is not None:
            await self._reference.hear(given.known)
            await self._tell()
        elif isinstance(value, TickBatch) and not self._reference.is_daily:
            day = day_number(newest_ts_ms(value) or self._spool.ts_ms)
            if day != self._told_day or self._told is None:
                self._told_day = day
                await self._reference.start()
                await self._tell()

    async def _tell(self, *, again: bool = False) -> None:
        """Spool what is known of instruments and days, if it is news, or `again`; later, where the disk refuses."""
        known = self._reference.known
        if not known.instruments or (known == self._told and not again):
            return

        def put() -> int:
            self._spool.append(*encode(known), ts_ms=None)
            return self._spool.newest

        try:
            self._told_at = await self._in_thread(put)
        except FeedError as error:
            log.error("spool_refused", why=str(error))
            self._told = None
            return
        self._told = known
        self._spooled.set()

    def _put(self, given: FeedInput) -> None:
        """Spool one input, on the spool's thread; where the disk refuses, count it and leave a gap mark later."""
        value, spool = given.value, self._spool
        ticks = len(value) if isinstance(value, TickBatch) else 0
        self._counts["inputs"] += 1
        self._counts["ticks"] += ticks
        try:
            if self._hole:
                spool.append(
                    *encode(Mark(MarkKind.GAP, spool.ts_ms, "the bridge could not write its spool")), ts_ms=None
                )
                self._hole = False
            ts_ms = newest_ts_ms(value) if isinstance(value, TickBatch) else None
            spool.append(*encode(value), ts_ms=ts_ms, ticks=ticks, feed_offset=given.offset)
        except FeedError as error:
            if not self._hole:
                log.error("spool_refused", why=str(error))
            self._hole = True
            self._counts["lost_ticks"] += ticks
        self._follow_silence(value)

    def _follow_silence(self, value: TickBatch | Heartbeat | Mark) -> None:
        """Note what the feed says of itself; behind a gap, where the word of the end may be missing, ticks say it."""
        if isinstance(value, Mark):
            self._doubts_silence = value.kind is MarkKind.GAP
            self._silent = self._silent if self._doubts_silence else value.kind is MarkKind.SILENT
        elif isinstance(value, TickBatch) and self._doubts_silence:
            self._silent = False

    async def _put_gap(self, reason: str) -> bool:
        """Spool a gap mark; False where the disk refuses."""
        kind, value = encode(Mark(MarkKind.GAP, self._spool.ts_ms, reason))
        try:
            await self._in_thread(lambda: self._spool.append(kind, value, ts_ms=None))
        except FeedError as error:
            log.error("spool_refused", why=str(error))
            return False
        return True

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ── spool → stream ────────────────────────────────────────────────────────────────────────────────────────────

    async def _run_sender(self) -> None:
        """Send what the spool holds until it is empty while draining; whatever Redis does, go on."""
        while not await self._try_step():
            pass

    async def _try_step(self) -> bool:
        try:
            done = await self._step()
            if self._down:
                log.info("stream_up", waiting=self._spool.waiting)
            self._pause_s, self._down = FIRST_PAUSE_S, False
            return done
        except StreamDown as error:
            await self._back_off(error, self._pause_s)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        except FeedError as error:  # Redis refuses us, or the disk the spool: only a person can change that
            await self._back_off(error, REFUSED_PAUSE_S)
        return False

    async def _back_off(self, error: FeedError, pause_s: float) -> None:
        """Wait before the next try; the first of a row of failures is logged, `progress` tells how the spool grows."""
        self._counts["retries"] += 1
        if not self._down:
            log.warning("stream_down", why=str(error), waiting=self._spool.waiting)
        self._down = True
        await asyncio.sleep(pause_s)

    async def _step(self) -> bool:
        """Send some inputs, take the stream over, or wait for either; return whether all is done."""
        self._spooled.clear()  # before looking: what is spooled from here on wakes the wait below
        head = self._head
        if head is UNKNOWN:
            await self._append([], after=0)
        elif self._is_ours(head):
            # An empty stream gets all that is here: the server may have lost it.
            after = head.number if head.id else await self._in_thread(self._spool.before_oldest)
            after = max(after, self._passed_over)
            read = await self._in_thread(lambda: self._spool.read(after=after))
            if inputs := self._news(read):
                for one in inputs:
                    if one.kind is Kind.REFERENCE:
                        await self._writer.put_reference(one.value)
                await self._append(inputs, after=after)
            elif read:
                return False
            elif self._draining:
                return True
            else:
                await self._spooled.wait()
        elif self._silent or await self._append([], after=await self._behind(head)) is Outcome.HELD:
            return await self._be_spare()
        return False

    def _news(self, inputs: Sequence[Spooled]) -> Sequence[Spooled]:
        """Pass over what the bridge that we took over from had told already: our own feed may come a little later.

        Marks are ours alone, so they stay, and so does what we know of instruments.
        """
        for place, one in enumerate(inputs):
            if self._told_ms is None or one.ts_ms > self._told_ms:
                self._told_ms = None
                return [*(kept for kept in inputs[:place] if kept.kind in _OUR_OWN), *inputs[place:]]
        if inputs:
            self._passed_over = inputs[-1].number
        return [kept for kept in inputs if kept.kind in _OUR_OWN]

    def _is_ours(self, head: Head) -> bool:
        return head.id == 0 or (head.bridge == self.name and head.spool == self._spool.id)

    async def _behind(self, head: Head) -> int:
        return await self._in_thread(lambda: self._spool.behind(head.ts_ms))

    async def _append(self, inputs: Sequence[Spooled], *, after: int) -> Outcome:
        """Append, and learn where the stream stands."""
        spool = self._spool
        outcome, head = await self._writer.append(
            inputs, spool=spool.id, head=self._head, now_us=time.time_ns() // 1000, after=after
        )
        if outcome is Outcome.MOVED and self._is_ours(head) and not spool.knows(head.number):
            log.error("spool_behind_stream", stream_has=head.number, spool_has=spool.newest)
            await self._writer.beat({}, spool=spool.id, ttl_s=0)  # the name must be free for the new one
            await self._in_thread(spool.renew)
        if outcome is Outcome.OK:
            self._counts["sent"] += len(inputs)
            took_over, had_nothing = not self._is_ours(self._head), self._head.id == 0
            if took_over:
                self._told_ms = head.ts_ms
            if (took_over or had_nothing) and self._told_at <= after:  # else it is among what follows
                await self._tell(again=True)
        self._head = head
        if self._is_ours(head):
            await self._in_thread(lambda: spool.mark_sent(head.number))
            self._be_holder()
        return outcome

    def _be_holder(self) -> None:
        if self._role != "holder":
            self._role = "holder"
            log.info("bridge_holds_stream", bridge=self.name, stream=self._writer.names.stream_name)

    async def _be_spare(self) -> bool:
        """Owe nothing but the last minutes, and wait a second before the next look at the holder."""
        if self._role != "spare":
            self._role = "spare"
            log.info("bridge_is_spare", bridge=self.name, holder=self._head.bridge)
        await self._in_thread(lambda: self._spool.mark_sent(self._spool.before(SPARE_OWES_S)))
        if not self._draining:
            await asyncio.sleep(SPARE_LOOK_S)
        return self._draining

    # ── heart ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run_heart(self) -> None:
        loop = asyncio.get_running_loop()
        progress_at, failed = loop.time() + PROGRESS_S, False
        while True:
            notify("WATCHDOG=1")
            try:
                await self._beat()
                failed = False
            except FeedError as error:
                if not failed:
                    log.warning("heartbeat_failed", why=str(error))
                failed = True
            if loop.time() >= progress_at:
                log.info("progress", role=self._role, **self.counters())
                progress_at = loop.time() + PROGRESS_S
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        """Say that we live and how it goes; raises StreamDown or StreamRefused."""
        spool = self._spool
        fields: dict[str, str | int] = {
            "heartbeat": time.time_ns() // 1_000_000,
            "last_tick": spool.ts_ms,
            "dropped": spool.dropped_ticks + self._counts["lost_ticks"],
            "waiting": spool.waiting,
            "feed": "silent" if self._silent else "alive",
            "role": self._role,
            "stream": self._writer.names.stream_name,
        }
        asked_s = time.time()
        server_s = await self._heart.beat(fields, spool=spool.id, ttl_s=BEAT_TTL_S)
        if server_s is None:
            log.error("bridge_name_taken", bridge=self.name, hint="give each bridge a bridge.name of its own")
        elif abs(skew_s := (asked_s + time.time()) / 2 - server_s) > LARGEST_SKEW_S:
            log.warning("clock_differs", ahead_of_redis_s=round(skew_s, 1), hint="set this machine's clock by NTP")


async def _until(event: asyncio.Event) -> None:
    await event.wait()
