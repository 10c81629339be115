from typing import Any

from numpy.typing import NDArray

_Columns = list[NDArray[Any]]

def take(
    n: int,
    since_ms: int,
    ticks: _Columns,
    day: _Columns,
    trail: _Columns,
    periods: list[tuple[_Columns, int]],
    /,
) -> bool: ...
