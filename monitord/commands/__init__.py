"""The commands of the command line, one file each.

A command is a module with `HELP`, `configure(parser)` and `run(args) -> int`, the exit code. It imports what is slow
to import inside `run`, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Final

from monitord.errors import DaemonError

COMMANDS: Final = {
    "run": "monitord.commands.run",
    "status": "monitord.commands.status",
    "bridge": "monitord.commands.bridge",
    "check": "monitord.commands.check",
    "catalog": "monitord.commands.catalog",
    "test": "monitord.commands.test",
    "explain": "monitord.commands.explain",
    "replay": "monitord.commands.replay",
    "record": "monitord.commands.record",
    "eval": "monitord.commands.eval",
    "warmup": "monitord.commands.warmup",
    "receivers": "monitord.commands.receivers",
    "deliveries": "monitord.commands.deliveries",
    "silence": "monitord.commands.silence",
    "doctor": "monitord.commands.doctor",
    "backup": "monitord.commands.backup",
    "restore": "monitord.commands.restore",
    "store": "monitord.commands.store",
    "config": "monitord.commands.config",
    "notify": "monitord.commands.notify",
}
"""Name on the command line → module."""

GOOD: Final = 0
FINDINGS: Final = 1
UNUSABLE: Final = 2
"""Input that cannot be worked with at all, and bad usage, which is argparse's code too."""


class CommandError(DaemonError):
    """A command cannot go on; the text is for the person at the keyboard. Ends the process with code UNUSABLE."""
