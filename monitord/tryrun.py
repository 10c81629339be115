"""The process of a try-out: reads one job as JSON from stdin, writes one result to stdout, and ends.

A result is {"ok":true, …}, or {"ok":false,"code","msg","findings"}. Columns are lists, unknown numbers null.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from feeds.barcache import BarCache
from feeds.barfiles import read_files
from feeds.errors import FeedError
from feeds.exrights import decode_exrights
from feeds.history import COLUMNS, BarTable, table_of
from feeds.inputs import Control, ControlKind, FeedInput
from feeds.sessions import Calendar, day_number
from feeds.tick import FloatArray, IntArray, TickBatch
from monitord.errors import DaemonError
from monitord.tryout import FORMULA, TryOutError, Wish, checked, told
from monitord.warmup import Shelf
from rules.alert import Event
from rules.assembly import ends_of, joined
from rules.errors import RuleError, RuleFileError
from rules.evaluate import BarTable as EvalTable
from rules.evaluate import evaluate
from rules.language.tree import Formula

MEMORY_BYTES: Final = 4 << 30
"""Of address space, of which libraries reserve far more than they use; a try-out of ten symbols takes 200 MB."""
MOST_BYTES: Final = 16 << 20
"""Of a result, which the daemon holds as a whole: ten symbols' 1000 bars with ten outputs take 3 MB."""
MOST_FIRES: Final = 2000
"""Fires that are told of one symbol; the oldest beyond them are left out."""
RULE: Final = "tryout"


def main() -> None:
    """Do the job; whatever fails in a way nobody foresaw ends the process with its traceback."""
    job = orjson.loads(sys.stdin.buffer.read())
    _limit(job["cpu_s"])
    try:
        answer = {"ok": True, **result(job)}
    except TryOutError as error:
        answer = {"ok": False, "code": error.code, "msg": str(error), "findings": error.findings}
    except RuleFileError as error:
        answer = {"ok": False, "code": "bad_formula", "msg": str(error), "findings": told(error.findings)}
    except (DaemonError, FeedError, RuleError, OSError) as error:
        answer = {"ok": False, "code": "no_result", "msg": str(error), "findings": []}
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(text) > MOST_BYTES:
        msg = f"the result has {len(text):,} bytes, more than {MOST_BYTES:,}; take fewer symbols, bars or outputs"
        text = orjson.dumps({"ok": False, "code": "no_result", "msg": msg, "findings": []})
    sys.stdout.buffer.write(text)


def _limit(cpu_s: int) -> None:
    """Be ended by the system where the daemon cannot, before the daemon where memory is short, and give way to all.

    Each by itself: what this system refuses must not take the others with it. The units' filter refuses niceness.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource  # POSIX only

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 2))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # Linux only
    with suppress(AttributeError, OSError):
        os.nice(5)


def result(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job; raises TryOutError, or FeedError, RuleError or OSError for files that are bad."""
    wish = Wish(**{**job["wish"], "symbols": tuple(job["wish"]["symbols"])})
    formula = checked(wish)
    notes, found = _on_ticks(job, wish) if wish.on == "ticks" else _on_bars(job, wish, formula.formula)
    return {
        "on": wish.on, "period": wish.period, "warnings": told(formula.warnings), "notes": notes, "symbols": found,
    }  # fmt: skip


