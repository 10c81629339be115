"""What every daemon of a test imports and reads first, done once in the process that they are forked from."""

from __future__ import annotations

import notifiers.webhook  # noqa: F401
from feeds.sessions import Calendar
from monitord.__main__ import parser

parser()
Calendar.xshg()
