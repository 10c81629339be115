"""What is kept of alerts: the newest in a ring in memory, those before in the stream; and where one may resume."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from monitord.gateway.protocol import ErrorCode, Position, Published, RequestError
from notifiers import alertstream
from notifiers.errors import DeliveryError

log = structlog.get_logger(__name__)

PAGE: Final = 500
"""Alerts that are replayed before the client's socket is waited for."""
CATCH_UP_S: Final = 2.0
"""How long a client that is ahead of us waits for us to catch up with the channel."""


class Stream(Protocol):
    """Positions and envelopes, as `notifiers.subscription.Subscription` yields them, for ever."""

    def __aiter__(self) -> AsyncIterator[alertstream.Position | alertstream.Envelope]: ...
    async def aclose(self) -> None: ...


class AlertSource(Protocol):
    """The stream of alerts (`notifiers.channel.AlertChannel`); offsets grow by one within an epoch."""

    async def top(self) -> tuple[str, int]:
        """Return epoch and offset of the newest alert; raises DeliveryError."""

    async def read(self, *, after: int, count: int) -> Sequence[alertstream.Envelope]:
        """Return up to `count` kept alerts behind this offset, oldest first; raises DeliveryError."""

    def subscribe(self, since: tuple[str, int] | None) -> Stream:
        """Follow the alerts behind this position, None = from now on."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a subscription begins: replay behind `after`, then live. recovered None: no position was given."""

    epoch: str
    after: int
    top: int
    recovered: bool | None = None
    replayed: int = 0

    def result(self, ch: str) -> dict[str, object]:
        """Return the subscription's part of the reply."""
        told: dict[str, object] = {"ch": ch, "epoch": self.epoch, "off": self.top}
        return told if self.recovered is None else {**told, "recovered": self.recovered, "replayed": self.replayed}


def together(starts: Mapping[str, Start]) -> list[tuple[Start, frozenset[str]]]:
    """Return the channels that can be replayed together: those that begin at the same place."""
    places: dict[tuple[str, int], list[str]] = defaultdict(list)
    for ch, start in starts.items():
        places[start.epoch, start.after].append(ch)
    return [(starts[channels[0]], frozenset(channels)) for channels in places.values()]


class Gap(Exception):
    """Alerts that a replay needed are not kept any more."""


