"""Checkpoints of the engine's state: files of named columns, whole or not there at all.

A file is a line of JSON (format, source, offset, meta, and each array's dtype, shape and place), the arrays' bytes one
behind the other, and a BLAKE2b digest of all that. The newest two are kept, so that one damaged file costs some
running-again, not the state.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray

from feeds.disk import sync_folder
from monitord.errors import CheckpointError

FORMAT: Final = 1
KEPT: Final = 2
_SUFFIX: Final = ".checkpoint"
_DIGEST_BYTES: Final = 32

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All engine state behind the input of `offset`.

    source_id: of the feed played. state_format: version of what meta and arrays mean; another one is not read. meta:
    JSON values. arrays: any dtype without Python objects, among them fixed-width str; read ones are writable copies.
    """

    source_id: str
    offset: int
    state_format: int
    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class _Unusable(Exception):
    """Why a file is not taken."""


class CheckpointFolder:
    """The checkpoints in one folder. Blocking calls, any one thread at a time; one process per folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, checkpoint: Checkpoint) -> Path:
        """Put a checkpoint on the disk and delete all but the newest two; return its path.

        It is there completely or, whenever we are killed, not at all. Raises CheckpointError where the disk refuses or
        an array holds Python objects; the older ones then stay.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = max((_number(path) for path in self._paths()), default=0) + 1
            path = self.folder / f"{number:012d}{_SUFFIX}"
            beside = path.with_suffix(".partial")
            try:
                with beside.open("wb") as file:
                    _write(file, checkpoint)
                    os.fsync(file.fileno())
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            sync_folder(self.folder)
            self._delete_old()
        except OSError as error:
            raise CheckpointError(
                f"cannot write a checkpoint into {self.folder}: {error.strerror or error}; check the disk's space"
            ) from error
        return path

    def oldest_offset(self, source_id: str, *, state_format: int) -> int | None:
        """Return the offset of the oldest usable checkpoint, None if there is none: the journal before it may go."""
        return min((kept.offset for kept in self.usable(source_id, state_format=state_format)), default=None)

    def usable(self, source_id: str, *, state_format: int) -> Iterator[Checkpoint]:
        """Yield the checkpoints of this source and format, newest first, each read when it is asked for.

        Those that are not usable (damaged, another format, another source) are logged with the reason and passed over.
        """
        for path in reversed(self._paths()):
            try:
                yield _read(path, source_id, state_format)
            except (_Unusable, OSError) as error:
                log.warning("checkpoint_skipped", file=path.name, why=str(error))

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())

    def _delete_old(self) -> None:
        for path in self._paths()[:-KEPT]:
            path.unlink()


def _number(path: Path) -> int:
    return int(path.stem)


def _write(file: BinaryIO, checkpoint: Checkpoint) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    header = {
        "format": FORMAT,
        "source_id": checkpoint.source_id,
        "offset": checkpoint.offset,
        "state_format": checkpoint.state_format,
        "meta": checkpoint.meta,
        "arrays": {name: [_described(name, array), checkpoint.arrays[name].shape] for name, array in arrays.items()},
    }
    line = orjson.dumps(header) + b"\n"
    digest = blake2b(line, digest_size=_DIGEST_BYTES)
    file.write(line)
    for array in arrays.values():
        piece = array.reshape(-1).view(np.uint8).data
        digest.update(piece)
        file.write(piece)
    file.write(digest.digest())


def _described(name: str, array: NDArray[Any]) -> Any:
    if array.dtype.hasobject:
        raise CheckpointError(f"array {name!r} holds Python objects; use a number, bool or fixed-width str dtype")
    return np.lib.format.dtype_to_descr(array.dtype)


def _read(path: Path, source_id: str, state_format: int) -> Checkpoint:
    """Read one file; raises _Unusable with the reason. The digest is checked before anything in it is believed."""
    content = path.read_bytes()
    body = memoryview(content)[:-_DIGEST_BYTES]
    if len(content) <= _DIGEST_BYTES or blake2b(body, digest_size=_DIGEST_BYTES).digest() != content[-_DIGEST_BYTES:]:
        raise _Unusable("its digest does not fit: damaged or cut short")
    line = content.index(b"\n")
    header = orjson.loads(body[:line])
    _check(header, "format", FORMAT)
    _check(header, "source_id", source_id)
    _check(header, "state_format", state_format)
    arrays, at = {}, line + 1
    for name, (described, shape) in header["arrays"].items():
        dtype = np.lib.format.descr_to_dtype(_tupled(described))
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += count * dtype.itemsize
    return Checkpoint(source_id, header["offset"], state_format, header["meta"], arrays)


def _check(header: Mapping[str, Any], key: str, wanted: str | int) -> None:
    if header[key] != wanted:
        raise _Unusable(f"its {key} is {header[key]!r}, not {wanted!r}")


def _tupled(described: Any) -> Any:
    """Give a structured dtype's description its tuples back, which JSON made lists."""
    return described if isinstance(described, str) else [tuple(field) for field in described]
