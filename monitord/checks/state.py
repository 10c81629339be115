"""Can the daemon keep its state: may the directory be written, and is there room?"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from monitord.checks import Examined, Finding, Verdict, in_thread

DEADLINE_S: Final = 5.0
LOW_BYTES: Final = 5 << 30
"""A day's journal of the whole market and a recording of it."""
LEAST_BYTES: Final = 500 << 20


async def check(examined: Examined) -> Finding:
    """Write and sync a file in each directory that will be written, and look at the room there."""
    folders = [examined.settings.state_dir]
    if examined.settings.record.folder is not None:
        folders.append(examined.settings.record.folder)
    findings = [await in_thread(lambda folder=folder: look(folder)) for folder in folders]  # type: ignore[misc]
    return max(findings, key=lambda finding: (Verdict.OK, Verdict.WARN, Verdict.FAIL).index(finding.verdict))


def look(folder: Path) -> Finding:
    """Judge one directory, or where it will be made."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    if there is None:  # a drive of Windows that is not there
        return Finding(Verdict.FAIL, f"{folder} is on no drive there is", "name a folder on one that is")
    name = str(folder) if there == folder else f"{folder} (will be made in {there})"
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(
            Verdict.FAIL,
            f"{name} cannot be written: {error.strerror}",
            f"let this user write {there}, or set another one",
        )
    return _room(name, shutil.disk_usage(there).free)


def _room(name: str, free: int) -> Finding:
    text = f"{name} can be written, {free / (1 << 30):.1f} GB free"
    if free < LEAST_BYTES:
        return Finding(
            Verdict.FAIL, text, f"free at least {LEAST_BYTES >> 20} MB: alerts stop when nothing can be stored"
        )
    if free < LOW_BYTES:
        return Finding(Verdict.WARN, text, f"a trading day of the whole market may need {LOW_BYTES >> 30} GB")
    return Finding(Verdict.OK, text)
