"""`monitord check`: are these rule files good, and is anybody told? Exit code 0 good, 1 findings, 2 unusable input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import FINDINGS, GOOD, CommandError
from monitord.commands.exrights import add_exrights, load_exrights
from monitord.commands.rulefiles import read_texts
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.loading import Loaded
    from rules.errors import Finding
    from rules.lints import KnownMarket
    from rules.rule import RuleSet

HELP = "check rule files: errors with their place and a hint, lints as warnings"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE",
        help="rule files (YAML), checked as one set (default: those of the settings)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="warnings are findings too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    market = parser.add_argument_group("what is known of the market, for more warnings")
    market.add_argument(
        "--instruments", type=Path, nargs="+", default=[], metavar="TABLE",
        help="tables (Parquet, CSV) with symbol and, where known, name, sector, last, prev_close",
    )  # fmt: skip
    market.add_argument(
        "--input",
        type=Path,
        nargs="+",
        default=[],
        metavar="SESSION",
        help="recorded sessions: symbols, days, ex-dates",
    )
    add_exrights(market)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    market.add_argument("--history", type=int, metavar="BARS", help="bars of each period the feed has at a start")
    settings = parser.add_argument_group("who is told, for more warnings")
    add_settings(settings)  # type: ignore[arg-type]  # a group takes arguments as a parser does


def run(args: argparse.Namespace) -> int:
    """Check all files together, as ids must differ among them, and report."""
    from monitord.commands.reach import receiver_lints
    from monitord.taskids import reserved
    from rules.errors import RuleFileError
    from rules.lints import market_lints
    from rules.rulefile import load

    loaded = load_settings(args)
    files = args.files or _configured(loaded)
    rules: RuleSet | None = None
    try:
        rules = load(read_texts(files))
        market = _market(args)
        findings = [
            *reserved(rules.rules),
            *rules.warnings,
            *market_lints(rules, market),
            *receiver_lints(rules, loaded, market.instruments),
        ]
    except RuleFileError as error:
        findings = error.findings
    needs = {} if rules is None else _needs(rules)
    errors = [finding for finding in findings if finding.severity == "error" or args.strict]
    if args.json:
        _print_json(findings, needs, good=not errors)
    else:
        _print_text(findings, needs, files=len(files))
    return FINDINGS if errors else GOOD


def _configured(loaded: Loaded) -> list[Path]:
    try:
        return loaded.settings.rules.paths()
    except OSError as error:
        raise CommandError(str(error)) from None


def _market(args: argparse.Namespace) -> KnownMarket:
    """Return what is known of the market; raises CommandError for a file that can't be used."""
    from rules.lints import KnownMarket

    if args.history is not None and args.history < 0:
        raise CommandError(f"--history {args.history}: a number of bars is 0 or more")
    if not args.instruments and not args.input and not args.exrights and args.history is None:
        return KnownMarket()
    from monitord.commands.market import known_market

    days = load_exrights(args.exrights)
    return known_market(args.instruments, args.input, history=args.history, exrights=days)


def _needs(rules: RuleSet) -> dict[str, dict[str, int]]:
    """Return the bars of each period that rules need, of those that need any."""
    from rules.lints import needs_of

    needs = {rule.id: needs_of(rule) for rule in rules.rules}
    return {rule: needed for rule, needed in needs.items() if needed}


def _print_json(findings: Sequence[Finding], needs: Mapping[str, Mapping[str, int]], *, good: bool) -> None:
    import orjson

    from rules.language.report import record

    report = {"good": good, "findings": [record(finding) for finding in findings], "needs": needs}
    sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _print_text(findings: Sequence[Finding], needs: Mapping[str, Mapping[str, int]], *, files: int) -> None:
    from rules.language.report import render

    for finding in findings:
        print(render(finding))
    for rule, needed in needs.items():
        bars = ", ".join(f"{_counted(count, 'bar')} of {period}" for period, count in needed.items())
        print(f"{rule} needs {bars}")
    warnings = sum(finding.severity == "warning" for finding in findings)
    counts = (_counted(files, "file"), _counted(len(findings) - warnings, "error"), _counted(warnings, "warning"))
    print("{}: {}, {}".format(*counts))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
