"""`monitord run`: the daemon, until a signal or the end of its feed."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from monitord.commands import CommandError
from monitord.commands.settings import add_settings, load_settings
from monitord.errors import DaemonError

HELP = "run the daemon: feed, rules, store, broker and gateway"

_SHORT = {
    "feed": ("feed.name", "NAME", "simulated, replay, xt, redis or quotes_http"),
    "rules": ("rules.files", "FILES", "rule files, with commas between"),
    "port": ("gateway.port", "PORT", "TCP port of the gateway"),
    "share": ("engine.share", "N/COUNT", "take this part of the rules, 0/2 or 1/2; several daemons share them"),
    "state_dir": ("state_dir", "DIR", "where journal, store and broker live"),
}
"""Options that are short for --set."""


def configure(parser: argparse.ArgumentParser) -> None:
    for option, (setting, metavar, text) in _SHORT.items():
        parser.add_argument(f"--{option.replace('_', '-')}", metavar=metavar, help=f"{text} (= --set {setting}=…)")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Read the settings, set up logs and console, and hand over to the application."""
    if find_spec("fcntl") is None:
        raise CommandError("run needs Linux; on Windows there are bridge, record and doctor (docs/feeds.md)")
    given = {setting: getattr(args, option) for option, (setting, _, _) in _SHORT.items()}
    args.overrides = [*args.overrides, *(f"{name}={text}" for name, text in given.items() if text is not None)]
    settings = load_settings(args).settings

    import structlog

    from feeds.compiled import MISSING
    from feeds.errors import FeedError
    from monitord import app, log
    from monitord.console import make_console
    from notifiers.errors import DeliveryError
    from rules.errors import RuleError

    gateway = settings.gateway
    log.configure(format=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    if not gateway.tokens and not gateway.allow_loopback_without_token:
        structlog.get_logger().warning(
            "gateway_lets_nobody_in",
            hint="name one under [[gateway.tokens]], or set gateway.allow_loopback_without_token=true",
        )
    for module, why in MISSING.items():
        structlog.get_logger().warning("not_compiled", module=module, why=why)
    try:
        return app.main(settings, console=make_console())
    except (DaemonError, FeedError, RuleError, DeliveryError) as error:
        raise CommandError(str(error)) from error
