"""Judges the histories of a run: nothing lost, doubled, made up or out of order, and nobody left in the dark.

One checker for all scenarios. It knows nothing of what was done to the system, only what holds whatever is done:

- lost: decided and not committed; committed and not in the stream; behind a client's first position and never received;
  wanted by a receiver and neither accepted by it nor recorded as dead or withheld (which is told to the operator).
- duplicate: an id twice in the store, in one epoch of the stream, for one client in one epoch; accepted twice by a
  receiver more often than `repeats` allows: who is killed between a post and its record has to post again.
- phantom: in a later history and not in the one before it.
- disorder: the events of one symbol in another order than they were decided in.
- offsets: not contiguous within an epoch, or the store says another place than the stream.
- untold: a client's offset or epoch jumps without its having been told that something is missing.
- false success: delivered, says the store, and the receiver never accepted it.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.faults.histories import (
    ENGINE_HAS_NOT,
    Began,
    Committed,
    Heard,
    Histories,
    Learnt,
    Posted,
    Published,
    Settled,
    Step,
)

KINDS: Final = ("lost", "duplicate", "phantom", "disorder", "offsets", "untold", "false success")
EXAMPLES: Final = 5
TOLD_TO_THE_OPERATOR: Final = frozenset({"dead", "withheld"})


@dataclass(slots=True)
class Report:
    """What was found: a count for each kind, and some examples in words."""

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(KINDS, 0)))
    examples: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether there is no fault."""
        return not any(self.counts.values())

    def add(self, kind: str, where: str, things: Iterable[object]) -> None:
        """Count each of these as a fault of this kind."""
        found = list(things)
        self.counts[kind] += len(found)
        self.examples += [f"{kind} in {where}: {thing}" for thing in found[:EXAMPLES]]

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} {count}" for kind, count in self.counts.items())
        sizes = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return "\n".join([f"{faults} of {sizes}", *self.examples[:50]])


def check(histories: Histories, *, repeats: Mapping[str, int] | None = None, in_order: Sequence[str] = ()) -> Report:
    """Return every fault of a run that has come to rest.

    repeats: how many posts a receiver may have accepted twice, 0 if it is not named. in_order: receivers whose first
    posts must keep the order of each symbol; one that fails messages may not be named, for these step aside.
    """
    report = Report(sizes=_sizes(histories))
    by_engine = [one for one in histories.committed if one.rule != ENGINE_HAS_NOT]
    if histories.decided is not None:
        _compare(report, "the store", [one.id for one in histories.decided], [one.id for one in by_engine])
        decided_symbols = {one.id: one.symbol for one in histories.decided}
        _order(
            report, "the store", [one.id for one in histories.decided], [one.id for one in by_engine], decided_symbols
        )
    committed = [one.id for one in histories.committed]
    report.add("duplicate", "the store", _twice(committed))
    symbols = {one.id: one.symbol for one in histories.committed}
    _check_stream(report, histories.published, histories.committed, symbols)
    for client, steps in histories.received.items():
        _check_client(report, client, steps, histories, symbols)
    for receiver, settled in histories.settled.items():
        posts = histories.posted.get(receiver, [])
        wanted = [one.id for one in by_engine if one.is_told]
        _check_receiver(report, receiver, posts, settled, wanted, committed, allowed=(repeats or {}).get(receiver, 0))
        if receiver in in_order:
            first = list(dict.fromkeys(one for post in posts for one in post.ids))
            _order(report, f"posts to {receiver}", committed, first, symbols)
    return report


def _sizes(histories: Histories) -> dict[str, int]:
    sizes = {} if histories.decided is None else {"decided": len(histories.decided)}
    sizes |= {"committed": len(histories.committed), "published": len(histories.published)}
    sizes |= {"epochs": len({one.epoch for one in histories.published}), "clients": len(histories.received)}
    sizes |= {"received": sum(isinstance(step, Heard) for steps in histories.received.values() for step in steps)}
    return sizes | {"posts": sum(map(len, histories.posted.values()))}


def _compare(report: Report, where: str, due: Sequence[str], got: Sequence[str]) -> None:
    known, there = set(due), set(got)
    report.add("lost", where, [one for one in due if one not in there])
    report.add("phantom", where, [one for one in got if one not in known])


def _twice(ids: Iterable[str]) -> list[str]:
    return [one for one, count in Counter(ids).items() for _ in range(count - 1)]


def _order(
    report: Report, where: str, due: Sequence[str], got: Sequence[str], symbols: Mapping[str, str | None]
) -> None:
    """Compare the order of each symbol's events, of those that are in both."""
    place = {one: at for at, one in enumerate(due)}
    by_symbol: dict[str | None, list[str]] = defaultdict(list)
    for one in dict.fromkeys(got):
        if one in place:
            by_symbol[symbols.get(one)].append(one)
    for ids in by_symbol.values():
        report.add("disorder", where, [later for before, later in pairwise(ids) if place[later] < place[before]])


