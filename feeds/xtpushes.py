"""`Pushes`: what the vendor's threads bring, from its dicts to the inbox: decoded, proven, in one order, with a clock.

Pushes come on the vendor's own threads, possibly several at once, and of subscriptions that are over. The vendor
swallows what a callback raises, so these guard and count for themselves, and never call the vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
import structlog

from feeds.decode import Decoder, UnitProof, prove_units
from feeds.errors import FeedError
from feeds.inbox import TickInbox
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.instruments import Board
from feeds.sessions import Calendar, Session, elapsed_ms
from feeds.tick import IntArray, TickBatch

HEARTBEAT_MS: Final = 1_000
HEARTBEAT_LAG_MS: Final = 3_000
"""Ticks of one moment trail in for about three seconds; the clock must not overtake them."""
FUTURE_MS: Final = 10_000
"""A tick further ahead of our clock than this says nothing about the time."""
FRESH_MS: Final = 120_000
"""A push whose newest tick is no older than this tells the market's time better than our own clock does."""
STEP_MS: Final = 6_000
"""So do ticks whose newest time has gone on for so long in step with a clock that cannot be set, whatever ours says."""
OUT_OF_STEP_MS: Final = 4_000
AHEAD_S: Final = 5.0
"""If every push for so long is ahead of our clock, it is not the ticks that are wrong."""
_LOG_EVERY: Final = 1_000

log = structlog.get_logger(__name__)


class Pulse:
    """The sign of life: the newest time of a few liquid symbols, and since when it has stood still in trading time.

    Only their time counts: the first push of a subscription repeats what was, however long ago.
    """

    def __init__(self, symbols: Collection[str], *, calendar: Calendar | None = None) -> None:
        self.symbols = frozenset(symbols)
        self.calendar = calendar
        """The days on which silence means something; None = Monday to Friday."""
        self.has_ticked = False
        """Whether any of the symbols was ever seen."""
        self._since_ms = 0
        self._rows: tuple[tuple[str, ...], IntArray] = ((), np.zeros(0, np.int64))

    def begin(self, market_ms: int) -> None:
        """Count silence from now on."""
        self._since_ms = max(self._since_ms, market_ms)

    def see(self, batch: TickBatch, market_ms: int) -> bool:
        """Take the times of a push; True if it is a sign of life.

        As long as none of the symbols has ever ticked (they may be chosen badly), every other does as well.
        """
        if batch.symbols is not self._rows[0]:  # the decoder hands out the very tuple again for the same symbols
            rows = [row for row, symbol in enumerate(batch.symbols) if symbol in self.symbols]
            self._rows = (batch.symbols, np.array(rows, np.int64))
        self.has_ticked = self.has_ticked or bool(len(self._rows[1]))
        times = batch.ts_event_ms[self._rows[1]] if self.has_ticked else batch.ts_event_ms
        times = times[times <= market_ms + FUTURE_MS]
        newest_ms = min(int(times.max(initial=0)), market_ms)
        if newest_ms <= self._since_ms:
            return False
        self._since_ms = newest_ms
        return True

    def set_back(self, market_ms: int) -> None:
        """Count silence from this time, also where it is before the one it was counted from: a clock was wrong."""
        self._since_ms = min(self._since_ms, market_ms)

    def silent_ms(self, market_ms: int) -> int:
        """Return how much continuous trading has passed since the last sign of life; 0 without symbols to watch."""
        if not self.symbols:
            return 0
        return max(0, elapsed_ms(self._since_ms, market_ms, Session.CONTINUOUS, calendar=self.calendar))


