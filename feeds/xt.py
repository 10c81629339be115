"""`XtFeed`: the vendor's terminal (miniQMT, or its quote service with a token) as a feed. Windows only, live only.

Its rooms: xtlink.py calls the vendor, xtlane.py on threads that may hang, xtwatch.py decides when, xtpushes.py takes
what comes, xtcenter.py is the quote service, xtreference.py instruments and trading dates, xtmessages.py what the
vendor's errors mean. Here they are put together: a timer on the loop looks once a second, and starts one attempt at a
time.
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from feeds.errors import FeedError
from feeds.history import HistoryRequest, PastBars
from feeds.inbox import TickInbox
from feeds.inputs import FeedInput
from feeds.instruments import Board, Instrument
from feeds.sessions import Calendar
from feeds.xtcenter import QuoteService
from feeds.xthistory import XtHistory
from feeds.xtlane import VendorLane
from feeds.xtlink import Checked, Licence, Subscribed, XtLink
from feeds.xtmessages import explain
from feeds.xtpushes import HEARTBEAT_MS, Pulse, Pushes
from feeds.xtreference import XtReference
from feeds.xtscope import Scope
from feeds.xtwatch import LinkWatch, Patience, Step

TOKEN_TIMEOUT_S: Final = 120.0
"""The quote service loads every instrument when it starts, which takes 15 s and more."""
STARTING_SERVICE: Final = "starting the quote service"

log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


class XtFeed:
    """Live ticks of the vendor's terminal; see `Feed` for the protocol.

    Inputs have no offsets: the journal gives them theirs. All methods but `counters` belong to the event loop.
    """

    has_offsets = False
    paced = True

    def __init__(
        self,
        *,
        symbols: Sequence[str] | None = None,
        markets: Sequence[str] | None = None,
        boards: Sequence[Board | str] | None = None,
        address: str = "",
        port: int | None = None,
        token: str | None = None,
        data_home: Path | None = None,
        servers: Sequence[str] | None = None,
        pulse: Sequence[str] | None = None,
        sectors: Sequence[str] | None = None,
        download_sectors: bool = True,
        inbox_batches: int = 256,
        timeout_s: float = 30.0,
        silent_s: float = 10.0,
        renew_s: float = 60.0,
        reconnect_first_s: float = 0.5,
        reconnect_longest_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        """Say what to watch: symbols, or the boards (None = WATCHED_BOARDS) of markets (None = all).

        Symbols named one by one are kept whatever they are. address, port: of the terminal, none = the vendor finds it.
        token: start the vendor's own quote service instead, which keeps its files in `data_home`, uses these `servers`
        and listens on `port`. pulse: symbols whose silence is the feed's, None = PULSE. sectors: names or patterns of
        the vendor's sectors, None = its industries and concepts. inbox_batches: pushes that may wait for the loop;
        beyond that the oldest is dropped. The others are those of `Patience`. Raises FeedError for what cannot be.
        """
        scope = Scope.of(symbols, markets=markets, boards=boards, pulse=pulse)
        self._scope = scope
        self._decoder, self._boards, self._pulse = scope.decoder(), scope.boards_seen(), Pulse(scope.pulse)
        self.source_id = f"xt:{'token' if token else address}:{port or ''}:{','.join(scope.codes)}"
        self._inbox_batches, self._timeout_s = inbox_batches, timeout_s
        self._monotonic, self._now = monotonic, now
        patience = Patience(
            silent_s=silent_s, renew_s=renew_s, first_s=reconnect_first_s, longest_s=reconnect_longest_s,
            timeout_s=timeout_s,
        )  # fmt: skip
        self._watch = LinkWatch(patience, random=random)
        self._link = XtLink(
            scope.wanted(), address=address, port=port,
            on_push=self._on_push, on_pulse=self._on_pulse, on_status=self._on_status,
        )  # fmt: skip
        self._service = (
            None if token is None else QuoteService(token, data_home=data_home, servers=servers or (), port=port)
        )
        self._reference = XtReference(
            symbols=scope.symbols, boards=scope.boards, sectors=sectors, download_sectors=download_sectors,
            timeout_s=timeout_s,
        )  # fmt: skip
        self._counts = {"disconnects": 0, "attempts": 0, "attempts_failed": 0, "clients": 0}
        self._epochs = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: TickInbox | None = None
        self._pushes: Pushes | None = None
        self._calls: VendorLane | None = None
        self._queries: VendorLane | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._history = XtHistory(timeout_s=timeout_s)
        self._standing: Subscribed | None = None
        self._attempt: Licence | None = None
        self._checking = False
        self._signs_seen = 0
        self._error = ""

    # ── the life of the feed ──────────────────────────────────────────────────────────────────────────────────────

    async def open(self, *, after: int = -1) -> None:
        """Import the vendor's package, connect, subscribe. `after` is ignored.

        Raises FeedError: not installed or not for this platform, no terminal, subscription refused. Then nothing stays
        subscribed, and `close` is safe.
        """
        self._loop = asyncio.get_running_loop()
        self._inbox = TickInbox(self._inbox_batches)
        self._pushes = Pushes(
            self._decoder,
            self._inbox,
            pulse=self._pulse,
            unproven=self._boards,
            monotonic=self._monotonic,
            now=self._now,
        )
        self._calls, self._queries = VendorLane("xt-link"), VendorLane("xt-query")
        try:
            await self._call(self._link.load, doing="importing the package")
            if self._service is not None:
                service = self._service
                address = await self._call(service.start, doing=STARTING_SERVICE, timeout_s=TOKEN_TIMEOUT_S)
                self._link.address, self._link.port = address
            licence = self._new_licence()
            standing = await self._call(
                lambda: self._link.establish(None, licence, reconnect=False), doing="connecting", licence=licence
            )
        except FeedError:
            await self.close()
            raise
        self._established(standing)
        self._schedule_beat()
        log.info("xt_opened", codes=len(self._scope.codes), subscriptions=len(standing.numbers))

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield batches, heartbeats and marks until `close`; raises FeedError if the ticks' units are proven wrong."""
        if self._inbox is None or self._pushes is None:
            raise FeedError("xt: the feed is not open; call open() first")
        async for value in self._inbox:
            yield FeedInput(-1, value)
        if self._pushes.failure is not None:
            raise self._pushes.failure

    async def history(self, request: HistoryRequest) -> PastBars:
        """Return the terminal's bars (`History`); raises FeedError where it fails or is too slow."""
        if self._link.xtdata is None:
            raise FeedError("xt: the feed is not open; call open() first")
        return await self._history.ask(self._link.xtdata, request)

    async def close(self) -> None:
        """End the iteration behind what has arrived, unsubscribe, disconnect. Idempotent; safe at any time."""
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._inbox is not None:
            self._inbox.close()
        self._history.close()
        calls, self._calls = self._calls, None
        queries, self._queries = self._queries, None
        if queries is not None:
            queries.close()
        if calls is None:
            return
        if self._attempt is not None:
            self._attempt.revoked = True
        standing, self._standing = self._standing, None
        try:
            await calls.submit(lambda: self._leave(standing), timeout_s=self._timeout_s)
        except (TimeoutError, FeedError) as error:
            log.warning("xt_close_timeout", error=str(error), timeout_s=self._timeout_s)
        calls.close()

    def _leave(self, standing: Subscribed | None) -> None:
        self._link.leave(standing)
        if self._service is not None:
            self._service.stop()

    def counters(self) -> Mapping[str, int]:
        """Return ticks and what was dropped, guarded errors, disconnects, attempts, and calls left hanging."""
        pushes = self._pushes.counters() if self._pushes is not None else self._decoder.counters()
        lanes = [lane for lane in (self._calls, self._queries) if lane is not None]
        return {
            **pushes,
            **self._counts,
            "calls_abandoned": sum(lane.abandoned for lane in lanes),
            "pulse_refused": self._link.pulse_refused,
        }

    # ── what else the terminal knows ──────────────────────────────────────────────────────────────────────────────

    async def instruments(self) -> Sequence[Instrument]:
        """Return names, listing dates, limits and sectors as the terminal has them; empty if it does not answer."""
        if self._queries is None or self._link.xtdata is None:
            return ()
        return await self._reference.instruments(self._queries, self._link.xtdata)

    async def trading_dates(self) -> Sequence[int]:
        """Return the exchange's trading days (yyyymmdd) as the terminal has them; empty if it does not answer."""
        if self._queries is None or self._link.xtdata is None:
            return ()
        return await self._reference.trading_dates(self._queries, self._link.xtdata)

    def use_calendar(self, calendar: Calendar) -> None:
        """Take the days on which the market trades: silence on others is none."""
        self._pulse.calendar = calendar

    async def query(self, call: Callable[[Any], _Answer], *, doing: str, timeout_s: float | None = None) -> _Answer:
        """Ask the vendor's `xtdata` something on the thread for queries; one that hangs is left behind.

        Raises FeedError when it fails or takes over `timeout_s` (None = the feed's own), or the feed is not open.
        """
        queries, xtdata = self._queries, self._link.xtdata
        if queries is None or xtdata is None:
            raise FeedError(f"xt: {doing}: the feed is not open")
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await queries.ask(lambda: call(xtdata), timeout_s=timeout_s)
        except Exception as error:
            raise self._told(error, doing, timeout_s) from error

    # ── calls of the vendor at the start ──────────────────────────────────────────────────────────────────────────

    async def _call(
        self,
        call: Callable[[], _Answer],
        *,
        doing: str,
        timeout_s: float | None = None,
        licence: Licence | None = None,
    ) -> _Answer:
        """Run a blocking call of the vendor; FeedError when it fails or takes too long."""
        assert self._calls is not None
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return await self._calls.submit(call, timeout_s=timeout_s)
        except BaseException as error:
            if licence is not None:
                licence.revoked = True
            if isinstance(error, Exception):
                raise self._told(error, doing, timeout_s) from error
            raise

    def _told(self, error: BaseException, doing: str, timeout_s: float) -> FeedError:
        """Return an error of the vendor's in plain words."""
        if isinstance(error, FeedError):
            return error
        if isinstance(error, TimeoutError):
            at_fault = "check feed.xt.token" if doing == STARTING_SERVICE else "restart the terminal (miniQMT)"
            return FeedError(f"xt: {doing} took over {timeout_s:g} s; {at_fault}")
        text = str(error) or type(error).__name__
        if self._service is not None:
            text = self._service.redacted(text)
        means = explain(text) or "is the terminal (miniQMT) running and logged in?"
        return FeedError(f"xt: {doing} failed: {text}: {means}")

    def _new_licence(self) -> Licence:
        """Begin an attempt; pushes of what it subscribes count from now on, those of what stands still do."""
        assert self._pushes is not None
        self._epochs += 1
        self._counts["attempts"] += 1
        self._attempt = Licence(self._epochs)
        standing = () if self._standing is None else (self._standing.epoch,)
        self._pushes.epochs = frozenset((*standing, self._epochs))
        return self._attempt

    def _established(self, standing: Subscribed) -> None:
        assert self._pushes is not None
        self._attempt = None
        self._standing = standing
        self._pushes.epochs = frozenset((standing.epoch,))
        self._counts["clients"] = standing.generation
        self._watch.established(self._monotonic())

    # ── callbacks, on the vendor's threads ────────────────────────────────────────────────────────────────────────

    def _on_push(self, epoch: int, payload: Any) -> None:
        if self._pushes is not None:
            self._pushes.on_push(epoch, payload)

    def _on_pulse(self, epoch: int, payload: Any) -> None:
        if self._pushes is not None:
            self._pushes.on_pulse(epoch, payload)

    def _on_status(self, status: Any) -> None:
        """Note a lost connection at once, on the vendor's thread; whether it is ours is looked at on the loop."""
        if not isinstance(status, Mapping) or status.get("status") != "disconnected":
            return
        if self._attempt is None and self._pushes is not None and self._pushes.cut_off("the terminal was disconnected"):
            log.warning("xt_disconnected", address=str(status.get("address")))
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._on_dropped)
        except RuntimeError:  # the loop has closed: nobody watches any more
            return

    # ── the watch, on the loop ────────────────────────────────────────────────────────────────────────────────────

    def _on_dropped(self) -> None:
        self._counts["disconnects"] += 1
        if self._calls is not None and self._standing is not None:
            self._watch.suspect()
            self._act()

    def _schedule_beat(self) -> None:
        assert self._loop is not None
        self._beat_timer = self._loop.call_later(HEARTBEAT_MS / 1000, self._on_second)

    def _on_second(self) -> None:
        self._schedule_beat()
        assert self._pushes is not None
        self._pushes.beat()
        if self._pushes.signs_of_life != self._signs_seen:
            self._signs_seen = self._pushes.signs_of_life
            self._watch.alive()
        if self._pushes.miss_pulse(self._watch.patience.silent_s):
            log.warning("xt_silent", silent_s=round(self._pushes.silent_s(), 1))
        self._act()

    def _act(self) -> None:
        """Start what is due, one call at a time."""
        if self._attempt is not None or self._checking or self._calls is None or self._pushes is None:
            return
        step = self._watch.step(self._monotonic(), silent_s=self._pushes.silent_s())
        if step is Step.CHECK:
            self._begin_check()
        elif step is not Step.NONE:
            self._begin_attempt(reconnect=step is Step.RECONNECT)

    def _begin_check(self) -> None:
        assert self._calls is not None
        assert self._standing is not None
        standing = self._standing
        self._checking = True
        self._begin(lambda: self._link.check(standing), self._on_checked, timeout_s=self._timeout_s)

    def _on_checked(self, future: asyncio.Future[Checked]) -> None:
        self._checking = False
        if future.cancelled() or self._calls is None:
            return
        error = future.exception()
        if error is not None:
            self._watch.check_failed()
        else:
            self._watch.checked(connected=future.result().connected, same=future.result().same)
        if error is not None or not future.result().connected:
            assert self._pushes is not None
            self._pushes.cut_off("the terminal was disconnected")
        self._act()

    def _begin_attempt(self, *, reconnect: bool) -> None:
        standing, licence, timeout_s = self._standing, self._new_licence(), self._watch.attempt_timeout_s
        log.info("xt_attempt", reconnect=reconnect, attempt=licence.epoch)
        self._begin(
            lambda: self._link.establish(standing, licence, reconnect=reconnect),
            lambda future: self._on_attempted(future, licence, timeout_s),
            timeout_s=timeout_s,
        )

    def _on_attempted(self, future: asyncio.Future[Subscribed], licence: Licence, timeout_s: float) -> None:
        if self._calls is None or future.cancelled():
            licence.revoked = True
            return
        error = future.exception()
        if error is None:
            self._error = ""
            self._established(future.result())
            log.info("xt_subscribed", client=future.result().generation, subscriptions=len(future.result().numbers))
            return
        licence.revoked = True
        self._attempt = None
        self._counts["attempts_failed"] += 1
        self._watch.failed(self._monotonic(), hung=isinstance(error, TimeoutError))
        told = str(self._told(error, "connecting", timeout_s))
        if told != self._error:  # the same reason every few seconds, all night, is no news
            self._error = told
            log.warning("xt_attempt_failed", error=told)

    def _begin(
        self,
        call: Callable[[], _Answer],
        then: Callable[[asyncio.Future[_Answer]], None],
        *,
        timeout_s: float,
    ) -> None:
        """Start a call of the vendor; `then` gets its future, failed where it could not even be started."""
        assert self._calls is not None
        assert self._loop is not None
        try:
            future = self._calls.submit(call, timeout_s=timeout_s)
        except FeedError as error:
            future = self._loop.create_future()
            future.set_exception(error)
        future.add_done_callback(then)
