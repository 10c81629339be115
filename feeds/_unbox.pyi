from typing import Any

from feeds.tick import FloatArray

def unbox(ticks: list[Any], fields: tuple[tuple[str, int, float, float, float], ...], out: FloatArray) -> bool: ...
