"""The command line: `monitord COMMAND`, one file in `monitord.commands` each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper

from monitord.commands import COMMANDS, UNUSABLE, CommandError

DESCRIPTION = "Headless real-time monitor for China's A-share market: tick feeds in, durable alerts out."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, 1 findings, 2 unusable input or usage."""
    _write_every_letter()
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except CommandError as error:
        print(f"monitord: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing may be written to stdout again, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _write_every_letter() -> None:
    """Let what the encoding of stdout lacks come out as \\u…, not as an error: redirected on Windows it is no UTF-8."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    top = argparse.ArgumentParser(prog="monitord", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"monitord {version('monitord')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = import_module(module)
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
