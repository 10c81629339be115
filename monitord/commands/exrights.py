"""Reading ex-rights files named on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import CommandError
from monitord.commands.rulefiles import read_texts

if TYPE_CHECKING:
    from feeds.exrights import ExRight
    from feeds.inputs import Control


def add_exrights(parser: argparse.ArgumentParser) -> None:
    """Let a command take ex-rights files."""
    parser.add_argument(
        "--exrights", type=Path, nargs="+", default=[], metavar="FILE",
        help="ex-rights days (YAML or CSV), where the previous close in the feed does not tell them",
    )  # fmt: skip


def load_exrights(files: Sequence[Path]) -> tuple[ExRight, ...]:
    """Read ex-rights files that must be good; raises CommandError with every finding."""
    from rules.errors import RuleError
    from rules.exrightfile import load

    try:
        return load(read_texts(files))
    except RuleError as error:
        raise CommandError(f"the ex-rights days cannot be used\n{error}") from None


def exright_control(days: Iterable[ExRight]) -> Control:
    """Return the control record of these days and of the holidays: behind one the day before is not known else."""
    from feeds.exrights import HOLIDAYS_SINCE, closed_weekdays, encode_exrights
    from feeds.inputs import Control, ControlKind
    from feeds.sessions import Calendar

    closed = closed_weekdays(Calendar.xshg(), since=HOLIDAYS_SINCE)
    return Control(ControlKind.EXRIGHTS, encode_exrights(days, closed=closed))
