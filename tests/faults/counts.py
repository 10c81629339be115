"""How often each fault is done: the counts of CI, or with MONITORD_FAULTS=long those of `make faults`."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "MONITORD_FAULTS"
LONG: Final = os.environ.get(VARIABLE, "ci") == "long"


def count(name: str, *, ci: int, long: int) -> int:
    """Return how often this is done: MONITORD_FAULTS_<NAME> if it is set, else the count of CI or of the long run."""
    asked = os.environ.get(f"{VARIABLE}_{name.upper()}")
    return int(asked) if asked else (long if LONG else ci)
