"""`python -m tests.bench [--only NAME …] [--json FILE] [--quick]`: run the benchmarks and print what they found."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.bench.report import Report, show, to_json

BENCHMARKS: Final = (
    "w1_kernel",
    "dict_to_events",
    "frame_to_events",
    "thousand_rules",
    "hop",
    "memory",
    "exactness",
    "publish",
    "fan_out",
    "callback_to_client",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen benchmarks; 0 if every figure is what was asked, 1 if one is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON, too")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    chosen = parser.parse_args(arguments)
    reports: list[Report] = []
    for name in chosen.only:
        report = import_module(f"tests.bench.{name}").run(quick=chosen.quick)
        show(report)
        reports.append(report)
    if chosen.json is not None:
        chosen.json.write_bytes(to_json(reports))
    missed = [f"{r.name}: {line.what}" for r in reports for line in r.lines if line.verdict is False]
    print(f"\nmissed: {'; '.join(missed)}" if missed else "\nevery figure is what was asked")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
