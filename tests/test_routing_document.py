"""docs/routing.md says what is so: its settings load and route as it says, its commands exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from config.loading import load
from feeds.sessions import Calendar
from monitord.__main__ import main, parser
from monitord.routes.alerts import _time_ms
from monitord.routing import build_routing
from notifiers.filters import AlertFilter
from notifiers.notifier import BundleKind
from notifiers.routing import Placement, Router, bundle_kind
from rules.alert import Alert, Event, shanghai_iso

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "routing.md"
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, text in FENCES if kind == "sh" for line in text.splitlines()]
EXAMPLES = [(text, told) for (kind, text), (after, told) in pairwise(FENCES) if (kind, after) == ("toml", "told")]


def test_every_settings_example_says_what_it_does() -> None:
    assert len(EXAMPLES) == sum(kind == "toml" for kind, _ in FENCES) == sum(kind == "told" for kind, _ in FENCES) == 4


@pytest.mark.parametrize(("settings", "told"), EXAMPLES)
def test_alerts_go_where_the_document_says(settings: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "monitord.toml"
    file.write_text(settings, encoding="utf-8")
    notify = load([], config=file).settings.notify
    routing = build_routing(notify, Calendar(()))
    routers = {name: Router(name, routing) for name in notify.receiver_names}
    for number, line in enumerate(told.splitlines()):
        words, _, wanted = line.partition(" ->")
        given = dict(word.split("=", 1) for word in words.split())
        now_ms = _time_ms(given.pop("at", "2023-02-01T10:00:00"))
        alert = Alert(
            id=f"al_{number}", episode_id=f"ep_{number}", event=Event.FIRE, rev="1", trade_date="2023-02-01", episode=1,
            ts_event_ms=now_ms, period="tick", **given,
        )  # fmt: skip
        assert AlertFilter().passes(alert)
        found = []
        for name, router in routers.items():
            router.inhibitor.note(alert)
            place = router.place(alert, now_ms)
            found += [] if place is None else [f"{name} {_said(place)}"]
        assert ", ".join(found) == wanted.strip(), line


def _said(place: Placement) -> str:
    if place.withheld is not None:
        return "withheld"
    if place.bucket is None:
        return "alone"
    if bundle_kind(place.bucket.key) is BundleKind.GROUP:
        return "group"
    assert place.bucket.due_ms is not None
    return f"digest {shanghai_iso(place.bucket.due_ms)[:19]}"


@pytest.mark.parametrize(("settings", "told"), EXAMPLES)
def test_the_examples_are_checked_without_a_complaint_of_routes(
    settings: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "monitord.toml"
    file.write_text(settings, encoding="utf-8")
    assert main(["check", "--config", str(file)]) == 0
    assert "routes before it" not in capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_document_exist(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "monitord"
    parser().parse_args(words[1:])
