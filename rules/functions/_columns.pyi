from typing import Any, Final

from numpy.typing import NDArray

from feeds.tick import IntArray

STEPS: Final[dict[str, str]]
BLOCK: Final[int]

def take(name: str, number: float, /, *columns: NDArray[Any]) -> bool: ...
def play(
    tape: bytes,
    numbers: bytes,
    standing: list[NDArray[Any]],
    others: list[NDArray[Any]],
    n: int,
    rows: IntArray | None,
    /,
) -> None: ...
