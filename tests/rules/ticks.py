"""Ticks written down in tests: by Shanghai clock and price, everything else as good as it gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.sessions import unix_ms
from feeds.tick import TickBatch
from rules.alert import Alert
from rules.engine import Engine
from rules.rulefile import load

DAY = 20230201
SYMBOL = "600519.SH"


def ms(clock: str, day: int = DAY) -> int:
    """Return the Unix ms of a Shanghai clock such as 10:00:03 or 10:00:03.250."""
    hours, minutes, seconds = clock.split(":")
    return unix_ms(day, round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000))


def batch(*rows: dict[str, Any]) -> TickBatch:
    """Return a batch of rows made by `tick`."""
    symbols = tuple(row["symbol"] for row in rows)
    names = dict.fromkeys(name for row in rows for name in row if name not in ("symbol", "ts", "status", "recv"))
    columns = {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}
    return TickBatch(
        symbols,
        np.array([row["ts"] for row in rows], np.int64),
        columns=columns,
        recv_ms=np.array([row.get("recv", row["ts"]) for row in rows], np.int64),
        status=np.array([row["status"] for row in rows], np.int16),
    )


def tick(
    clock: str, last: float, *, symbol: str = SYMBOL, day: int = DAY, status: int = 13, **columns: Any
) -> dict[str, Any]:
    """Return one tick as a row; a price not given is NaN, volume and amount not given are 0."""
    return {
        "symbol": symbol, "ts": ms(clock, day), "status": status, "last": last, "prev_close": 10.0, "volume_lots": 0.0,
        "amount_cny": 0.0, **columns,
    }  # fmt: skip


def rules(*lines: str) -> Control:
    """Return the control record of rules in YAML flow style, each without its braces."""
    text = "version: 1\ngroups:\n- name: g\n  rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
    return Control(ControlKind.RULES, load({"rules.yaml": text}).source)


def heartbeat(clock: str, day: int = DAY) -> Heartbeat:
    return Heartbeat(ms(clock, day))


def mark(kind: str, clock: str, day: int = DAY) -> Mark:
    return Mark(MarkKind(kind), ms(clock, day), "test")


class Watch:
    """An engine under test that remembers what it said."""

    def __init__(self, *lines: str, engine: Engine | None = None) -> None:
        self.engine = Engine() if engine is None else engine
        self.events: list[Alert] = []
        if lines:
            self.take(rules(*lines))

    def take(self, *values: Input | dict[str, Any]) -> list[Alert]:
        """Step through inputs, a row standing for a batch of its own; return their events."""
        events = [
            one for value in values for one in self.engine.step(batch(value) if isinstance(value, dict) else value)
        ]
        self.events += events
        return events

    def prices(self, *pairs: tuple[str, float], **columns: Any) -> list[Alert]:
        """Step through (clock, last) of one symbol."""
        return self.take(*(tick(clock, last, **columns) for clock, last in pairs))

    @property
    def said(self) -> list[str]:
        """Every event so far as "fire 10:00:03 #1", with its reason where it was suppressed."""
        return said(self.events)


def said(events: Iterable[Alert]) -> list[str]:
    return [
        " ".join([str(one.event), _clock(one.ts_event_ms), f"#{one.episode}", *([one.why] if one.why else [])])
        for one in events
    ]


def _clock(ts_ms: int) -> str:
    seconds = (ts_ms // 1000 + 8 * 3600) % 86_400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
