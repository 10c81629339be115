"""`monitord deliveries`: what receivers were told, every attempt, and delivering dead letters again."""

from __future__ import annotations

import argparse
from typing import Any

from monitord.commands import GOOD
from monitord.commands.asking import add_gateway, ask, moment, print_json

HELP = "list deliveries and dead letters, show one with its attempts, deliver dead letters again"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list deliveries, newest first")
    _add_filters(listing)
    listing.add_argument(
        "--state", choices=("pending", "delivered", "dead", "withheld"), help="only these; dead = dead letters"
    )
    listing.add_argument("--page", type=int, default=1, metavar="N")
    listing.add_argument("--page-size", type=int, default=100, metavar="N", help="1 to 1000")
    add_gateway(listing)
    listing.set_defaults(action=_list)
    show = actions.add_parser("show", help="show one with its attempts")
    show.add_argument("id", type=int, metavar="ID")
    add_gateway(show)
    show.set_defaults(action=_show)
    replay = actions.add_parser("replay", help="deliver dead letters again: these ids, or those that pass the filters")
    replay.add_argument("ids", type=int, nargs="*", metavar="ID")
    _add_filters(replay)
    add_gateway(replay)
    replay.set_defaults(action=_replay)


def run(args: argparse.Namespace) -> int:
    return int(args.action(args))


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--receiver", metavar="NAME")
    parser.add_argument("--alert", metavar="ID", help="the id of an alert, group or digest")
    parser.add_argument("--since", metavar="TIME", help="recorded then or later: ISO 8601 in Shanghai, or Unix ms")
    parser.add_argument("--until", metavar="TIME", help="recorded before")


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    return {"receiver": args.receiver, "alert_id": args.alert, "since": args.since, "until": args.until}


def _list(args: argparse.Namespace) -> int:
    query = {**_filters(args), "state": args.state, "page": args.page, "page_size": args.page_size}
    answer = ask(args, "GET", "/v1/deliveries", needs="deliveries", query=query)
    if args.json:
        print_json(answer)
        return GOOD
    for one in answer["deliveries"]:
        print(_line(one))
    print(f"{len(answer['deliveries'])} of {answer['total']}")
    return GOOD


def _show(args: argparse.Namespace) -> int:
    answer = ask(args, "GET", f"/v1/deliveries/{args.id}", needs="deliveries")
    if args.json:
        print_json(answer)
        return GOOD
    print(_line(answer["delivery"]))
    for one in answer["attempts"]:
        code = "" if one["code"] is None else f" {one['code']}"
        print(f"  {moment(one['at_ms'])} {one['result']}{code} in {one['latency_ms']} ms {one['text']}".rstrip())
    if answer["alert_ids"]:
        print(f"  carries {' '.join(answer['alert_ids'])}")
    return GOOD


def _replay(args: argparse.Namespace) -> int:
    body = {"ids": args.ids or None, **_filters(args)}
    answer = ask(args, "POST", "/v1/deliveries/replay", needs="deliveries:write", body=body)
    if args.json:
        print_json(answer)
    else:
        print(f"{answer['replayed']} alerts are delivered again")
    return GOOD


def _line(one: dict[str, Any]) -> str:
    kind = "" if one["kind"] == "alert" else f" ({one['kind']})"
    carried = f", in {one['bundle']}" if one["bundle"] is not None else ""
    due = f", next {moment(one['due_ms'])}" if one["due_ms"] is not None and one["bundle"] is None else ""
    why = f": {one['reason']}" if one["reason"] else ""
    return (
        f"{one['id']:>8} {moment(one['created_ms'])} {one['receiver']:<16} {one['alert_id']}{kind} {one['state']}, "
        f"{one['attempts']} attempts{carried}{due}{why}"
    )
