"""`monitord notify test`: send a test message by the very code that delivers alerts, and print what came back."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from monitord.commands import FINDINGS, GOOD, CommandError
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from config.receivers import Receiver
    from notifiers.notifier import Outcome

HELP = "send a test message to a receiver and print what came back"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    test = actions.add_parser("test", help="send a test message; the exit code is 1 if one was not taken")
    test.add_argument("receivers", nargs="*", metavar="RECEIVER", help="name of a receiver in the settings")
    test.add_argument("--all", action="store_true", help="all receivers, one after the other")
    add_settings(test)


def run(args: argparse.Namespace) -> int:
    from monitord.log import Redaction
    from monitord.trial import try_out

    settings = load_settings(args).settings
    chosen = _chosen(settings.notify.receivers(), args.receivers, every=args.all)
    redact = Redaction(settings.secrets())
    width = max(len(one.name) for one in chosen)
    good = True
    for one in chosen:
        started = time.monotonic()
        outcome = asyncio.run(try_out(one))
        line = f"{one.name:{width}}  {one.kind:10}  {_told(outcome)}  {(time.monotonic() - started) * 1000:.0f} ms"
        print(redact.text(line), flush=True)
        good = good and outcome.verdict == "ok"
    return GOOD if good else FINDINGS


def _chosen(receivers: Sequence[Receiver], names: Sequence[str], *, every: bool) -> list[Receiver]:
    """Return the receivers that are meant; raises CommandError where there are none, or not these."""
    known = {one.name: one for one in receivers}
    if not known:
        raise CommandError("the settings name no receiver; docs/receivers.md tells how to set one up")
    if every == bool(names):
        raise CommandError(f"name receivers, or say --all; there are {', '.join(known)}")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CommandError(f"there is no receiver {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


def _told(outcome: Outcome) -> str:
    """Write an outcome in a line: what became of it, the receiver's own code, why, and the pause it asks for."""
    words = {"ok": "taken", "retry": "not taken, may pass", "permanent": "refused", "disable": "gone for good"}
    parts = [words[outcome.verdict]]
    parts += [f"code {outcome.code}"] if outcome.code is not None else []
    parts += [outcome.text] if outcome.text else []
    parts += [f"wants a pause of {outcome.retry_after_s:.0f} s"] if outcome.retry_after_s else []
    return " · ".join(parts)
