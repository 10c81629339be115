"""`monitord replay`: what would have fired over recorded sessions, by the very engine that runs live."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from monitord.commands import GOOD, CommandError
from monitord.commands.rulefiles import load_rules

if TYPE_CHECKING:
    from rich.table import Table

    from feeds.inputs import FeedInput
    from rules.alert import Alert
    from rules.rule import RuleSet

HELP = "run rules over recorded sessions: a table of what would have fired, and every event as JSON lines"
STDOUT: Final = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rules", type=Path, nargs="+", required=True, metavar="FILE", help="rule files (YAML)")
    parser.add_argument(
        "--input", type=Path, nargs="+", required=True, metavar="SESSION", help="recorded sessions, Parquet or CSV"
    )
    parser.add_argument("--output", metavar="FILE", help="write every event here as JSON lines, - for stdout")
    parser.add_argument("--symbols", nargs="+", metavar="SYMBOL", help="play only these (600519.SH or 600519.SH,…)")
    parser.add_argument("--window", type=int, default=250, metavar="BARS", help="bars held per period (default 250)")


def run(args: argparse.Namespace) -> int:
    """Replay and report; the output holds no clock of ours, so it is the same bytes every time."""
    from feeds.errors import FeedError

    ruleset = load_rules(args.rules)
    symbols = _symbols(args.symbols)
    tallies = {rule.id: Tally() for rule in ruleset.rules}
    try:
        with _sink(args.output) as write, _progress(args.input, symbols) as shown:
            for alert in _events(ruleset, shown(_inputs(args.input, symbols)), window=args.window):
                tallies.setdefault(alert.rule, Tally()).add(alert)
                write(alert.to_json() + b"\n")
    except FeedError as error:
        raise CommandError(str(error)) from None
    _print_table(summary(tallies), to_stderr=args.output == STDOUT)
    return GOOD


@dataclass(slots=True)
class Tally:
    """What one rule did: events by name, the symbols it fired for, first and last fire (Unix ms)."""

    events: Counter[str] = field(default_factory=Counter)
    symbols: set[str] = field(default_factory=set)
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, alert: Alert) -> None:
        self.events[str(alert.event)] += 1
        if alert.event != "fire":
            return
        if alert.symbol is not None:
            self.symbols.add(alert.symbol)
        self.first_ms = alert.ts_event_ms if self.first_ms is None else self.first_ms
        self.last_ms = alert.ts_event_ms


def _inputs(paths: Sequence[Path], symbols: frozenset[str] | None) -> Iterator[FeedInput]:
    from feeds.recording import inputs

    return inputs(paths, symbols)


def _events(ruleset: RuleSet, inputs: Iterable[FeedInput], *, window: int) -> Iterator[Alert]:
    """Put the rules and then every input through a new engine."""
    from feeds.inputs import Control, ControlKind
    from rules.engine import Engine

    engine = Engine(window=window)
    yield from engine.step(Control(ControlKind.RULES, ruleset.source))
    for given in inputs:
        yield from engine.step(given.value, offset=given.offset)


def _symbols(words: Sequence[str] | None) -> frozenset[str] | None:
    if words is None:
        return None
    return frozenset(symbol.strip() for word in words for symbol in word.split(",") if symbol.strip())


@contextmanager
def _sink(output: str | None) -> Iterator[Callable[[bytes], object]]:
    """Open what events are written to; a file gets its name only when it is whole."""
    if output is None:
        yield lambda line: None
    elif output == STDOUT:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
    else:
        part = Path(f"{output}.part")
        try:
            with _opened(part) as file:
                yield file.write
            os.replace(part, output)
        except OSError as error:
            raise CommandError(f"{output}: cannot be written: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)


def _opened(part: Path) -> BinaryIO:
    return part.open("wb")


@contextmanager
def _progress(
    paths: Sequence[Path], symbols: frozenset[str] | None
) -> Iterator[Callable[[Iterable[FeedInput]], Iterator[FeedInput]]]:
    """Give a wrapper of the inputs that draws a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield iter
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from feeds.tick import TickBatch

    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("ticks"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=_rows(paths) if symbols is None else None)

        def shown(inputs: Iterable[FeedInput]) -> Iterator[FeedInput]:
            for given in inputs:
                yield given
                if isinstance(given.value, TickBatch):
                    progress.advance(task, len(given.value))

        yield shown


def _rows(paths: Sequence[Path]) -> int | None:
    """Count the rows of Parquet files by their footers; None where a file is no Parquet."""
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(path).num_rows for path in paths)
    except (OSError, ValueError):  # pyarrow's own errors are ValueErrors; reading the file will say what is wrong
        return None


def summary(tallies: dict[str, Tally]) -> Table:
    """Return the table: one row a rule, in the order of the files, and a last line with the sums."""
    from rich.table import Table

    from rules.alert import shanghai_iso

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for name in ("fires", "suppressed", "resolves", "other", "symbols"):
        table.add_column(name, justify="right")
    table.add_column("first fire", no_wrap=True)
    table.add_column("last fire", no_wrap=True)
    for rule, tally in tallies.items():
        first, last = (
            "" if ts_ms is None else shanghai_iso(ts_ms)[:19].replace("T", " ")
            for ts_ms in (tally.first_ms, tally.last_ms)
        )
        table.add_row(rule, *map(str, _counts(tally.events)), str(len(tally.symbols)), first, last)
    events = sum((tally.events for tally in tallies.values()), Counter[str]())
    symbols = set[str]().union(*(tally.symbols for tally in tallies.values()))
    table.add_row("all", *map(str, _counts(events)), str(len(symbols)), "", "", style="dim")
    return table


def _counts(events: Counter[str]) -> tuple[int, int, int, int]:
    """Return fires, suppressed, resolves and all other events."""
    named = events["fire"], events["suppressed"], events["resolve"]
    return *named, events.total() - sum(named)


def _print_table(table: Table, *, to_stderr: bool) -> None:
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    Console(file=stream, width=None if stream.isatty() else 160).print(table)
