"""`monitord backup`: the store as one file, from the running daemon or, where none runs, from its folder."""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from monitord.commands import GOOD, CommandError
from monitord.commands.asking import add_gateway, answer_to, print_json
from monitord.commands.settings import load_settings
from monitord.errors import StoreError

if TYPE_CHECKING:
    from monitord.upkeep import Contents

HELP = "copy the store, alerts and deliveries and what was made by API, into one file; the daemon may run meanwhile"
TIMEOUT_S: Final = 600.0
"""The daemon writes its copy before the first byte comes: a second for a few hundred MB."""
BLOCK_BYTES: Final = 1 << 20
_NAMED: Final = re.compile(r"monitord-\d{8}T\d{6}\.sqlite")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="a new file, or a folder, where it is named after the time in UTC"
    )
    parser.add_argument("--keep", type=int, metavar="N", help="in a folder: delete all but the newest N backups")
    add_gateway(parser)


def run(args: argparse.Namespace) -> int:
    """Write the copy beside, check it, and only then give it its name."""
    target = _target(args)
    part = target.with_name(f"{target.name}.part")
    try:
        _create(part)
        _copy(args, part)
        contents = _checked(part)
        part.replace(target)
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    deleted = _thin_out(target.parent, args.keep) if args.keep is not None else []
    tell(args, target, contents, deleted=[str(file) for file in deleted])
    return GOOD


def _target(args: argparse.Namespace) -> Path:
    target: Path = args.target
    if args.keep is not None and (args.keep < 1 or not target.is_dir()):
        raise CommandError("--keep takes a number from 1 on, and a folder that is there as TARGET")
    if target.is_dir():
        target = target / time.strftime("monitord-%Y%m%dT%H%M%S.sqlite", time.gmtime())
    if target.exists():
        raise CommandError(f"{target} is there already; name a new file, or a folder")
    return target


def _create(part: Path) -> None:
    """Make the file with nobody else's eyes on it: it holds every alert."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _copy(args: argparse.Namespace, part: Path) -> None:
    """Copy a store that nobody has open; where somebody has, or it is not for us, ask the daemon."""
    if args.url is None and (store := local_store(args)) is not None:
        from monitord.upkeep import copy_closed

        try:
            copy_closed(store, part)
            return
        except StoreError:  # in use, or not for us to open: the daemon tells what is wrong
            pass
    _download(args, part)


def _download(args: argparse.Namespace, part: Path) -> None:
    with (
        answer_to(args, "GET", "/v1/backup", needs="backup", timeout_s=TIMEOUT_S) as answer,
        part.open("wb") as file,
    ):
        size, came = int(answer.headers.get("Content-Length", -1)), 0
        while block := answer.read(BLOCK_BYTES):
            came += len(block)
            try:
                file.write(block)
            except OSError as error:
                raise CommandError(f"{part} cannot be written: {error.strerror}") from None
        if came != size:
            raise CommandError(f"the daemon's answer broke off after {came:,} of {size:,} bytes; try again")
        file.flush()
        os.fsync(file.fileno())


def _checked(part: Path) -> Contents:
    from monitord.upkeep import examine

    try:
        return examine(part)
    except StoreError as error:
        raise CommandError(f"what came is no good backup: {error}") from None


def _thin_out(folder: Path, keep: int) -> list[Path]:
    old = sorted(file for file in folder.iterdir() if _NAMED.fullmatch(file.name))[:-keep]
    for file in old:
        file.unlink()
    return old


def local_store(args: argparse.Namespace) -> Path | None:
    """Return the store of these settings on this machine, None where there is none to be seen."""
    from monitord.storefile import STORE_NAME, state_folder

    path = state_folder(load_settings(args).settings) / STORE_NAME
    try:
        return path if path.exists() else None
    except OSError:  # the folder is not for us to look into
        return None


def tell(args: argparse.Namespace, file: Path, contents: Contents, **more: Any) -> None:
    """Say what a store holds, in a line or as JSON."""
    from dataclasses import asdict

    if args.json:
        print_json({"file": str(file), **asdict(contents), **more})
        return
    waits = f", {contents.waiting:,} not yet published" if contents.waiting else ""
    pends = f", {contents.pending:,} deliveries still to be made" if contents.pending else ""
    megabytes = contents.size_bytes / 1e6
    print(f"{file}: {contents.events:,} events{waits}{pends}, schema version {contents.version}, {megabytes:,.1f} MB")
