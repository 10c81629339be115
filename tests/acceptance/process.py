"""`python -m tests.acceptance.process …`: monitord, with the exchange's trading days from a file.

Only exchange_calendars brings pandas along, and that is half the CPU time of a start, which these tests make by the
dozen. The days are those it tells; tests of the calendar itself ask it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

from feeds import sessions
from feeds.sessions import Calendar
from monitord.__main__ import main

DAYS = "TEST_TRADING_DAYS"
"""Environment variable: the file."""


@cache
def environment() -> dict[str, str]:
    """Write the file, once in a run of the tests, and return what says where it is."""
    folder = tempfile.mkdtemp(prefix="trading-days-")
    file = Path(folder) / "days.json"
    file.write_text(json.dumps([*map(sessions._date_of, Calendar.xshg()._numbers)]))
    return {DAYS: str(file)}


def read_days_from_file() -> None:
    """Let this process take the trading days from the file."""
    days = Calendar(json.loads(Path(os.environ[DAYS]).read_text()))
    sessions._xshg = lambda: days  # type: ignore[assignment]


if __name__ == "__main__":
    read_days_from_file()
    sys.exit(main())
