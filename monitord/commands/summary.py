"""What a replay tells of rules: tables for people, and a table of events for programs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from monitord.commands import CommandError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from rules.aftermath import Outcome
    from rules.alert import Alert

MOST_DAYS: Final = 7
"""Trade dates that get a column each; more of them are summed up."""
NOISIEST: Final = 10


@dataclass(slots=True)
class Tally:
    """What one rule did: events by name, symbols it fired for, first and last fire (Unix ms).

    days: sent fires by trade date; reasons: suppressed ones by reason; symbols: (fires, suppressed) of each.
    """

    events: Counter[str] = field(default_factory=Counter)
    symbols: set[str] = field(default_factory=set)
    days: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    noise: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(symbol, event) of fires and suppressed ones."""
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, alert: Alert) -> None:
        event = str(alert.event)
        self.events[event] += 1
        if event == "suppressed":
            self.reasons[alert.why or "unknown"] += 1
        if event in ("fire", "suppressed") and alert.symbol is not None:
            self.noise[alert.symbol, event] += 1
        if event != "fire":
            return
        self.days[alert.trade_date] += 1
        if alert.symbol is not None:
            self.symbols.add(alert.symbol)
        self.first_ms = alert.ts_event_ms if self.first_ms is None else self.first_ms
        self.last_ms = alert.ts_event_ms


