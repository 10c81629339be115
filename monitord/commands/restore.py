"""`monitord restore`: put a backup in the place of the store; the daemon must not run."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitord.commands import GOOD, CommandError
from monitord.commands.backup import tell
from monitord.commands.settings import add_settings, load_settings
from monitord.errors import StoreError

HELP = "put a backup in the place of the store, which is kept under another name; stop the daemon before"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backup", type=Path, metavar="FILE", help="what `monitord backup` wrote, or a kept copy")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check the backup, then exchange; whatever fails leaves the old store as it was."""
    from monitord.storefile import STORE_NAME, state_folder
    from monitord.upkeep import restore

    path = state_folder(load_settings(args).settings) / STORE_NAME
    try:
        contents, kept = restore(args.backup, path)
    except StoreError as error:
        raise CommandError(str(error)) from None
    tell(args, path, contents, kept=None if kept is None else str(kept))
    if args.json:
        return GOOD
    if kept is not None:
        print(f"the store as it was before: {kept}")
    if contents.waiting or contents.pending:
        print("what was under way when the backup was made is told again at the next start, under the same ids")
    return GOOD
