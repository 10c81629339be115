"""The signals that ask a command for its end, where the loop takes no handlers of them, as on Windows, too."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Let the signals that ask for an end call `stop`, once; the second one has its ordinary effect."""
    loop = asyncio.get_running_loop()
    for number in {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)}:

        def on_signal(*_: object, number: signal.Signals = number) -> None:
            signal.signal(number, signal.SIG_DFL)
            loop.call_soon_threadsafe(stop)

        signal.signal(number, on_signal)
