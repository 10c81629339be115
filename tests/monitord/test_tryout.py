"""Trying formulas out: bars of engine, vendor, cache and files in a row, fires where a loop says, bounds that hold."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.exrights import NO_EXRIGHTS
from feeds.history import COLUMNS, BarTable, HistoryRequest, PastBars, table_of
from feeds.instruments import Instrument
from feeds.sessions import Calendar, unix_ms
from monitord import tryrun
from monitord.study import Shelves, Study, held_bars, search
from monitord.tryout import WAITING, TryOut, TryOutError, Wish
from rules.assembly import longer
from rules.engine import Engine
from tests.rules.ticks import SYMBOL, Watch, ms, tick

OTHER = "000001.SZ"
CALENDAR = Calendar([20230130, 20230131, 20230201, 20230202])
WISH = Wish("C > O", (SYMBOL, OTHER), "1m", count=500)


def engine_of(*prices: tuple[str, float]) -> Engine:
    """Return an engine with a rule on minutes that has seen these ticks of one symbol."""
    watch = Watch("id: r, select: all, period: 1m, eval: bar_close, when: 'C > REF(C,1)'")
    watch.take(*(tick(clock, price, volume_lots=float(n)) for n, (clock, price) in enumerate(prices)))
    return watch.engine


class Here:
    """An engine that is asked where it stands."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def ask(self, question: Any) -> Any:
        return question(self.engine)


class InProcess(TryOut):
    """Does the job where it is, after its way through JSON."""

    async def run(self, job: Mapping[str, Any]) -> bytes:
        return orjson.dumps(tryrun.result(orjson.loads(orjson.dumps(job))), option=orjson.OPT_SERIALIZE_NUMPY)


def study(engine: Engine, **shelves: Any) -> Study:
    given = {"calendar": lambda: CALENDAR, "exrights": lambda: NO_EXRIGHTS, **shelves}
    return Study(Here(engine), Shelves(**given), tryout=InProcess())


async def tried(one: Study, wish: Wish) -> Any:
    return orjson.loads(await one.try_out(wish))


def day_of_minutes(date: int, closes: Sequence[float], *, symbols: Sequence[str] = (SYMBOL,)) -> BarTable:
    """Return the 240 minutes of a day."""
    minutes = [*range(571, 691), *range(781, 901)]
    ends = np.array([unix_ms(date, minute * 60_000) for minute in minutes] * len(symbols))
    columns = {name: np.array(list(closes) * len(symbols), float) for name in COLUMNS}
    return table_of("1m", np.repeat(list(symbols), 240), ends, columns=columns)


WAVE = [round(20 + float(np.sin(n / 9)), 2) for n in range(240)]


# ── what the engine holds ─────────────────────────────────────────────────────────────────────────────────────────


def test_recent_bars_are_those_that_ticks_made_the_forming_one_too() -> None:
    engine = engine_of(("09:30:03", 10.0), ("09:30:30", 10.5), ("09:31:10", 10.2), ("09:32:20", 9.9))
    table = engine.recent_bars("1m", (OTHER, SYMBOL))
    assert table.symbols == (OTHER, SYMBOL)
    assert table.counts().tolist() == [0, 3]
    assert table.ends_ms.tolist() == [ms("09:31:00"), ms("09:32:00"), ms("09:33:00")]
    assert table.close.tolist() == [10.5, 10.2, 9.9]
    assert table.high.tolist() == [10.5, 10.2, 9.9]


def test_bars_of_a_period_nobody_makes_are_made_of_finer_ones() -> None:
    engine = engine_of(*((f"09:3{n}:10", 10.0 + n) for n in range(8)))
    table = held_bars(engine, "5m", (SYMBOL,))
    assert (table.period, table.ends_ms.tolist()) == ("5m", [ms("09:35:00"), ms("09:40:00")])
    assert table.close.tolist() == longer(engine.recent_bars("1m", (SYMBOL,)), "5m").close.tolist() == [14.0, 17.0]
    assert not len(held_bars(Engine(), "5m", (SYMBOL,)))


# ── on bars ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.sampled_from([0.0, 1.0, np.nan])))
def test_a_fire_is_where_a_condition_becomes_true_having_been_false(condition: list[float]) -> None:
    armed, expected = False, []
    for place, value in enumerate(condition):
        if value == 1 and armed:
            expected.append(place)
        if value == value:
            armed = value == 0
    assert tryrun.edges(np.array(condition, float)).tolist() == expected


