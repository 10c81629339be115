"""What benchmarks tell: timings, and lines with what was asked of them; as tables and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.timing import Timing

PEERS = ("TA-Lib", "akquant", "talipp", "pandas", "MyTT", "numpy", "websockets", "aiohttp", "redis", "hiredis")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `least` or `most` is what is asked of it; neither: it is only told."""

    what: str
    value: float
    unit: str = "×"
    least: float | None = None
    most: float | None = None

    @property
    def verdict(self) -> bool | None:
        """Tell whether it is what was asked; None where nothing was."""
        if self.least is not None:
            return bool(self.value >= self.least)
        return None if self.most is None else bool(self.value <= self.most)

    @property
    def asked(self) -> str:
        if self.least is not None:
            return f"≥ {self.least:g}"
        return "" if self.most is None else f"≤ {self.most:g}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found out."""

    name: str
    lines: Sequence[Line]
    timings: Mapping[str, Timing] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        lines = [{**asdict(line), "met": line.verdict} for line in self.lines]
        timings = [asdict(timing) for timing in self.timings.values()]
        return {"name": self.name, "lines": lines, "timings": timings, "notes": list(self.notes)}


def times_faster(peer: Timing, ours: Timing) -> float:
    """Return how many times longer the peer's median is."""
    return peer.median_ms / ours.median_ms


def to_json(reports: Iterable[Report]) -> bytes:
    """Return all reports, with what they were made on."""
    machine = {
        "python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count(),
        "load": list(os.getloadavg()), "versions": {name: version(name) for name in PEERS},
    }  # fmt: skip
    found = {"machine": machine, "benchmarks": [report.record() for report in reports]}
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def show(report: Report) -> None:
    """Print one report."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 118)
    console.print(f"\n[bold]{report.name}")
    if report.timings:
        console.print(_timing_table(report.timings))
    console.print(_line_table(report.lines))
    for note in report.notes:
        console.print(f"  {note}", style="dim", highlight=False)


def _timing_table(timings: Mapping[str, Timing]) -> Table:
    table = Table("contender", box=None, padding=(0, 2))
    for heading in ("n", "median ms", "10 %–90 %"):
        table.add_column(heading, justify="right")
    for timing in timings.values():
        name = timing.name + (" (scaled up from fewer symbols)" if timing.scaled else "")
        spread = f"{timing.low_ms:.3f}–{timing.high_ms:.3f}"
        table.add_row(name, str(timing.n), f"{timing.median_ms:.3f}", spread)
    return table


def _line_table(lines: Sequence[Line]) -> Table:
    table = Table("figure", box=None, padding=(0, 2))
    table.add_column("value", justify="right")
    table.add_column("asked", justify="right")
    table.add_column("")
    for line in lines:
        verdict = {True: "[green]met", False: "[red]MISSED", None: ""}[line.verdict]
        table.add_row(line.what, f"{line.value:,.4g} {line.unit}", line.asked, verdict)
    return table