class Pushes:
    """The way of a push into the inbox. `on_push`, `on_pulse`: any thread; all else: the event loop.

    epochs: of the subscriptions whose pushes count; those of others are ignored and counted (`old_callbacks`).
    """

    def __init__(
        self,
        decoder: Decoder,
        inbox: TickInbox,
        *,
        pulse: Pulse,
        unproven: Collection[Board],
        monotonic: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """unproven: boards whose units are to be proven. The clocks give seconds: `monotonic` any, `now` Unix."""
        self._decoder, self._inbox, self._pulse = decoder, inbox, pulse
        self._pulse_decoder = Decoder()
        self._monotonic, self._now = monotonic, now
        self._lock = Lock()  # decoder, proofs, clock and order of pushes
        self._unproven = set(unproven) - {Board.INDEX, Board.UNKNOWN}
        self._proofs: dict[Board, UnitProof] = {}
        self._silence: str | None = None
        """Why we called ourselves silent, None while ticks flow."""
        self._silence_is_pulse = False
        """Whether only the pulse ends it: ticks of others may well have come all the time."""
        self._clock_ms: int | None = None
        self._frame_ms, self._frame_at = 0, 0.0
        self._newest_ms, self._newest_at, self._newest_is_fresh = 0, 0.0, False
        self._walk_ms, self._walk_at = 0, 0.0
        """Since when, by the ticks and by `monotonic`, the newest time has gone on in step."""
        self._ahead_since: float | None = None
        """Since when, by `monotonic`, every push has been ahead of our clock."""
        self._told_behind = False
        self.epochs: frozenset[int] = frozenset()
        self.failure: FeedError | None = None
        """Why the feed has to end: its units are proven wrong."""
        self.signs_of_life = 0
        self.counts = {"pushes": 0, "callback_errors": 0, "old_callbacks": 0, "silences": 0}
        pulse.begin(self.market_ms())

    def market_ms(self) -> int:
        """Return the market's time now as the newest fresh tick tells it, else by our own clock (Unix ms)."""
        if self._newest_is_fresh:
            return self._newest_ms + int((self._monotonic() - self._newest_at) * 1000)
        return int(self._now() * 1000)

    def silent_s(self) -> float:
        """Return for how much trading time no sign of life has come."""
        return self._pulse.silent_ms(self.market_ms()) / 1000

    # ── on the vendor's threads ───────────────────────────────────────────────────────────────────────────────────

    def on_push(self, epoch: int, payload: Any) -> None:
        """Take a push of what is watched."""
        self._guard(epoch, lambda: self._receive(payload))

    def on_pulse(self, epoch: int, payload: Any) -> None:
        """Take a push of a symbol that is only looked at for a sign of life."""
        self._guard(epoch, lambda: self._look(payload))

    def _guard(self, epoch: int, take: Callable[[], None]) -> None:
        try:
            with self._lock:
                if epoch not in self.epochs:
                    self.counts["old_callbacks"] += 1
                    return
                take()
        except Exception as error:  # this is the top of a foreign thread: whatever escaped would be printed and lost
            with self._lock:
                self.counts["callback_errors"] += 1
                count = self.counts["callback_errors"]
            if count % _LOG_EVERY == 1:
                log.error("xt_callback_failed", error=repr(error), count=count)

    def _receive(self, payload: Any) -> None:
        """Decode a push and hand it on. The lock is held, so concurrent callbacks keep one order."""
        self.counts["pushes"] += 1
        batch = self._decoder.decode(payload, recv_ms=int(self._now() * 1000))
        if not len(batch) or not self._units_hold(batch):
            return
        is_newer = self._see_time(batch)
        market_ms = self.market_ms()
        is_sign = self._pulse.see(batch, market_ms)
        self.signs_of_life += is_sign
        if self._silence is not None and (is_sign or (is_newer and not self._silence_is_pulse)):
            self._end_silence(market_ms)
        self._inbox.push(batch)

    def _look(self, payload: Any) -> None:
        batch = self._pulse_decoder.decode(payload, recv_ms=int(self._now() * 1000))
        if len(batch) and self._pulse.see(batch, self.market_ms()):
            self.signs_of_life += 1
            if self._silence is not None and self._silence_is_pulse:
                self._end_silence(self.market_ms())

    def _end_silence(self, market_ms: int) -> None:
        """Tell the engine that ticks flow again, and that some are missing.

        Nothing is told before the first tick: there was nothing to freeze.
        """
        assert self._silence is not None
        at_ms = max(self._frame_ms, self._clock_ms or 0)
        if at_ms:
            self._inbox.push_mark(Mark(MarkKind.GAP, at_ms, self._silence))
            self._inbox.push_mark(Mark(MarkKind.ALIVE, at_ms, "ticks flow again"))
        self._silence = None
        self._pulse.begin(market_ms)

    def _see_time(self, batch: TickBatch) -> bool:
        """Let the clock follow the ticks' times; True if they bring a newer one than all before."""
        sane = batch.ts_event_ms[batch.ts_event_ms <= batch.recv_ms + FUTURE_MS]
        if not len(sane):
            self._see_ahead(batch)
            return False
        self._ahead_since, self._told_behind = None, False
        newest_ms = int(sane.max())
        self._frame_ms, self._frame_at = newest_ms, self._monotonic()
        self._clock_ms = max(newest_ms - HEARTBEAT_LAG_MS, self._clock_ms or 0)
        if newest_ms <= self._newest_ms:
            return False
        self._newest_ms, self._newest_at = newest_ms, self._frame_at
        self._newest_is_fresh = self._in_step() or int(batch.recv_ms[0]) - newest_ms <= FRESH_MS
        return True

    def _in_step(self) -> bool:
        """Tell whether ticks have gone on as time does: where our clock is far ahead of them, it is the wrong one."""
        went_ms, passed_ms = self._newest_ms - self._walk_ms, int((self._newest_at - self._walk_at) * 1000)
        if abs(went_ms - passed_ms) > OUT_OF_STEP_MS:
            self._walk_ms, self._walk_at = self._newest_ms, self._newest_at
            return False
        if passed_ms < STEP_MS:
            return False
        self._pulse.set_back(self._newest_ms)
        return True

    def _see_ahead(self, batch: TickBatch) -> None:
        """Take note of a push that is wholly ahead of our clock, and call ourselves silent if all are: the engine uses
        none of them, as a tick cannot come before it is made. That ends by itself when the clock was set."""
        now_s = self._monotonic()
        if self._ahead_since is None:
            self._ahead_since = now_s
        if now_s - self._ahead_since < AHEAD_S:
            return
        self.signs_of_life += 1  # no new connection would help
        self._pulse.begin(self.market_ms())
        behind_s = round((int(np.median(batch.ts_event_ms)) - int(batch.recv_ms[0])) / 1000)
        if not self._told_behind:
            self._told_behind = True
            log.error("xt_clock_behind", behind_s=behind_s, hint="no tick is used until it is right: set it by NTP")
        self._fall_silent(
            f"this machine's clock is {behind_s} s behind the exchange's; set it by NTP",
            is_pulse=False, at_ms=int(batch.recv_ms[0]),
        )  # fmt: skip

    def _units_hold(self, batch: TickBatch) -> bool:
        """Prove each board's units on its first ticks; False, and the feed ends with FeedError, if they are wrong."""
        if self.failure is not None:
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
        self.failure = FeedError(
            f"xt: {proof.disagree} of {proof.agree + proof.disagree} ticks of board {board} have an average price of "
            f"the day outside of their low..high (about {proof.ratio:.3g} times the price): volume is not in lots or "
            "amount not in yuan. Compare the terminal's version with the one this feed was written for (250807)"
        )
        self._inbox.close()

    def cut_off(self, reason: str) -> bool:
        """Tell the engine that the connection is lost, once until ticks flow; True if that is news. Any thread."""
        with self._lock:
            return self._fall_silent(reason, is_pulse=False)

    def _fall_silent(self, reason: str, *, is_pulse: bool, at_ms: int | None = None) -> bool:
        """Say so, once until ticks flow; at_ms: when, where no tick has told the time."""
        if self._silence is not None:
            return False
        self._silence, self._silence_is_pulse = reason, is_pulse
        self.counts["silences"] += 1
        at_ms = at_ms if self._clock_ms is None else self._clock_ms
        if at_ms is not None:  # before the first tick there is no time to say it at, and nothing to freeze
            self._inbox.push_mark(Mark(MarkKind.SILENT, at_ms, reason))
        return True

    # ── on the loop ───────────────────────────────────────────────────────────────────────────────────────────────

    def miss_pulse(self, after_s: float) -> bool:
        """Tell the engine that nothing comes if no sign of life has for so much trading time; True if that is news."""
        if self._silence is not None or self.silent_s() < after_s or not self._lock.acquire(blocking=False):
            return False  # a push is being decoded this very moment, and the loop must not wait for it
        try:
            told = f"no tick of the pulse for {self.silent_s():.0f} s of trading"
            return self._fall_silent(told, is_pulse=True)
        finally:
            self._lock.release()

    def beat(self) -> None:
        """Push a heartbeat if no push came for a second: last one's time + time since - 3 s, never going back."""
        if not self._lock.acquire(blocking=False):
            return  # a push is being decoded this very moment: no heartbeat is due, and the loop must not wait for it
        try:
            since_ms = int((self._monotonic() - self._frame_at) * 1000)
            if self._clock_ms is None or since_ms < HEARTBEAT_MS or self.failure is not None:
                return
            clock_ms = self._frame_ms + since_ms - HEARTBEAT_LAG_MS
            if clock_ms > self._clock_ms:
                self._clock_ms = clock_ms
                self._inbox.push_heartbeat(Heartbeat(clock_ms))
        finally:
            self._lock.release()

    def counters(self) -> Mapping[str, int]:
        """Return ticks, dropped ticks by reason, pushes and what of them could not be used. Any thread."""
        return {**self._decoder.counters(), **self.counts, **self._inbox.counters()}


def pulse_outside(codes: Sequence[str], pulse: Collection[str], *, by_market: bool) -> tuple[str, ...]:
    """Return the symbols of the pulse that the watched codes don't bring already, in order."""
    if by_market:
        return tuple(sorted(symbol for symbol in pulse if symbol.partition(".")[2] not in codes))
    return tuple(sorted(set(pulse) - set(codes)))
