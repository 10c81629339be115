"""Copies of the store, putting one in its place, and every schema version up and down."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monitord.errors import StoreError
from monitord.schema import DOWNGRADES, MIGRATIONS, downgrade, version_of
from monitord.store import HistoryFilter, Store
from monitord.storefile import STORE_NAME, kept_copy, write_copy
from monitord.upkeep import copy_closed, examine, restore
from monitord.upkeep import downgrade as downgrade_store
from notifiers.recorded import Arrival
from tests.monitord.test_store import alert

NEWEST = len(MIGRATIONS)


def made(path: Path, version: int) -> sqlite3.Connection:
    """Open a new file of an older version."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.executescript(f"BEGIN; {' '.join(MIGRATIONS[:version])} PRAGMA user_version = {version}; COMMIT;")
    return db


def shape(db: sqlite3.Connection) -> dict[str, Any]:
    """Return all that SQLite knows of the tables: columns with types and keys, indices, what refers to what."""
    found: dict[str, Any] = {}
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"):
        indices = [row[1:] for row in db.execute(f"PRAGMA index_list({table})")]
        found[table] = (
            db.execute(f"PRAGMA table_xinfo({table})").fetchall(),
            sorted((*index, *db.execute(f"PRAGMA index_xinfo({index[0]})").fetchall()) for index in indices),
            [row[2:] for row in db.execute(f"PRAGMA foreign_key_list({table})")],
        )
    return found


