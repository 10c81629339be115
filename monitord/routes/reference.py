"""The OpenAPI document to browse and try out, at /docs; nothing in it comes from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

from monitord.routes.route import ApiError, Ask, Route

SCRIPT, STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
FILES: Final = {
    "docs.js": ("page/docs.js", SCRIPT),
    "swagger-ui-bundle.js": ("page/vendor/swagger-ui/swagger-ui-bundle.js", SCRIPT),
    "swagger-ui.css": ("page/vendor/swagger-ui/swagger-ui.css", STYLE),
}
"""Name in the address → where it is in the package, and what it is."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def _read(path: str) -> bytes:
    return files("monitord").joinpath(path).read_bytes()


async def reference(ask: Ask) -> web.StreamResponse:
    return _answer("page/docs.html", "text/html; charset=utf-8")


async def reference_file(ask: Ask) -> web.StreamResponse:
    name = ask.request.match_info["file"]
    if name not in FILES:
        raise ApiError(404, "not_found", f"the page has no file {name[:100]!r}", field="file")
    return _answer(*FILES[name])


def _answer(path: str, media: str) -> web.Response:
    return web.Response(body=_read(path), headers={"Content-Type": media, **HEADERS})


ROUTES = (
    Route(
        method="GET", path="/docs", handler=reference, summary="This document, to browse and try out",
        media="text/html", anyone=True,
    ),
    Route(
        method="GET", path="/docs/{file}", handler=reference_file, summary="What that page loads",
        media="text/javascript", anyone=True, errors=(404,),
    ),
)  # fmt: skip
