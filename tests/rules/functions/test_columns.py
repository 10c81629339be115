"""Steps over whole columns: the compiled way gives numpy's bits, for any numbers and lengths."""

from __future__ import annotations

import shutil
import sysconfig
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.functions import columns
from rules.tape import COMPILED

N = 37
"""No multiple of what a processor takes at once."""
needs_compiled = pytest.mark.skipif(COMPILED is None, reason="there was no compiler at installation")

NUMBERS = st.one_of(
    st.floats(width=64), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-9, 1.0 + 1e-9, np.nan, np.inf, 21.5, 21.50000001])
)
COLUMN = st.lists(NUMBERS, min_size=N, max_size=N).map(lambda values: np.array(values, np.float64))
MASK = st.lists(st.booleans(), min_size=N, max_size=N).map(lambda values: np.array(values, np.bool_))
SHARE = st.sampled_from([1e-9, -1e-9, 0.1, 1 / 3, 2 / 13])

STEPS: dict[str, tuple[Any, ...]] = {
    "shift": (SHARE, COLUMN), "compare": (COLUMN, COLUMN), "cross": (COLUMN, COLUMN, MASK),
    "add_share": (SHARE, COLUMN, COLUMN), "smooth": (SHARE, COLUMN, COLUMN, COLUMN), "divide": (COLUMN, COLUMN),
    "higher": (COLUMN, COLUMN), "lower": (COLUMN, COLUMN),
    "maximum": (COLUMN, COLUMN), "minimum": (COLUMN, COLUMN),
    "divide_near": (COLUMN, COLUMN, COLUMN), "spread": (SHARE, COLUMN, COLUMN, COLUMN, COLUMN),
    "rooted_spread": (SHARE, COLUMN, COLUMN, COLUMN, COLUMN), "add": (COLUMN, COLUMN), "subtract": (COLUMN, COLUMN),
    "multiply": (COLUMN, COLUMN), "negate": (COLUMN,), "size": (COLUMN,), "over": (NUMBERS, COLUMN),
    "under": (NUMBERS, COLUMN),
}  # fmt: skip
ON_TAPES: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "negate": np.negative, "size": np.abs,
    "over": lambda number, a, *out: columns.compare(a, np.float64(number), *out),
    "under": lambda number, a, *out: columns.compare(np.float64(number), a, *out),
}  # fmt: skip
"""What numpy does itself."""
TELLS = ("compare", "cross", "over", "under")


def on_a_tape(step: str, given_: tuple[Any, ...]) -> list[np.ndarray]:
    """The results of a tape of this one step."""
    assert COMPILED is not None
    number = next((value for value in given_ if isinstance(value, float)), 0.0)
    taken = [value for value in given_ if isinstance(value, np.ndarray)]
    n = len(taken[0])
    out = [np.full(-(-n // 8), 255, np.uint8) for _ in range(2)] if step in TELLS else [np.full(n, 7.0)]
    words = np.zeros(8, np.int16)
    words[: 1 + len(taken) + len(out)] = list(COMPILED.STEPS).index(step), *range(len(taken) + len(out))
    COMPILED.Tape(words.tobytes(), np.array([number]).tobytes()).play([], [*taken, *out], n, None)
    return [np.unpackbits(bits, count=n).astype(np.bool_) for bits in out] if step in TELLS else out


def in_numpy(step: str, given_: tuple[Any, ...]) -> list[np.ndarray]:
    n = max(len(value) for value in given_ if isinstance(value, np.ndarray))
    out = [np.ones(n, np.bool_), np.ones(n, np.bool_)] if step in TELLS else [np.full(n, 7.0)]
    with np.errstate(all="ignore"):
        (ON_TAPES[step] if step in ON_TAPES else getattr(columns, step))(*given_, *out)
    return out


def canonical(column: np.ndarray) -> bytes:
    """NaNs have many bits, which nobody looks at."""
    return (column if column.dtype == np.bool_ else np.where(np.isnan(column), np.nan, column)).tobytes()


def same_bits(mine: list[np.ndarray], reference: list[np.ndarray]) -> bool:
    return [canonical(column) for column in mine] == [canonical(column) for column in reference]


def made(step: str, rng: np.random.Generator, n: int) -> list[Any]:
    return [
        0.25 if kind in (SHARE, NUMBERS) else rng.random(n) > 0.5 if kind is MASK else rng.normal(0, 3, n)
        for kind in STEPS[step]
    ]


def test_the_compiled_way_is_there_wherever_there_is_a_compiler() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert COMPILED is not None or shutil.which(compiler) is None


def test_every_compiled_step_is_tested() -> None:
    if COMPILED is not None:
        assert COMPILED.STEPS.keys() == STEPS.keys()


@needs_compiled
@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=30)
@given(data=st.data())
def test_both_ways_give_the_same_bits(step: str, data: st.DataObject) -> None:
    given_ = data.draw(st.tuples(*STEPS[step]))
    assert same_bits(on_a_tape(step, given_), in_numpy(step, given_))


@needs_compiled
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n", [0, 1, 8, 100_003])
def test_any_number_of_symbols_will_do(step: str, n: int) -> None:
    given_ = tuple(made(step, np.random.default_rng(n), n))
    assert same_bits(on_a_tape(step, given_), in_numpy(step, given_))


@pytest.mark.parametrize("step", STEPS)
def test_a_constant_of_stride_0_is_taken_in_any_place(step: str) -> None:
    rng = np.random.default_rng(1)
    for place, kind in enumerate(STEPS[step]):
        if kind is not COLUMN:
            continue
        given_ = [
            0.25 if k is SHARE else rng.random(N) > 0.5 if k is MASK else rng.normal(0, 3, N) for k in STEPS[step]
        ]
        dense = [*given_[:place], np.full(N, 1.5), *given_[place + 1 :]]
        wide = [*given_[:place], np.broadcast_to(np.float64(1.5), (N,)), *given_[place + 1 :]]
        assert same_bits(in_numpy(step, tuple(wide)), in_numpy(step, tuple(dense)))


@pytest.mark.parametrize(
    "column",
    [np.arange(1, N + 1), np.arange(1.0, N + 1).astype(">f8"), np.arange(1, N + 1, dtype=np.float32),
     np.arange(1.0, 2 * N + 1)[::2], np.arange(1.0, N + 1)[::-1]],
    ids=["whole", "big-endian", "single", "every other", "backwards"],
)  # fmt: skip
def test_columns_of_other_types_and_layouts_are_taken(column: np.ndarray) -> None:
    out = np.empty(N)
    columns.add_share(0.5, column, np.ones(N), out)
    assert out.tolist() == [0.5 * x + 1.0 for x in column.tolist()]


def test_a_tie_is_within_a_billionth_of_the_larger_or_of_1() -> None:
    assert columns.tolerance(np.array([0.0, -0.5, 2.0, -1700.0])).tolist() == [1e-9, 1e-9, 2e-9, 1.7e-6]
