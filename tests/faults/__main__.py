"""`python -m tests.faults [PART]`: the faults in their long counts, all parts one after the other, or one of them.

Each part ends within an hour on a machine of two cores that has nothing else to do. What the scenarios print, figures
and the checker's verdicts, goes to the terminal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from tests.acceptance.daemon import ROOT
from tests.faults.counts import VARIABLE

PARTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "1": ("engine killed 500 times, engine and broker together 100", ("test_kills.py::KILLS[0]",)),
    "2": ("500 clients cut 200 times, broker killed 100 times, its file cut short", ("test_cuts.py",)),
    "3": ("broker stalled up to 60 s, network faults 50 times each", ("test_stalls.py",)),
    "4": (
        "bad rule files 10,000, malformed ticks 10,000,000",
        ("../monitord/test_bad_rules.py", "../feeds/test_decode.py::BAD_TICKS"),
    ),
    "5": (
        "receivers, frames, the crowd, full disks, secrets, the checker",
        ("test_receivers.py", "test_frames.py", "test_crowd.py", "test_disk.py", "test_secrets.py", "test_checker.py",
         "test_proxy.py"),
    ),
    "6": ("engine killed 500 times more, engine and broker together 100", ("test_kills.py::KILLS[1]",)),
}  # fmt: skip
KILLS: Final = "test_killed_engines_and_brokers_tell_exactly_what_one_engine_decides_that_lives"
MALFORMED: Final = "test_malformed_ticks_by_the_hundred_thousand_are_each_counted_and_every_good_one_is_used"


def run(part: str) -> int:
    """Run one part; return pytest's exit code."""
    title, files = PARTS[part]
    print(f"── part {part}: {title}", flush=True)
    paths = [f"tests/faults/{name}".replace("BAD_TICKS", MALFORMED).replace("KILLS", KILLS) for name in files]
    began = time.monotonic()
    code = subprocess.call(
        [sys.executable, "-m", "pytest", "-s", "-p", "no:xdist", "--durations=10", *paths],
        cwd=ROOT, env={**os.environ, VARIABLE: "long"},
    )  # fmt: skip
    print(
        f"── part {part}: {'passed' if code == 0 else 'FAILED'} in {(time.monotonic() - began) / 60:.1f} min",
        flush=True,
    )
    return code


def main(wanted: list[str]) -> int:
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        print(f"there is no part {unknown[0]}; there are", file=sys.stderr)
        for part, (title, _) in PARTS.items():
            print(f"  {part}: {title}", file=sys.stderr)
        return 2
    return max([run(part) for part in wanted or PARTS])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
