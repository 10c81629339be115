"""`monitord catalog`: the shipped rules that a rule file may use by id, and their parameters."""

from __future__ import annotations

import argparse

from monitord.commands import GOOD, CommandError

HELP = "list the shipped rules and their parameters, or print one as it stands in its file"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="print this rule whole, to be copied and changed")


def run(args: argparse.Namespace) -> int:
    """Print a line per rule, or the YAML of one."""
    from rules.catalog.shipped import shipped_rules
    from rules.language.syntax import did_you_mean

    if args.id is None:
        for line in _lines():
            print(line)
        return GOOD
    shipped = shipped_rules().get(args.id)
    if shipped is None:
        hint = did_you_mean(args.id, shipped_rules()) or "monitord catalog lists them"
        raise CommandError(f"there is no shipped rule {args.id!r}; {hint}")
    print(shipped.text())
    return GOOD


def _lines() -> list[str]:
    from rules.catalog.shipped import shipped_rules

    rows = [
        (found.id, found.labels.get("code", ""), found.labels["zh"], found.labels["en"], found.parameters)
        for found in shipped_rules().values()
    ]
    return [
        f"{rule:<22} {code:>4}  {en:<22} {zh}{f'  {{{given}}}' if given else ''}" for rule, code, zh, en, given in rows
    ]
