"""`monitord config`: show every setting with its origin, or write the file to start from."""

from __future__ import annotations

import argparse
import sys

from monitord.commands import GOOD
from monitord.commands.settings import add_settings, load_settings

HELP = "show every setting and where its value came from, or print a file to start from"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print each setting, its value and its origin; secrets are masked")
    show.add_argument("--changed", action="store_true", help="only what is not a default")
    add_settings(show)
    show.set_defaults(action=_show)
    init = actions.add_parser("init", help="print monitord.toml with every setting explained")
    init.set_defaults(action=_init)


def run(args: argparse.Namespace) -> int:
    code: int = args.action(args)
    return code


def _show(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", style="dim", overflow="fold")
    for setting, value, origin in load_settings(args).rows():
        if origin != "default" or not args.changed:
            table.add_row(setting, Text(value), Text(origin))
    # A pipe has no width to fold for: let grep see whole lines.
    Console(width=None if sys.stdout.isatty() else 240).print(table)
    return GOOD


def _init(args: argparse.Namespace) -> int:
    from importlib.resources import files

    sys.stdout.write(files("config").joinpath("default.toml").read_text(encoding="utf-8"))
    return GOOD
