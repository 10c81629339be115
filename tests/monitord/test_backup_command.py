"""`monitord backup`, `restore` and `store`, over a gateway with a real store behind it, and over files alone."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from monitord.__main__ import main
from monitord.routes import backup
from monitord.schema import MIGRATIONS
from monitord.store import Store
from monitord.storefile import STORE_NAME
from monitord.upkeep import examine
from tests.monitord.gateway.stand import SECRET, Stand, bearer, standing, token
from tests.monitord.test_store import alert


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Return an open store with two events, in the state directory of the settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITORD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    opened = await Store.open(tmp_path / "state" / STORE_NAME)
    await opened.commit([alert(1), alert(2)], offset=1)
    yield opened
    await opened.close()


@asynccontextmanager
async def serving(store: Store, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[Stand]:
    async with standing(**options) as stand:
        stand.history.copied = store.copied
        monkeypatch.setenv("MONITORD_GATEWAY__PORT", str(stand.port))
        yield stand


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kept_before(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.before-*"))


async def command(*words: object) -> int:
    return await asyncio.to_thread(main, [str(word) for word in words])


async def test_a_backup_of_the_running_daemon_is_a_whole_store_for_nobody_elses_eyes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "monday.sqlite"
    async with serving(store, monkeypatch):
        assert await command("backup", target) == 0
    said = f"{target}: 2 events, 2 not yet published, schema version {len(MIGRATIONS)}, 0."
    assert said in capsys.readouterr().out
    assert examine(target).events == 2
    assert os.stat(target).st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["monday.sqlite", "state"]


async def test_without_a_daemon_the_store_is_copied_from_its_folder(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.close()
    assert await command("backup", tmp_path / "cold.sqlite", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["events"], told["version"], told["deleted"]) == (2, len(MIGRATIONS), [])
    assert examine(tmp_path / "cold.sqlite").events == 2


async def test_in_a_folder_backups_are_named_after_the_time_and_only_the_newest_are_kept(
    store: Store, tmp_path: Path
) -> None:
    await store.close()
    folder = tmp_path / "backups"
    folder.mkdir()
    for day in range(10, 14):
        (folder / f"monitord-202501{day}T193000.sqlite").touch()
    (folder / "monitord-before-the-holidays.sqlite").touch()
    assert await command("backup", folder, "--keep", 2) == 0
    left = names(folder)
    assert left[0] == "monitord-20250113T193000.sqlite"
    assert left[2] == "monitord-before-the-holidays.sqlite"
    assert examine(folder / left[1]).events == 2


async def test_a_backup_needs_a_token_that_may(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(SECRET)
    async with serving(store, monkeypatch, tokens=(token("alerts*"),)) as stand:
        assert await command("backup", tmp_path / "b", "--token-file", tmp_path / "token") == 2
        assert "this token may not use backup" in capsys.readouterr().err
        async with stand.session.get(f"{stand.gateway.address}/v1/backup", headers=bearer("wrong")) as reply:
            assert reply.status == 401
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.part").exists()


async def test_a_disk_that_is_full_on_the_daemons_side_is_told_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("monitord.storefile.sync_file", full)
    async with serving(store, monkeypatch):
        assert await command("backup", tmp_path / "b") == 2
    assert "the store cannot be copied; the log says why" in capsys.readouterr().err
    assert names(tmp_path) == ["state"]


async def test_a_client_that_takes_nothing_does_not_keep_the_copy_from_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def stall(response: web.StreamResponse, block: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(backup, "STALLED_S", 0.01)
    monkeypatch.setattr(web.StreamResponse, "write", stall)
    async with serving(store, monkeypatch):
        assert await command("backup", tmp_path / "b") == 2
        assert "broke off after 0 of" in capsys.readouterr().err
        async with store.copied():
            pass
    assert names(tmp_path) == ["state"]


async def test_an_answer_that_breaks_off_is_no_backup(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        await response.write(b"SQLite format 3")
        assert request.transport is not None
        request.transport.close()
        return response

    application = web.Application()
    application.router.add_get("/v1/backup", half)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    assert await command("backup", tmp_path / "b", "--url", url) == 2
    await runner.cleanup()
    assert "15 of 100,000 bytes" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["there"], "there is there already; name a new file, or a folder"),
        (["no/folder/b"], "no/folder/b cannot be written: No such file or directory"),
        (["b", "--keep", "2"], "--keep takes a number from 1 on, and a folder that is there as TARGET"),
        ([".", "--keep", "0"], "--keep takes a number from 1 on"),
    ],
)
async def test_a_target_that_cannot_be_is_refused(
    store: Store, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("something else")
    assert await command("backup", *words) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "something else"


async def test_without_store_and_daemon_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITORD_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("MONITORD_GATEWAY__PORT", "1")
    assert await command("backup", "b") == 2
    assert "no daemon answers at http://127.0.0.1:1" in capsys.readouterr().err
    assert names(tmp_path) == []


# ── restore, store ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_restore_puts_it_back_and_says_where_the_old_one_is(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.close()
    assert await command("backup", tmp_path / "b") == 0
    again = await Store.open(store.path)
    await again.commit([alert(3)], offset=2)
    capsys.readouterr()
    assert await command("restore", tmp_path / "b") == 2
    assert f"already open by pid {os.getpid()}" in capsys.readouterr().err
    await again.close()
    assert await command("restore", tmp_path / "b") == 0
    out = capsys.readouterr().out
    (kept,) = kept_before(store.path)
    assert f"the store as it was before: {kept}" in out
    assert "told again at the next start, under the same ids" in out
    assert (examine(store.path).events, examine(kept).events) == (2, 3)


async def test_store_show_tells_what_it_holds_and_downgrade_brings_it_back(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    await store.close()
    assert await command("store", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == len(MIGRATIONS)
    assert await command("store", "downgrade", "--to", len(MIGRATIONS) - 1) == 0
    kept = store.path.with_name(f"{STORE_NAME}.v{len(MIGRATIONS)}")
    assert f"the store as it was before: {kept}" in capsys.readouterr().out
    assert examine(store.path).version == len(MIGRATIONS) - 1
    assert await command("store", "downgrade", "--to", 99) == 2
    assert "which can become one from 1 to" in capsys.readouterr().err
    again = await Store.open(store.path)  # and up again
    assert again.lag_rows == 2
    await again.close()


async def test_store_show_without_a_store_says_so(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("store", "show", "--file", "nowhere.sqlite") == 2
    assert "there is no store nowhere.sqlite" in capsys.readouterr().err