# ── on bars ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _on_bars(job: Mapping[str, Any], wish: Wish, formula: Formula) -> tuple[list[str], list[dict[str, Any]]]:
    """Evaluate at the close of each bar; a fire is where the condition becomes true, having been false before."""
    table, notes = _table(job, wish)
    if not len(table):
        raise TryOutError(
            "no_past", f"there are no bars of {wish.period} of these symbols yet: none were made, kept or given"
        )
    names = np.array(table.symbols)[table.code]
    columns = {name: getattr(table, name) for name in COLUMNS}
    none_suspended = np.zeros(len(table), np.bool_)
    rows = evaluate(
        formula, EvalTable(period=table.period, symbol=names, ts_end=table.ends_ms, suspended=none_suspended, **columns)
    )
    tried = []
    for code, symbol in enumerate(table.symbols):
        those = np.flatnonzero(table.code == code)[-wish.count :]
        outputs = {name: values[those] for name, values in rows.outputs.items()}
        fires = edges(rows.condition[those])[-MOST_FIRES:]
        tried.append(
            {
                "symbol": symbol, "bars": _bars(table, those), "outputs": outputs, "condition": rows.condition[those],
                "fires": [
                    {
                        "ts_ms": int(table.ends_ms[those[at]]), "price": float(table.close[those[at]]),
                        "values": {name: values[at] for name, values in outputs.items()},
                    }
                    for at in fires.tolist()
                ],
            }
        )  # fmt: skip
    return notes, tried


def edges(condition: FloatArray) -> IntArray:
    """Return where a condition (1, 0, NaN = unknown) is true and was false when it was last known."""
    known = np.flatnonzero(~np.isnan(condition))
    true = condition[known] > 0
    return known[1:][true[1:] & ~true[:-1]]


def _table(job: Mapping[str, Any], wish: Wish) -> tuple[BarTable, list[str]]:
    """Return the bars at hand, the engine's own before the vendor's, the cache's and those of files.

    More than are asked for: the first ones shown shall have their values already.
    """
    symbols, period = tuple(wish.symbols), wish.period
    held = _of_columns(period, symbols, job["held"])
    older = _older(job, wish)
    vendor = _of_columns(period, symbols, job["vendor"]) if job["vendor"] else None
    known = [table for table in (older, vendor) if table is not None]
    notes: list[str] = []
    table = held
    if known:
        past = known[0].of(symbols) if len(known) == 1 else joined(known[0].of(symbols), known[1])
        notes = _hole(past, held)
        table = joined(past, held)
    return table, notes


def _older(job: Mapping[str, Any], wish: Wish) -> BarTable | None:
    """Return what cache and files have up to the last day that is over, without holes."""
    symbols, count = frozenset(wish.symbols), 2 * wish.count
    if not job["now_ms"] or (job["cache"] is None and not job["files"]):
        return None
    cache = None if job["cache"] is None else BarCache(Path(job["cache"]), only=symbols)
    shelf = Shelf(
        cache, read_files(map(Path, job["files"])), exrights=decode_exrights(job["exrights"]),
        calendar=Calendar(job["days"]),
    )  # fmt: skip
    return shelf.holdings(wish.period, count, job["now_ms"])


def _hole(past: BarTable, held: BarTable) -> list[str]:
    """Say where the engine's own bars do not go on from the past: nobody knows what lies between."""
    if not len(past) or not len(held):
        return []
    days = day_number(held.ends_ms)
    if int(day_number(past.ends_ms).max()) >= int(days.min()):
        return []
    first_ms = int(held.ends_ms.min())
    midnight = first_ms - (first_ms + 8 * 3_600_000) % 86_400_000
    opening_ms = int(ends_of(np.array([midnight + 34_200_000 + 1]), held.period)[0])
    if first_ms <= opening_ms:
        return []
    clock = (first_ms - midnight) // 60_000
    return [f"the bars of the day before {clock // 60:02d}:{clock % 60:02d} are missing"]


def _of_columns(period: str, symbols: Sequence[str], columns: Mapping[str, Any]) -> BarTable:
    names = np.array(columns["symbol"], dtype=str)
    numbers = {name: np.array(columns[name], np.float64) for name in COLUMNS}
    ends_ms = np.array(columns["ts_end"], np.int64)
    return table_of(period, names, ends_ms, columns=numbers, as_of=columns["as_of"]).of(symbols)


def _bars(table: BarTable, rows: IntArray) -> dict[str, Any]:
    return {"ts_end": table.ends_ms[rows], **{name: getattr(table, name)[rows] for name in COLUMNS}}


