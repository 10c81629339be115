"""`monitord store`: what it holds, and bringing it back to an older schema version; nobody may have it open."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitord.commands import GOOD, CommandError
from monitord.commands.backup import tell
from monitord.commands.settings import add_settings, load_settings
from monitord.errors import StoreError

HELP = "what the store holds; bring it back to the schema version of an older monitord"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="read every page of it and say what it holds")
    show.set_defaults(action=_show)
    back = actions.add_parser("downgrade", help="bring it to an older schema version; a copy of it is kept beside")
    back.add_argument("--to", type=int, required=True, metavar="VERSION", help="as the older monitord's error names it")
    back.set_defaults(action=_downgrade)
    for action in (show, back):
        action.add_argument("--file", type=Path, metavar="FILE", help="another store than that of the settings")
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
        add_settings(action)


def run(args: argparse.Namespace) -> int:
    try:
        return int(args.action(args))
    except StoreError as error:
        raise CommandError(str(error)) from None


def _show(args: argparse.Namespace) -> int:
    from monitord.storefile import locked
    from monitord.upkeep import examine, settle

    path = _path(args)
    if not path.is_file():
        raise CommandError(f"there is no store {path}")
    with locked(path):
        settle(path)
        tell(args, path, examine(path))
    return GOOD


def _downgrade(args: argparse.Namespace) -> int:
    from monitord.storefile import kept_copy
    from monitord.upkeep import downgrade, examine

    path = _path(args)
    before = downgrade(path, to=args.to)
    kept = kept_copy(path, before) if before != args.to else None
    tell(args, path, examine(path), kept=None if kept is None else str(kept))
    if kept is not None and not args.json:
        print(f"the store as it was before: {kept}")
    return GOOD


def _path(args: argparse.Namespace) -> Path:
    from monitord.storefile import STORE_NAME, state_folder

    return args.file or state_folder(load_settings(args).settings) / STORE_NAME
