"""A thousand slips in a rule file, and files made to break things, each read again by a running daemon."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest

from monitord.store import Store
from rules.errors import RuleFileError
from rules.language.report import render
from tests.faults.counts import count
from tests.monitord.test_pipeline import Stand
from tests.rules.test_rulefile import mutated

MUTATIONS = count("bad_files", ci=1_000, long=10_000)
LONGEST_STALL_S = 0.1
GOOD = """\
version: 1
defaults: {freq: always, cooldown: 1m}
groups:
- name: price
  labels: {kind: price}
  rules:
  - id: breakout
    select: [600519.SH]
    when: CROSS(LAST, 1800)
    rearm: LAST < 1782
    message: "{name} 突破 1800：{LAST:.2f} {PCT:+.2f}%"
  - id: box
    select: {glob: ["60*"], exclude: {name: ["*ST*"]}}
    params: {top: 21.5}
    when: LAST > top OR LAST < 19.80
    mode: state
    for: 30s
  - id: cross
    select: all
    period: 5m
    eval: bar_close
    when: |
      FAST:=MA(C,5); SLOW: MA(C,10);
      CROSS(FAST, SLOW) AND C>REF(C,1)
  - id: stops
    select: {positions: main}
    legs:
      stop: {when: "LAST <= ENTRY*(1-5%)"}
      trail: {when: "LAST <= PEAK*(1-3%)"}
  - id: breadth
    over: {all: true, by: none}
    agg: {n: count(PCT > 5)}
    when: n > 50
    rearm: n < 45
"""


class Stall:
    """Watches how long the loop is kept from its work, in time that this process used: what others do is not ours."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        while True:
            due, used = time.perf_counter() + 0.002, time.process_time()
            await asyncio.sleep(0.002)
            late_s = time.perf_counter() - due
            self.longest_s = max(self.longest_s, min(late_s, time.process_time() - used))


@pytest.fixture(autouse=True, scope="module")
def frozen() -> Iterator[None]:
    """Freeze, as the daemon does after its start: else a collection looks through what other tests have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    store = await Store.open(tmp_path / "store.sqlite")
    stand = Stand(tmp_path, store)
    stand.rules = GOOD
    await stand.pipeline.recover()
    yield stand
    await stand.pipeline.close()
    await store.close()


async def state_of(stand: Stand) -> dict[str, np.ndarray]:
    arrays, _ = await stand.pipeline.ask(lambda engine: engine.checkpoint())
    return arrays


def is_placed(error: RuleFileError, text: str) -> None:
    """Check that every finding has a place in the text and a hint."""
    lines = text.split("\n")
    for finding in error.findings:
        assert 1 <= finding.line <= len(lines)
        assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1
        assert finding.hint, render(finding)


async def reloaded(stand: Stand, text: str) -> RuleFileError | None:
    """Let the daemon read a file again; return why it was refused, None if it was not."""
    before = stand.pipeline.rules()
    stand.rules = text
    try:
        await stand.pipeline.reload()
    except RuleFileError as error:
        assert stand.pipeline.rules() is before
        is_placed(error, text)
        return error
    assert [*orjson.loads(stand.pipeline.rules().source)["files"]] == [["r", text]]
    return None


async def test_a_thousand_slips_are_refused_with_place_and_hint_or_valid_and_stall_nothing(stand: Stand) -> None:
    stall = Stall()
    watching = asyncio.create_task(stall.watch())
    before, good = await state_of(stand), stand.pipeline.rules()
    refused = 0
    for seed in range(MUTATIONS):
        if await reloaded(stand, mutated(GOOD, Random(seed))) is None:
            assert await reloaded(stand, GOOD) is None
        else:
            refused += 1
    watching.cancel()
    assert MUTATIONS // 3 < refused < MUTATIONS
    assert stand.pipeline.rules() == good
    after = await state_of(stand)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name], equal_nan=before[name].dtype.kind == "f") for name in before)
    assert stall.longest_s < LONGEST_STALL_S


def rule(when: str) -> str:
    return f"version: 1\ngroups:\n- name: g\n  rules:\n  - id: x\n    select: all\n    when: |\n      {when}\n"


REFUSED: dict[str, Callable[[], str]] = {
    "parentheses 100,000 deep": lambda: rule("(" * 100_000 + "LAST" + ")" * 100_000 + " > 1"),
    "functions 5,000 deep": lambda: rule("ABS(" * 5_000 + "LAST" + ")" * 5_000 + " > 1"),
    "negations 50,000 deep": lambda: rule("NOT(" * 50_000 + "LAST > 1" + ")" * 50_000),
    "minus signs 100,000 in a row": lambda: rule("-" * 100_000 + "LAST > 1"),
    "YAML 10,000 deep": lambda: "version: 1\ngroups: " + "[" * 10_000 + "]" * 10_000 + "\n",
    "names that name each other": lambda: rule("A:=B+1; B:=A+1; LAST > A"),
    "a name that names itself": lambda: rule("A:=A+1; LAST > A"),
    "an alias in a circle": lambda: "version: 1\ngroups: &a [*a]\n",
    "a threshold .nan": lambda: rule("LAST > 1").replace("select: all", "select: all\n    params: {top: .nan}"),
    "a threshold NAN": lambda: rule("LAST > NAN"),
    "1 MB of comment": lambda: rule("{" + "x" * 1_000_000 + "} LAST > 1"),
    "half a megabyte of noise": lambda: rule("LAST >; " * 60_000),
    "a threshold that is 0/0": lambda: rule("LAST > 0/0"),
    "a threshold beyond all numbers": lambda: rule("LAST > 1e308*10"),
    "1 MB of one name": lambda: rule("A" * 1_000_000 + " > 1"),
    "1 MB of statements that mean nothing": lambda: rule("LAST >; " * 125_000),
    "1 MB of noise": lambda: "".join(chr(Random(1).randrange(32, 0x3000)) for _ in range(8)) * 125_000,
    "1 MB of a YAML key": lambda: "version: 1\n" + "k" * 1_000_000 + ": 1\n",
}
ACCEPTED: dict[str, Callable[[], str]] = {
    "a formula of nearly 20,000 characters": lambda: rule("{" + "x" * 19_000 + "} LAST > 1"),
    "half a megabyte of YAML comment": lambda: rule("LAST > 1") + "# no more to say\n" * 29_000,
    "250 statements": lambda: rule("".join(f"A{n}:=LAST+{n}; " for n in range(249)) + "LAST > 1"),
    "a threshold that is no real number": lambda: rule("LAST > SQRT(-1)"),
    "parentheses 20 deep": lambda: rule("(" * 20 + "LAST" + ")" * 20 + " > 1"),
}


@pytest.mark.parametrize("name", [*REFUSED, *ACCEPTED])
async def test_a_file_made_to_break_things_breaks_nothing_and_stalls_nothing(name: str, stand: Stand) -> None:
    text = (REFUSED | ACCEPTED)[name]()
    stall = Stall()
    watching = asyncio.create_task(stall.watch())
    await asyncio.sleep(0.01)
    error = await reloaded(stand, text)
    watching.cancel()
    assert (error is not None) == (name in REFUSED), error
    assert stall.longest_s < LONGEST_STALL_S
    if error is not None:
        assert len(str(error)) < 20_000
