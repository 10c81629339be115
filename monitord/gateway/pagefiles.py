"""The page's files as the gateway serves them: read once, typed, packed, each with its ETag and a strict policy."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

INDEX: Final = "index.html"
_FOLDER: Final = files("monitord").joinpath("page")
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
    "md": "text/plain; charset=utf-8",
}
"""By what stands behind the name's last dot."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REVALIDATE: Final = "no-cache"
FOREVER: Final = "public, max-age=31536000, immutable"
"""For files of page/vendor: their names hold their versions."""
WORTH_PACKING: Final = 1024


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file; packed: gzip of it, None where that is not worth it."""

    content: bytes
    packed: bytes | None
    type: str
    etag: str
    cache: str

    def answer(self, request: web.Request) -> web.Response:
        """Answer with the file, or 304 where the client has it already."""
        headers = {**HEADERS, "Cache-Control": self.cache, "ETag": self.etag, "Vary": "Accept-Encoding"}
        if any(tag.value == self.etag.strip('"') for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        body = self.content
        if self.packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            body, headers["Content-Encoding"] = self.packed, "gzip"
        return web.Response(body=body, headers={**headers, "Content-Type": self.type})


class PageFiles:
    """Every file under monitord/page: `/` is the index, `/page/NAME` any other.

    Each is read when it is first asked for, once a process: the largest takes 60 ms to pack.
    """

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/", self._index)
        router.add_get("/page/{name:.+}", self._named)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return _page_file(INDEX).answer(request)

    async def _named(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in page_names():
            raise web.HTTPNotFound
        return _page_file(name).answer(request)


@cache
def page_names() -> frozenset[str]:
    """Return the names of the files there are, with their folders."""
    return frozenset(_names(_FOLDER, ""))


def _names(folder: Traversable, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif _kind(entry.name) in TYPES:
            yield prefix + entry.name


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


@cache
def _page_file(name: str) -> PageFile:
    content = _FOLDER.joinpath(name).read_bytes()
    packed = gzip.compress(content, 6, mtime=0) if len(content) > WORTH_PACKING else None
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    is_versioned = name.startswith("vendor/") and name.count("/") == 1
    return PageFile(content, packed, TYPES[_kind(name)], etag, FOREVER if is_versioned else REVALIDATE)