def fill(db: sqlite3.Connection) -> None:
    """Put a row into every table, whatever its version has, by what its columns take."""
    db.execute("BEGIN")
    for table in shape(db):
        columns = [row for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "bundle"]
        allowed = {"state": "dead", "due_ms": None, "kind": None, "only": 1, "delivery_id": 1}
        values = [
            allowed[name] if name in allowed else {"TEXT": "x", "BLOB": b"{}", "INTEGER": 1, "REAL": 1.5}[kind]
            for _, name, kind, *_ in columns
        ]
        names = ", ".join(f'"{name}"' for _, name, *_ in columns)
        db.execute(f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", values)
    db.execute("COMMIT")


def names(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def rows(db: sqlite3.Connection, tables: list[str]) -> dict[str, list[Any]]:
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_version_but_the_first_has_its_way_back() -> None:
    assert len(DOWNGRADES) >= len(MIGRATIONS) - 1


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_a_step_up_and_down_again_leaves_tables_and_rows_as_they_were(version: int, tmp_path: Path) -> None:
    with closing(made(tmp_path / "s", version)) as db:
        fill(db)
        before, held = shape(db), rows(db, sorted(shape(db)))
        db.executescript(f"BEGIN; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;")
        downgrade(db, tmp_path / "s", to=version)
        assert version_of(db) == version
        assert shape(db) == before
        assert rows(db, sorted(before)) == held
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = kept_copy(tmp_path / "s", version + 1)
    assert examine(kept).version == version + 1


def test_bundles_are_told_one_by_one_after_a_step_to_before_them(tmp_path: Path) -> None:
    with closing(made(tmp_path / "s", 4)) as db:
        add = "INSERT INTO deliveries (receiver, alert_id, record, state, due_ms, created_ms, since_ms, kind, bundle) "
        for values in (
            "('ops', 'dg_1', x'5b5d', 'pending', 5, 1, 1, 'digest', NULL)",
            "('ops', 'al_1', x'7b7d', 'pending', NULL, 2, 1, NULL, 1)",
            "('ops', 'al_2', x'7b7d', 'withheld', NULL, 3, 1, NULL, NULL)",
            "('ops', 'al_3', x'7b7d', 'delivered', NULL, 4, 1, NULL, NULL)",
        ):
            db.execute(f"{add} VALUES {values}")
        downgrade(db, tmp_path / "s", to=3)
        assert db.execute("SELECT alert_id, state, due_ms FROM deliveries ORDER BY id").fetchall() == [
            ("al_1", "pending", 2), ("al_2", "dead", None), ("al_3", "delivered", None)
        ]  # fmt: skip


async def test_a_copy_is_kept_before_an_upgrade_and_the_older_program_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / STORE_NAME
    with closing(made(path, NEWEST - 1)) as db:
        fill(db)
        before = shape(db)
    await (await Store.open(path)).close()
    kept = kept_copy(path, NEWEST - 1)
    with closing(sqlite3.connect(kept)) as db:
        assert shape(db) == before
    assert os.stat(kept).st_mode & 0o777 == 0o600
    monkeypatch.setattr("monitord.schema.MIGRATIONS", MIGRATIONS[:-1])  # the program of before
    with pytest.raises(StoreError, match=rf"downgrade --to {NEWEST - 1}.*monitord restore {kept}"):
        await Store.open(path)
    restore(kept, path)
    await (await Store.open(path)).close()


async def test_no_copy_is_made_where_nothing_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    for _ in range(2):
        await (await Store.open(path)).close()
    assert names(tmp_path, "*.v*") == []


@pytest.mark.parametrize("to", [0, NEWEST + 1, -1])
def test_a_version_that_cannot_be_is_refused_and_nothing_is_changed(to: int, tmp_path: Path) -> None:
    made(tmp_path / "s", NEWEST).close()
    with pytest.raises(StoreError, match=f"schema version {NEWEST}, which can become one from 1 to {NEWEST}, not {to}"):
        downgrade_store(tmp_path / "s", to=to)
    assert examine(tmp_path / "s").version == NEWEST


def test_a_step_that_fails_leaves_the_version_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "monitord.schema.DOWNGRADES", (*DOWNGRADES[: NEWEST - 2], "DROP TABLE silences; DROP TABLE absent;")
    )
    made(tmp_path / "s", NEWEST).close()
    with pytest.raises(StoreError, match="no such table: absent"):
        downgrade_store(tmp_path / "s", to=NEWEST - 1)
    with closing(sqlite3.connect(tmp_path / "s")) as db:
        assert version_of(db) == NEWEST
        assert "silences" in shape(db)


# ── copies ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_copy_of_a_store_in_use_holds_one_moment_and_holds_up_no_commit(tmp_path: Path) -> None:
    """A copy made while events are committed has each commit whole or not at all, and the store has them all."""
    store = await Store.open(tmp_path / STORE_NAME)
    copies: list[int] = []

    async def commit_on() -> None:
        for number in range(150):
            await store.commit([alert(2 * number), alert(2 * number + 1)], offset=number)

    async def copy_on(committing: asyncio.Task[None]) -> None:
        while not committing.done():
            async with store.copied() as path:
                contents = examine(path)
                with closing(sqlite3.connect(path)) as db:
                    assert db.execute("SELECT offset FROM inputs").fetchall() in ([], [(contents.events // 2 - 1,)])
                assert contents.events % 2 == 0
                copies.append(contents.events)
            assert not path.exists()

    committing = asyncio.ensure_future(commit_on())
    await copy_on(committing)
    await committing
    assert copies == sorted(copies)
    assert len(copies) > 1
    assert (await store.history(HistoryFilter())).total == 300
    await store.close()
    assert names(tmp_path) == [STORE_NAME, f"{STORE_NAME}.lock"]


async def test_what_a_killed_process_left_of_a_copy_is_gone_after_the_next_opening(tmp_path: Path) -> None:
    for name in (f"{STORE_NAME}.copy", f"{STORE_NAME}.copy.part"):
        (tmp_path / name).write_bytes(b"half of it")
    store = await Store.open(tmp_path / STORE_NAME)
    assert names(tmp_path, "*copy*") == []
    await store.close()


async def test_a_copy_that_cannot_be_written_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    store = await Store.open(tmp_path / STORE_NAME)
    monkeypatch.setattr("monitord.storefile.os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        async with store.copied():
            pass
    monkeypatch.undo()
    assert names(tmp_path, "*copy*") == []
    assert await store.commit([alert(1)], offset=1) == 1
    await store.close()


async def test_a_store_in_use_is_neither_copied_nor_replaced_nor_downgraded_from_outside(tmp_path: Path) -> None:
    path, backup = tmp_path / STORE_NAME, tmp_path / "backup"
    made(backup, NEWEST).close()
    store = await Store.open(path)
    for work in (
        lambda: copy_closed(path, tmp_path / "copy"),
        lambda: restore(backup, path),
        lambda: downgrade_store(path, to=1),
    ):
        with pytest.raises(StoreError, match=f"already open by pid {os.getpid()}"):
            work()
    assert await store.commit([alert(1)], offset=1) == 1
    await store.close()


# ── restoring ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def stored(tmp_path: Path) -> Path:
    """Return a store with an event sent, one waiting and a delivery under way; nobody has it open."""
    store = await Store.open(tmp_path / "state" / STORE_NAME)
    await store.commit([alert(1), alert(2)], offset=7)
    await store.begin_epoch("e1", base=0)
    await store.mark_sent([(1, 1)], epoch="e1")
    await store.deliveries.begin("ops", [Arrival(alert_id="al_1", record=b"{}")])
    await store.close()
    return store.path


async def test_a_restored_store_is_the_one_that_was_backed_up_and_the_old_one_is_kept(
    stored: Path, tmp_path: Path
) -> None:
    copy_closed(stored, tmp_path / "backup")
    store = await Store.open(stored)
    await store.commit([alert(3)], offset=9)
    await store.close()
    contents, kept = restore(tmp_path / "backup", stored, now_s=lambda: 1_700_000_000)
    assert (contents.events, contents.waiting, contents.pending) == (2, 1, 1)
    assert kept == stored.with_name(f"{STORE_NAME}.before-20231114T221320")
    assert examine(kept).events == 3
    again = await Store.open(stored)
    assert [row.id for row in await again.pending(limit=9)] == ["al_2"]
    assert (await again.offset(), await again.acked()) == (7, ("e1", 1))
    await again.close()
    _, kept_too = restore(tmp_path / "backup", stored, now_s=lambda: 1_700_000_000)
    assert kept_too not in (None, kept)


def leave_a_log(path: Path) -> None:
    """Commit something that is in the log alone, as a daemon does that is killed then."""
    killed = sqlite3.connect(path, isolation_level=None)
    killed.execute("PRAGMA journal_mode = WAL")
    killed.execute("UPDATE inputs SET offset = 99")
    log, whole = path.with_name(f"{path.name}-wal").read_bytes(), path.read_bytes()
    killed.close()
    path.write_bytes(whole)
    path.with_name(f"{path.name}-wal").write_bytes(log)


async def test_the_log_of_a_killed_daemon_is_kept_with_its_store_and_never_meets_the_new_one(
    stored: Path, tmp_path: Path
) -> None:
    copy_closed(stored, tmp_path / "backup")
    leave_a_log(stored)
    _, kept = restore(tmp_path / "backup", stored)
    assert kept is not None
    for path, offset in ((kept, 99), (stored, 7)):
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT offset FROM inputs").fetchall() == [(offset,)]


def test_a_store_that_is_damaged_is_replaced_and_kept_as_it_is(tmp_path: Path) -> None:
    made(tmp_path / "backup", NEWEST).close()
    path = tmp_path / "state" / STORE_NAME
    path.parent.mkdir()
    path.write_bytes(b"damaged " * 1000)
    _, kept = restore(tmp_path / "backup", path)
    assert kept is not None
    assert kept.read_bytes() == b"damaged " * 1000
    assert examine(path).version == NEWEST


def test_into_an_empty_place_nothing_is_kept(tmp_path: Path) -> None:
    made(tmp_path / "backup", 1).close()
    contents, kept = restore(tmp_path / "backup", tmp_path / "new" / STORE_NAME)
    assert (contents.version, kept) == (1, None)


def _bad_files(folder: Path) -> Iterator[tuple[str, Path]]:
    (folder / "text").write_text("no store " * 500)
    yield "file is not a database", folder / "text"
    (folder / "empty").touch()
    yield "is no store of monitord", folder / "empty"
    sqlite3.connect(folder / "other").executescript("CREATE TABLE t (x); PRAGMA user_version = 1;").connection.close()
    yield "is no store of monitord", folder / "other"
    db = made(folder / "newer", NEWEST)
    db.execute(f"PRAGMA user_version = {NEWEST + 1}")
    db.close()
    yield f"schema version {NEWEST + 1}, this program knows up to {NEWEST}", folder / "newer"
    db = made(folder / "torn", NEWEST)
    db.executemany("INSERT INTO positions VALUES (?, 'e', 1)", ((f"consumer {n}" * 9,) for n in range(500)))
    db.close()
    content = bytearray((folder / "torn").read_bytes())
    content[-8000:-4000] = b"\xff" * 4000
    (folder / "torn").write_bytes(content)
    yield "damaged|malformed", folder / "torn"
    yield "there is no file", folder / "none"
    with closing(made(folder / "live", NEWEST)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO positions VALUES ('c', 'e', 1)")
        yield "make backups with `monitord backup`", folder / "live"


def test_what_is_no_good_backup_is_refused_and_the_store_stays(tmp_path: Path) -> None:
    path = tmp_path / "state" / STORE_NAME
    path.parent.mkdir()
    made(path, NEWEST).close()
    before = path.read_bytes()
    for why, bad in _bad_files(tmp_path):
        with pytest.raises(StoreError, match=why):
            restore(bad, path)
    with pytest.raises(StoreError, match="is the store itself"):
        restore(path, path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*before*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_store_restored_by_root_belongs_to_the_service(tmp_path: Path) -> None:
    made(tmp_path / "backup", NEWEST).close()
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, 12346)
    restore(tmp_path / "backup", state / STORE_NAME)
    for name in (STORE_NAME, f"{STORE_NAME}.lock"):
        owner = (state / name).stat()
        assert (owner.st_uid, owner.st_gid) == (12345, 12346)


def test_a_link_in_the_services_folder_leads_root_nowhere_else(tmp_path: Path) -> None:
    backup, state, foreign = tmp_path / "backup", tmp_path / "state", tmp_path / "foreign"
    made(backup, NEWEST).close()
    state.mkdir()
    foreign.write_text("not the service's")
    (state / f"{STORE_NAME}.new").symlink_to(foreign)
    restore(backup, state / STORE_NAME)
    (state / f"{STORE_NAME}.lock").unlink()
    (state / f"{STORE_NAME}.lock").symlink_to(foreign)
    with pytest.raises(StoreError, match="symbolic link"):
        restore(backup, state / STORE_NAME)
    assert foreign.read_text() == "not the service's"


def test_a_restore_that_finds_no_room_leaves_the_store_and_nothing_beside_it(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(source: Any, target: Any, length: int) -> None:
        target.write(source.read(10))
        raise OSError(28, "No space left on device")

    made(tmp_path / "backup", NEWEST).close()
    before = stored.read_bytes()
    monkeypatch.setattr("shutil.copyfileobj", fill_up)
    with pytest.raises(StoreError, match="No space left"):
        restore(tmp_path / "backup", stored)
    assert stored.read_bytes() == before
    assert names(stored.parent) == [STORE_NAME, f"{STORE_NAME}.lock"]


def test_a_copy_replaces_the_one_of_before_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy"
    target.write_bytes(b"the old one")

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("monitord.storefile.sync_file", fail)
    with closing(made(tmp_path / "s", NEWEST)) as db, pytest.raises(OSError, match="Input/output error"):
        write_copy(db, target)
    assert target.read_bytes() == b"the old one"
    assert not list(tmp_path.glob("*.part"))
