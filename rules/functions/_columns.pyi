from typing import Any, Final

from numpy.typing import NDArray

STEPS: Final[dict[str, str]]
BLOCK: Final[int]

def take(name: str, number: float, /, *columns: NDArray[Any]) -> bool: ...
def play(tape: bytes, numbers: bytes, columns: list[NDArray[Any]], n: int, /) -> None: ...
