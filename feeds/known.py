"""`Known`: what a source knows of its market besides ticks, as the text that goes on a disk or over a stream."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from feeds.errors import FeedError
from feeds.instruments import Instrument, decode_table, encode_table

LARGEST: Final = 64 << 20
"""What a packed text may unpack to; a whole market is 1 MB, and 100 kB packed."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the market besides its ticks. date: the Shanghai day (yyyymmdd) it was asked for, 0 = never."""

    date: int = 0
    instruments: tuple[Instrument, ...] = ()
    trading_dates: tuple[int, ...] = ()


def as_record(known: Known) -> dict[str, Any]:
    """Return it as what JSON can hold; raises FeedError for a symbol that stands twice."""
    return {"date": known.date, "trading_dates": known.trading_dates, "table": encode_table(known.instruments)}


def of_record(record: Mapping[str, Any]) -> Known:
    """Return what `as_record` was given; raises FeedError for a record that is none."""
    try:
        dates = tuple(int(day) for day in record["trading_dates"])
        instruments = decode_table(record["table"])
        encode_table(instruments)  # a symbol that stands twice is refused here, not by the engine
        return Known(int(record["date"]), instruments, dates)
    except (KeyError, TypeError, ValueError) as error:
        raise FeedError(f"what is known of instruments and days cannot be read: {error!r}") from None


def pack(known: Known) -> bytes:
    """Return it as one compressed text; raises FeedError for a symbol that stands twice."""
    return zlib.compress(orjson.dumps(as_record(known)))


def unpack(packed: bytes) -> Known:
    """Return what `pack` was given; raises FeedError for bytes that are not its."""
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, LARGEST)
        if not unpacking.eof:
            raise FeedError("what is known of instruments and days is cut off, or larger than any market")
        return of_record(orjson.loads(text))
    except (zlib.error, orjson.JSONDecodeError) as error:
        raise FeedError(f"what is known of instruments and days cannot be read: {error}") from None
