from typing import Any, Final

from numpy.typing import NDArray

from feeds.tick import IntArray

STEPS: Final[dict[str, str]]
BLOCK: Final[int]
LAYOUT: Final[int]

class Tape:
    def __new__(cls, steps: bytes, numbers: bytes, /) -> Tape: ...
    def play(
        self, standing: list[NDArray[Any]], others: list[NDArray[Any]], n: int, rows: IntArray | None, /
    ) -> None: ...
