"""`StateTable`: every array of the engine that has one column per symbol, by name.

Growing the universe, writing a checkpoint and reading one back are each one loop here, so no node has code for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rules.errors import RuleError

_ALIGNMENT: Final = 64


def copied(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return copies of arrays, all in one block: when the last is let go, its memory goes back to the system at once.

    Copies one by one would be thousands of small pieces, which the C library keeps.
    """
    starts, end = {}, 0
    for name, array in arrays.items():
        starts[name] = end
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = np.empty(end, np.uint8)
    copies = {}
    for name, array in arrays.items():
        copies[name] = block[starts[name] : starts[name] + array.nbytes].view(array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies


class Column:
    """A holder of one state array of shape (…, n_symbols); `array` is replaced when the universe grows."""

    __slots__ = ("array", "fill")

    def __init__(self, array: NDArray[Any], fill: float | int | bool) -> None:
        self.array = array
        self.fill = fill

    def borrow(self, array: NDArray[Any]) -> None:
        """Show an array of someone else's from now on: whoever changes something takes `mine` first."""
        flags = array.flags
        if array.dtype is self.array.dtype and flags.c_contiguous and not flags.writeable:
            self.array = array
            return
        self.array = np.ascontiguousarray(array, self.array.dtype).view()
        self.array.flags.writeable = False

    def mine(self) -> NDArray[Any]:
        """Return the array to write to; what was borrowed is copied before."""
        if not self.array.flags.writeable:
            self.array = self.array.copy()
        return self.array


class StateTable:
    """Named state arrays, all with the symbols as their last axis."""

    def __init__(self, n_symbols: int = 0) -> None:
        self.n = n_symbols
        self.lender: object = None
        """The plan whose columns the graph's nodes write to; None after the universe has grown."""
        self.awaited: Collection[str] = ()
        """Names of the arrays that `load` will put back, while what is to claim them is made."""
        self._columns: dict[str, Column] = {}

    def claim(
        self,
        name: str,
        *,
        shape: tuple[int, ...] = (),
        dtype: DTypeLike = np.float64,
        fill: float | int | bool = np.nan,
    ) -> Column:
        """Make a state array of shape (*shape, n) filled with `fill`; raises RuleError if the name is taken."""
        column = Column(np.full((*shape, self.n), fill, dtype), fill)
        self.put(name, column)
        return column

    def put(self, name: str, column: Column) -> None:
        """Take in an array that somebody else has made, of all symbols; raises RuleError if the name is taken."""
        if name in self._columns:
            raise RuleError(f"state {name!r} is claimed twice")
        self._columns[name] = column

    def release(self, prefix: str) -> None:
        """Forget every array whose name starts with `prefix`."""
        for name in [name for name in self._columns if name.startswith(prefix)]:
            del self._columns[name]

    def release_one(self, name: str) -> None:
        """Forget the array of exactly this name."""
        del self._columns[name]

    def grow(self, n_symbols: int) -> None:
        """Widen every array to n_symbols; new symbols start with each array's fill value."""
        extra = n_symbols - self.n
        if extra <= 0:
            return
        for column in self._columns.values():
            old = column.array
            wide = np.full((*old.shape[:-1], n_symbols), column.fill, old.dtype)
            wide[..., : self.n] = old
            column.array = wide
        self.n = n_symbols
        self.lender = None

    def names(self) -> Iterable[str]:
        return self._columns.keys()

    def columns(self, prefix: str) -> dict[str, Column]:
        """Return the holders of every array whose name starts with `prefix`, by name."""
        return {name: column for name, column in self._columns.items() if name.startswith(prefix)}

    def dump(self) -> dict[str, NDArray[Any]]:
        """Return every array by name: these themselves, see `copied`."""
        return {name: column.array for name, column in self._columns.items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put arrays of a dump back into the columns claimed under the same names.

        Raises RuleError if a claimed name is missing or has another shape or dtype.
        """
        for name, column in self._columns.items():
            array = arrays.get(name)
            if array is None:
                raise RuleError(f"checkpoint holds no state {name!r}")
            if array.shape != column.array.shape or array.dtype != column.array.dtype:
                raise RuleError(
                    f"state {name!r} is {array.dtype}{array.shape} in the checkpoint, "
                    f"{column.array.dtype}{column.array.shape} here"
                )
            column.array = np.array(array)
        self.awaited = ()
