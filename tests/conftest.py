"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Return the folder of recorded market data (`MARKET_DATA`, else ../shared/data); skip where it is absent."""
    folder = Path(os.environ.get("MARKET_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "sessions").is_dir():
        pytest.skip(f"recorded market data not found at {folder}; set MARKET_DATA to its folder")
    return folder
