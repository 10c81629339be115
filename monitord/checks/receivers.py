"""Is anybody told, and can each receiver be built? Nothing is sent."""

from __future__ import annotations

from typing import Final

from monitord.checks import Examined, Finding, Verdict

DEADLINE_S: Final = 5.0


async def check(examined: Examined) -> Finding:
    """Build each receiver; its address and keys are secrets, so that only names are told."""
    from notifiers.errors import DeliveryError
    from notifiers.notifier import build_notifier

    names = []
    for key, receivers in examined.settings.notify.lists().items():
        for receiver in receivers:
            names.append(receiver.name)
            try:
                build_notifier(receiver.kind, **receiver.options())
            except DeliveryError as error:
                return Finding(Verdict.FAIL, str(error), f"mend the receiver {receiver.name!r} under [[notify.{key}]]")
    if not names:
        todo = "add a receiver (docs/receivers.md), unless reading the gateway or Redis is enough"
        return Finding(Verdict.WARN, "no receiver is configured", todo)
    return Finding(Verdict.OK, f"{len(names)} configured: {', '.join(names)}")
