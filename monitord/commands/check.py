"""`monitord check`: are these rule files good? Exit code 0 good, 1 findings, 2 unusable input."""

from __future__ import annotations
