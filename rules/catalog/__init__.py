"""Standard formulas of TDX, shipped as text and used by name: "MACD.DIF"(12,26,9), "KDJ.K#WEEK"(9,3,3).

Each `*.tdx` beside this file is one formula as published. Its first line is a comment of ours with its name, what it is
called, and its parameters with their defaults: `{KDJ 随机指标: N=9 M1=3 M2=3}`. The files are read once, when one is
first asked for: the one reading of files in the rules, and of nothing but its own package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

from rules.errors import RuleError
from rules.language.parser import parse
from rules.language.tree import Binding, Formula, Number, Statement

_HEADER = re.compile(r"\{(\w+) ([^:{}\n]+): ((?:\w+=[0-9.]+ ?)+)\}\n")


@dataclass(frozen=True, slots=True)
class Standard:
    """One standard formula: `title` its Chinese name, `parameters` with their defaults in order."""

    name: str
    title: str
    parameters: tuple[tuple[str, float], ...]
    formula: Formula

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of its outputs, in order."""
        return tuple(statement.name for statement in self.formula.outputs)

    def signature(self) -> str:
        """Return its call with the defaults, such as "KDJ.K"(9,3,3)."""
        return f'"{self.name}.{self.outputs[0]}"({",".join(f"{value:g}" for _, value in self.parameters)})'


def read_standard(text: str) -> Standard:
    """Read one formula with its header; raises RuleError for another first line."""
    header = _HEADER.match(text)
    if header is None:
        raise RuleError("a standard formula begins with {NAME title: N=9 M=3}")
    pairs = (pair.split("=") for pair in header[3].split())
    return Standard(header[1], header[2], tuple((name, float(value)) for name, value in pairs), parse(text))


@cache
def standard_formulas() -> Mapping[str, Standard]:
    """Return every standard formula by name, in order."""
    texts = (file.read_text(encoding="utf-8") for file in files(__name__).iterdir() if file.name.endswith(".tdx"))
    return {standard.name: standard for standard in sorted(map(read_standard, texts), key=lambda found: found.name)}


@lru_cache(maxsize=512)
def instance(name: str, output: str, arguments: tuple[float, ...] = ()) -> Formula:
    """Return a standard formula up to one of its outputs, its parameters given as statements before it.

    output: "" where it has but one; arguments: none for the defaults. Raises RuleError for what it has not.
    """
    standard = standard_formulas().get(name)
    if standard is None:
        raise RuleError(f"there is no shipped formula {name}; there are {', '.join(standard_formulas())}")
    wanted = output or (standard.outputs[0] if len(standard.outputs) == 1 else "")
    if wanted not in standard.outputs:
        raise RuleError(f"{name} has the outputs {', '.join(standard.outputs)}, not {output or 'one alone'}")
    if arguments and len(arguments) != len(standard.parameters):
        raise RuleError(f"{name} takes {_names(standard)}, not {len(arguments)} numbers")
    values = arguments or [value for _, value in standard.parameters]
    given = [
        Statement(Binding.PRIVATE, name, name, Number(value))
        for (name, _), value in zip(standard.parameters, values, strict=True)
    ]
    own = standard.formula.statements
    end = next(i for i, statement in enumerate(own) if statement.name == wanted and statement.binding is Binding.OUTPUT)
    return replace(standard.formula, statements=(*given, *own[: end + 1]), condition=len(given) + end)


def _names(standard: Standard) -> str:
    names: Sequence[str] = [name for name, _ in standard.parameters]
    return f"{len(names)} numbers ({','.join(names)})"