# ── on ticks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _on_ticks(job: Mapping[str, Any], wish: Wish) -> tuple[list[str], list[dict[str, Any]]]:
    """Run the formula as a rule through an engine over the newest recorded session; a fire is one of its events."""
    if not job["recordings"]:
        raise TryOutError(
            "no_past", "no session is recorded: set record.folder, or try the formula on bars", findings=[]
        )
    # 0.3 s of imports that a try-out on bars does without
    from rules.engine import Engine
    from rules.rulefile import load

    newest = Path(job["recordings"][-1])
    tried = {symbol: _Tried(symbol) for symbol in wish.symbols}
    engine = Engine()
    engine.step(Control(ControlKind.RULES, load({FORMULA: _rule_text(wish)}).source))
    for value, offset in _recorded(newest, frozenset(tried)):
        if isinstance(value, TickBatch):
            for symbol, ts_ms, last, lots in zip(
                value.symbols, value.ts_event_ms.tolist(), value.column("last").tolist(),
                value.column("volume_lots").tolist(), strict=True,
            ):  # fmt: skip
                tried[symbol].tick(ts_ms, last, lots)
        for alert in engine.step(value) if offset is None else engine.step(value, offset=offset):
            if alert.event is Event.FIRE and alert.symbol in tried:
                tried[alert.symbol].fires.append(
                    {"ts_ms": alert.ts_event_ms, "price": tried[alert.symbol].last, "values": dict(alert.values)}
                )
    return [f"session: {newest.name}"], [one.result() for one in tried.values()]


def _recorded(path: Path, symbols: frozenset[str]) -> Iterator[tuple[Any, int | None]]:
    from feeds.recording import recorded

    held = frozenset({ControlKind.INSTRUMENTS, ControlKind.EXRIGHTS})
    for given in recorded([path], symbols, controls=held):
        yield (given.value, given.offset) if isinstance(given, FeedInput) else (given, None)


def _rule_text(wish: Wish) -> str:
    """Return a rule file (JSON is YAML) with the formula as its one rule, which fires each time it becomes true."""
    rule = {
        "id": RULE, "select": list(wish.symbols), "when": wish.formula, "period": wish.period,
        "freq": "always",
    }  # fmt: skip
    return orjson.dumps({"version": 1, "groups": [{"name": RULE, "rules": [rule]}]}).decode()


class _Tried:
    """One symbol's prices by the minute, and its fires."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._ticks: list[tuple[int, float, float]] = []
        self.last: float | None = None
        self.fires: list[dict[str, Any]] = []

    def tick(self, ts_ms: int, last: float, lots: float) -> None:
        """Take a tick; one without a price is passed over."""
        if last > 0:
            self._ticks.append((ts_ms, last, lots))
            self.last = last

    def result(self) -> dict[str, Any]:
        bars = _minutes(self._ticks)
        return {
            "symbol": self._symbol, "bars": bars, "outputs": {}, "condition": [], "fires": self.fires[-MOST_FIRES:]
        }  # fmt: skip


def _minutes(ticks: Sequence[tuple[int, float, float]]) -> dict[str, Any]:
    """Return ticks as bars of 1m, for a chart."""
    if not ticks:
        return {"ts_end": [], **{name: [] for name in COLUMNS}}
    ts_ms, last, day_lots = (np.array(column) for column in zip(*ticks, strict=True))
    ends_ms = ends_of(ts_ms.astype(np.int64), "1m")
    starts = np.flatnonzero(np.append(True, np.diff(ends_ms) != 0))
    stops = np.append(starts[1:], len(ends_ms)) - 1
    lots = np.diff(np.append(day_lots[0], day_lots[stops]))
    return {
        "ts_end": ends_ms[starts], "open": last[starts], "high": np.maximum.reduceat(last, starts),
        "low": np.minimum.reduceat(last, starts), "close": last[stops], "volume_lots": lots,
        "amount_cny": np.full(len(starts), np.nan),
    }  # fmt: skip


if __name__ == "__main__":
    main()
