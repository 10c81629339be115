"""The checker itself: a good run has no fault, and each fault that is planted is found, as what it is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.checker import KINDS, check, main
from tests.faults.histories import Began, Committed, Decided, Heard, Histories, Learnt, Posted, Published, Settled

ALERTS = 60
OLD, NEW = "e1", "e2"
LOST_FROM = 40
"""The offset in the old epoch from which the broker lost what it had."""


def good(*, redriven: bool) -> Histories:
    """Return a run without fault: a client that was cut and resumed, one that began later, and a receiver.

    redriven: the broker lost its tail, and all was published again in a new epoch.
    """
    ids = [f"al_{number}" for number in range(1, ALERTS + 1)]
    symbols = {one: f"{600000 + number % 7}.SH" for number, one in enumerate(ids)}
    base = LOST_FROM - 1 if redriven else 0
    epoch = NEW if redriven else OLD
    old = [Published(OLD, off, one) for off, one in enumerate(ids[: LOST_FROM - 1], 1)]
    new = [Published(epoch, base + off, one) for off, one in enumerate(ids, 1)]
    place = {one.id: one.off for one in new}
    return Histories(
        decided=[Decided(one, symbols[one]) for one in ids],
        committed=[Committed(one, symbols[one], "r", "fire", epoch, place[one]) for one in ids],
        published=[*old, *new] if redriven else new,
        received={"early": _cut_and_resumed(ids, redriven=redriven), "late": _late(ids, redriven=redriven)},
        posted={"hook": [Posted((ids[0],), False), *(Posted((one,), True) for one in ids[:50]),
                         Posted(tuple(ids[50:59]), True)]},
        settled={"hook": [*(Settled(one, "delivered") for one in ids[:59]), Settled(ids[59], "dead")]},
    )  # fmt: skip


def _cut_and_resumed(ids: list[str], *, redriven: bool) -> list[Began | Heard | Learnt]:
    told = [Heard(OLD, off, one) for off, one in enumerate(ids, 1)]
    if not redriven:
        return [Began(OLD, 0, None), *told[:30], Began(OLD, 45, True), *told[30:]]
    again = [Heard(NEW, LOST_FROM - 1 + off, one) for off, one in enumerate(ids, 1)]
    # Told of the gap in the midst of the redrive, it learns what it missed and hears on.
    return [Began("", 0, None), *told[:30], Began(NEW, LOST_FROM - 1 + 50, False), *map(Learnt, ids[:50]), *again[50:]]


def _late(ids: list[str], *, redriven: bool) -> list[Began | Heard | Learnt]:
    if redriven:
        again = [Heard(NEW, LOST_FROM - 1 + off, one) for off, one in enumerate(ids, 1)]
        return [Began(NEW, again[19].off, None), *again[20:]]
    return [Began(OLD, 20, None), *(Heard(OLD, off, one) for off, one in enumerate(ids, 1) if off > 20)]


@pytest.mark.parametrize("redriven", [False, True])
def test_a_good_run_has_no_fault(redriven: bool, tmp_path: Path) -> None:
    histories = good(redriven=redriven)
    report = check(histories, in_order=["hook"])
    assert report.clean, report
    histories.write(tmp_path / "h")
    assert Histories.read(tmp_path / "h") == histories
    assert main(tmp_path / "h") == 0


Plant = Callable[[Histories, random.Random], None]


def a_pair_of_one_symbol(histories: Histories, chance: random.Random) -> tuple[str, str]:
    symbol = chance.choice([one.symbol for one in histories.committed])
    first, second = chance.sample([one.id for one in histories.committed if one.symbol == symbol], 2)
    return first, second


def some(steps: list[Began | Heard | Learnt], chance: random.Random) -> int:
    """Return the place of an alert that was heard, neither the first nor the last."""
    return chance.choice([at for at, step in enumerate(steps) if isinstance(step, Heard)][1:-1])


def swapped(steps: list[object], first: str, second: str) -> None:
    """Exchange two ids and leave the places as they are."""
    exchange = {first: second, second: first}
    steps[:] = [replace(s, id=exchange[s.id]) if getattr(s, "id", "") in exchange else s for s in steps]  # type: ignore[type-var, attr-defined]


def lose_committed(h: Histories, chance: random.Random) -> None:
    one = h.committed.pop(chance.randrange(ALERTS))
    assert h.decided is not None
    for steps in (h.published, *h.received.values(), *h.settled.values()):
        steps[:] = [step for step in steps if getattr(step, "id", "") != one.id]  # type: ignore[index]


def lose_published(h: Histories, chance: random.Random) -> None:
    del h.published[-chance.randrange(1, 5) :]


def lose_received(h: Histories, chance: random.Random) -> None:
    h.received["late"].pop()


def lose_learnt(h: Histories, chance: random.Random) -> None:
    steps = h.received["early"]
    learnt = [at for at, step in enumerate(steps) if isinstance(step, Learnt)]
    heard = {step.id for step in steps if isinstance(step, Heard)}
    del steps[next((at for at in learnt if steps[at].id not in heard), -1)]  # type: ignore[union-attr]


def lose_post(h: Histories, chance: random.Random) -> None:
    at = chance.randrange(1, 50)
    (lost,) = h.posted["hook"][at].ids
    h.posted["hook"] = [post for post in h.posted["hook"] if post.ids != (lost,)]
    h.settled["hook"] = [one if one.id != lost else Settled(lost, "pending") for one in h.settled["hook"]]


def double_committed(h: Histories, chance: random.Random) -> None:
    h.committed.append(chance.choice(h.committed))


def double_published(h: Histories, chance: random.Random) -> None:
    newest = h.published[-1]
    twice = chance.choice([one for one in h.published if one.epoch == newest.epoch])
    h.published.append(replace(newest, off=newest.off + 1, id=twice.id))


def double_received(h: Histories, chance: random.Random) -> None:
    steps = h.received["late"]
    at = some(steps, chance)
    steps.insert(at, steps[at])


def double_post(h: Histories, chance: random.Random) -> None:
    h.posted["hook"].append(chance.choice(h.posted["hook"][1:]))


def make_up_committed(h: Histories, chance: random.Random) -> None:
    h.committed.append(replace(h.committed[-1], id="al_x"))


def make_up_published(h: Histories, chance: random.Random) -> None:
    h.published.append(replace(h.published[-1], off=h.published[-1].off + 1, id="al_x"))


def make_up_received(h: Histories, chance: random.Random) -> None:
    last = h.received["late"][-1]
    assert isinstance(last, Heard)
    h.received["late"].append(replace(last, off=last.off + 1, id="al_x"))


def make_up_post(h: Histories, chance: random.Random) -> None:
    h.posted["hook"].append(Posted(("al_x",), True))


def make_up_in_a_digest(h: Histories, chance: random.Random) -> None:
    digest = h.posted["hook"][-1]
    h.posted["hook"][-1] = replace(digest, ids=(*digest.ids, "al_x"))


def disorder_committed(h: Histories, chance: random.Random) -> None:
    first, second = a_pair_of_one_symbol(h, chance)
    ids = [one.id for one in h.committed]
    a, b = ids.index(first), ids.index(second)
    h.committed[a], h.committed[b] = h.committed[b], h.committed[a]


def disorder_published(h: Histories, chance: random.Random) -> None:
    swapped(h.published, *a_pair_of_one_symbol(h, chance))  # type: ignore[arg-type]


def disorder_received(h: Histories, chance: random.Random) -> None:
    heard = [step.id for step in h.received["late"] if isinstance(step, Heard)]
    while not {*(pair := a_pair_of_one_symbol(h, chance))} <= set(heard):
        pass
    swapped(h.received["late"], *pair)  # type: ignore[arg-type]


def disorder_posts(h: Histories, chance: random.Random) -> None:
    h.posted["hook"][2], h.posted["hook"][9] = h.posted["hook"][9], h.posted["hook"][2]


def jump_in_the_stream(h: Histories, chance: random.Random) -> None:
    h.published = [replace(one, off=one.off + (one.off > 45)) for one in h.published]


def place_in_the_store(h: Histories, chance: random.Random) -> None:
    at = chance.randrange(ALERTS)
    h.committed[at] = replace(h.committed[at], off=9999)


def jump_for_a_client(h: Histories, chance: random.Random) -> None:
    steps = h.received["late"]
    del steps[some(steps, chance)]


def an_epoch_without_a_word(h: Histories, chance: random.Random) -> None:
    steps = h.received["early"]
    at = next(at for at, step in enumerate(steps) if at and isinstance(step, Began))
    began = steps[at]
    assert isinstance(began, Began)
    steps[at] = Began("e9" if began.epoch == OLD else began.epoch, began.off, True)


def success_that_was_none(h: Histories, chance: random.Random) -> None:
    h.settled["hook"][-1] = replace(h.settled["hook"][-1], state="delivered")


PLANTED: list[tuple[str, Plant]] = [
    *(("lost", plant) for plant in (lose_committed, lose_published, lose_received, lose_post)),
    *(("duplicate", plant) for plant in (double_committed, double_published, double_received, double_post)),
    *(("phantom", plant) for plant in (make_up_committed, make_up_published, make_up_received, make_up_post)),
    ("phantom", make_up_in_a_digest),
    *(("disorder", plant) for plant in (disorder_committed, disorder_published, disorder_received, disorder_posts)),
    *(("offsets", plant) for plant in (jump_in_the_stream, place_in_the_store)),
    *(("untold", plant) for plant in (jump_for_a_client, an_epoch_without_a_word)),
    ("false success", success_that_was_none),
]  # fmt: skip


@pytest.mark.parametrize("redriven", [False, True])
@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_every_planted_fault_is_found_as_what_it_is(kind: str, plant: Plant, redriven: bool) -> None:
    for seed in range(20):
        histories = good(redriven=redriven)
        plant(histories, random.Random(seed))
        report = check(histories, in_order=["hook"])
        assert report.counts[kind] >= 1, (seed, report)
        assert str(report)


def test_what_a_client_was_told_of_and_never_looked_up_is_lost() -> None:
    histories = good(redriven=True)
    lose_learnt(histories, random.Random(1))
    assert check(histories).counts["lost"] == 1


def test_every_kind_has_a_planted_fault() -> None:
    assert {kind for kind, _ in PLANTED} == set(KINDS)


def test_a_repeat_is_allowed_as_often_as_it_was_said_and_no_more() -> None:
    histories = good(redriven=False)
    double_post(histories, random.Random(1))
    assert check(histories, repeats={"hook": 1}).clean
    double_post(histories, random.Random(2))
    assert check(histories, repeats={"hook": 1}).counts["duplicate"] >= 1