async def test_files_cache_vendor_and_engine_are_one_row_of_bars(tmp_path: Path) -> None:
    from feeds.barcache import BarCache

    table = day_of_minutes(20230130, WAVE)
    frame = pd.DataFrame({name: getattr(table, name) for name in COLUMNS})
    frame.assign(symbol=SYMBOL, period="1m", ts_end=table.ends_ms).to_csv(tmp_path / "bars.csv", index=False)
    BarCache(tmp_path / "cache").write(day_of_minutes(20230131, WAVE[::-1], symbols=(SYMBOL, OTHER)), 20230131, {})
    engine = engine_of(("09:30:03", 10.0), ("09:31:10", 10.2))
    found = study(engine, files=lambda: [tmp_path / "bars.csv"], cache=tmp_path / "cache")
    told = await tried(found, Wish("MA5: MA(C,5); C > MA5", (SYMBOL, OTHER), "1m", count=500))
    mine, other = told["symbols"]
    assert mine["bars"]["close"] == [*WAVE, *WAVE[::-1], 10.0, 10.2]
    assert len(other["bars"]["close"]) == 240
    closes = pd.Series(mine["bars"]["close"])
    above = closes > closes.rolling(5).mean()
    expected = [n for n in range(5, len(closes)) if above[n] and not above[n - 1]]
    assert [mine["bars"]["ts_end"].index(fire["ts_ms"]) for fire in mine["fires"]] == expected
    assert mine["outputs"]["MA5"][4:] == pytest.approx(closes.rolling(5).mean()[4:].tolist())
    assert told["notes"] == []
    few = await tried(found, Wish("C > MA(C,5)", (SYMBOL,), "1m", count=10))
    assert few["symbols"][0]["condition"][0] is not None  # the bars before those that are shown warmed it up


async def test_a_hole_before_the_engines_first_bar_is_told(tmp_path: Path) -> None:
    from feeds.barcache import BarCache

    BarCache(tmp_path).write(day_of_minutes(20230131, WAVE), 20230131, {})
    told = await tried(study(engine_of(("10:30:03", 10.0)), cache=tmp_path), WISH)
    assert told["notes"] == ["the bars of the day before 10:31 are missing"]


async def test_the_feeds_own_history_is_asked_where_the_engine_has_too_few_and_may_fail() -> None:
    asked: list[HistoryRequest] = []

    async def history(request: HistoryRequest) -> PastBars:
        asked.append(request)
        return PastBars(day_of_minutes(20230131, WAVE), {20230201: {SYMBOL: (0.5, 2.0)}})

    async def failing(request: HistoryRequest) -> PastBars:
        raise FeedError("the terminal hangs")

    engine = engine_of(("09:30:03", 10.0))
    told = await tried(study(engine, vendor=history), WISH)
    assert told["symbols"][0]["bars"]["close"] == [*(price * 0.5 for price in WAVE), 10.0]  # at today's prices
    assert [(one.period, one.bars) for one in asked] == [("1m", 1000)]
    told = await tried(study(engine, vendor=failing), WISH)
    assert told["symbols"][0]["bars"]["close"] == [10.0]


async def test_without_any_bars_it_says_so() -> None:
    with pytest.raises(TryOutError, match="no bars of 1m") as caught:
        await study(Engine()).try_out(WISH)
    assert caught.value.code == "no_past"


async def test_a_bad_formula_is_refused_with_place_caret_and_hint_before_any_process() -> None:
    with pytest.raises(TryOutError) as caught:
        await Study(Here(Engine()), Shelves(), tryout=TryOut(waiting=-1)).try_out(
            Wish("MA(C,5) >\n MEAN(C,3)", (SYMBOL,), "1m")
        )
    (finding,) = caught.value.findings
    assert (caught.value.code, finding["line"], finding["column"]) == ("bad_formula", 2, 2)
    assert finding["rendered"].splitlines()[1:3] == [" MEAN(C,3)", " ^^^^"]


# ── on ticks ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_on_ticks_the_formula_is_a_rule_of_an_engine_over_the_newest_session(tmp_path: Path) -> None:
    prices = [10.0, 10.2, 10.6, 10.4, 10.7, 10.7, 10.1]
    ts = [ms("09:30:00") + 3000 * n for n in range(len(prices))]
    rows = {
        "symbol": SYMBOL, "ts_event": ts, "last": prices, "open": 10.0, "high": 11.0, "low": 9.0, "prev_close": 10.0,
        "volume_lots": [float(n) for n in range(len(prices))], "amount_cny": 1e6, "status": 13,
    }  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "20230201.parquet")
    told = await tried(
        study(Engine(), recordings=lambda: [tmp_path / "old.parquet", tmp_path / "20230201.parquet"]),
        Wish("X: LAST; X > 10.5", (SYMBOL, OTHER), "tick", on="ticks"),
    )
    mine, other = told["symbols"]
    assert [(fire["ts_ms"], fire["price"], fire["values"]["X"]) for fire in mine["fires"]] == [
        (ts[2], 10.6, 10.6),
        (ts[4], 10.7, 10.7),
    ]
    assert (mine["bars"]["ts_end"], mine["bars"]["close"], mine["bars"]["high"]) == ([ms("09:31:00")], [10.1], [10.7])
    assert (other["bars"]["ts_end"], other["fires"]) == ([], [])
    assert told["notes"] == ["session: 20230201.parquet"]
    with pytest.raises(TryOutError, match="no session is recorded"):
        await study(Engine()).try_out(Wish("LAST > 0", (SYMBOL,), "tick", on="ticks"))


