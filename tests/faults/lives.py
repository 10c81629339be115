"""Daemons that are born and killed by the dozen: each forked from a process that has imported everything already.

A process of its own costs a second of importing before it works; a forked one is like any other to signals, files
and sockets, and what it knows is what its state directory holds.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.acceptance.daemon import ROOT, Daemon

KEPT_LOGS = 3

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.faults.warm"])


class ForkedProcess:
    """As much of `asyncio.subprocess.Process` as `Daemon` needs."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        errors: Path | None = None,
        module: str = "monitord.__main__",
        environment: Mapping[str, str] = {},
    ) -> None:
        """Let the module's `main` run a command. errors: where stderr goes, the log too if it is None."""
        outputs = str(log), str(log if errors is None else errors)
        args = (list(argv), *outputs, module, dict(environment))
        self._process = _forks.Process(target=_live, args=args, daemon=False)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._process.sentinel, self._on_end)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    async def wait(self) -> int:
        await self._ended.wait()
        code = self._process.exitcode
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _on_end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set()


class ForkedDaemon(Daemon):
    """`monitord run` as a forked process. Each life has a log of its own; the oldest are deleted."""

    process: Any
    lives = 0

    def __init__(self, state_dir: Path, settings: Mapping[str, object], *, name: str | None = None) -> None:
        """name: what its logs are called after, where several daemons have the same state_dir."""
        super().__init__(state_dir, settings)
        self._name = name or state_dir.stem
        self._logs: list[Path] = []

    async def start(self) -> None:
        """Begin another life."""
        self.lives += 1
        self.log = self.log.with_name(f"{self._name}.{self.lives}.log")
        self.log.touch()
        self._logs.append(self.log)
        while len(self._logs) > KEPT_LOGS:
            self._logs.pop(0).unlink()
        self._listened_before = 0
        flags = [word for name, value in self.settings.items() for word in ("--set", f"{name}={value}")]
        self.process = ForkedProcess(["run", *flags], self.log)

    def kill(self) -> bool:
        """Kill -9; return False if it had ended before. It may not be dead yet: `process.wait` tells."""
        if self.process.returncode is not None:
            return False
        self.process.kill()
        return True

    async def ended(self) -> None:
        """Take care that nothing of it runs any more."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            await self.process.wait()


def _live(argv: list[str], log: str, errors: str, module: str, environment: dict[str, str]) -> None:
    """Run one command in this new process, its output in the log."""
    os.chdir(ROOT)
    for name in [name for name in os.environ if name.startswith("MONITORD_")]:
        del os.environ[name]
    os.environ.update(environment)
    with open(log, "ab") as output, open(errors, "ab") as wrong, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(wrong.fileno(), 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.exit(import_module(module).main(argv))
