"""The `Feed` protocol and the registry of feeds: one file per source, one line here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from feeds.history import HistoryRequest, PastBars
from feeds.inputs import FeedInput
from feeds.instruments import Instrument
from feeds.known import Known
from feeds.sessions import Calendar


class Feed(Protocol):
    """A source of market data.

    source_id    stable identity of what is played (file names and sizes, simulator seed, vendor address): a checkpoint
                 made from another source is not used.
    has_offsets  True if `open(after=…)` can resume behind any offset it yielded; then its ticks need no journal.
    paced        True if inputs come in (scaled) real time, False if as fast as they are taken.
    """

    source_id: str
    has_offsets: bool
    paced: bool

    async def open(self, *, after: int = -1) -> None:
        """Connect and make ready to yield the first input whose offset is greater than `after`.

        Raises FeedError with what to do. A feed without offsets ignores `after`.
        """

    def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield inputs in order until the source ends (a recording) or `close` is called."""

    async def instruments(self) -> Sequence[Instrument]:
        """Return what the source knows of its instruments, after `open`; empty if it knows nothing."""

    async def close(self) -> None:
        """Stop the source; an iterator that waits ends. Idempotent; safe after a failed `open`."""

    def counters(self) -> Mapping[str, int]:
        """Return counts since open: ticks received, dropped by reason, overflows (for metrics; any thread)."""


@runtime_checkable
class Referenced(Protocol):
    """What a live feed has besides, whose instruments and trading days change from day to day.

    Optional: of a feed without it the instruments are asked for once, and the calendar is the built-in one.
    """

    async def trading_dates(self) -> Sequence[int]:
        """Return the exchange's trading days (yyyymmdd) as far as the source knows; empty if it knows nothing."""

    def use_calendar(self, calendar: Calendar) -> None:
        """Take the days on which the market trades."""


@runtime_checkable
class Telling(Protocol):
    """What a feed has besides, that another process tells of instruments and trading days.

    It yields `Known` with an input when there is news, so that all who read it let it take effect at one place.
    """

    async def reference(self) -> Known:
        """Return what it was told last, after `open`; empty if that is nothing, or cannot be read now."""


FEEDS: dict[str, str] = {
    "simulated": "feeds.simulated:SimulatedFeed",
    "replay": "feeds.replay:ReplayFeed",
    "xt": "feeds.xt:XtFeed",
    "redis": "feeds.remote:RemoteFeed",
    "quotes_http": "feeds.quotes_http:QuotesHttpFeed",
}
"""Feed name in the settings → `module:class`, imported when chosen (a feed may need packages others don't have).

The class takes its settings section's fields as keyword arguments.
"""


def load_feed(name: str) -> Callable[..., Feed]:
    """Import and return the feed class of this name; raises FeedError that lists the names if there is none."""
    from importlib import import_module

    from feeds.errors import FeedError

    if name not in FEEDS:
        raise FeedError(f"no feed named {name!r}; there are: {', '.join(sorted(FEEDS))}")
    module, _, attribute = FEEDS[name].partition(":")
    feed: Callable[..., Feed] = getattr(import_module(module), attribute)
    return feed


def complaint_of(feed: Feed) -> str | None:
    """Return what a feed has to complain of now, in words for people (`complaint() -> str | None`); most never do."""
    say: Callable[[], str | None] | None = getattr(feed, "complaint", None)
    return None if say is None else say()


def counts_by_one(feed: Feed) -> bool:
    """Tell whether offsets grow by one from input to input, so that a missing one is seen; not where they are ids."""
    return not getattr(feed, "offsets_are_ids", False)


def history_of(feed: Feed) -> Callable[[HistoryRequest], Awaitable[PastBars]] | None:
    """Return what a feed is asked for bars of the past by (`History`), None where it knows of none.

    Most sources have no past, and their files say nothing of it.
    """
    ask: Callable[[HistoryRequest], Awaitable[PastBars]] | None = getattr(feed, "history", None)
    return ask
