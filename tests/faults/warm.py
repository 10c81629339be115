"""What every daemon of a test imports and reads first, done once in the process that they are forked from."""

from __future__ import annotations

from importlib import import_module

from feeds.sessions import Calendar
from feeds.simulated import Market
from monitord.__main__ import parser
from rules import rulefile

LATE = (
    "monitord.app", "monitord.bridge", "monitord.console", "config.loading", "notifiers.webhook", "feeds.remote",
    "rules.engine",
)  # fmt: skip
"""What a daemon imports on its way; by name, for nothing here uses it."""
RULE = 'version: 1\ngroups:\n- name: g\n  rules:\n  - {id: x, select: all, when: "PCT > 1", rearm: "PCT < 0.5"}\n'

for name in LATE:
    import_module(name)
parser()
Calendar.xshg()
rulefile.load({"warm": RULE})  # builds the parser of formulas
Market(seed=1, symbols=5, date=20250102, interval_ms=3000)
