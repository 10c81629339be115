"""Is the broker there, new enough, and does it keep what it is given?"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from monitord.broker import EmbeddedBroker, broker_facts, find_server
from monitord.checks import Examined, Finding, Verdict, in_thread
from monitord.errors import BrokerError

DEADLINE_S: Final = 10.0
_SAFE: Final = "set appendonly yes and maxmemory-policy noeviction on the server"


async def check(examined: Examined) -> Finding:
    """Ask the broker of these settings; the embedded one is looked at if it runs, and never started."""
    from monitord.building import build_broker

    broker = build_broker(examined.settings)
    embedded = isinstance(broker, EmbeddedBroker)
    if isinstance(broker, EmbeddedBroker) and not await in_thread(broker.socket.exists):
        return await in_thread(_would_start)
    try:
        facts = await broker_facts(broker.url)
    except BrokerError as error:
        if embedded:
            return await in_thread(_would_start)  # its socket was left behind by a killed server
        return Finding(Verdict.FAIL, str(error), "start the broker, or mend broker.url and broker.password")
    if not embedded:
        examined.broker_ahead_s = facts.ahead_s
    text = f"{'our own, ' if embedded else ''}version {facts.version}, append-only file and eviction policy"
    if facts.warnings:
        return Finding(Verdict.WARN, f"version {facts.version}; {'; '.join(facts.warnings)}", _SAFE)
    return Finding(Verdict.OK, f"{text} as they must be")


def _would_start() -> Finding:
    if find_spec("fcntl") is None:
        return Finding(Verdict.SKIP, "the daemon, and a broker of its own, need Linux; nothing here asks for one")
    try:
        return Finding(Verdict.OK, f"our own, not running; the daemon will start {find_server()}")
    except BrokerError as error:
        return Finding(Verdict.FAIL, str(error), "install one of them, or set broker.url")
