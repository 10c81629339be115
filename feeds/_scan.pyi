import numpy as np
from numpy.typing import NDArray

LAYOUT: int

def span(times: NDArray[np.int64], /) -> tuple[int, int] | None: ...
def word_sum(frame: bytes, /) -> int: ...
