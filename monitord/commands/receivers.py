"""`monitord receivers`: how each receiver is, and switching it on and off."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from monitord.commands import FINDINGS, GOOD
from monitord.commands.asking import add_gateway, ask, moment, print_json

HELP = "how each receiver is; switch one on or off"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list them; exit code 1 if one is not ok")
    add_gateway(listing)
    listing.set_defaults(action=_list)
    enable = actions.add_parser("enable", help="switch one on, its failures forgotten")
    enable.add_argument("name", metavar="RECEIVER")
    enable.add_argument("--replay", action="store_true", help="deliver its dead letters again, too")
    add_gateway(enable)
    enable.set_defaults(action=_enable)
    disable = actions.add_parser("disable", help="switch one off: what comes becomes a dead letter")
    disable.add_argument("name", metavar="RECEIVER")
    disable.add_argument("--reason", required=True, metavar="TEXT", help="told in its dead letters")
    add_gateway(disable)
    disable.set_defaults(action=_disable)


def run(args: argparse.Namespace) -> int:
    return int(args.action(args))


def _list(args: argparse.Namespace) -> int:
    answer = ask(args, "GET", "/v1/receivers", needs="receivers")
    if args.json:
        print_json(answer)
    for one in () if args.json else answer["receivers"]:
        print(_line(one))
    return GOOD if all(one["status"] == "ok" for one in answer["receivers"]) else FINDINGS


def _enable(args: argparse.Namespace) -> int:
    path = f"/v1/receivers/{quote(args.name, safe='')}/enable"
    answer = ask(args, "POST", path, needs="receivers:write", body={"replay": args.replay})
    if args.json:
        print_json(answer)
    else:
        print(_line(answer["receiver"]))
        print(f"{answer['replayed']} alerts are delivered again")
    return GOOD


def _disable(args: argparse.Namespace) -> int:
    path = f"/v1/receivers/{quote(args.name, safe='')}/disable"
    answer = ask(args, "POST", path, needs="receivers:write", body={"reason": args.reason})
    if args.json:
        print_json(answer)
    else:
        print(_line(answer))
    return GOOD


def _line(one: dict[str, Any]) -> str:
    counts = f"{one['pending']} pending, {one['dead']} dead, {one['withheld']} withheld"
    since = f", failing since {moment(one['failing_since_ms'])}" if one["failing_since_ms"] else ""
    why = f": {one['why']}" if one["why"] else ""
    return f"{one['name']:<20} {one['status']:<13} {counts}{since}{why}"
