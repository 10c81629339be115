"""`monitord warmup`: what each rule needs of the past, what the cache has of it, and filling it ahead of time."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monitord.commands import FINDINGS, GOOD, CommandError
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.settings import Settings
    from monitord.warmup import Shelf

HELP = "show what bars rules need and what the cache has; fill it from files or the feed"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fill", action="append", choices=("files", "feed"), default=[],
        help="write bars of history.files, or of the feed's own history, into the cache; may be given twice",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--date", metavar="YYYY-MM-DD", help="as of the morning of this day (default: now); for recordings"
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Fill what is to be filled, then report; FINDINGS where a rule lacks bars."""
    from feeds.errors import FeedError
    from rules.errors import RuleError

    settings = load_settings(args).settings
    now_ms = _now_ms(args.date)
    try:
        filled = asyncio.run(_fill(settings, args.fill, now_ms)) if args.fill else {}
        report = _report(settings, now_ms)
    except (FeedError, RuleError, OSError) as error:
        raise CommandError(str(error)) from error
    report["filled"] = filled
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        _print(report)
    return FINDINGS if any(rule["lacks"] for rule in report["rules"]) else GOOD


def _now_ms(date: str | None) -> int:
    from feeds.errors import FeedError
    from feeds.sessions import unix_ms

    if date is None:
        return time.time_ns() // 1_000_000
    try:
        return unix_ms(int(date.replace("-", "")), 9 * 3_600_000)
    except (ValueError, FeedError):
        raise CommandError(f"--date {date}: write a date such as 2025-01-02") from None


# ── filling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _fill(settings: Settings, sources: Sequence[str], now_ms: int) -> dict[str, int]:
    """Write whole days that the cache has not yet; return how many of each period."""
    from feeds.barfiles import read_files
    from feeds.exrights import decode_exrights
    from feeds.sessions import Calendar
    from monitord.building import bar_cache, load_exrights
    from monitord.choice import build_feed
    from monitord.filling import fill, fill_from_feed

    feed = build_feed(settings)
    cache = bar_cache(settings, feed)
    written: dict[str, int] = {}
    if "files" in sources:
        exrights = decode_exrights(load_exrights(settings, Calendar.xshg()))
        for table in read_files(settings.history.paths()).values():
            days = fill(cache, table, exrights=exrights, now_ms=now_ms)
            written[table.period] = written.get(table.period, 0) + days
    if "feed" in sources:
        needs = _needs(settings)
        depth: dict[str, int] = {}
        for periods in needs.values():
            for period, bars in periods.items():
                depth[period] = max(bars, depth.get(period, 0))
        try:
            await feed.open()
            for period, days in (await fill_from_feed(cache, feed, depth, now_ms, show=_show)).items():
                written[period] = written.get(period, 0) + days
        finally:
            await feed.close()
    return written


def _show(done: int, total: int) -> None:
    """Draw a progress bar where somebody sees it."""
    if sys.stderr.isatty():
        full = 30 * done // max(total, 1)
        end = "\n" if done == total else ""
        print(f"\r{'█' * full}{'░' * (30 - full)} {done:,} of {total:,} symbols", end=end, file=sys.stderr, flush=True)


# ── reporting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _needs(settings: Settings) -> dict[str, dict[str, int]]:
    from monitord.building import load_rules
    from rules.lints import needs_of

    rules = load_rules(settings).rules
    return {rule.id: {p: n for p, n in needs_of(rule).items() if n > 1} for rule in rules}


def _report(settings: Settings, now_ms: int) -> dict[str, Any]:
    needs = _needs(settings)
    depth: dict[str, int] = {}
    for periods in needs.values():
        for period, bars in periods.items():
            depth[period] = max(bars, depth.get(period, 0))
    shelf = _shelf(settings)
    held = {period: _holding(shelf, period, bars, now_ms) for period, bars in depth.items()}
    rules = [
        {"rule": rule, "needs": periods, "lacks": _lacks(periods, held)} for rule, periods in needs.items() if periods
    ]
    return {"rules": rules, "bars": held}


def _shelf(settings: Settings) -> Shelf:
    from feeds.barfiles import read_files
    from feeds.exrights import decode_exrights
    from feeds.sessions import Calendar
    from monitord.building import bar_cache, load_exrights
    from monitord.choice import build_feed
    from monitord.warmup import Shelf

    cache = bar_cache(settings, build_feed(settings))
    files = read_files(settings.history.paths())
    return Shelf(
        cache, files, exrights=decode_exrights(load_exrights(settings, Calendar.xshg())), calendar=Calendar.xshg()
    )


def _holding(shelf: Shelf, period: str, bars: int, now_ms: int) -> dict[str, Any]:
    """Return what is at hand of a period, without holes up to the last trading day that is over."""
    import numpy as np

    from feeds.sessions import date_text

    table = shelf.holdings(period, bars, now_ms)
    if table is None or not len(table):
        return {"symbols": 0, "bars": 0, "since": None, "until": None}
    counts = table.counts()
    return {
        "symbols": int(np.count_nonzero(counts)),
        "bars": int(np.median(counts[counts > 0])),
        "since": date_text(int(table.ends_ms.min())),
        "until": date_text(int(table.ends_ms.max())),
    }


def _lacks(periods: Mapping[str, int], held: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how many bars of each period are missing to a symbol of usual history; the forming one will be there."""
    missing = {period: bars - 1 - held[period]["bars"] for period, bars in periods.items()}
    return {period: bars for period, bars in missing.items() if bars > 0}


def _print(report: Mapping[str, Any]) -> None:
    for period, days in report["filled"].items():
        print(f"filled: {days} days of {period}")
    for period, held in report["bars"].items():
        span = f", {held['since']} to {held['until']}" if held["symbols"] else ""
        print(f"{period:>5}: {held['bars']:,} bars of {held['symbols']:,} symbols at hand{span}")
    for rule in report["rules"]:
        needs = ", ".join(f"{bars} of {period}" for period, bars in rule["needs"].items())
        lacks = ", ".join(f"{bars} of {period}" for period, bars in rule["lacks"].items())
        print(f"{rule['rule']}: needs {needs}" + (f"; lacks {lacks}" if lacks else "; ready at the first tick"))
    if not report["rules"]:
        print("no rule needs bars of the past")
