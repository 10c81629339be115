"""A silence whose end nobody says: the feed was started again in it, a spare bridge took over, or the word was lost.

Each of these leaves a gap mark behind `silent`. Rules must not rest for the rest of the day because of it.
"""

from __future__ import annotations

import orjson
import pytest

from rules.engine import TOLD_BY_TICKS, Engine
from tests.rules.ticks import Watch, batch, heartbeat, mark, tick

CROSS = 'id: cross, select: all, when: "CROSS(LAST, 10)", rearm: "LAST < 9.5", freq: always'
SILENT = "nodata 10:00:13 #1 test"
BACK = f"resolve 10:00:42 #1 {TOLD_BY_TICKS}"


@pytest.fixture
def watch() -> Watch:
    """An engine whose feed has said that it is silent."""
    watch = Watch(CROSS)
    watch.prices(("10:00:00", 9.0), ("10:00:03", 9.0))
    watch.take(mark("silent", "10:00:13"))
    return watch


def test_behind_a_gap_ticks_that_go_on_end_it(watch: Watch) -> None:
    watch.take(mark("gap", "10:00:13"))
    watch.prices(("10:00:42", 9.0), ("10:00:45", 10.2))
    assert watch.said == [SILENT, BACK, "fire 10:00:45 #1"]
    assert not watch.engine.is_silent


def test_without_a_gap_only_the_feed_itself_ends_it(watch: Watch) -> None:
    watch.prices(("10:00:42", 9.0), ("10:00:45", 10.2))
    assert watch.said == [SILENT]


def test_neither_old_ticks_nor_heartbeats_nor_ticks_of_the_future_end_it(watch: Watch) -> None:
    ahead = batch(tick("10:00:45", 10.2) | {"recv": batch(tick("10:00:20", 1.0)).ts_event_ms[0]})
    watch.take(mark("gap", "10:00:13"), tick("10:00:03", 9.0), heartbeat("10:00:41"), tick("10:00:40", 9.0), ahead)
    assert watch.said == [SILENT]
    watch.prices(("10:00:42", 9.0))
    assert watch.said == [SILENT, BACK]


def test_whoever_speaks_behind_the_gap_is_believed_when_he_says_that_he_is_silent(watch: Watch) -> None:
    watch.take(mark("gap", "10:00:13"), mark("silent", "10:00:20"))
    watch.prices(("10:00:42", 9.0))
    assert watch.said == [SILENT]
    watch.take(mark("alive", "10:00:43"))
    assert watch.said == [SILENT, "resolve 10:00:43 #1 test"]


def test_a_gap_before_the_silence_casts_no_doubt_on_it() -> None:
    watch = Watch(CROSS)
    watch.prices(("10:00:00", 9.0))
    watch.take(mark("gap", "10:00:03"), mark("silent", "10:00:13"))
    watch.prices(("10:00:42", 9.0))
    assert watch.said == [SILENT]


@pytest.mark.parametrize("at_once", [True, False])
def test_it_ends_at_the_same_tick_however_ticks_are_cut(watch: Watch, at_once: bool) -> None:
    rows = [tick("10:00:05", 9.1), tick("10:00:42", 9.0, symbol="000001.SZ"), tick("10:00:43", 9.2)]
    watch.take(mark("gap", "10:00:13"), *([batch(*rows)] if at_once else rows))
    assert watch.said == [SILENT, BACK]


def test_a_restart_keeps_the_doubt(watch: Watch) -> None:
    watch.take(mark("gap", "10:00:13"))
    arrays, header = watch.engine.checkpoint()
    watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
    watch.prices(("10:00:42", 9.0))
    assert watch.said == [SILENT, BACK]
