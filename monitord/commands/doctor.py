"""`monitord doctor`: is this set-up good? Exit code 0 nothing failed, 1 something did, 2 the settings are unusable."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from monitord.checks import CHECKS, Examined, Finding, Verdict
from monitord.commands import FINDINGS, GOOD, UNUSABLE, CommandError
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.settings import Settings

HELP = "check the set-up in one go: settings, state, rules, receivers, calendar, broker, feed, units, clock"

CONFIGURATION: Final = "configuration"
_STYLES: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--strict", action="store_true", help="a warning is a failure too")
    parser.add_argument(
        "--skip", nargs="+", default=[], choices=sorted(CHECKS), metavar="CHECK", help=f"leave out: {', '.join(CHECKS)}"
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Read the settings, make every check within its deadline, and report."""
    try:
        settings = load_settings(args).settings
    except CommandError as error:
        findings = {
            CONFIGURATION: Finding(Verdict.FAIL, str(error), "mend the settings; `monitord config show` lists them")
        }
        findings |= {name: Finding(Verdict.SKIP, "the settings cannot be read") for name in CHECKS}
        _report(findings, as_json=args.json)
        return UNUSABLE
    _quiet_logs()
    findings = asyncio.run(examine(settings, skipped=args.skip))
    bad = {Verdict.FAIL, Verdict.WARN} if args.strict else {Verdict.FAIL}
    _report(findings, as_json=args.json)
    return FINDINGS if any(finding.verdict in bad for finding in findings.values()) else GOOD


async def examine(settings: Settings, *, skipped: list[str] | None = None) -> dict[str, Finding]:
    """Make the checks one after the other; what one cannot answer within its deadline has failed."""
    examined = Examined(settings, now_ms=lambda: int(time.time() * 1000))
    findings = {CONFIGURATION: Finding(Verdict.OK, f"feed {settings.feed.name}, state in {settings.state_dir}")}
    for name, module in CHECKS.items():
        if name in (skipped or ()):
            findings[name] = Finding(Verdict.SKIP, "left out")
            continue
        findings[name] = await _asked(name, module, examined)
    return {name: _without(finding, settings.secrets()) for name, finding in findings.items()}


async def _asked(name: str, module: str, examined: Examined) -> Finding:
    check = import_module(module)
    try:
        async with asyncio.timeout(check.DEADLINE_S):
            finding: Finding = await check.check(examined)
            return finding
    except TimeoutError:
        return Finding(
            Verdict.FAIL, f"no answer within {check.DEADLINE_S:g} s", "something hangs: see the log, try again"
        )
    except Exception as error:
        import structlog

        log = structlog.get_logger(__name__)
        log.error("check_failed", check=name, error=type(error).__name__)
        found = f"the check itself failed: {type(error).__name__}: {error}"
        return Finding(Verdict.FAIL, found, "please report this")


def _without(finding: Finding, secrets: frozenset[str]) -> Finding:
    """Blot out every secret, whoever's error text has brought it along."""
    found, todo = finding.found, finding.todo
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        found, todo = found.replace(secret, "***"), todo.replace(secret, "***")
    return Finding(finding.verdict, found, todo)


def _quiet_logs() -> None:
    """Keep stdout for the report: errors that the parts log go to stderr, and are in the findings in plain words."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _report(findings: Mapping[str, Finding], *, as_json: bool) -> None:
    if as_json:
        import orjson

        checks = [
            {"name": name, "verdict": one.verdict, "found": one.found, "todo": one.todo}
            for name, one in findings.items()
        ]
        good = not any(one.verdict is Verdict.FAIL for one in findings.values())
        sys.stdout.buffer.write(
            orjson.dumps({"good": good, "checks": checks}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        sys.stdout.buffer.flush()
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", "what to do")
    for name, one in findings.items():
        table.add_row(name, Text(one.verdict, _STYLES[one.verdict]), Text(one.found), Text(one.todo))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
