"""`monitord bridge`: the feed of this machine into a tick stream that a daemon on another reads."""

from __future__ import annotations

import argparse

from monitord.commands import CommandError
from monitord.commands.settings import add_settings, load_settings
from monitord.errors import DaemonError

HELP = "carry a feed (xtquant on Windows) over Redis to a daemon on another machine"

_SHORT = {
    "feed": ("feed.name", "NAME", "xt, simulated or replay"),
    "stream": ("bridge.stream", "NAME", "name of the stream"),
    "name": ("bridge.name", "NAME", "name of this bridge"),
    "state_dir": ("state_dir", "DIR", "where the spool lives"),
}
"""Options that are short for --set."""


def configure(parser: argparse.ArgumentParser) -> None:
    for option, (setting, metavar, text) in _SHORT.items():
        parser.add_argument(f"--{option.replace('_', '-')}", metavar=metavar, help=f"{text} (= --set {setting}=…)")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Read the settings, set up logs, and hand over to the bridge."""
    given = {setting: getattr(args, option) for option, (setting, _, _) in _SHORT.items()}
    args.overrides = [*args.overrides, *(f"{name}={text}" for name, text in given.items() if text is not None)]
    settings = load_settings(args).settings

    from monitord import bridge, log

    log.configure(format=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    try:
        return bridge.main(settings)
    except DaemonError as error:
        raise CommandError(str(error)) from error
