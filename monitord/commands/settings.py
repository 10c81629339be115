"""The arguments by which commands take settings, and reading them with errors for people."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monitord.commands import CommandError

if TYPE_CHECKING:
    from config.loading import Loaded


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a command --config and --set."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file (default: $MONITORD_CONFIG, else ./monitord.toml)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="set one setting, stronger than any other source; may be repeated",
    )


def load_settings(args: argparse.Namespace) -> Loaded:
    """Read the settings; raises CommandError with everything that is wrong."""
    from config.errors import ConfigError
    from config.loading import load

    try:
        return load(args.overrides, config=args.config)
    except ConfigError as error:
        raise CommandError(f"the settings cannot be used\n{error}") from None
    except OSError as error:
        raise CommandError(f"the settings cannot be read: {error}") from None
