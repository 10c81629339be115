"""Checkpoints: what was written comes back bit for bit, and what is damaged is passed over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from monitord import checkpoint as checkpoint_module
from monitord.checkpoint import Checkpoint, CheckpointFolder
from monitord.errors import CheckpointError


def made(offset: int, *, source_id: str = "xt", state_format: int = 3) -> Checkpoint:
    arrays = {
        "close": np.array([[1.5, np.nan], [-0.0, np.inf]]).T,
        "codes": np.array(["600519.SH", "000001.SZ"]),
        "firing": np.array([True, False]),
        "none": np.zeros((0, 7), np.int32),
        "one": np.array(offset),
        "pairs": np.array([(1, 2.5)], dtype=[("row", "<i4"), ("peak", "<f8")]),
    }
    return Checkpoint(source_id, offset, state_format, {"rules": "茅台", "counts": [1, 2]}, arrays)


def read(folder: CheckpointFolder) -> Checkpoint | None:
    return next(folder.usable("xt", state_format=3), None)


def test_every_array_comes_back_bit_for_bit_and_writable(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "new")
    folder.write(made(77))
    got = read(folder)
    assert got is not None
    assert (got.source_id, got.offset, got.meta) == ("xt", 77, {"rules": "茅台", "counts": [1, 2]})
    assert got.arrays.keys() == made(77).arrays.keys()
    for name, array in made(77).arrays.items():
        assert (got.arrays[name].dtype, got.arrays[name].shape) == (array.dtype, array.shape)
        assert got.arrays[name].tobytes() == array.tobytes()
        assert got.arrays[name].flags.writeable


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for offset in (10, 20, 30, 40):
        folder.write(made(offset))
    assert len(list(tmp_path.iterdir())) == 2
    assert read(folder).offset == 40
    assert folder.oldest_offset("xt", state_format=3) == 30


def test_a_changed_or_missing_byte_anywhere_falls_back_to_the_older_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(made(10))
    newest = folder.write(made(20))
    whole = newest.read_bytes()
    for place in range(0, len(whole), 7):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read(folder).offset == 10
        newest.write_bytes(whole[:place])
        assert read(folder).offset == 10
    newest.write_bytes(whole)
    assert read(folder).offset == 20


def test_other_sources_and_formats_are_passed_over(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(made(10, source_id="simulated:7"))
    folder.write(made(20, state_format=2))
    assert read(folder) is None
    assert next(folder.usable("simulated:7", state_format=3)).offset == 10
    assert list(CheckpointFolder(tmp_path / "none").usable("xt", state_format=3)) == []


def test_another_file_layout_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(made(10))
    monkeypatch.setattr(checkpoint_module, "FORMAT", 2)
    assert read(folder) is None


def test_a_full_disk_leaves_the_older_ones_and_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(made(10))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; check"):
        folder.write(made(20))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    assert read(folder).offset == 10


def test_a_writer_killed_before_the_rename_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.write(made(10))
    whole = next(tmp_path.iterdir()).read_bytes()
    (tmp_path / "000000000002.partial").write_bytes(whole[: len(whole) // 2])
    assert read(folder).offset == 10
    folder.write(made(20))
    assert read(folder).offset == 20
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"] * 2


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(checkpoint_module.os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("rename"), replace(path, to))[1])
    CheckpointFolder(tmp_path).write(made(10))
    assert steps == ["fsync", "rename", "fsync"]


def test_python_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="array 'names' holds Python objects"):
        CheckpointFolder(tmp_path).write(Checkpoint("xt", 1, 3, {}, {"names": np.array([{}, None])}))
    assert list(tmp_path.iterdir()) == []
