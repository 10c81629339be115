"""`monitord check`: are these rule files good? Exit code 0 good, 1 findings, 2 unusable input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import FINDINGS, GOOD
from monitord.commands.rulefiles import read_texts

if TYPE_CHECKING:
    from rules.errors import Finding

HELP = "check rule files: errors with their place and a hint, lints as warnings"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="rule files (YAML), checked as one set")
    parser.add_argument("--strict", action="store_true", help="warnings are findings too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Check all files together, as ids must differ among them, and report."""
    findings = _findings(read_texts(args.files))
    errors = [finding for finding in findings if finding.severity == "error" or args.strict]
    if args.json:
        _print_json(findings, good=not errors)
    else:
        _print_text(findings, files=len(args.files))
    return FINDINGS if errors else GOOD


def _findings(texts: dict[str, str]) -> list[Finding]:
    from rules.errors import RuleFileError
    from rules.rulefile import load

    try:
        return list(load(texts).warnings)
    except RuleFileError as error:
        return error.findings


def _print_json(findings: Sequence[Finding], *, good: bool) -> None:
    import orjson

    from rules.language.report import record

    report = {"good": good, "findings": [record(finding) for finding in findings]}
    sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _print_text(findings: Sequence[Finding], *, files: int) -> None:
    from rules.language.report import render

    for finding in findings:
        print(render(finding))
    warnings = sum(finding.severity == "warning" for finding in findings)
    counts = (_counted(files, "file"), _counted(len(findings) - warnings, "error"), _counted(warnings, "warning"))
    print("{}: {}, {}".format(*counts))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
