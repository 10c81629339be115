"""What the daemon tells probes about its feed: a stream nobody writes and a silent market are reasons."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from feeds.inputs import Mark, MarkKind
from feeds.sessions import HOUR_MS, unix_ms
from monitord.health import Health
from rules.engine import Engine

TEN_MS = unix_ms(20250102, 10 * HOUR_MS)


def health(engine: Engine, complaint: str | None) -> Health:
    parts: Any = SimpleNamespace
    pipeline = parts(engine=engine, caught_up=parts(is_set=lambda: True))
    return Health(
        parts(complaint=lambda: complaint), pipeline, store=parts(lag_rows=0), pump=parts(up=True), deliveries=()
    )


@pytest.mark.parametrize(
    ("marks", "complaint", "reasons"),
    [
        ((), None, []),
        (
            (Mark(MarkKind.SILENT, TEN_MS + 61_000),),
            None,
            ["the feed has been silent since 10:01; its rules rest"],
        ),
        ((Mark(MarkKind.SILENT, TEN_MS), Mark(MarkKind.ALIVE, TEN_MS + 5000)), None, []),
        ((Mark(MarkKind.SILENT, TEN_MS),), "the tick stream says nothing", ["the tick stream says nothing"]),
    ],
)
def test_a_silent_feed_is_a_reason_not_to_be_ready(
    marks: tuple[Mark, ...], complaint: str | None, reasons: list[str]
) -> None:
    engine = Engine()
    for mark in marks:
        engine.step(mark)
    assert health(engine, complaint).reasons() == reasons


def test_a_feed_that_never_complains_needs_no_word_for_it() -> None:
    one = health(Engine(), None)
    one._feed = SimpleNamespace()  # type: ignore[assignment]
    assert one.reasons() == []
