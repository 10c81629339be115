"""Compiled twins of Python code: optional, and of the very release of the Python that calls them.

An installation without a compiler has none, and nothing but speed is different. One that was built from another state
of the sources (a folder updated without `make setup`) would take what it is given for something else; so every one
bears the LAYOUT of its calls, and one that does not fit is left alone, which is told.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType
from typing import Final

MISSING: Final[dict[str, str]] = {}
"""Compiled module → why Python does its work."""


def compiled(name: str, *, layout: int) -> ModuleType | None:
    """Return a compiled module; None where there is none, or, with a RuntimeWarning, one of another layout."""
    try:
        module = import_module(name)
    except ImportError as error:
        MISSING[name] = f"not built: {error}"
        return None
    found = getattr(module, "LAYOUT", None)
    if found == layout:
        return module
    MISSING[name] = (
        f"{module.__file__} was built from other sources (layout {found}, not {layout}): "
        "Python does its work, slower; build it again with `make setup` or `pip install`"
    )
    warnings.warn(MISSING[name], RuntimeWarning, stacklevel=2)
    return None