def tables(tallies: Mapping[str, Tally], outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """Yield the tables that have something to say, the sums of all last."""
    for table in (by_day(tallies), by_reason(tallies), noisiest(tallies), afterwards(outcomes)):
        if table.row_count:
            yield table
    yield summary(tallies)


def summary(tallies: Mapping[str, Tally]) -> Table:
    """Return the table: one row a rule, in the order of the files, and a last line with the sums."""
    from rules.alert import shanghai_iso

    table = _table(None, "rule", "fires", "suppressed", "resolves", "other", "symbols")
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


def by_day(tallies: Mapping[str, Tally]) -> Table:
    """Return the fires per rule and trade date; of many dates mean, median and the one with most."""
    days = sorted({day for tally in tallies.values() for day in tally.days})
    fired = {rule: tally for rule, tally in tallies.items() if tally.days}
    if len(days) <= MOST_DAYS:
        table = _table("fires per day", "rule", *days)
        for rule, tally in fired.items():
            table.add_row(rule, *(str(tally.days[day]) for day in days))
        return table
    table = _table(f"fires per day, of {len(days)} days with any", "rule", "days", "mean", "median", "most", "on")
    for rule, tally in fired.items():
        counts = [tally.days[day] for day in days]
        most = max(days, key=lambda day: tally.days[day])
        numbers = f"{fmean(counts):.1f}", f"{median(counts):g}", str(tally.days[most]), most
        table.add_row(rule, str(len(tally.days)), *numbers)
    return table


def by_reason(tallies: Mapping[str, Tally]) -> Table:
    """Return the suppressed fires per rule and reason."""
    reasons = sorted({reason for tally in tallies.values() for reason in tally.reasons})
    table = _table("suppressed by", "rule", *reasons)
    for rule, tally in tallies.items():
        if tally.reasons:
            table.add_row(rule, *(str(tally.reasons[reason]) for reason in reasons))
    return table


def noisiest(tallies: Mapping[str, Tally]) -> Table:
    """Return the symbols with most fires, suppressed ones counted, and the rule that fires most for each."""
    noise: dict[str, Counter[str]] = {}
    by_rule: dict[str, Counter[str]] = {}
    for rule, tally in tallies.items():
        for (symbol, event), count in tally.noise.items():
            noise.setdefault(symbol, Counter())[event] += count
            by_rule.setdefault(symbol, Counter())[rule] += count
    table = _table("most noisy symbols", "symbol", "fires", "suppressed", "most by")
    for symbol in sorted(noise, key=lambda symbol: (-noise[symbol].total(), symbol))[:NOISIEST]:
        ((rule, count),) = by_rule[symbol].most_common(1)
        table.add_row(symbol, str(noise[symbol]["fire"]), str(noise[symbol]["suppressed"]), f"{rule} ({count})")
    return table


def afterwards(outcomes: Sequence[Outcome]) -> Table:
    """Return per rule what LAST did after its fires: how many are known, median, mean, and the share that rose."""
    from rules.aftermath import MINUTES

    columns = [f"{minutes}m {what}" for minutes in MINUTES for what in ("fires", "median %", "mean %", "up")]
    table = _table("price after a fire (trading time)", "rule", *columns)
    changes: dict[str, dict[int, list[float]]] = {}
    for outcome in outcomes:
        of_rule = changes.setdefault(outcome.alert.rule, {minutes: [] for minutes in MINUTES})
        for minutes in MINUTES:
            change = outcome.change(minutes)
            if change is not None:
                of_rule[minutes].append(change)
    for rule, of_rule in changes.items():
        table.add_row(rule, *(text for minutes in MINUTES for text in _spread(of_rule[minutes])))
    return table


def _spread(changes: Sequence[float]) -> tuple[str, str, str, str]:
    if not changes:
        return "0", "-", "-", "-"
    up = sum(change > 0 for change in changes) / len(changes)
    return str(len(changes)), f"{median(changes):+.2f}", f"{fmean(changes):+.2f}", f"{up:.0%}"


def _counts(events: Counter[str]) -> tuple[int, int, int, int]:
    """Return fires, suppressed, resolves and all other events."""
    named = events["fire"], events["suppressed"], events["resolve"]
    return *named, events.total() - sum(named)


def _table(title: str | None, first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


# ── for programs ──────────────────────────────────────────────────────────────────────────────────────────────────


def event_table(alerts: Sequence[Alert], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row per event; `last` is LAST at the event, `last_5m` and so on LAST later, NaN where not known."""
    import orjson
    import pandas as pd

    from rules.aftermath import MINUTES
    from rules.alert import shanghai_iso

    after = {outcome.alert.id: outcome for outcome in outcomes}
    rows = [
        {
            "trade_date": alert.trade_date, "time": shanghai_iso(alert.ts_event_ms)[11:23],
            "ts_event_ms": alert.ts_event_ms, "event": str(alert.event), "rule": alert.rule, "leg": alert.leg,
            "symbol": alert.symbol, "group": alert.group, "name": alert.name, "severity": alert.severity,
            "why": alert.why, "gap": alert.gap, "late": alert.late, "provisional": alert.provisional,
            "episode": alert.episode, "suppressed": alert.suppressed, "period": alert.period,
            "last": None if alert.tick is None else alert.tick.get("last"),
            **{f"last_{m}m": after[alert.id].later.get(m) if alert.id in after else None for m in MINUTES},
            **{f"change_{m}m_pct": after[alert.id].change(m) if alert.id in after else None for m in MINUTES},
            "values": orjson.dumps(alert.values).decode(), "message": alert.message, "id": alert.id,
            "episode_id": alert.episode_id,
        }
        for alert in alerts
    ]  # fmt: skip
    numbers = ["last", *(f"{what}_{m}m{unit}" for what, unit in (("last", ""), ("change", "_pct")) for m in MINUTES)]
    frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else _columns())
    return frame.astype({name: "float64" for name in numbers if name in frame})


def _columns() -> list[str]:
    from rules.aftermath import MINUTES

    head = ["trade_date", "time", "ts_event_ms", "event", "rule", "leg", "symbol", "group", "name", "severity", "why"]
    head += ["gap", "late", "provisional", "episode", "suppressed", "period", "last"]
    head += [f"last_{m}m" for m in MINUTES] + [f"change_{m}m_pct" for m in MINUTES]
    return [*head, "values", "message", "id", "episode_id"]


def write_table(frame: pd.DataFrame, file: Path) -> None:
    """Write CSV or Parquet by extension; the file gets its name only when it is whole. Raises CommandError."""
    from monitord.commands.bars import format_of

    part = file.with_name(f".{file.name}.part")
    write: Callable[[Path], None] = {
        "csv": lambda path: frame.to_csv(path, index=False, lineterminator="\n"),
        "parquet": lambda path: frame.to_parquet(path, index=False),
    }[format_of(file)]
    try:
        write(part)
        os.replace(part, file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
