from typing import Final

import numpy as np
from numpy.typing import NDArray

from feeds.tick import IntArray

LAYOUT: Final[int]

def scatter(
    true: list[NDArray[np.uint8]], false: list[NDArray[np.uint8]], at: IntArray, both: NDArray[np.uint8], /
) -> None: ...
def gates(gates: NDArray[np.int32], both: NDArray[np.uint8], /) -> None: ...
def edges(
    both: NDArray[np.uint8],
    rows: IntArray,
    rearm_rows: IntArray,
    enabled: NDArray[np.uint8],
    on_start: NDArray[np.uint8],
    armed: NDArray[np.uint8],
    started: NDArray[np.uint8],
    /,
) -> list[tuple[int, int, bool]]: ...
