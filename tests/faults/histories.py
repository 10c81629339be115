"""What a run under faults leaves behind: decided, committed, published, received per client, posted per receiver.

Each is a list of small records in the order of happening, written as JSON lines into one folder, so that a checker can
judge the run later and anywhere: `python -m tests.faults.checker FOLDER`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from config.values import TOLD

ENGINE_HAS_NOT: Final = "delivery"
"""The rule whose events no engine decides: a receiver's trouble is found by who delivers."""


@dataclass(frozen=True, slots=True)
class Decided:
    """An event that an engine without any fault decides from the same inputs."""

    id: str
    symbol: str | None


@dataclass(frozen=True, slots=True)
class Committed:
    """A row of the store, in its order. epoch, off: where the broker has it, None = nowhere yet."""

    id: str
    symbol: str | None
    rule: str
    event: str
    epoch: str | None
    off: int | None

    @property
    def is_told(self) -> bool:
        """Whether a receiver without filters is told of it."""
        return self.event in TOLD


@dataclass(frozen=True, slots=True)
class Published:
    """An entry of the stream."""

    epoch: str
    off: int
    id: str


@dataclass(frozen=True, slots=True)
class Began:
    """A client's subscription stood. recovered None: it asked for no position; off: where it goes on."""

    epoch: str
    off: int
    recovered: bool | None


@dataclass(frozen=True, slots=True)
class Heard:
    """A client was told of an alert."""

    epoch: str
    off: int
    id: str


@dataclass(frozen=True, slots=True)
class Learnt:
    """A client that was told of a gap found an alert in the history."""

    id: str


@dataclass(frozen=True, slots=True)
class Posted:
    """A message reached a receiver. accepted: whether it took it, as far as the receiver itself knows."""

    ids: tuple[str, ...]
    accepted: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What the store says of a receiver's delivery of one alert: delivered, dead, withheld or pending."""

    id: str
    state: str


Step: TypeAlias = Began | Heard | Learnt
_KINDS: Final = {kind.__name__: kind for kind in (Decided, Committed, Published, Began, Heard, Learnt, Posted, Settled)}


@dataclass(slots=True)
class Histories:
    """One run. decided None: nothing is known of what should have been decided."""

    decided: list[Decided] | None = None
    committed: list[Committed] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    received: dict[str, list[Step]] = field(default_factory=dict)
    posted: dict[str, list[Posted]] = field(default_factory=dict)
    settled: dict[str, list[Settled]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write one file for each history; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, records in self._named():
            file = folder / f"{name}.jsonl"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"".join(_line(record) for record in records))

    @classmethod
    def read(cls, folder: Path) -> Histories:
        """Read what `write` wrote."""
        decided = folder / "decided.jsonl"
        return cls(
            decided=_read(decided) if decided.exists() else None,
            committed=_read(folder / "committed.jsonl"),
            published=_read(folder / "published.jsonl"),
            received=_read_each(folder / "received"),
            posted=_read_each(folder / "posted"),
            settled=_read_each(folder / "settled"),
        )

    def _named(self) -> Iterator[tuple[str, Iterable[Any]]]:
        if self.decided is not None:
            yield "decided", self.decided
        yield "committed", self.committed
        yield "published", self.published
        for kind in ("received", "posted", "settled"):
            for whose, records in getattr(self, kind).items():
                yield f"{kind}/{whose}", records


def _line(record: Any) -> bytes:
    return orjson.dumps([type(record).__name__, record]) + b"\n"


def _read(file: Path) -> list[Any]:
    records = []
    for line in file.read_bytes().splitlines():
        kind, fields = orjson.loads(line)
        if kind == "Posted":
            fields["ids"] = tuple(fields["ids"])
        records.append(_KINDS[kind](**fields))
    return records


def _read_each(folder: Path) -> dict[str, list[Any]]:
    return {file.stem: _read(file) for file in sorted(folder.glob("*.jsonl"))} if folder.is_dir() else {}