class Ring:
    """The newest alerts by their offset: contiguous, at most `size`, the oldest are overwritten (and in the stream)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._slots: list[Published | None] = [None] * size
        self.first, self.top = 1, 0

    def reset(self, top: int) -> None:
        """Forget all; the next alert is top + 1."""
        self._slots = [None] * self.size
        self.first, self.top = top + 1, top

    def append(self, alert: Published) -> None:
        """Keep the alert, whose offset is the next one."""
        assert alert.off == self.top + 1, f"alert {alert.off} does not follow {self.top}"
        self._slots[alert.off % self.size] = alert
        self.top = alert.off
        self.first = max(self.first, self.top - self.size + 1)

    def after(self, off: int, count: int) -> Iterator[Published]:
        """Yield up to `count` kept alerts from off + 1 on; off + 1 must not be below `first`."""
        for at in range(off + 1, min(self.top, off + count) + 1):
            kept = self._slots[at % self.size]
            assert kept is not None
            yield kept


class Kept:
    """The alerts of one gateway, contiguous up to its top. Event loop only.

    epoch: None before the channel was reached for the first time. counters: of the gateway; alerts and unreadable are
    counted here.
    """

    def __init__(self, source: AlertSource, *, ring_size: int, counters: Counter[str]) -> None:
        self.ring = Ring(ring_size)
        self.epoch: str | None = None
        self._source = source
        self._counters = counters
        self._awaited: list[tuple[Position, asyncio.Future[None]]] = []

    @property
    def top(self) -> Position | None:
        """The newest alert known here; None before the channel was reached for the first time."""
        return None if self.epoch is None else Position(self.epoch, self.ring.top)

    def is_next(self, epoch: str, off: int) -> bool:
        """Tell whether an alert follows the newest one."""
        return epoch == self.epoch and off == self.ring.top + 1

    def keep(self, alert: Published) -> None:
        """Put the next alert into the ring."""
        self.ring.append(alert)
        self._counters["alerts"] += 1
        for since, reached in self._awaited:
            if since.off <= alert.off and since.epoch == alert.epoch and not reached.done():
                reached.set_result(None)

    def begin_anew(self, epoch: str, off: int) -> None:
        """Forget all; the next alert is the one behind this offset."""
        self.epoch = epoch
        self.ring.reset(off)

    async def load(self, place: alertstream.Position) -> None:
        """Fill the ring with what the stream keeps: all clients come back at once when we were restarted.

        A stream that cannot be read is logged, and leaves the ring empty.
        """
        self.ring.reset(place.off)
        kept: list[Published] = []
        after = max(0, place.off - self.ring.size)
        try:
            while after < place.off:
                page = await self._source.read(after=after, count=PAGE)
                if not page:
                    break
                kept += [self.opened(envelope) for envelope in page if envelope.off <= place.off]
                after = page[-1].off
        except DeliveryError as error:
            log.warning("gateway_ring_not_filled", error=str(error))
            kept = []
        tail = _contiguous_tail(kept, place)
        self.ring.reset(place.off - len(tail))
        for alert in tail:
            self.ring.append(alert)
        self.epoch = place.epoch
        log.info("gateway_alerts_loaded", epoch=place.epoch, top=self.ring.top, first=self.ring.first)

    def opened(self, envelope: alertstream.Envelope) -> Published:
        """Return what is published of an envelope; one that cannot be read is counted, and is for no channel."""
        try:
            return Published.of(envelope.epoch, envelope.off, envelope.alert_json)
        except ValueError as error:  # somebody else wrote into the stream; its place must still be taken
            self._counters["unreadable"] += 1
            log.error("gateway_alert_unreadable", off=envelope.off, error=str(error))
            return Published(envelope.epoch, envelope.off, b"null", ())

    async def locate(self, ch: str, since: Position | None) -> Start:
        """Find where a subscription begins; raises RequestError 106 for a position that cannot be, 120 if unknown."""
        top = self.top
        if top is None:
            raise RequestError(ErrorCode.INTERNAL, "the alert channel has not been reached yet; try again")
        if since is None:
            return Start(top.epoch, top.off, top.off)
        if since.epoch == "":  # what a subscription was told before the very first alert
            since = Position(top.epoch, since.off)
        try:
            return await self._locate_since(ch, since, top)
        except DeliveryError:
            raise RequestError(ErrorCode.INTERNAL, "the alert channel cannot be read now; try again") from None

    async def _locate_since(self, ch: str, since: Position, top: Position) -> Start:
        if since.epoch != top.epoch:
            return Start(top.epoch, top.off, top.off, recovered=False)
        if since.off > top.off:
            return await self._wait_for(since)
        if not await self._keeps(since):
            return Start(top.epoch, top.off, top.off, recovered=False)
        replayed = top.off - since.off if ch == "alerts" else await self._count(ch, since.off, top)
        return Start(top.epoch, since.off, top.off, recovered=True, replayed=replayed)

    async def _wait_for(self, since: Position) -> Start:
        """Wait until we are as far as a client that comes from a gateway which was quicker by a moment."""
        epoch, off = await self._source.top()
        if epoch == since.epoch and since.off > off:
            raise RequestError(
                ErrorCode.UNRECOVERABLE_POSITION,
                f"offset {since.off} is ahead of the newest alert, {off}; subscribe without since and page the history",
            )
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((since, reached))
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await reached
        except TimeoutError:
            raise RequestError(ErrorCode.INTERNAL, "this gateway is behind the channel; try again") from None
        finally:
            self._awaited.remove((since, reached))
        return Start(since.epoch, since.off, since.off, recovered=True)

    async def _keeps(self, since: Position) -> bool:
        """Tell whether everything behind this position is still there."""
        if since.off + 1 >= self.ring.first:
            return True
        page = await self._source.read(after=since.off, count=1)
        return bool(page) and page[0].off == since.off + 1 and page[0].epoch == since.epoch

    async def _count(self, ch: str, after: int, top: Position) -> int:
        found = 0
        try:
            while after < top.off:
                page = await self.page(top.epoch, after)
                found += sum(ch in alert.channels and alert.off <= top.off for alert in page)
                after = page[-1].off
        except Gap:  # trimmed while we counted: the replay will find out as well
            return found
        return found

    async def page(self, epoch: str, after: int) -> list[Published]:
        """Return the next alerts behind `after`, at least one, from the ring if it goes back that far.

        Raises Gap where they are not kept any more, or not of this epoch; DeliveryError.
        """
        if epoch not in ("", self.epoch):
            raise Gap(f"epoch {epoch} is over")
        if after + 1 >= self.ring.first:
            return list(self.ring.after(after, PAGE))
        kept = await self._source.read(after=after, count=PAGE)
        # The stream may be ahead of us: what we have not taken yet will come live, and must not come twice.
        page = [self.opened(envelope) for envelope in kept if envelope.off <= self.ring.top]
        if not page or page[0].off != after + 1 or any(alert.epoch != epoch for alert in page):
            raise Gap(f"alert {after + 1} is not kept any more")
        return page


def _contiguous_tail(kept: list[Published], place: alertstream.Position) -> list[Published]:
    """Return the end of `kept` that leads up to this place without a hole or another epoch."""
    begin = len(kept)
    for at, alert in enumerate(reversed(kept)):
        if alert.off != place.off - at or alert.epoch != place.epoch:
            break
        begin = len(kept) - 1 - at
    return kept[begin:]
