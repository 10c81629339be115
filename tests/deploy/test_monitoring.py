"""Dashboard and alert rules over the metrics there are: every name, every label and the language of every query."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from ruamel.yaml import YAML

from monitord.metrics import LEVELS, Metrics
from notifiers.retry import ReceiverStatus

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "monitord.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
OF_PROMETHEUS = {"up"}


def metrics() -> Metrics:
    """Return the metrics of a daemon with everything it can have."""
    made = Metrics()
    made.alerts.labels(severity="info", event="fire").inc()
    made.watch_feed(lambda: {"ticks": 1})
    made.watch_engine(lambda: {"future": 1}, counters=lambda: {"passed_over": 0})
    made.watch_receivers(lambda: {"ops": {"dead": 1}}, statuses=lambda: {"ops": ReceiverStatus.OK})
    made.watch_reference(lambda: {"instruments": 1})
    made.watch_daemon(
        lambda: dict.fromkeys(LEVELS, 1.0),
        pump=lambda: {"redrives": 0, "lag_rows": 1},
        gateway=lambda: {"gaps": 0, "clients": 1},
    )
    return made


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """Return name of each series → its labels."""
    found: dict[str, set[str]] = {}
    for line in metrics().render().decode().splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(match[1], set()).update(re.findall(r'(\w+)="', match[2] or ""))
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Yield where each query stands, and its text with the dashboard's variables filled in."""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"].replace("$instance", "one:8710")
    for rule in YAML(typ="safe").load(ALERTS)["groups"][0]["rules"]:
        yield f"alert {rule['alert']}", rule["expr"]


def selectors(tree: Any) -> Iterator[Any]:
    """Yield every metric that a query looks at."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield tree
        return
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        inner = getattr(tree, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None and not isinstance(one, str):
                yield from selectors(one)


@pytest.mark.parametrize(("where", "query"), [pytest.param(*one, id=one[0]) for one in queries()])
def test_a_query_is_promql_over_series_and_labels_that_there_are(
    where: str, query: str, series: dict[str, set[str]]
) -> None:
    looked_at = list(selectors(promql_parser.parse(query)))
    assert looked_at
    for one in looked_at:
        assert one.name in series or one.name in OF_PROMETHEUS, one.name
        labels = {matcher.name for matcher in one.matchers.matchers} - {"instance", "job"}
        assert labels <= series.get(one.name, set()), (one.name, labels)


def test_every_series_of_ours_is_on_the_dashboard_and_in_the_manual(series: dict[str, set[str]]) -> None:
    """Sums and counts of histograms stand behind their buckets."""
    ours = {name for name in series if name.startswith("monitord_") and not name.endswith(("_sum", "_count"))}
    shown = {one.name for _, query in queries() for one in selectors(promql_parser.parse(query))}
    assert ours - shown == set()
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert {name for name in ours if f"`{name.removesuffix('_bucket')}" not in manual} == set()


def test_panels_do_not_lie_over_each_other_and_every_one_has_its_data() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]


def test_an_alert_says_what_is_and_what_to_do() -> None:
    for rule in YAML(typ="safe").load(ALERTS)["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "what_to_do"}
