"""Compiled twins: those of other sources are left alone, and that is told."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from feeds import unbox
from feeds.compiled import MISSING, compiled
from monitord.gateway import fanout
from rules import ordinary, tape


def test_what_was_built_from_other_sources_is_left_alone_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = ModuleType("stale")
    stale.__file__ = "/somewhere/stale.so"
    monkeypatch.setitem(sys.modules, "stale", stale)
    monkeypatch.setattr("feeds.compiled.MISSING", {})
    for layout in (None, 1, 3):
        if layout is not None:
            stale.LAYOUT = layout  # type: ignore[attr-defined]
        with pytest.warns(RuntimeWarning, match=rf"stale.so was built from other .* \(layout {layout}, not 2\)"):
            assert compiled("stale", layout=2) is None
    stale.LAYOUT = 2  # type: ignore[attr-defined]
    assert compiled("stale", layout=2) is stale


def test_what_is_not_there_is_noted_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feeds.compiled.MISSING", found := {})
    assert compiled("feeds._nowhere", layout=1) is None
    assert "feeds._nowhere" in found["feeds._nowhere"]


def test_all_that_is_built_here_fits() -> None:
    there = {
        "feeds._unbox": unbox.COMPILED,
        "rules._ordinary": ordinary.COMPILED,
        "rules._tape": tape.COMPILED,
        "monitord.gateway._fanout": fanout.COMPILED,
    }
    assert {name for name, module in there.items() if module is None} <= MISSING.keys()
    assert all(why.startswith("not built") for why in MISSING.values())
