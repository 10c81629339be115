"""`XtFeed`: the vendor's terminal (miniQMT, or any xtdata service) as a feed. Windows only, live only.

The vendor's package is imported inside `open`, in an executor thread: its binaries exist for Windows alone, and its
`__init__` asks a package index for updates, which may take ten seconds. Ticks come on the vendor's own threads,
possibly several at once; `_on_quotes` decodes them under a lock, so that they keep one order, and pushes them into the
inbox. The vendor swallows what a callback raises, so the callback guards and counts for itself, and never calls the
vendor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from threading import Lock
from typing import Any, Final, TypeVar

import structlog

from feeds.decode import Decoder, UnitProof, prove_units
from feeds.errors import FeedError
from feeds.history import HistoryRequest, PastBars
from feeds.inbox import TickInbox
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.instruments import Board, Instrument, board_of, instrument_of
from feeds.tick import TickBatch
from feeds.universe import is_symbol
from feeds.xthistory import XtHistory

MARKETS: Final = ("SH", "SZ", "BJ")
WATCHED_BOARDS: Final = (Board.MAIN, Board.CHINEXT, Board.STAR, Board.BSE, Board.INDEX)
"""What of a whole market is kept: its push also holds funds, bonds, warrants and repos, five times as many codes."""
SECTORS: Final = ("沪深A股", "京市A股")
"""The vendor's lists of all A shares."""
SINGLE_SUBSCRIPTIONS: Final = 50
"""Up to here symbols are subscribed one by one, beyond as a whole quote: the vendor's own advice."""
HEARTBEAT_MS: Final = 1_000
HEARTBEAT_LAG_MS: Final = 3_000
"""Ticks of one moment trail in for about three seconds; the clock must not overtake them."""
FUTURE_MS: Final = 10_000
"""A tick further ahead of our clock than this says nothing about the time."""
_LOG_EVERY: Final = 1_000

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
        boards: Sequence[Board] | None = None,
        address: str = "",
        port: int | None = None,
        inbox_batches: int = 256,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Say what to watch: codes, markets out of MARKETS, or None for all markets.

        boards: what of a market is kept, None = WATCHED_BOARDS; codes named one by one are kept whatever they are.
        address, port: of the terminal, none = the vendor finds it. inbox_batches: pushes that may wait for the loop;
        beyond that the oldest is dropped. timeout_s: how long a call of the vendor may take.
        """
        self._codes = tuple(MARKETS if symbols is None else symbols)
        self._check_codes()
        by_market = bool(set(self._codes) & set(MARKETS))
        kept = tuple(WATCHED_BOARDS if boards is None else map(Board, boards))
        self._decoder = Decoder(boards=kept if by_market else None)
        self._address, self._port = address, port
        self.source_id = f"xt:{address}:{port or ''}:{','.join(self._codes)}"
        self._inbox_batches, self._timeout_s = inbox_batches, timeout_s
        self._monotonic, self._now = monotonic, now
        self._lock = Lock()  # decoder, proofs, clock and order of pushes; taken by the vendor's threads
        self._counts = {"pushes": 0, "callback_errors": 0, "disconnects": 0}
        self._proofs: dict[Board, UnitProof] = {}
        watched = kept if by_market else set(map(board_of, self._codes))
        self._unproven = set(watched) - {Board.INDEX, Board.UNKNOWN}
        self._failure: FeedError | None = None
        self._disconnected = False
        self._clock_ms: int | None = None
        self._frame_ms, self._frame_at = 0, 0.0
        self._inbox: TickInbox | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._xtdata: Any = None
        self._client: Any = None
        self._subscriptions: list[int] = []
        self._history = XtHistory(timeout_s=timeout_s)

    def _check_codes(self) -> None:
        wrong = [code for code in self._codes if code not in MARKETS and not is_symbol(code)]
        if wrong or not self._codes:
            named = f"{wrong[0]!r} is neither" if wrong else "no symbols: name"
            raise FeedError(f"xt: {named} a code such as 600519.SH nor one of the markets {', '.join(MARKETS)}")
        if 0 < len(set(self._codes) & set(MARKETS)) < len(set(self._codes)):
            raise FeedError("xt: name markets or codes, not both: a market's push holds its codes already")

    # ── the life of the feed ──────────────────────────────────────────────────────────────────────────────────────

    async def open(self, *, after: int = -1) -> None:
        """Import the vendor's package, connect, subscribe. `after` is ignored.

        Raises FeedError: not installed or not for this platform, no terminal, subscription refused. Then nothing stays
        subscribed, and `close` is safe.
        """
        self._inbox = TickInbox(self._inbox_batches)
        # One thread: the vendor's module keeps its client in a global and is not made for several callers at once.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="xtdata")
        try:
            await self._call(self._connect, doing="connecting")
            await self._call(self._subscribe, doing="subscribing")
        except FeedError:
            await self.close()
            raise
        self._schedule_beat()
        log.info("xt_opened", codes=len(self._codes), subscriptions=len(self._subscriptions))

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield batches, heartbeats and marks until `close`; raises FeedError if the ticks' units are proven wrong."""
        if self._inbox is None:
            raise FeedError("xt: the feed is not open; call open() first")
        async for value in self._inbox:
            yield FeedInput(-1, value)
        if self._failure is not None:
            raise self._failure

    async def instruments(self) -> Sequence[Instrument]:
        """Return names and listing dates as the terminal has them; empty if it does not answer."""
        if self._executor is None:
            return ()
        try:
            return await self._call(self._instruments, doing="asking for instruments")
        except FeedError as error:
            log.warning("xt_instruments_unknown", error=str(error))
            return ()

    async def history(self, request: HistoryRequest) -> PastBars:
        """Return the terminal's bars (`History`); raises FeedError where it fails or is too slow."""
        if self._xtdata is None:
            raise FeedError("xt: the feed is not open; call open() first")
        return await self._history.ask(self._xtdata, request)

    async def close(self) -> None:
        """End the iteration behind what has arrived, unsubscribe, disconnect. Idempotent; safe at any time."""
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        if self._inbox is not None:
            self._inbox.close()
        self._history.close()
        executor, self._executor = self._executor, None
        if executor is None:
            return
        try:
            await self._in_executor(executor, self._disconnect)
        except TimeoutError:
            log.warning("xt_close_timeout", timeout_s=self._timeout_s)
        executor.shutdown(wait=False, cancel_futures=True)

    def counters(self) -> Mapping[str, int]:
        """Return ticks, dropped ticks by reason, overflows, guarded callback errors and disconnects since open."""
        inbox = self._inbox.counters() if self._inbox is not None else {}
        return {**self._decoder.counters(), **self._counts, **inbox}

    # ── calls of the vendor, each in the executor's one thread ────────────────────────────────────────────────────

    async def _call(self, call: Callable[[], _Answer], *, doing: str) -> _Answer:
        """Run a blocking call of the vendor; FeedError when it fails or takes too long."""
        assert self._executor is not None
        try:
            return await self._in_executor(self._executor, call)
        except FeedError:
            raise
        except TimeoutError:
            raise FeedError(f"xt: {doing} took over {self._timeout_s:g} s; restart the terminal (miniQMT)") from None
        except Exception as error:  # the vendor raises bare Exception
            raise FeedError(f"xt: {doing} failed: {error}; is the terminal (miniQMT) running and logged in?") from error

    async def _in_executor(self, executor: ThreadPoolExecutor, call: Callable[[], _Answer]) -> _Answer:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(executor, call), self._timeout_s)

    def _connect(self) -> None:
        self._xtdata = _import_xtdata()
        self._xtdata.enable_hello = False
        self._xtdata.watch_xtquant_status(self._on_status)  # before connect, or the client never learns of it
        self._client = self._xtdata.connect(self._address, self._port)

    def _subscribe(self) -> None:
        codes = list(self._codes)
        if len(codes) > SINGLE_SUBSCRIPTIONS or set(codes) & set(MARKETS):
            calls = [partial(self._xtdata.subscribe_whole_quote, codes, callback=self._on_quotes)]
        else:
            single = partial(self._xtdata.subscribe_quote, period="tick", callback=self._on_quotes)
            calls = [partial(single, code) for code in codes]
        for call in calls:
            number = call()
            if number is None or number <= 0:
                raise FeedError(
                    f"xt: the terminal refused a subscription (answer {number}); check the account's rights"
                )
            self._subscriptions.append(number)

    def _disconnect(self) -> None:
        """Unsubscribe on the very client that subscribed: the module's own function reconnects a lost one first."""
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            if self._client is not None and self._client.is_connected():
                for number in subscriptions:
                    self._client.unsubscribe_quote(number)
            if self._xtdata is not None:
                self._xtdata.watch_xtquant_status(None)
                self._xtdata.disconnect()
        except Exception as error:  # the vendor raises bare Exception; we are leaving anyway
            log.warning("xt_close_failed", error=str(error))

    def _instruments(self) -> list[Instrument]:
        codes = [code for code in self._codes if is_symbol(code)]
        if len(codes) < len(self._codes):
            codes += [code for sector in SECTORS for code in self._xtdata.get_stock_list_in_sector(sector)]
        details = self._xtdata.get_instrument_detail_list(sorted({code for code in codes if is_symbol(code)}))
        return [_instrument(code, detail) for code, detail in details.items() if detail]

    # ── callbacks, on the vendor's threads ────────────────────────────────────────────────────────────────────────

    def _on_quotes(self, payload: Any) -> None:
        try:
            with self._lock:
                self._receive(payload)
        except Exception as error:  # this is the top of a foreign thread: whatever escaped would be printed and lost
            with self._lock:
                self._counts["callback_errors"] += 1
                count = self._counts["callback_errors"]
            if count % _LOG_EVERY == 1:
                log.error("xt_callback_failed", error=repr(error), count=count)

    def _receive(self, payload: Any) -> None:
        """Decode a push and hand it on. The lock is held, so concurrent callbacks keep one order."""
        assert self._inbox is not None
        self._counts["pushes"] += 1
        batch = self._decoder.decode(payload, recv_ms=int(self._now() * 1000))
        if not len(batch) or not self._units_hold(batch):
            return
        self._see_time(batch)
        if self._disconnected:
            self._disconnected = False
            self._inbox.push_mark(Mark(MarkKind.GAP, self._frame_ms, "the terminal was disconnected"))
            self._inbox.push_mark(Mark(MarkKind.ALIVE, self._frame_ms, "ticks flow again"))
        self._inbox.push(batch)

    def _units_hold(self, batch: TickBatch) -> bool:
        """Prove each board's units on its first ticks; False, and the feed ends with FeedError, if they are wrong."""
        if self._failure is not None:
            return False
        if not self._unproven:
            return True
        for board, more in prove_units(batch, without=set(Board) - self._unproven).items():
            proof = self._proofs[board] = self._proofs.get(board, UnitProof()).with_more(more)
            if proof.holds:
                self._unproven.discard(board)
                self._decoder.trust([board])
            elif proof.holds is False:
                self._fail(board, proof)
                return False
        return True

    def _fail(self, board: Board, proof: UnitProof) -> None:
        assert self._inbox is not None
        self._failure = FeedError(
            f"xt: {proof.disagree} of {proof.agree + proof.disagree} ticks of board {board} have an average price of "
            f"the day outside of their low..high (about {proof.ratio:.3g} times the price): volume is not in lots or "
            "amount not in yuan. Compare the terminal's version with the one this feed was written for (250807)"
        )
        self._inbox.close()

    def _see_time(self, batch: TickBatch) -> None:
        sane = batch.ts_event_ms[batch.ts_event_ms <= batch.recv_ms + FUTURE_MS]
        if len(sane):
            self._frame_ms, self._frame_at = int(sane.max()), self._monotonic()
            self._clock_ms = max(self._frame_ms - HEARTBEAT_LAG_MS, self._clock_ms or 0)

    def _on_status(self, status: Any) -> None:
        """Note a lost connection at once; that it is back shows when ticks come."""
        if not isinstance(status, Mapping) or status.get("status") != "disconnected":
            return
        with self._lock:
            self._counts["disconnects"] += 1
            if self._disconnected or self._inbox is None:
                return
            self._disconnected = True
            if self._clock_ms is not None:  # before the first tick there is no time to say it at, and nothing to freeze
                self._inbox.push_mark(Mark(MarkKind.SILENT, self._clock_ms, "the terminal was disconnected"))
        log.warning("xt_disconnected", address=str(status.get("address")))

    # ── heartbeats, on the loop ───────────────────────────────────────────────────────────────────────────────────

    def _schedule_beat(self) -> None:
        self._beat_timer = asyncio.get_running_loop().call_later(HEARTBEAT_MS / 1000, self._on_second)

    def _on_second(self) -> None:
        self._beat()
        self._schedule_beat()

    def _beat(self) -> None:
        """Push a heartbeat if no frame came for a second: last frame's time + time since - 3 s, never going back."""
        assert self._inbox is not None
        if not self._lock.acquire(blocking=False):
            return  # a frame is being decoded this very moment: no heartbeat is due, and the loop must not wait for it
        try:
            since_ms = int((self._monotonic() - self._frame_at) * 1000)
            if self._clock_ms is None or since_ms < HEARTBEAT_MS or self._failure is not None:
                return
            clock_ms = self._frame_ms + since_ms - HEARTBEAT_LAG_MS
            if clock_ms > self._clock_ms:
                self._clock_ms = clock_ms
                self._inbox.push_heartbeat(Heartbeat(clock_ms))
        finally:
            self._lock.release()


def _import_xtdata() -> Any:
    """Import the vendor's package; FeedError that says what else there is."""
    try:
        return import_module("xtquant.xtdata")
    except Exception as error:  # no package, no binaries for this platform, or its own start-up failed: all end here
        raise FeedError(
            f"xt: the package xtquant cannot be used here ({error}). It runs on Windows beside the vendor's terminal: "
            "install monitord[qmt] there. On another machine use a bridge that carries ticks from Windows over Redis, "
            "or the feeds simulated and replay"
        ) from error


def _instrument(code: str, detail: Mapping[str, Any]) -> Instrument:
    name, listed = detail.get("InstrumentName"), str(detail.get("OpenDate") or "")
    known = len(listed) == 8 and listed.isdigit() and "19900101" <= listed < "21000101"
    return instrument_of(code, name=str(name) if name else None, list_date=int(listed) if known else None)
