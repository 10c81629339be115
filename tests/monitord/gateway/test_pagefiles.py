"""The page's files: whole, typed, cached as they may be, and nothing in them that the policy forbids."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
from aiohttp import web

from monitord.gateway.pagefiles import FOREVER, REVALIDATE, PageFiles, page_names

FOLDER = Path(str(files("monitord").joinpath("page")))
OURS = sorted(path for path in FOLDER.glob("*.js"))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    application = web.Application()
    PageFiles().add_to(application.router)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(url, auto_decompress=False) as session:
        yield session
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        ("/", "text/html; charset=utf-8", REVALIDATE),
        ("/page/main.js", "text/javascript; charset=utf-8", REVALIDATE),
        ("/page/style.css", "text/css; charset=utf-8", REVALIDATE),
        ("/page/mark.svg", "image/svg+xml", REVALIDATE),
        ("/page/vendor/lightweight-charts-5.2.1.mjs", "text/javascript; charset=utf-8", FOREVER),
        ("/page/vendor/lightweight-charts.LICENSE", "text/plain; charset=utf-8", FOREVER),
    ],
)
async def test_a_file_has_its_type_its_cache_rule_and_a_strict_policy(
    session: aiohttp.ClientSession, path: str, kind: str, cache: str
) -> None:
    async with session.get(path, headers={"Accept-Encoding": "identity"}) as reply:
        body = await reply.read()
    assert (reply.status, reply.headers["Content-Type"], reply.headers["Cache-Control"]) == (200, kind, cache)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert body == (FOLDER / (path.removeprefix("/page/") if path != "/" else "index.html")).read_bytes()


async def test_a_file_is_packed_for_who_can_unpack_it_and_not_sent_to_who_has_it(
    session: aiohttp.ClientSession,
) -> None:
    async with session.get("/page/main.js", headers={"Accept-Encoding": "gzip, br"}) as reply:
        packed, etag = await reply.read(), reply.headers["ETag"]
    assert reply.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == (FOLDER / "main.js").read_bytes()
    async with session.get("/page/main.js", headers={"If-None-Match": etag}) as reply:
        assert (reply.status, await reply.read()) == (304, b"")
    async with session.get("/page/main.js", headers={"If-None-Match": '"another"'}) as reply:
        assert reply.status == 200


@pytest.mark.parametrize(
    "path",
    ["/page/none.js", "/page/../server.py", "/page/%2e%2e/gateway/server.py", "/page/vendor/", "/page//etc/passwd"],
)
async def test_what_is_no_file_of_the_page_is_not_found(session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(path) as reply:
        assert reply.status == 404


def test_every_module_that_is_imported_is_there_and_served() -> None:
    missing = {
        (path.name, name)
        for path in OURS
        for name in re.findall(r'from "\./([^"]+)"', path.read_text())
        if name not in page_names()
    }
    assert not missing


def test_the_index_and_the_scripts_hold_nothing_that_the_policy_forbids() -> None:
    index = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", index)
    for path in OURS:
        if path.name == "docs.js":
            continue
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )


def test_every_word_is_there_in_both_languages_and_every_word_asked_for_is_there() -> None:
    table = (FOLDER / "words.js").read_text().partition("const WORDS = {")[2].partition("\n};")[0]
    words = dict(re.findall(r'(\w+): (\["(?:[^"\\]|\\.)+", "(?:[^"\\]|\\.)+"\])', table))
    keys = re.findall(r"(?:^|, |\{ )\s*(\w+): \[", table, re.MULTILINE)
    assert sorted(words) == sorted(keys)
    assert len(keys) == len(set(keys))
    asked = {key for path in OURS for key in re.findall(r'\bt\("(\w+)"\)', path.read_text())}
    assert asked - set(words) == set()


def test_the_vendored_library_has_its_licence_and_its_version_beside_it() -> None:
    vendor = FOLDER / "vendor"
    (library,) = vendor.glob("lightweight-charts-*.mjs")
    version = library.stem.rpartition("-")[2]
    assert f"v{version}" in library.read_text()[:400]
    assert f"`{library.name}`" in (vendor / "README.md").read_text()
    assert "Apache License" in (vendor / "lightweight-charts.LICENSE").read_text()
    assert library.name in (FOLDER / "charts.js").read_text()


@pytest.mark.parametrize("page", ["index.html", "docs.html"])
def test_behind_a_proxy_everything_is_asked_for_below_the_proxys_path(page: str) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    at = "https://host/monitor/" + ("docs" if page == "docs.html" else "")
    found = re.findall(r'(?:href|src)="([^"]+)"', text)
    assert len(found) >= 3
    assert [path for path in found if not urljoin(at, path).startswith("https://host/monitor/")] == []


def test_no_script_asks_for_an_address_that_begins_at_the_root() -> None:
    rooted = re.compile(r"""["'`]/(?:v1|api|page|docs|livez|readyz|metrics)\b""")
    assert [path.name for path in OURS if rooted.search(path.read_text(encoding="utf-8"))] == []
