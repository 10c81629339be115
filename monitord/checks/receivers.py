"""Is anybody told, and can each receiver be built? Nothing is sent."""

from __future__ import annotations

from typing import Final

from monitord.checks import Examined, Finding, Verdict

DEADLINE_S: Final = 5.0


async def check(examined: Examined) -> Finding:
    """Build each receiver; its address and keys are secrets, so that only names are told."""
    from monitord.app import webhook_options
    from notifiers.errors import DeliveryError
    from notifiers.notifier import build_notifier

    names = []
    for webhook in examined.settings.notify.webhooks:
        names.append(webhook.name)
        try:
            build_notifier("webhook", **webhook_options(webhook))
        except DeliveryError as error:
            return Finding(Verdict.FAIL, str(error), f"mend the receiver {webhook.name!r} under [[notify.webhooks]]")
    if not names:
        todo = "add a receiver under [[notify.webhooks]], unless reading the gateway or Redis is enough"
        return Finding(Verdict.WARN, "no receiver is configured", todo)
    return Finding(Verdict.OK, f"{len(names)} configured: {', '.join(names)}")
