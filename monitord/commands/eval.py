"""`monitord eval`: a formula over a file of bars, bar by bar, by the graph that the engine runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import GOOD, CommandError
from monitord.commands.rulefiles import read_texts

if TYPE_CHECKING:
    from rules.language.tree import Formula

HELP = "evaluate a formula over bars: its named outputs and its condition at every bar"


def configure(parser: argparse.ArgumentParser) -> None:
    formula = parser.add_mutually_exclusive_group(required=True)
    formula.add_argument("--formula", metavar="TEXT", help="the formula")
    formula.add_argument("--formula-file", type=Path, metavar="FILE", help="the formula in a file (UTF-8)")
    parser.add_argument("--bars", type=Path, required=True, metavar="FILE", help="bars, Parquet or CSV")
    parser.add_argument("--period", help="take the bars of this period; required if the file holds several")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="result, Parquet or CSV by extension"
    )


def run(args: argparse.Namespace) -> int:
    """Read, evaluate, write; each thing wrong ends with what, where and what to do."""
    from monitord.commands.bars import format_of, read_bars, write_evaluated
    from rules.errors import RuleError
    from rules.evaluate import evaluate

    format_of(args.output)
    try:
        bars = read_bars(args.bars, args.period)
        rows = evaluate(_formula(args, bars.period), bars)
    except RuleError as error:
        raise CommandError(f"the formula cannot be evaluated\n{error}") from None
    write_evaluated(rows, args.output)
    return GOOD


def _formula(args: argparse.Namespace, period: str) -> Formula:
    """Parse and check the formula for bars of this period; warnings go to stderr, errors raise RuleFileError."""
    from rules.language.checker import check
    from rules.language.parser import parse
    from rules.language.report import render

    texts = {"formula": args.formula} if args.formula is not None else read_texts([args.formula_file])
    ((name, text),) = texts.items()
    checked = check(parse(text, file=name), period=period, file=name)
    for warning in checked.warnings:
        print(render(warning), file=sys.stderr)
    return checked.formula