def _check_stream(
    report: Report, published: Sequence[Published], committed: Sequence[Committed], symbols: Mapping[str, str | None]
) -> None:
    ids = [one.id for one in committed]
    epochs: dict[str, list[Published]] = defaultdict(list)
    for entry in published:
        epochs[entry.epoch].append(entry)
    for epoch, entries in epochs.items():
        where = f"the stream's epoch {epoch}"
        report.add("duplicate", where, _twice(entry.id for entry in entries))
        report.add(
            "offsets", where, [f"{b.off} after {a.off}" for a, b in pairwise(entries) if b.off != a.off + 1]
        )  # fmt: skip
        _order(report, where, ids, [entry.id for entry in entries], symbols)
    # What a broker lost is published again in a new epoch, so the newest one holds everything.
    newest = epochs[published[-1].epoch] if published else []
    _compare(report, "the stream", ids, [entry.id for entry in newest])
    places = {entry.id: (entry.epoch, entry.off) for entry in newest}
    report.add(
        "offsets",
        "the store",
        [f"{one.id} at {one.epoch} {one.off}, not {places[one.id]}" for one in committed
         if one.id in places and places[one.id] != (one.epoch, one.off)],
    )  # fmt: skip


def _check_client(
    report: Report, client: str, steps: Sequence[Step], histories: Histories, symbols: Mapping[str, str | None]
) -> None:
    where = f"what {client} received"
    place: tuple[str, int] | None = None
    seen: dict[str, set[str]] = defaultdict(set)
    for step in steps:
        if isinstance(step, Learnt):
            continue
        if isinstance(step, Began):
            place = _begin(report, where, place, step)
            continue
        if step.id in seen[step.epoch]:
            report.add("duplicate", where, [step])
        elif place is None or place[0] not in ("", step.epoch) or step.off != place[1] + 1:
            report.add("untold", where, [f"{step} behind {place}"])
        seen[step.epoch].add(step.id)
        place = (step.epoch, step.off)
    due = _due_to(steps, histories)
    first_sights = list(dict.fromkeys(step.id for step in steps if not isinstance(step, Began)))
    report.add("lost", where, set(due) - set(first_sights))
    report.add("phantom", where, [one for one in first_sights if one not in symbols])
    truth = {(one.epoch, one.off): one.id for one in histories.published}
    wrong = [
        step for step in steps if isinstance(step, Heard) and truth.get((step.epoch, step.off), step.id) != step.id
    ]
    report.add("offsets", where, wrong)
    _order(report, where, [one.id for one in histories.committed], first_sights, symbols)


def _begin(report: Report, where: str, place: tuple[str, int] | None, step: Began) -> tuple[str, int]:
    """Return where a client goes on; a word that nothing is missing must be true."""
    if (
        place is not None
        and step.recovered is not False
        and (step.recovered is None or place[0] not in ("", step.epoch))
    ):
        report.add("untold", where, [f"{step} behind {place}"])
    if step.recovered and place is not None:
        return step.epoch, place[1]  # what was missed comes now, from where it was
    return step.epoch, step.off


def _due_to(steps: Sequence[Step], histories: Histories) -> list[str]:
    """Return the ids that stand behind a client's first position."""
    start = next((step for step in steps if isinstance(step, Began)), None)
    if start is None:
        return []
    before = {one.id for one in histories.published if one.epoch == start.epoch and one.off <= start.off}
    return [one.id for one in histories.committed if one.id not in before]


def _check_receiver(
    report: Report, receiver: str, posts: Sequence[Posted], settled: Sequence[Settled], wanted: Sequence[str],
    committed: Sequence[str], *, allowed: int,
) -> None:  # fmt: skip
    where = f"posts to {receiver}"
    accepted = Counter(one for post in posts if post.accepted for one in post.ids)
    told = {one.id for one in settled if one.state in TOLD_TO_THE_OPERATOR}
    report.add("lost", where, [one for one in wanted if one not in accepted and one not in told])
    known = set(committed)
    report.add("phantom", where, [one for post in posts for one in post.ids if one not in known])
    report.add("phantom", f"deliveries to {receiver}", [one.id for one in settled if one.id not in known])
    again = [one for one, count in accepted.items() for _ in range(count - 1)]
    report.add("duplicate", where, again[allowed:])
    delivered = [one.id for one in settled if one.state == "delivered"]
    report.add("false success", where, [one for one in delivered if one not in accepted])


def main(folder: Path) -> int:
    """Judge a folder of histories; return 0 if there is no fault."""
    report = check(Histories.read(folder))
    print(report)
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
