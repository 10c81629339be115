"""The engine process is killed -9 in mid-work, again and again: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from notifiers.channel import Envelope
from tests.acceptance.daemon import Daemon, stream_of, whole_stream

KILLS = int(os.environ.get("MONITORD_TEST_KILLS", "20"))
"""How often the engine is killed; the long run sets more."""
RULES = """
version: 1
groups:
- name: kills
  rules:
  - {id: rise, select: all, when: PCT > 1, rearm: PCT < 0.8, freq: always}
  - {id: fall, select: all, when: PCT < -1, rearm: PCT > -0.8, freq: always, cooldown: 1m}
  - {id: turn, select: all, when: "CROSS(MA(C,5), MA(C,10))", period: 1m, eval: bar_close, freq: once_per_bar}
  - {id: burst, select: all, when: "V > 3 * MA(REF(V,1), 5)", period: 1m, freq: once_per_bar}
"""


def settings(rules: Path) -> dict[str, object]:
    return {
        "feed.simulated.symbols": 80,
        "feed.simulated.speed": 60,
        "feed.simulated.days": 1,
        "feed.simulated.start": "10:30:00",
        "engine.checkpoint_s": 0.5,
        "rules.files": rules,
    }


async def told(state_dir: Path) -> list[Envelope]:
    async with stream_of(state_dir) as channel:
        return await whole_stream(channel)


def without_stamps(envelope: Envelope) -> bytes:
    record = orjson.loads(envelope.alert_json)
    del record["stamps"]
    return orjson.dumps(record)


@pytest.mark.acceptance
async def test_killed_engines_tell_exactly_what_one_that_lives_tells(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    calm = Daemon(tmp_path / "calm", {**settings(rules), "feed.simulated.speed": 0})
    await calm.start()
    assert await calm.end() == 0, calm.tail()
    expected = await told(calm.state_dir)
    assert len(expected) > 500

    chance = random.Random(7)
    storm = Daemon(tmp_path / "storm", settings(rules))
    kills = 0
    for life in range(KILLS):
        await storm.start()
        if life % 4:  # every fourth is killed wherever it has come to, the others not before they work
            await storm.listening()
        kills += await storm.killed_after(chance.uniform(0.0, 3.0))
    storm.settings["feed.simulated.speed"] = 0
    await storm.start()
    assert await storm.end() == 0, storm.tail()
    assert kills == KILLS, "the input was too short to be killed so often"

    got = await told(storm.state_dir)
    print(f"{kills} kills, {len(expected)} alerts expected, {len(got)} told: {faults(got, expected)}")
    ids = [orjson.loads(envelope.alert_json)["id"] for envelope in got]
    assert len(ids) == len(set(ids)), "an alert stands twice in the stream"
    assert [envelope.off for envelope in got] == list(range(1, len(got) + 1)), "offsets are not contiguous"
    assert by_symbol(got) == by_symbol(expected)
    assert [without_stamps(envelope) for envelope in got] == [without_stamps(envelope) for envelope in expected]


def faults(got: list[Envelope], expected: list[Envelope]) -> dict[str, int]:
    """Count what went wrong, kind by kind, so that a long run says more than that it passed."""
    told_ids, due_ids = ([orjson.loads(envelope.alert_json)["id"] for envelope in some] for some in (got, expected))
    place = {alert_id: at for at, alert_id in enumerate(due_ids)}
    known = [place[alert_id] for alert_id in told_ids if alert_id in place]
    return {
        "lost": len(set(due_ids) - set(told_ids)),
        "duplicates": len(told_ids) - len(set(told_ids)),
        "phantoms": len(set(told_ids) - set(due_ids)),
        "out of order": sum(later < earlier for earlier, later in pairwise(known)),
        "jumps of the offset": sum(after.off != before.off + 1 for before, after in pairwise(got)),
        "epochs": len({envelope.epoch for envelope in got}),
    }


def by_symbol(envelopes: list[Envelope]) -> dict[str, list[str]]:
    """Return the ids told of each symbol, in order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for envelope in envelopes:
        record = orjson.loads(envelope.alert_json)
        groups[record["symbol"]].append(record["id"])
    return groups
