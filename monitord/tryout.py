"""`TryOut`: a formula on recent bars or ticks, in a process that can be killed, beside a daemon that must not wait.

One process at a time, low in priority, bounded in processor time, memory and time on the clock; a few may wait for
their turn, any more are refused. What the process does is in `tryrun`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import structlog

from monitord.errors import DaemonError
from rules.errors import Finding, RuleFileError
from rules.language.checker import check
from rules.language.facts import Checked
from rules.language.parser import parse
from rules.language.report import record, render

DEADLINE_S: Final = 60.0
"""On the clock. The process takes 1 s to come up on a machine that is idle, 10 s and more on one that is busy."""
CPU_S: Final = 20
"""Of processor time; the system itself ends the process there."""
WAITING: Final = 4
"""Try-outs that may wait for the one under way."""
MOST_SYMBOLS, MOST_BARS, LONGEST_FORMULA = 10, 1000, 4000
FORMULA: Final = "formula"
"""What findings call the text."""
PRIVATE: Final = ("MONITORD_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")
"""What the environment's names begin with that the process is not told: secrets, and systemd's own."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be tried: a formula for bars of `period`, over the newest `count` bars or the newest recorded session.

    on: "bars" evaluates at the close of each bar, "ticks" runs the formula as a rule through a whole engine.
    """

    formula: str
    symbols: tuple[str, ...]
    period: str
    on: Literal["bars", "ticks"] = "bars"
    count: int = 250


class TryOutError(DaemonError):
    """The formula cannot be tried now; findings: what is wrong with it.

    code: bad_formula, busy, too_slow, no_past (there is nothing to try it on), no_result or failed.
    """

    def __init__(self, code: str, msg: str, *, findings: list[dict[str, Any]] | None = None) -> None:
        super().__init__(msg)
        self.code = code
        self.findings = findings or []


def checked(wish: Wish) -> Checked:
    """Parse and check the formula, some milliseconds; raises TryOutError with its findings."""
    try:
        return check(parse(wish.formula, file=FORMULA), period=wish.period, file=FORMULA)
    except RuleFileError as error:
        raise TryOutError("bad_formula", str(error), findings=told(error.findings)) from None


def told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values, each also rendered with its caret."""
    return [{**record(finding), "rendered": render(finding)} for finding in findings]


class TryOut:
    """Runs the processes. `place` and, within it, `run` may be called by many at once."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, waiting: int = WAITING) -> None:
        self._deadline_s = deadline_s
        self._most = waiting + 1
        self._here = 0
        self._turn = asyncio.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the few places, from before engine and vendor are asked for its sake; raises TryOutError."""
        if self._here >= self._most:
            raise TryOutError("busy", "others are trying formulas out; try again in some seconds")
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def run(self, job: Mapping[str, Any]) -> bytes:
        """Run a job in its turn and return its result as JSON; raises TryOutError. Cancelling it kills the process."""
        async with self._turn:
            code, answer, said = await self._process(orjson.dumps({**job, "cpu_s": CPU_S}))
        if code == 0 and answer.startswith(b'{"ok":true'):
            return answer
        raise _failure(code, answer, said)

    async def _process(self, job: bytes) -> tuple[int | None, bytes, bytes]:
        # -P: nothing is imported from the working directory, which may hold files of the user's
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "monitord.tryrun", env=_environment(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._deadline_s):
                answer, said = await process.communicate(job)
        except TimeoutError:
            raise TryOutError(
                "too_slow", f"no result within {self._deadline_s:g} s; take fewer symbols or bars, or shorter windows"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, answer, said


def _failure(code: int | None, answer: bytes, said: bytes) -> TryOutError:
    if code == 0:
        said_so = orjson.loads(answer)
        return TryOutError(said_so["code"], said_so["msg"], findings=said_so["findings"])
    log.error("tryout_failed", exit_code=code, said=said.decode(errors="replace")[-2000:])
    return TryOutError(
        "failed", "the try-out ended early: it took too much memory or time, or met a fault; see the log"
    )


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
