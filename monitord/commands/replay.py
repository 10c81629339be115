"""`monitord replay`: what would have fired over recorded sessions, by the very engine that runs live."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from monitord.commands import GOOD, CommandError
from monitord.commands.exrights import add_exrights, exright_control, load_exrights
from monitord.commands.rulefiles import load_rules

if TYPE_CHECKING:
    from rich.table import Table

    from feeds.history import Bars
    from feeds.inputs import Control, ControlKind, FeedInput
    from rules.aftermath import Outcome
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
    parser.add_argument(
        "--table", type=Path, metavar="FILE",
        help="write a table of the events, Parquet or CSV by extension, with LAST 5 and 30 minutes after each fire",
    )  # fmt: skip
    parser.add_argument(
        "--language", choices=("zh", "en"), default="zh", help="of messages a rule gives in several (default zh)"
    )
    add_exrights(parser)
    parser.add_argument("--window", type=int, default=250, metavar="BARS", help="bars held per period (default 250)")


def run(args: argparse.Namespace) -> int:
    """Replay and report; the output holds no clock of ours, so it is the same bytes every time."""
    from feeds.errors import FeedError
    from monitord.commands.bars import format_of
    from monitord.commands.summary import Tally, event_table, tables, write_table

    if args.table is not None:
        format_of(args.table)
    ruleset = load_rules(args.rules, language=args.language)
    symbols = _symbols(args.symbols)
    tallies = {rule.id: Tally() for rule in ruleset.rules}
    told: list[Alert] = []
    days = load_exrights(args.exrights)
    # Over one day there is no night, and the calendar takes a second to be read.
    first = [exright_control(days)] if days or len(args.input) > 1 else []
    play = _Play(ruleset, window=args.window, first=first)
    try:
        with _sink(args.output) as write, _progress(args.input, symbols) as shown:
            for alert in play.events(shown(_inputs(args.input, symbols, held=_held(days)))):
                tallies.setdefault(alert.rule, Tally()).add(alert)
                write(alert.to_json() + b"\n")
                if args.table is not None:
                    told.append(alert)
    except FeedError as error:
        raise CommandError(str(error)) from None
    if args.table is not None:
        write_table(event_table(told, play.outcomes), args.table)
    _print_tables(tables(tallies, play.outcomes), to_stderr=args.output == STDOUT)
    return GOOD


class _Play:
    """One run of rules over recordings; `outcomes` is what the prices did after each fire.

    first: control records that the engine takes before its rules.
    """

    def __init__(self, ruleset: RuleSet, *, window: int, first: Sequence[Control] = ()) -> None:
        from rules.aftermath import Aftermath
        from rules.engine import Engine

        self._ruleset = ruleset
        self._first = first
        self._engine = Engine(window=window)
        self._aftermath = Aftermath(self._engine.market)

    @property
    def outcomes(self) -> list[Outcome]:
        return self._aftermath.outcomes

    def events(self, inputs: Iterable[FeedInput | Control | Bars]) -> Iterator[Alert]:
        """Put the rules and then every input through the engine, and what held besides where it was recorded."""
        from feeds.inputs import Control, ControlKind, FeedInput
        from rules.rehearsal import foreseen

        for control in self._first:
            self._engine.step(control)
        yield from self._engine.step(Control(ControlKind.RULES, self._ruleset.source))
        for given in foreseen(inputs, self._engine, value_of=lambda one: one):
            if not isinstance(given, FeedInput):
                yield from self._engine.step(given)
                continue
            self._aftermath.before(given.value)
            for alert in self._engine.step(given.value, offset=given.offset):
                self._aftermath.note(alert)
                yield alert
        self._aftermath.finish()


def _inputs(
    paths: Sequence[Path], symbols: frozenset[str] | None, *, held: frozenset[ControlKind]
) -> Iterator[FeedInput | Control | Bars]:
    from feeds.recording import recorded

    return recorded(paths, symbols, controls=held, bars=True)


def _held(days: Sequence[object]) -> frozenset[ControlKind]:
    """Return what is taken from recordings besides prices: not rules, nor ex-rights days where others are given."""
    from feeds.inputs import ControlKind

    taken = {ControlKind.INSTRUMENTS, ControlKind.POSITIONS, ControlKind.EXRIGHTS}
    return frozenset(taken - ({ControlKind.EXRIGHTS} if days else set()))


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
) -> Iterator[Callable[[Iterable[FeedInput | Control | Bars]], Iterator[FeedInput | Control | Bars]]]:
    """Give a wrapper of the inputs that draws a bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield iter
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from feeds.inputs import FeedInput
    from feeds.tick import TickBatch

    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("ticks"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=_rows(paths) if symbols is None else None)

        def shown(inputs: Iterable[FeedInput | Control | Bars]) -> Iterator[FeedInput | Control | Bars]:
            for given in inputs:
                yield given
                if isinstance(given, FeedInput) and isinstance(given.value, TickBatch):
                    progress.advance(task, len(given.value))

        yield shown


def _rows(paths: Sequence[Path]) -> int | None:
    """Count the rows of Parquet files by their footers; None where a file is no Parquet."""
    import pyarrow.parquet as pq

    try:
        return sum(pq.read_metadata(path).num_rows for path in paths)
    except (OSError, ValueError):  # pyarrow's own errors are ValueErrors; reading the file will say what is wrong
        return None


def _print_tables(tables: Iterable[Table], *, to_stderr: bool) -> None:
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else 160)
    for table in tables:
        if table.title:  # rich would fold it to the width of the table
            console.print(table.title, style="bold")
            table.title = None
        console.print(table)
        console.print()
