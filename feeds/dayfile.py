"""`DayFile`: one trade date's inputs as a Parquet recording, in the columns that feeds/recording.py reads.

It grows as a `.part` beside the name it gets when it is whole, a row group at a time. A Parquet file without its footer
is nothing, so a `.part` of a killed process is thrown away: the recorder's journal holds all that was in it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feeds.errors import FeedError
from feeds.history import Bars
from feeds.history import encode as encode_bars
from feeds.inputs import Control, Heartbeat, Input, Mark
from feeds.tick import ABSENT, CORE, REST, TickBatch

ROWS: Final = 65_536
"""Rows of a row group: 20 MB before they are compressed."""
_NOTE: Final = "monitord.record"
_WHOLE: Final = {"ts_event": pa.int64(), "recv_ms": pa.int64(), "trades": pa.int64(), "status": pa.int16()}
_TEXT: Final = ("symbol", "kind", "text")
COLUMNS: Final = ("symbol", "ts_event", "recv_ms", "kind", "text", *CORE, *REST, "status")
SCHEMA: Final = pa.schema(
    [(name, pa.string() if name in _TEXT else _WHOLE.get(name, pa.float64())) for name in COLUMNS]
)


class DayFile:
    """Writes one file; blocking calls, one thread at a time. `finish` makes it whole, anything else leaves no file."""

    def __init__(self, path: Path) -> None:
        """Begin the file, with the rows of the one of this name if there is one; raises FeedError."""
        self.path = path
        self._part = path.with_suffix(".part")
        self._pieces: list[Mapping[str, Any]] = []
        self._rows = 0
        self.is_new = not path.exists()
        with _disk(path):
            self._writer = pq.ParquetWriter(self._part, SCHEMA, compression="zstd")
            if not self.is_new:
                with pq.ParquetFile(path) as before:
                    for batch in before.iter_batches(ROWS):
                        self._writer.write_table(pa.Table.from_batches([batch]).cast(SCHEMA))

    def write(self, value: Input, *, at_ms: int) -> None:
        """Append an input's rows; what has no time is dated `at_ms`. Raises FeedError when the disk refuses."""
        piece = _ticks(value) if isinstance(value, TickBatch) else _said(value, at_ms)
        self._pieces.append(piece)
        self._rows += len(piece["ts_event"])
        if self._rows >= ROWS or isinstance(value, Bars):  # a thousand symbols' bars are 10 MB in one row
            self._flush()

    def finish(self, note: Mapping[str, Any]) -> None:
        """Complete the file with a note in its footer, put it on the disk, and give it its name; raises FeedError."""
        self._flush()
        with _disk(self.path):
            self._writer.add_key_value_metadata({_NOTE: orjson.dumps(dict(note)).decode()})
            self._writer.close()
            fd = os.open(self._part, os.O_RDWR)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(self._part, self.path)

    def discard(self) -> None:
        """Leave the file as it was before; what was written is in the journal."""
        with _disk(self.path):
            self._writer.close()
            self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._pieces:
            return
        pieces, self._pieces, self._rows = self._pieces, [], 0
        with _disk(self.path):
            self._writer.write_table(
                pa.table({name: _column(name, [piece[name] for piece in pieces]) for name in COLUMNS}, schema=SCHEMA)
            )


def note_of(path: Path) -> Mapping[str, Any]:
    """Return the note a day file was finished with; empty for another file. Raises FeedError for one that is broken."""
    try:
        note = (pq.read_metadata(path).metadata or {}).get(_NOTE.encode())
    except (pa.ArrowException, OSError) as error:
        raise FeedError(f"{path}: cannot be read as a recording ({error}); move it away") from None
    if note is None:
        return {}
    try:
        found = orjson.loads(note)
        return {"source_id": str(found["source_id"]), "through": int(found["through"])}
    except (KeyError, TypeError, ValueError):
        raise FeedError(f"{path}: its footer's note cannot be read; the file is left as it is") from None


def _ticks(batch: TickBatch) -> Mapping[str, Any]:
    n = len(batch)
    return {
        "symbol": list(batch.symbols),
        "ts_event": batch.ts_event_ms,
        "recv_ms": batch.recv_ms,
        "kind": ["tick"] * n,
        "text": [None] * n,
        "status": batch.status,
        **{name: batch.column(name) for name in (*CORE, *REST)},
    }


def _said(value: Heartbeat | Mark | Control | Bars, at_ms: int) -> Mapping[str, Any]:
    """Return the row of what is no tick. A control's text is [kind, text] in JSON, that of bars base64."""
    text: str | None
    match value:
        case Heartbeat():
            ts_ms, kind, text = value.ts_ms, "heartbeat", None
        case Mark():
            ts_ms, kind, text = value.ts_ms, str(value.kind), value.reason or None
        case Control():
            ts_ms, kind, text = at_ms, "control", orjson.dumps([value.kind, value.text]).decode()
        case Bars():
            ts_ms, kind, text = at_ms, "bars", base64.b64encode(encode_bars(value)).decode()
    numbers = {name: np.array([ABSENT[name]]) for name in (*CORE, *REST)}
    times = {"ts_event": np.array([ts_ms]), "recv_ms": np.array([ts_ms]), "status": np.zeros(1, np.int16)}
    return {"symbol": [None], "kind": [kind], "text": [text], **times, **numbers}


def _column(name: str, parts: list[Any]) -> Any:
    if name in _TEXT:
        return pa.array([text for part in parts for text in part], pa.string())
    return pa.array(np.concatenate(parts).astype(SCHEMA.field(name).type.to_pandas_dtype(), copy=False))


class _disk:
    """Turn what Arrow and the system say into a FeedError with the file's name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, (OSError, pa.ArrowException)):
            raise FeedError(f"{self._path}: cannot be written: {error}; check the folder and the disk") from error
