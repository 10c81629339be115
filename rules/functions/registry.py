"""The registry: every function of the formula language by name.

To add a function, write one `Function` entry in its family's file; to add a family, write its file and one line here.
"""

from __future__ import annotations

from typing import Final

from rules.functions.arithmetic import ARITHMETIC
from rules.functions.averages import AVERAGES
from rules.functions.comparing import COMPARING
from rules.functions.counting import COUNTING
from rules.functions.crossing import CROSSING
from rules.functions.function import Builder, Constants, Function, Param, ParamKind
from rules.functions.parabolic import PARABOLIC
from rules.functions.references import REFERENCES
from rules.functions.regression import REGRESSION
from rules.functions.seconds import SECONDS
from rules.functions.spread import SPREAD
from rules.functions.truths import TRUTHS
from rules.functions.windows import WINDOWS

FAMILIES: Final = (
    TRUTHS, COMPARING, ARITHMETIC, REFERENCES, AVERAGES, WINDOWS, COUNTING, CROSSING, SPREAD, REGRESSION, PARABOLIC,
    SECONDS,
)  # fmt: skip
FUNCTIONS: Final[dict[str, Function]] = {function.name: function for family in FAMILIES for function in family}

__all__ = ["FUNCTIONS", "Builder", "Constants", "Function", "Param", "ParamKind"]
