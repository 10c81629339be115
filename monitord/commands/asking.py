"""Asking the running daemon over its gateway, for commands about what only it may change."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitord.commands import CommandError
from monitord.commands.settings import add_settings, load_settings

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from config.settings import GatewaySection

TIMEOUT_S = 30.0


class RefusedError(CommandError):
    """The daemon answered with another status than success."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(_refusal(body, status))
        self.status, self.body = status, body


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Give a command --url, --token-file, --json and what settings take."""
    parser.add_argument("--url", metavar="URL", help="the gateway (default: as the settings say)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a file with the token (default: one of the settings' that may)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer's JSON instead of text")
    add_settings(parser)


def ask(
    args: argparse.Namespace,
    method: str,
    path: str,
    *,
    needs: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Any:
    """Send one request and return the JSON of its answer; entries of None are left out.

    needs: what the token has to allow. Raises CommandError where nobody answers or the answer is a refusal.
    """
    import orjson

    with answer_to(args, method, path, needs=needs, body=body, query=query) as answer:
        return orjson.loads(answer.read())


def look(args: argparse.Namespace, path: str, *, needs: str, query: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Read one resource; return the status and the answer's JSON, of a refusal as well.

    Raises CommandError where nobody answers, or not as a monitord does.
    """
    import orjson

    try:
        with answer_to(args, "GET", path, needs=needs, query=query) as answer:
            return 200, orjson.loads(answer.read())
    except RefusedError as error:
        try:
            return error.status, orjson.loads(error.body)
        except ValueError:
            raise CommandError(str(error)) from None


@contextmanager
def answer_to(
    args: argparse.Namespace,
    method: str,
    path: str,
    *,
    needs: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[HTTPResponse]:
    """Send one request and yield the answer to read from; raises CommandError, of a refusal RefusedError."""
    import urllib.error
    import urllib.parse
    import urllib.request
    from http.client import HTTPException

    import orjson

    section = load_settings(args).settings.gateway
    base = (args.url or address_of(section)).rstrip("/")
    asked = {name: value for name, value in (query or {}).items() if value is not None}
    url = f"{base}{path}{'?' if asked else ''}{urllib.parse.urlencode(asked)}"
    given = None if body is None else orjson.dumps({name: one for name, one in body.items() if one is not None})
    try:
        request = urllib.request.Request(url, data=given, method=method, headers=_headers(args, section, needs))
        # no proxy: the gateway is asked directly, whatever the environment says
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        raise RefusedError(error.code, error.read()) from None
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise CommandError(f"no daemon answers at {base} ({why}); is it running? --url names another") from None


def print_json(answer: Any) -> None:
    """Print an answer as it came."""
    import sys

    import orjson

    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def moment(ts_ms: int | None) -> str:
    """Return a time for people, in Shanghai; "-" for none."""
    from rules.alert import shanghai_iso

    return "-" if ts_ms is None else shanghai_iso(ts_ms)[:19].replace("T", " ")


def address_of(section: GatewaySection) -> str:
    """Return where the gateway of these settings is asked."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(section.host, section.host)
    return f"http://[{host}]:{section.port}" if ":" in host else f"http://{host}:{section.port}"


def _headers(args: argparse.Namespace, section: GatewaySection, needs: str) -> dict[str, str]:
    token = _token(args, section, needs)
    return {"Content-Type": "application/json", **({} if token is None else {"Authorization": f"Bearer {token}"})}


def _token(args: argparse.Namespace, section: GatewaySection, needs: str) -> str | None:
    """Return the token to show; None: hope that this machine needs none."""
    if args.token_file is not None:
        try:
            return str(args.token_file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{args.token_file}: cannot be read: {error}") from None
    able = (one for one in section.tokens if any(fnmatchcase(needs, channel) for channel in one.channels))
    return next((one.token.get_secret_value() for one in able), None)


def _refusal(text: bytes, status: int) -> str:
    import orjson

    try:
        error = orjson.loads(text)["error"]
        field = f" (field {error['field']})" if error.get("field") else ""
        return f"the daemon refuses: {error['msg']}{field}"
    except (ValueError, KeyError, TypeError):
        return f"the gateway answers with status {status}, and not as a monitord does"
