"""`monitord silence`: for a time, receivers are told nothing of alerts that match."""

from __future__ import annotations

import argparse
import getpass
import re
import time
from typing import Any, Final

from monitord.commands import GOOD, CommandError
from monitord.commands.asking import add_gateway, ask, moment, print_json

HELP = "add, list and expire silences"
FIELDS: Final = {
    "rule": "rules", "symbol": "symbols", "board": "boards", "sector": "sectors", "severity": "severities",
    "event": "events", "include": "include", "exclude": "exclude",
}  # fmt: skip
"""Word before the = → field of the match."""
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="silence what matches all of these")
    add.add_argument(
        "match", nargs="+", metavar="FIELD=VALUE",
        help=f"{', '.join(FIELDS)} or label.NAME; rules, symbols, severities and labels take * and ?; one field twice: "
        "either will do",
    )  # fmt: skip
    end = add.add_mutually_exclusive_group(required=True)
    end.add_argument("--for", dest="duration", metavar="DURATION", help="such as 90s, 30m, 2h, 1d")
    end.add_argument("--until", metavar="TIME", help="ISO 8601 in Shanghai, or Unix ms")
    add.add_argument("--from", dest="start", metavar="TIME", help="when it begins (default: now)")
    add.add_argument("--author", default=None, metavar="WHO", help="default: you")
    add.add_argument("--comment", required=True, metavar="TEXT", help="why")
    add_gateway(add)
    add.set_defaults(action=_add)
    listing = actions.add_parser("list", help="list them, newest first")
    listing.add_argument("--state", choices=("pending", "active", "expired"))
    add_gateway(listing)
    listing.set_defaults(action=_list)
    expire = actions.add_parser("expire", help="end one now")
    expire.add_argument("id", type=int, metavar="ID")
    add_gateway(expire)
    expire.set_defaults(action=_expire)


def run(args: argparse.Namespace) -> int:
    return int(args.action(args))


def _add(args: argparse.Namespace) -> int:
    if args.duration is not None and args.start is not None:
        raise CommandError("--for counts from now; with --from name the end by --until")
    end = args.until if args.duration is None else _now_ms() + duration_ms(args.duration)
    body = {
        "match": read_match(args.match), "start": args.start, "end": end, "author": args.author or getpass.getuser(),
        "comment": args.comment,
    }  # fmt: skip
    _show(args, ask(args, "POST", "/v1/silences", needs="silences:write", body=body))
    return GOOD


def _list(args: argparse.Namespace) -> int:
    answer = ask(args, "GET", "/v1/silences", needs="silences", query={"state": args.state})
    if args.json:
        print_json(answer)
        return GOOD
    for one in answer["silences"]:
        print(_line(one))
    return GOOD


def _expire(args: argparse.Namespace) -> int:
    _show(args, ask(args, "POST", f"/v1/silences/{args.id}/expire", needs="silences:write"))
    return GOOD


def read_match(words: list[str]) -> dict[str, Any]:
    """Read FIELD=VALUE words; raises CommandError that names the word."""
    match: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not (name in FIELDS or re.fullmatch(r"label\..+", name)):
            raise CommandError(f"{word!r} is no FIELD=VALUE; fields are {', '.join(FIELDS)} and label.NAME")
        if name in FIELDS:
            match.setdefault(FIELDS[name], []).append(value)
        else:
            match.setdefault("labels", {})[name.removeprefix("label.")] = value
    return match


def duration_ms(text: str) -> int:
    """Read a duration such as 2h or 1h30m; raises CommandError."""
    if not re.fullmatch(r"(\d{1,6}[smhd])+", text):
        raise CommandError(f"{text!r} is no duration such as 90s, 30m, 2h or 1h30m")
    return sum(int(count) * _UNITS_MS[unit] for count, unit in re.findall(r"(\d+)([smhd])", text))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _show(args: argparse.Namespace, silence: dict[str, Any]) -> None:
    if args.json:
        print_json(silence)
    else:
        print(_line(silence))


def _line(one: dict[str, Any]) -> str:
    match = " ".join(
        f"{field}={value if isinstance(value, str) else ','.join(map(str, value))}"
        for field, value in ({**one["match"], **_labels(one["match"])}).items()
        if field != "labels"
    )
    times = f"{moment(one['start_ms'])} – {moment(one['end_ms'])}"
    return f"{one['id']:>5} {one['state']:<8} {times} {match} ({one['author']}: {one['comment']})"


def _labels(match: dict[str, Any]) -> dict[str, str]:
    return {f"label.{name}": glob for name, glob in match.get("labels", {}).items()}
