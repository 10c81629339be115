"""`monitord status`: how the daemon is, in a few lines for a terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from monitord.commands import FINDINGS, GOOD, CommandError
from monitord.commands.asking import add_gateway, address_of, look, moment, print_json
from monitord.commands.settings import load_settings

HELP = (
    "how the daemon is; exit code 1 if it is not ready or a receiver or the feed is not well (a receiver switched off "
    "by hand is), 2 if none answers"
)
DAY_MS: Final = 86_400_000
NOT_TOLD: Final = "the token may not read it"


@dataclass(frozen=True, slots=True)
class Status:
    """What a daemon says of itself. None: the token may not read it.

    report: as /v1/health; receivers: name → status, why, by_hand, pending, dead; alerts_today: fires of trade_date, the
    day of the market clock.
    """

    address: str
    ready: bool
    reasons: tuple[str, ...]
    report: Mapping[str, Any] | None
    receivers: tuple[Mapping[str, Any], ...] | None
    trade_date: str | None
    alerts_today: int | None

    @property
    def is_well(self) -> bool:
        """Whether nothing needs a person."""
        silent = self.report is not None and bool(self.report["feed"].get("silent"))
        return self.ready and not silent and all(map(_is_as_wanted, self.receivers or ()))


def configure(parser: argparse.ArgumentParser) -> None:
    add_gateway(parser)


def run(args: argparse.Namespace) -> int:
    status = ask_status(args)
    if args.json:
        print_json({"well": status.is_well, **asdict(status)})
    else:
        print("\n".join(lines(status, now_ms=time.time_ns() // 1_000_000)))
    return GOOD if status.is_well else FINDINGS


def ask_status(args: argparse.Namespace) -> Status:
    """Ask the daemon; raises CommandError where none answers."""
    _, ready = look(args, "/readyz", needs="health")
    report = _allowed(args, "/v1/health", needs="health")
    listed = _allowed(args, "/v1/receivers", needs="receivers")
    date = None if report is None else _trade_date(report)
    query = {"trade_date": date, "event": "fire", "page_size": 1}
    alerts = None if date is None else _allowed(args, "/v1/alerts", needs="alerts", query=query)
    try:
        return Status(
            address=args.url or address_of(load_settings(args).settings.gateway),
            ready=ready["ready"],
            reasons=tuple(ready["reasons"]),
            report=report,
            receivers=None if listed is None else tuple(listed["receivers"]),
            trade_date=date,
            alerts_today=None if alerts is None else alerts["total"],
        )
    except (KeyError, TypeError) as error:
        raise CommandError(f"what answers is no monitord: its answer has no {error}") from None


def lines(status: Status, *, now_ms: int) -> Iterator[str]:
    """Write a status for people."""
    report = status.report
    since = "" if report is None else f", up {_duration(report['uptime_s'])}"
    what = "monitord" if report is None else f"monitord {report['version']}"
    yield f"{what} at {status.address}: {'ready' if status.ready else 'NOT READY'}{since}"
    yield from (f"  {reason}" for reason in status.reasons)
    if report is None:
        yield f"  {NOT_TOLD}: feed, engine, pump (a token with health)"
    else:
        yield f"feed       {_feed(report)}"
        yield f"engine     {_engine(report, now_ms)}"
    yield f"alerts     {_alerts(status)}"
    if report is not None:
        yield f"pump       {_pump(report['outbox'])}"
    yield from _receivers(status)


def _allowed(
    args: argparse.Namespace, path: str, *, needs: str, query: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Read a resource, None where the token may not."""
    code, answer = look(args, path, needs=needs, query=query)
    if code in (401, 403):
        return None
    if code != 200:
        raise CommandError(f"{path} answers with status {code}: {answer}")
    return dict(answer)


def _trade_date(report: Mapping[str, Any]) -> str | None:
    clock_ms = report["engine"]["clock_ms"]
    return None if clock_ms is None else moment(clock_ms)[:10]


def _feed(report: Mapping[str, Any]) -> str:
    feed = dict(report["feed"])
    source, silent = feed.pop("source"), feed.pop("silent", False)
    counts = ", ".join(f"{count:,} {name}" for name, count in feed.items() if count)
    return f"{source}{' SILENT' if silent else ''}; {counts or 'nothing yet'}"


def _engine(report: Mapping[str, Any], now_ms: int) -> str:
    engine = report["engine"]
    clock_ms = engine["clock_ms"]
    behind_ms = None if clock_ms is None else now_ms - clock_ms
    # A market that is made up or played again has a clock of its own.
    lag = f" ({behind_ms / 1000:.0f} s ago)" if behind_ms is not None and 0 <= behind_ms < DAY_MS else ""
    dropped = sum(engine["dropped"].values())
    bad = "".join(
        f", {count:,} {name}"
        for name, count in (("ticks dropped", dropped), ("passed over", engine["passed_over"]))
        if count
    )
    return (
        f"{engine['rules']:,} rules, {engine['symbols']:,} symbols, market clock {moment(clock_ms)}{lag}, "
        f"loop {report['loop_lag_s'] * 1000:.0f} ms late{bad}"
    )


def _alerts(status: Status) -> str:
    if status.trade_date is None and status.report is not None:
        return "none yet: no tick has come"
    return NOT_TOLD if status.alerts_today is None else f"{status.alerts_today:,} on {status.trade_date}"


def _pump(outbox: Mapping[str, int]) -> str:
    failed = f", {outbox['failures']:,} failures" if outbox["failures"] else ""
    redriven = f", {outbox['redrives']:,} redrives" if outbox["redrives"] else ""
    return f"{outbox['published']:,} published, {outbox['lag_rows']:,} wait{failed}{redriven}"


def _receivers(status: Status) -> Iterator[str]:
    if status.receivers is None:
        yield f"receivers  {NOT_TOLD}"
        return
    if not status.receivers:
        yield "receivers  none"
    for number, one in enumerate(status.receivers):
        waits = "".join(f", {one[state]:,} {state}" for state in ("pending", "dead") if one[state])
        why = f": {one['why']}" if one["why"] else ""
        state = f"{one['status']}{' by hand' if one.get('by_hand') else ''}"
        yield f"{'' if number else 'receivers':<10} {one['name']} {state}{waits}{why}"


def _is_as_wanted(receiver: Mapping[str, Any]) -> bool:
    """Tell whether a receiver is well, or off because a person wanted that."""
    return receiver["status"] == "ok" or bool(receiver.get("by_hand"))


def _duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
