"""The page's files as the gateway serves them: read once, typed, compressed, each with its ETag and a strict policy."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

INDEX: Final = "index.html"
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
"""For vendored files: their names hold their versions."""
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
    """Every file under monitord/page: `/` is the index, `/page/NAME` any other. Read when it is made, about 5 ms."""

    def __init__(self) -> None:
        self._files: Mapping[str, PageFile] = dict(_read(files("monitord").joinpath("page"), ""))

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/", self._index)
        router.add_get("/page/{name:.+}", self._named)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return self._files[INDEX].answer(request)

    async def _named(self, request: web.Request) -> web.StreamResponse:
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return found.answer(request)


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, PageFile]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif (kind := TYPES.get(entry.name.rpartition(".")[2])) is not None:
            yield prefix + entry.name, _page_file(entry.read_bytes(), kind, is_vendored=prefix == "vendor/")


def _page_file(content: bytes, kind: str, *, is_vendored: bool) -> PageFile:
    packed = gzip.compress(content, 6, mtime=0) if len(content) > WORTH_PACKING else None
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return PageFile(content, packed, kind, etag, FOREVER if is_vendored else REVALIDATE)
