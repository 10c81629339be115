"""Ends the brokers that a test run leaves behind when it is killed: they live on by design, for a daemon to adopt.

Runs as a process of its own, in a session of its own: it waits until the run's end of a pipe is closed, which happens
however the run ends, and then looks for pid files under the run's folder.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def left_behind(folder: Path) -> Iterator[int]:
    """Yield the process ids of brokers that still run on data under this folder."""
    for file in folder.rglob("valkey.pid"):
        with suppress(OSError, ValueError):
            pid = int(file.read_text(encoding="ascii"))
            if b"-server" in Path(f"/proc/{pid}/cmdline").read_bytes():  # a pid may be another process's by now
                yield pid


def main(folder: Path) -> None:
    sys.stdin.read()
    for pid in left_behind(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
