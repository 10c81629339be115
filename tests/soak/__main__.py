"""`python -m tests.soak`: the whole market day, or as much of it as is asked for; exit code 1 if it does not hold."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import GROWTH_BYTES, HOUR_S, LATE_S, Load, Result, soak

DAY_MIN = 239.0
"""The market clock may never say 15:00 itself before the next day begins."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=DAY_MIN, help="of market time (default: a day)")
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--symbols", type=int, default=5500)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--receivers", type=int, default=5)
    args = parser.parse_args()
    load = Load(
        market_s=args.minutes * 60, speed=args.speed, symbols=args.symbols, rules=args.rules, clients=args.clients,
        receivers=args.receivers,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = asyncio.run(soak(load, Path(folder)))
    result.faults += bounds(result)
    print(result)
    return 1 if result.faults else 0


def bounds(result: Result) -> list[str]:
    """Return which bounds did not hold: those of a quiet machine, and of memory where there was an hour to warm up."""
    faults = []
    if result.late_share() >= 0.01:
        faults.append(f"the loop was more than {LATE_S * 1000:.0f} ms late at {result.late_share():.2%} of looks")
    growth = result.growth_bytes(after_s=HOUR_S)
    if growth > GROWTH_BYTES:
        faults.append(f"memory grew by {growth / 1e6:.1f} MB after the first hour")
    return faults


if __name__ == "__main__":
    sys.exit(main())