async def test_one_that_is_refused_asks_neither_engine_nor_vendor() -> None:
    found = study(engine_of(("09:30:03", 10.0)))
    with ExitStack() as others:
        for _ in range(WAITING + 1):
            others.enter_context(found._tryout.place())
        found._engine = None  # type: ignore[assignment]
        with pytest.raises(TryOutError, match="others are trying"):
            await found.try_out(WISH)


# ── the process ───────────────────────────────────────────────────────────────────────────────────────────────────

JOB: dict[str, Any] = {
    "wish": {"formula": "C > 1", "symbols": [SYMBOL], "period": "1m", "on": "ticks", "count": 10}, "recordings": [],
}  # fmt: skip


async def test_a_process_answers_or_is_killed_at_its_deadline_and_few_may_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MONITORD_BROKER__PASSWORD", "s3cret")
    (tmp_path / "orjson.py").write_text("raise SystemError('files of the working directory are none of ours')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TryOutError, match="no session is recorded") as caught:
        await TryOut(deadline_s=60).run(JOB)
    assert caught.value.code == "no_past"
    hasty = TryOut(deadline_s=0.01, waiting=1)

    async def in_its_place() -> None:
        with hasty.place():
            await hasty.run(JOB)

    ended = await asyncio.gather(*(in_its_place() for _ in range(3)), return_exceptions=True)
    assert [error.code for error in ended if isinstance(error, TryOutError)] == ["too_slow", "too_slow", "busy"]


async def test_a_try_out_that_is_cancelled_leaves_no_process_and_its_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when its client leaves. The pipe ends when the last process that holds it has."""
    pipe, program = tmp_path / "pipe", tmp_path / "slow"
    os.mkfifo(pipe)
    program.write_text(f"#!/bin/sh\nexec 9>{pipe}\necho $$ >&9\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("monitord.tryout.sys.executable", str(program))
    tryout = TryOut(deadline_s=500, waiting=0)

    async def in_its_place() -> None:
        with tryout.place():
            await tryout.run(JOB)

    trying = asyncio.create_task(in_its_place())
    with await asyncio.to_thread(pipe.open) as told:
        async with asyncio.timeout(60):
            number = int(await asyncio.to_thread(told.readline))
            trying.cancel()
            assert await asyncio.to_thread(told.read) == ""
            with pytest.raises(asyncio.CancelledError):
                await trying
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    with tryout.place():
        pass


def test_limits_hold_where_the_system_refuses_niceness_as_the_units_filter_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import resource

    limits: dict[int, tuple[int, int]] = {}
    scores: list[str] = []

    def refuse(step: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "setrlimit", limits.__setitem__)
    monkeypatch.setattr(tryrun.os, "nice", refuse)
    monkeypatch.setattr(tryrun.Path, "write_text", lambda path, text: scores.append(f"{path} {text}"))
    tryrun._limit(20)
    memory = tryrun.MEMORY_BYTES
    assert limits == {resource.RLIMIT_CPU: (20, 22), resource.RLIMIT_AS: (memory, memory)}
    assert scores == ["/proc/self/oom_score_adj 1000"]


def test_a_result_too_large_for_the_daemon_to_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"cpu_s": 1}')))
    monkeypatch.setattr(tryrun, "_limit", lambda cpu_s: None)
    monkeypatch.setattr(tryrun, "result", lambda job: {"symbols": ["x" * tryrun.MOST_BYTES]})
    tryrun.main()
    told = orjson.loads(capsysbinary.readouterr().out)
    assert (told["ok"], told["code"]) == (False, "no_result")
    assert "take fewer symbols" in told["msg"]


def test_the_process_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from monitord.tryout import _environment

    monkeypatch.setenv("MONITORD_GATEWAY__TOKENS", "s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    assert not [name for name in _environment() if name.startswith(("MONITORD_", "CREDENTIALS"))]
    assert "PATH" in _environment()


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_codes_that_begin_with_the_words_come_first_then_names_then_the_rest() -> None:
    names = {"600519.SH": "贵州茅台", "000519.SZ": "中兵红箭", "605190.SH": None, "300001.SZ": "台积"}
    known = {symbol: Instrument(symbol, name) for symbol, name in names.items() if name}
    symbols = tuple(names)

    def found(words: str, limit: int = 9) -> list[str]:
        return [one.symbol for one in search(words, symbols, known, limit=limit)]

    assert found("6") == ["600519.SH", "605190.SH"]
    assert found("519") == ["000519.SZ", "600519.SH", "605190.SH"]
    assert found("台") == ["300001.SZ", "600519.SH"]
    assert found("sh", 1) == ["600519.SH"]
    assert found("nothing") == []
    assert len(found("")) == 4
